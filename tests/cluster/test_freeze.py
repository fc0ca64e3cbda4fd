"""A frozen view, thawed from JSON, is the view: in whatever moment it is taken."""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rrdispatch.cluster import news
from rrdispatch.cluster.freeze import Freezer, thaw
from rrdispatch.cluster.view import Failure, ReloadOptions, Rules, View
from tests.cluster.fake import Bench, Script


def facts(view: View) -> dict[str, Any]:
    """Everything but the generator of random numbers and the time of the last news."""
    told = dataclasses.asdict(dataclasses.replace(view, random=random.Random(0)))
    del told["random"], told["now"]
    return told


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30))
def test_round_trip_in_the_midst_of_anything(seed: int) -> None:
    choose = random.Random(seed)
    freezer = Freezer()
    bench = Bench(
        3,
        Rules(max_restarts=2, drain_timeout=3.0),
        script=lambda _: Script(dies=choose.choice([None, None, 0.2, 3.0])),
    )
    bench.engine.settle()
    for token in range(1, 8):
        bench.world.run(seconds=choose.random() * 2)
        if bench.view.finished:
            break
        told = choose.choice(
            [
                news.ReloadAsked(token, ReloadOptions(batch=2, probation=0.5)),
                news.ScaleAsked(choose.randint(1, 5)),
                news.StopAsked(Failure("no", 1, 0)) if token > 6 else news.ScaleAsked(3),
            ]
        )
        bench.tell(told)
        again = thaw(json.loads(freezer.text(bench.view)))
        assert facts(again) == facts(bench.view)
