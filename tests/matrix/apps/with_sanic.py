"""For ``python -m sanic with_sanic:app``."""

import apps
from sanic import Request, Sanic, raw
from sanic.response import HTTPResponse

app = Sanic("matrix")


@app.get("/")
async def hello(request: Request) -> HTTPResponse:
    headers = apps.told(request.ip, request.port)
    del headers["Content-Length"]
    return raw(apps.BODY, headers=headers)
