"""tornado's WebSocket handler: with_tornado_websocket.py PORT."""

import asyncio
import os
import sys

from tornado import web, websocket


class Hello(websocket.WebSocketHandler):
    """Speaks first."""

    def open(self) -> None:
        host, port = self.ws_connection.stream.socket.getpeername()[:2]
        self.write_message(f"{os.getpid()} {host}:{port}")
        self.close()


async def main() -> None:
    web.Application([("/", Hello)]).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
