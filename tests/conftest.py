"""Small fixtures that every test may use."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator

import hypothesis
import pytest

from tests.harness.compiled import compile_all
from tests.harness.servers import wait_until

# No deadline: a busy machine is no failure. No database: a run leaves nothing behind. Every run
# looks for new examples, but where a change is judged: it is not to fail by what was wrong before.
hypothesis.settings.register_profile(
    "bounded", deadline=None, max_examples=100, database=None, derandomize="CI" in os.environ
)
hypothesis.settings.load_profile("bounded")

# A shell without job control starts what is in the background with SIGINT ignored, and that is
# inherited: no command that a test starts could be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" not in os.environ:
    compile_all()

# PYTHONUNBUFFERED makes a print() several writes: lines of processes that share an output mix.
_FOREIGN = ("WEB_CONCURRENCY", "PORT", "FORWARDED_ALLOW_IPS", "PYTHONUNBUFFERED")
_OURS = ("RRDISPATCH_PURE", "RRDISPATCH_DISPATCHER_PROGRAM")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees settings of the shell that started it, but for two that are meant for tests."""
    for name in list(os.environ):
        if name in _FOREIGN or (name.startswith("RRDISPATCH_") and name not in _OURS):
            monkeypatch.delenv(name)


MORE = 8  # descriptors that a test may leave: what is loaded late, a thread that is about to end


@pytest.fixture(autouse=True)
def descriptors_are_closed() -> Iterator[None]:
    """Who holds them for all the tests to come makes one fail that is far away."""
    before = _descriptors()
    yield

    def is_right() -> bool:
        return len(_descriptors()) <= len(before) + MORE

    if is_right():
        return
    gc.collect()
    try:
        wait_until(is_right, 20.0)
    except TimeoutError:
        left = sorted(_target(fd) for fd in _descriptors() - before)
        pytest.fail(f"{len(left)} descriptors are left open: {', '.join(left)}")


def _descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"{fd}: closed meanwhile"


# In these each test is many seconds long.
_LONG = (
    "tests/loadtests/test_scenarios.py",
    "tests/cli/test_session.py",
    "tests/cli/test_shells.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first: side by side, one that begins last is waited for alone."""
    items.sort(key=lambda item: not _is_long(item))


def _is_long(item: pytest.Item) -> bool:
    return item.nodeid.startswith(_LONG) or item.get_closest_marker("slow") is not None
