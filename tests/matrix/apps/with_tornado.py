"""tornado's HTTP server, as its guide starts it."""

import asyncio
import sys

import apps
from tornado import web


class Hello(web.RequestHandler):
    """Answers ``/``."""

    def get(self) -> None:
        connection = self.request.connection
        for name, value in apps.told(*connection.context.address[:2]).items():
            self.set_header(name, value)
        self.write(apps.BODY)


async def main() -> None:
    web.Application([("/", Hello)]).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
