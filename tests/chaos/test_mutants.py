"""Each scenario fails, by a named check, when what it watches is switched off.

Not part of ``make test``: ``make chaos`` runs the same.
"""

from __future__ import annotations

import pytest

from tests.chaos import report
from tests.chaos.kit import Scenario
from tests.chaos.runner import load_scenarios, run_scenario

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(200)]

WITH_ONE = [each for each in load_scenarios().values() if each.mutant]


@pytest.mark.parametrize("scenario", WITH_ONE, ids=lambda each: f"{each.name}-{each.mutant}")
def test_it_is_seen(scenario: Scenario) -> None:
    outcome = run_scenario(scenario, mutant=scenario.mutant)
    print(report.line(outcome))
    if outcome.result.skipped:
        pytest.skip(outcome.result.skipped)
    assert outcome.good, report.caught(outcome)
