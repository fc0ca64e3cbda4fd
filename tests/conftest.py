"""Small fixtures that every test may use."""

from __future__ import annotations

import os
import signal

import hypothesis
import pytest

from tests.harness.compiled import compile_all

# No deadline: a busy machine is no failure. No database: a run leaves nothing behind.
hypothesis.settings.register_profile("bounded", deadline=None, max_examples=100, database=None)
hypothesis.settings.load_profile("bounded")

# A shell without job control starts what is in the background with SIGINT ignored, and that is
# inherited: no command that a test starts could be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" not in os.environ:
    compile_all()

_FOREIGN = ("WEB_CONCURRENCY", "PORT", "FORWARDED_ALLOW_IPS")
_OURS = ("RRDISPATCH_PURE", "RRDISPATCH_DISPATCHER_PROGRAM")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees settings of the shell that started it, but for two that are meant for tests."""
    for name in list(os.environ):
        if name in _FOREIGN or (name.startswith("RRDISPATCH_") and name not in _OURS):
            monkeypatch.delenv(name)


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
