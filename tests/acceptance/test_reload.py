"""Promise 5: reloads lose nothing; a reload onto broken code changes nothing and says why."""

from __future__ import annotations

import shutil
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from rrdispatch.errors import ReloadError
from tests.acceptance.conftest import Show
from tests.harness.clusters import address, cluster
from tests.harness.journal import Journal
from tests.harness.load import Load
from tests.harness.records import Plan, Tally
from tests.harness.servers import APPS, Service
from tests.harness.sizes import size

pytestmark = pytest.mark.slow

RELOADS = size(3, 20)
RATE = 300.0
PATH = "/sleep/100"


class App:
    """A copy of the probe app that a test may change as a deploy does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for path in APPS.iterdir():
            if path.is_file():
                shutil.copy(path, directory)
        self.source = (directory / "probe.py").read_text()

    def deploy(self, version: str, addition: str = "") -> None:
        (self.directory / "probe.py").write_text(self.source + addition)
        (self.directory / "version").write_text(version)


@pytest.fixture
def app(tmp_path: Path) -> App:
    directory = tmp_path / "app"
    directory.mkdir()
    return App(directory)


class Traffic:
    """300/s with a connection each, and 10 keep-alive clients that honour ``Connection: close``."""

    def __init__(self, where: str, path: str = PATH) -> None:
        self.stack = ExitStack()
        each = self.stack.enter_context(Load(Plan(where, rate=RATE, path=path, timeout=60.0)))
        plan = Plan(where, "keepalive", concurrency=10, rate=5.0, path=path, timeout=60.0)
        self.loads = [each, self.stack.enter_context(Load(plan))]

    def __enter__(self) -> Traffic:
        self.loads[0].wait_more(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def more(self) -> None:
        self.loads[0].wait_more(30)

    def stop(self) -> Tally:
        return Tally([record for load in self.loads for record in load.stop().records])


def versions(tally: Tally) -> list[str]:
    return sorted({each.version for each in tally.ok})


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["asgi"])
def test_reloads_under_load(kind: str, app: App, show: Show) -> None:
    with (
        cluster(f"probe:{kind}", cwd=app.directory, probation=0.2) as running,
        Traffic(address(running)) as traffic,
    ):
        first = running.stats()["generation"]
        for number in range(RELOADS):
            app.deploy(f"v{number}")
            running.reload()
        traffic.more()
        tally = traffic.stop()
        generations = running.stats()["generation"] - first
    text = f"{tally}; {len(versions(tally))} versions"
    show("5", f"{RELOADS} reloads, {kind}, 300/s + 10 keep-alive", text)
    assert not tally.failed, tally.failed[:5]
    assert generations == RELOADS
    assert max(tally.ok, key=lambda each: each.intended).version == f"v{RELOADS - 1}"


def test_reload_by_sighup(app: App, show: Show) -> None:
    options = ["-i", "4", "--probation", "0.2"]
    with (
        Service("probe:asgi", *options, cwd=app.directory) as service,
        Traffic(service.address) as traffic,
    ):
        app.deploy("v2")
        service.send_signal(signal.SIGHUP)
        load = traffic.loads[0]
        load.wait_for(lambda records: {each.version for each in records[-50:]} == {"v2"})
        tally = traffic.stop()
    show("5", "reload by SIGHUP, asgi, 300/s + 10 keep-alive", str(tally))
    assert not tally.failed, tally.failed[:5]


def test_a_broken_reload_by_sighup_shows_the_traceback(app: App) -> None:
    with Service("probe:asgi", "-i", "2", cwd=app.directory) as service:
        app.deploy("v2", "\n1 / 0\n")
        service.send_signal(signal.SIGHUP)
        service.output.wait("the reload was rolled back", 30)
        service.output.wait("ZeroDivisionError: division by zero", 30)


@dataclass(frozen=True)
class Broken:
    """Code that a deploy went wrong with, and a word of the worker's last output."""

    name: str
    addition: str
    said: str
    path: str = PATH
    target: str = "probe:asgi"
    hangs: bool = False


# An event loop has others in hand when it has answered its 10th request; a loop of its own has not.
TENTH = """
_whole, _answers = asgi, 0

async def asgi(scope, receive, send):
    global _answers
    await _whole(scope, receive, send)
    if scope["type"] == "http":
        _answers += 1
        if _answers == 10:
            print("goodbye", flush=True)
            os._exit(9)
"""
BROKEN = [
    Broken("raises at import", "\nraise RuntimeError('no database')\n", "no database"),
    Broken("exits at boot", "\nimport sys\nprint('bad setting')\nsys.exit(7)\n", "bad setting"),
    Broken("is never ready", """
print("waits for ever", flush=True)

async def lifespan(receive, send):
    await asyncio.Event().wait()
""", "waits for ever", hangs=True),
    Broken("exits after its 10th answer", """
_whole = serve

def ten(listener):
    for _ in range(10):
        yield listener.accept()
    print("goodbye", flush=True)
    os._exit(9)

def serve(listener):
    from types import SimpleNamespace
    _whole(SimpleNamespace(accept=ten(listener).__next__))
""", "goodbye", "/", "probe:serve"),
]  # fmt: skip


def test_exit_in_the_midst_of_others(app: App, journal: Journal, show: Show) -> None:
    """As the last of these, but with a handler of 100 ms: whoever was inside as well is lost."""
    with (
        cluster("probe:asgi", cwd=app.directory, env=journal.env, probation=1.0) as running,
        Traffic(address(running)) as traffic,
    ):
        app.deploy("broken", TENTH)
        with pytest.raises(ReloadError):
            running.reload()
        traffic.more()
        tally = traffic.stop()
    held, others = journal.inside(tally.failed)
    text = f"{tally}; {len(held)} were inside {len(set(held.values()))} worker that exited"
    show("5", "reload onto code that exits in the midst of other requests", text)
    assert not others, others
    # On a busy machine a second one exits, too, before the first one's end is seen.
    old = {each.pid for each in tally.ok if each.version == "v1"}
    assert not set(held.values()) & old, "only the new code exits"


@pytest.mark.parametrize("broken", BROKEN, ids=lambda each: each.name.replace(" ", "-"))
def test_broken_reload(broken: Broken, app: App, show: Show) -> None:
    # The first ones have to be ready within it, too, on a machine that is busy with other things.
    settings = {"probation": 5.0, "ready_timeout": 8.0 if broken.hangs else 60.0}
    with (
        cluster(broken.target, cwd=app.directory, **settings) as running,
        Traffic(address(running), broken.path) as traffic,
    ):
        app.deploy("broken", broken.addition)
        with pytest.raises(ReloadError) as caught:
            running.reload()
        since = time.monotonic_ns()
        traffic.more()
        tally = traffic.stop()
    after = Tally([each for each in tally.records if each.intended > since])
    show("5", f"reload onto code that {broken.name}", f"{tally}; {versions(after)} serves")
    assert not tally.failed, tally.failed[:5]
    assert versions(after) == ["v1"]
    assert broken.said in caught.value.output
    assert caught.value.exit_code != 0
