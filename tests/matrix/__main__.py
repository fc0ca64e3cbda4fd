"""``python -m tests.matrix``: real servers, unmodified, under ``rrdispatch run``, as a table.

Exit code 1 if a server does not do what it is declared to do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.matrix import table
from tests.matrix.columns import SHORT, Row, Sizes, measure
from tests.matrix.servers import ENTRIES, chosen


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="servers whose names begin so")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with the servers")
    parser.add_argument("--short", action="store_true", help="fewer connections")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table into FILE")
    parser.add_argument("--list", action="store_true", help="names and commands, nothing is run")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.list:
        for each in ENTRIES:
            print(f"{each.name:<24} {' '.join(each.command)}")
        return 0
    print(f"matrix: {table.machine(options.python)}", flush=True)
    rows: list[Row] = []
    for entry in chosen(options.only):
        rows.append(measure(entry, options.python, SHORT if options.short else Sizes()))
        print(table.line(rows[-1]), flush=True)
    text = table.markdown(rows, options.python)
    print(f"\n{text}\n", flush=True)
    if options.markdown:
        table.write_between_markers(options.markdown, text)
    return 1 if any(row.surprises for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
