"""Twisted web, as its guide starts it."""

import sys

import apps
from twisted.internet import reactor
from twisted.web import resource, server


class Hello(resource.Resource):
    """Answers everything."""

    isLeaf = True  # noqa: N815

    def render_GET(self, request: server.Request) -> bytes:  # noqa: N802
        address = request.getClientAddress()
        for name, value in apps.told(address.host, address.port).items():
            request.setHeader(name, value)
        return apps.BODY


reactor.listenTCP(int(sys.argv[1]), server.Site(Hello()), interface="127.0.0.1")
reactor.run()
