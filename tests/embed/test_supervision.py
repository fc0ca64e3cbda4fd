"""Options of supervision of an embedded Cluster, as those of the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rrdispatch import Cluster
from rrdispatch.errors import ConfigError, Error
from tests.cluster.service import app
from tests.embed.test_cluster import ask, settings
from tests.harness import processes
from tests.harness.ports import kept_port


def test_when_all_workers_have_ended_it_is_over(tmp_path: Path) -> None:
    cluster = Cluster("app:serve", **settings(app(tmp_path), autorestart=False, pin=True))
    with cluster:
        rows = cluster.stats()["workers"]
        assert all(len(row["cores"]) == 1 for row in rows)
        for row in rows:
            processes.kill(row["pid"])
        assert cluster.wait(60.0)
    assert cluster.exit_code == 1
    assert isinstance(cluster.error, Error)
    assert "every worker has ended and none is replaced" in cluster.error.message


@pytest.mark.parametrize("codes", [(0,), [0, 3], "0,3"])
def test_exit_codes_as_numbers_or_text(tmp_path: Path, codes: Any) -> None:
    bind = f"127.0.0.1:{kept_port()}"  # nobody else's afterwards
    more = settings(app(tmp_path), bind=bind, stop_exit_codes=codes, max_memory_restart="2G")
    with Cluster("app:serve", **more) as cluster:
        (address,) = cluster.addresses
        for row in cluster.stats()["workers"]:
            os.kill(row["pid"], 15)
        assert cluster.wait(60.0)
        with pytest.raises(OSError, match="refused"):
            ask(address)
    assert (cluster.exit_code, cluster.error) == (0, None)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"cron_restart": "at noon"}, "'at noon' is no time that ever comes"),
        ({"stop_exit_codes": [256]}, "256 is out of range"),
        ({"max_memory_restart": "much"}, "'much' is not a size"),
        ({"user": "no-such-user"}, "there is no user 'no-such-user'"),
    ],
)
def test_what_is_wrong_is_raised(tmp_path: Path, wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Cluster("app:serve", **settings(app(tmp_path), **wrong)).start()
