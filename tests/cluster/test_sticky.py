"""What ``source-hash`` means for the other settings."""

from __future__ import annotations

import pytest

from rrdispatch.cluster.dispatching import POLICIES, stall_timeout
from rrdispatch.settings import OPTIONS, from_values


def test_every_policy_has_a_number() -> None:
    assert set(OPTIONS["policy"].choices) == set(POLICIES)


@pytest.mark.parametrize(
    ("policy", "said", "told"),
    [
        ("round-robin", "10ms", 0.01), ("strict", "3s", 3.0),
        ("source-hash", "10ms", 1.0), ("source-hash", "3s", 3.0),
    ],
)  # fmt: skip
def test_a_client_is_not_moved_from_a_worker_that_is_only_slow(policy, said, told) -> None:
    settings = from_values({"target": "app:app", "policy": policy, "stall_timeout": said})
    assert stall_timeout(settings) == told
