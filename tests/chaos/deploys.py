"""An app that is deployed anew while it serves, and every kind of client on it at once."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from tests.harness.load import Load
from tests.harness.records import Plan, Record, Tally
from tests.harness.servers import APPS

HERE = Path(__file__).with_name("apps")
FRESH, STREAMED, KEPT, SOCKETS = "fresh", "streamed", "keep-alive", "WebSocket"
PATIENCE = 10.0  # seconds until a request counts as hanging


class Deployment:
    """A directory with the app, which a deploy changes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        for path in [*APPS.iterdir(), *HERE.iterdir()]:
            if path.is_file():
                shutil.copy(path, directory)
        self.source = (directory / "deployed.py").read_text()
        self.deploy("v0")

    def deploy(self, version: str, addition: str = "") -> None:
        """Other code, and another version; both are read when a worker boots."""
        (self.directory / "deployed.py").write_text(self.source + addition)
        (self.directory / "version").write_text(version)


class Traffic:
    """Fresh connections, half of them slow; streams; keep-alive clients; WebSockets."""

    def __init__(self, where: str, *, slow: bool = True, turns: int = 0) -> None:
        """``turns``: questions per WebSocket; 0: it is kept until the server ends it."""
        share = 0.5 if slow else 0.0
        fresh = Plan(where, rate=80.0, slow_path="/sleep/100", slow_share=share, timeout=PATIENCE)
        streamed = Plan(where, rate=15.0, path="/stream/200", timeout=PATIENCE)
        kept = Plan(where, "keepalive", concurrency=8, rate=5.0, timeout=PATIENCE)
        sockets = Plan(where, "websocket", concurrency=8, rate=5.0, turns=turns, timeout=PATIENCE)
        self._plans = {FRESH: fresh, KEPT: kept, SOCKETS: sockets}
        if slow:
            self._plans[STREAMED] = streamed
        self._stack = ExitStack()
        self.loads: dict[str, Load] = {}

    def __enter__(self) -> Traffic:
        with ExitStack() as stack:
            for name, plan in self._plans.items():
                self.loads[name] = stack.enter_context(Load(plan))
            for load in self.loads.values():
                load.wait_more(2)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def more(self) -> None:
        """Until each kind of client has had some more answers."""
        for name, load in self.loads.items():
            load.wait_more(40 if name == FRESH else 16)

    def stop(self) -> dict[str, Tally]:
        """All records, by kind of client."""
        for load in self.loads.values():
            load.order("stop")
        return {name: load.finish() for name, load in self.loads.items()}


def together(tallies: dict[str, Tally]) -> Tally:
    return Tally([record for tally in tallies.values() for record in tally.records])


def restarts(tallies: dict[str, Tally]) -> int:
    """How often WebSockets were closed with 1012 and came again."""
    return sum(len(record.detail.split()) for record in tallies[SOCKETS].ok)


def after(tally: Tally, moment: int) -> list[Record]:
    """Answers to requests that began after a moment."""
    return [record for record in tally.ok if record.intended > moment]
