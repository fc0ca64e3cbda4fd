"""The declarations of who is compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.compare import present
from loadtests.contenders import CONTENDERS, Contender, Place, chosen
from loadtests.results import Results
from loadtests.running import Running, traffic
from tests.harness.records import Plan
from tests.harness.servers import wait_until


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda each: each.name)
def test_each_is_complete(contender: Contender) -> None:
    command = contender.command(Place(4321, 7, Path()))
    assert "4321" in " ".join(command) or contender.name.startswith("pm2")
    assert not any(word in part for part in command for word in ("PORT", "WORKERS"))
    assert contender.get or contender.ours or not (contender.needs or contender.program)
    assert contender.get or not (contender.needs or contender.program)


def test_names_are_unique() -> None:
    assert len({each.name for each in CONTENDERS}) == len(CONTENDERS)


def test_whole_names_come_before_parts() -> None:
    assert [each.name for each in chosen(["rrdispatch"], quick=False)] == ["rrdispatch"]
    found = {each.name for each in chosen(["gunicorn"], quick=True)}
    assert {"gunicorn sync", "rrdispatch over gunicorn sync"} <= found
    with pytest.raises(LookupError, match="nobody"):
        chosen(["nobody"], quick=False)


def test_what_is_not_installed_is_left_out_with_how_to_get_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = replace(CONTENDERS[0], name="a", needs=("no-such-distribution",), get="pip install a")
    program = replace(CONTENDERS[0], name="b", program="no-such-program", get="apt install b")
    assert program.version == module.version == ""
    results = Results("compare")
    assert present([module, program, CONTENDERS[0]], results) == [CONTENDERS[0]]
    assert results.skipped == {"a": "pip install a", "b": "apt install b"}
    assert "skipped: a; to have it: pip install a" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda each: each.name)
def test_each_that_is_here_answers_with_all_workers(contender: Contender, tmp_path: Path) -> None:
    if contender.missing:
        pytest.skip(f"not here: {contender.missing}")
    with Running(contender, tmp_path / "app", 2) as running:
        before = running.usage()
        records = traffic(Plan(running.address, "closed", count=40, concurrency=4))
        workers, others = running.usage().since(before, running.workers)
        known = running.known
    assert len([record for record in records if record.ok]) == 40
    assert len(running.workers) >= 2
    assert workers > 0
    assert others >= 0
    # multiprocessing's tracker ends by itself, a moment after all others.
    wait_until(lambda: not any(each.alive() for each in known), 20.0, "all have ended")
