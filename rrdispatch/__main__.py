"""``python -m rrdispatch``: the command line without its script."""

from __future__ import annotations

from rrdispatch.cli import main

if __name__ == "__main__":
    main()
