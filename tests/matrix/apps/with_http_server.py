"""http.server, a thread per connection."""

import http.server
import sys

import apps


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        for name, value in apps.told(*self.client_address[:2]).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(apps.BODY)

    def log_message(self, *_: object) -> None:
        """No line per request."""


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
