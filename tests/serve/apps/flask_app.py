from flask import Flask, request

app = Flask(__name__)


@app.get("/secure")
def secure() -> str:
    return str(request.is_secure)
