"""The app of a measured run: `/block/MS` blocks its worker for so long. Says who it was."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

PID = str(os.getpid()).encode()

# Node's cluster with the same app: argument 0 is the number of workers.
NODE = """
const cluster = require('cluster');
const http = require('http');
if (cluster.isPrimary) {
  let missing = Number(process.argv[2]);
  for (let i = missing; i > 0; i--) cluster.fork();
  cluster.on('listening', (worker, address) => {
    if (--missing === 0) console.log(address.port);
  });
} else {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  http.createServer((request, response) => {
    Atomics.wait(cell, 0, 0, Number(request.url.split('/')[2]));
    response.setHeader('Connection', 'close');
    response.end(String(process.pid));
  }).listen(0, '127.0.0.1');
}
"""


def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """WSGI."""
    amount = str(environ["PATH_INFO"]).rpartition("/")[2]
    time.sleep(float(amount or 0) / 1000)
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(PID)))])
    return [PID]
