"""aiohttp's own runner."""

import sys

import apps
from aiohttp import web


async def hello(request: web.Request) -> web.Response:
    assert request.transport is not None
    headers = apps.told(*request.transport.get_extra_info("peername")[:2])
    return web.Response(body=apps.BODY, headers=headers)


app = web.Application()
app.router.add_get("/", hello)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
