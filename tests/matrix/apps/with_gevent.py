"""gevent's WSGI server, as its guide starts it."""

import sys

import apps
from gevent import monkey, pywsgi

monkey.patch_all()
pywsgi.WSGIServer(("127.0.0.1", int(sys.argv[1])), apps.wsgi, log=None).serve_forever()
