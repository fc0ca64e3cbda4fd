"""A service that runs a cluster inside itself: starts it, watches it, reloads it, ends it.

    python examples/embedded.py

The primary, the dispatcher and the workers are processes of their own. If this program ends,
however it ends, they finish what they have and exit.
"""

from __future__ import annotations

import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from rrdispatch import Cluster, ReloadError

HERE = Path(__file__).resolve().parent


def told(event: dict[str, Any]) -> None:
    """Called in a thread of the cluster for whatever happens to it."""
    if "message" in event:
        print("event:", event["message"])


def ask(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/", timeout=10) as response:
        text: str = response.read().decode().partition(",")[0]
        return text


def main() -> None:
    with Cluster(
        "hello:app", bind="127.0.0.1:0", workers=2, cwd=str(HERE), probation=0.2, on_event=told
    ) as cluster:
        (address,) = cluster.addresses
        print(Counter(ask(address) for _ in range(20)))
        cluster.scale(3)
        try:
            # Old and new workers live side by side for the probation: twice the memory, twice the
            # database connections, and an app's own schedulers run twice. park=False does without.
            print(cluster.reload())
        except ReloadError as error:
            print("the old workers serve on:", error)
        print(Counter(ask(address) for _ in range(30)))


if __name__ == "__main__":
    main()
