"""hello.py that keeps its connections: kept.py PORT."""

import http.server
import sys

from hello import Handler

if __name__ == "__main__":
    Handler.protocol_version = "HTTP/1.1"
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
