"""``record`` makes what ``dataclasses.dataclass`` makes, as far as it is used."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from rrdispatch.records import record


@record(frozen=True, slots=True)
class Frozen:
    number: int
    word: str = "w"
    many: list[int] = field(default_factory=list)


@record
class Plain:
    one: int
    two: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.three = self.one + 1


@record(slots=True)
class Longer(Plain):
    four: Any = None


@record(slots=True, eq=False)
class Itself:
    number: int = 0


@pytest.mark.parametrize("made", [Frozen(1), Plain(2, {"a": 1}), Longer(3, four=[Frozen(4)])])
def test_copies_and_what_dataclasses_tells(made: Any) -> None:
    names = [item.name for item in dataclasses.fields(made)]
    assert type(made).__match_args__ == tuple(names)
    assert dataclasses.replace(made) == made
    assert copy.deepcopy(made) == made == copy.copy(made)
    assert pickle.loads(pickle.dumps(made)) == made
    assert list(dataclasses.asdict(made)) == names
    assert dataclasses.replace(made, **{names[0]: 7}) != made


def _error(action: Callable[[], object]) -> tuple[type[Exception], str]:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        action()
    return raised.type, str(raised.value)


@pytest.mark.parametrize(
    "action",
    [
        lambda cls: setattr(cls(1), "number", 2),
        lambda cls: delattr(cls(1), "number"),
        lambda cls: cls(),
        lambda cls: cls(1, 2, 3, 4),
        lambda cls: cls(1, wrong=2),
        lambda cls: hash(cls(1)),  # of a list
    ],
)
def test_errors_are_the_same(action: Callable[[Any], object]) -> None:
    @dataclass(frozen=True, slots=True)
    class Other:
        number: int
        word: str = "w"
        many: list[int] = field(default_factory=list)

    kind, said = _error(lambda: action(Other))
    same, ours = _error(lambda: action(Frozen))
    assert same is kind
    assert ours.split("() ")[-1] == said.split("() ")[-1]


def test_one_is_equal_to_its_like_only() -> None:
    assert Frozen(1) == Frozen(1, "w", []) != Frozen(1, "v")
    assert Frozen(1).many is not Frozen(1).many
    assert Plain(1) != Longer(1)
    assert repr(Frozen(1)) == "Frozen(number=1, word='w', many=[])"
    assert Plain(1).three == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(Plain(1))
    assert Itself() != Itself()
    assert len({Itself(), Itself()}) == 2


def test_what_it_does_not_do_is_refused() -> None:
    class Odd:
        number: int = field(default=0, compare=False)

    with pytest.raises(TypeError, match=r"Odd\.number: use dataclasses"):
        record(Odd)
