"""A Flask app, or any other WSGI app: waitress runs it in threads.

rrdispatch run flask_app:app --cwd examples --threads 8
"""

from __future__ import annotations

import os

from flask import Flask, request

app = Flask(__name__)
SLOT = os.environ.get("RRDISPATCH_SLOT", "?")


@app.get("/")
def hello() -> dict[str, str]:
    return {"worker": SLOT, "pid": str(os.getpid()), "client": request.remote_addr or "unix"}
