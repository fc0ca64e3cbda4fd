"""Each scenario in its short form. Not part of ``make test``: ``make chaos`` runs the same."""

from __future__ import annotations

import pytest

from tests.chaos import report
from tests.chaos.kit import Scenario
from tests.chaos.runner import load_scenarios, run_scenario

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(200)]


SHORT = [each for each in load_scenarios().values() if not each.long]


@pytest.mark.parametrize("scenario", SHORT, ids=lambda each: each.name)
def test_it_holds(scenario: Scenario) -> None:
    outcome = run_scenario(scenario)
    print(report.line(outcome))
    if outcome.result.skipped:
        pytest.skip(outcome.result.skipped)
    assert outcome.verdict == "met", report.verdict(outcome)
