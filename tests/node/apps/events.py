"""One worker, one scenario; what the primary hears as lines of JSON. events.js is the same."""

import http.server
import json
import os
import sys
import threading

from rrdispatch import cluster

scenario, port = sys.argv[1], int(sys.argv[2])


def say(name, worker, *rest):
    line = {
        "event": name,
        "worker": worker.id,
        "state": worker.state,
        "after": worker.exited_after_disconnect,
        "rest": rest,
        "dead": worker.is_dead(),
        "connected": worker.is_connected(),
        "workers": list(cluster.workers),
    }
    print(json.dumps(line), flush=True)


def primary():
    for name in ("fork", "online", "message", "disconnect", "exit"):
        cluster.on(name, lambda worker, *rest, name=name: say(name, worker, *rest))
    cluster.on("setup", lambda _: print(json.dumps({"event": "setup"}), flush=True))
    worker = cluster.fork()
    say("forked", worker)

    @cluster.on("listening")
    def listening(who, address):
        say("listening", who, address.address, address.port, address.address_type)
        if scenario == "kill":
            who.kill()
        elif scenario == "kill9":
            who.kill("SIGKILL")
        elif scenario == "disconnect":
            say("returned", who.disconnect())
        elif scenario == "disconnect-all":
            cluster.disconnect(lambda: say("all", who))
        elif scenario == "hang-up":
            who.process.disconnect()
        else:
            who.send({"do": scenario})

    if scenario == "kill-at-once":
        worker.kill()
    if scenario == "no-server":
        worker.on("online", worker.disconnect)


def told(message):
    what = message["do"]
    if what == "exit-later":
        threading.Thread(target=os._exit, args=(7,)).start()
    elif what == "throw-later":
        raise RuntimeError("later")
    elif what == "worker-disconnects":
        cluster.worker.disconnect()
    elif what == "worker-kills":
        cluster.worker.kill()
    elif what == "echo":
        cluster.worker.send(message)
        cluster.worker.disconnect()


def worker():
    if scenario == "throw":
        raise RuntimeError("at import")
    if scenario == "exit":
        sys.exit(3)
    if scenario == "exit-0":
        sys.exit(0)
    cluster.worker.on("message", told)
    if scenario == "no-server":
        return
    handler = http.server.BaseHTTPRequestHandler
    http.server.HTTPServer(("127.0.0.1", port), handler).serve_forever()


if cluster.is_primary:
    primary()
else:
    worker()
