"""``rrdispatch.connect``: an app of the list, from a program."""

from __future__ import annotations

import asyncio

import pytest

import rrdispatch
from rrdispatch import aio
from tests.cli.plane import APP, Plane, get
from tests.harness.servers import wait_until


@pytest.fixture
def web(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> Plane:
    monkeypatch.setenv("RRDISPATCH_HOME", str(plane.home))
    plane.start()
    return plane


def test_what_it_can(web: Plane) -> None:
    app = rrdispatch.connect("web")
    assert (app.name, app.stats()["serving"]) == ("web", 2)
    app.scale(3)
    assert app.stats()["serving"] == 3
    (web.here / "shop.py").write_text(APP + "VERSION = 2\n")
    events: list[str] = []
    done = app.reload(lambda event: events.append(event["event"]), probation=0.1)
    assert done.generation == 2
    assert events.count("worker-ready") == 3
    assert get(web.row())["version"] == 2
    wait_until(lambda: len(app.stats()["workers"]) == 3, 30.0, "the old ones have ended")
    assert len(app.signal("CONT")) == 3
    (web.here / "shop.py").write_text("raise RuntimeError('broken')\n")
    with pytest.raises(rrdispatch.ReloadError, match="rolled back"):
        app.reload()
    app.stop()
    with pytest.raises(rrdispatch.ControlError, match="web does not run"):
        app.stats()


def test_with_await(web: Plane) -> None:
    async def use() -> None:
        app = await aio.connect("0")
        assert (app.name, (await app.stats())["serving"]) == ("web", 2)
        assert (await app.reload(probation=0.1)).generation == 2
        await app.scale(1)
        # The reload's old ones have no more than their end before them.
        while len((await app.stats())["workers"]) > 1:  # noqa: ASYNC110 (nobody announces it)
            await asyncio.sleep(0.02)
        assert len(await app.signal("CONT", slot=0)) == 1
        await app.stop(now=True)

    asyncio.run(use())
    assert web.row()["status"] == "stopped"


def test_it_means_one_app(web: Plane) -> None:
    with pytest.raises(rrdispatch.ConfigError, match="'nope' matches no app"):
        rrdispatch.connect("nope")
    web.ok("start", "shop:app", "-b", "127.0.0.1:0", "-i", "1", "--name", "other")
    with pytest.raises(rrdispatch.ConfigError, match="'all' means 2 apps"):
        rrdispatch.connect("all")
