"""hello.py on the ports of a file, which a reload may find changed.

moves.py FILE
"""

import http.server
import sys
import threading
from pathlib import Path

from hello import Handler

ports = [int(word) for word in Path(sys.argv[1]).read_text().split()]
servers = [http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) for port in ports]
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
servers[0].serve_forever()
