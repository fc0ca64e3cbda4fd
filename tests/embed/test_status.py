"""The status port of an embedded Cluster."""

from __future__ import annotations

import json
import threading
import urllib.request
from pathlib import Path

import pytest

from rrdispatch import Cluster
from rrdispatch.errors import BindError, ConfigError
from tests.cluster.service import app
from tests.embed.test_cluster import settings
from tests.harness.ports import kept_port


def test_it_tells_its_address_and_answers_while_it_serves(tmp_path: Path) -> None:
    app(tmp_path)
    told: list[str] = []
    came = threading.Event()

    def hear(event: dict[str, object]) -> None:
        if event["event"] == "status-listening":
            told.append(str(event["address"]))
            came.set()

    more = settings(tmp_path, status_bind=f"127.0.0.1:{kept_port()}")
    with Cluster("app:serve", on_event=hear, **more):
        assert came.wait(60)
        url = f"http://{told[0]}/ready"
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert json.load(answer)["serving"] == 2
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=60)


@pytest.mark.parametrize(
    ("where", "kind"), [("256.1.1.1:80", BindError), ("unix:/x/y", ConfigError)]
)
def test_one_that_cannot_be_is_an_error_of_the_start(
    tmp_path: Path, where: str, kind: type[Exception]
) -> None:
    app(tmp_path)
    with pytest.raises(kind):
        Cluster("app:serve", **settings(tmp_path, status_bind=where)).start()
