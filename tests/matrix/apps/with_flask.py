"""For ``flask --app with_flask run``."""

import apps
from flask import Flask, Response, request

app = Flask("matrix")


@app.get("/")
def hello() -> Response:
    environ = request.environ
    return Response(
        apps.BODY, headers=apps.told(environ["REMOTE_ADDR"], environ.get("REMOTE_PORT"))
    )
