"""The main job, shown: an example app on all cores, 400 connections, and who got how many.

`make demo` runs it. It starts `rrdispatch run` with the options it was given, opens one connection
after another, prints the split and stops everything it started.
"""

from __future__ import annotations

import http.client
import re
import sys
from collections import Counter

from service import example

CONNECTIONS = 400


def main() -> int:
    with example(sys.argv[1:]) as address:
        split = Counter(ask(address) for _ in range(CONNECTIONS))
    print(f"\n{CONNECTIONS} connections, one after another:")
    most, fewest = max(split.values()), min(split.values())
    for worker, count in sorted(split.items()):
        print(f"  {worker:<10} {count:>4}  {'#' * round(40 * count / most)}")
    return 0 if most - fewest <= 1 else 1


def ask(address: str) -> str:
    """One connection with one request; who answered it."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    found = re.search(r"worker \d+", text)
    return found[0] if found else text.strip()


if __name__ == "__main__":
    sys.exit(main())
