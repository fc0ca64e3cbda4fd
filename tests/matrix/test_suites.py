"""What is read of a test suite's last words. The suites themselves are run by hand."""

from __future__ import annotations

from tests.matrix.suites import SUITES, Outcome, Suite, read, told

UNITTEST = """\
.F
======================================================================
FAIL: test_a (some.test.Case.test_a)
----------------------------------------------------------------------
Traceback (most recent call last):
ValueError: no
======================================================================
ERROR: test_b (some.test.Case.test_b)
----------------------------------------------------------------------
Ran 1517 tests in 57.7s

FAILED (failures=1, errors=1, skipped=112)
"""
PYTEST = """\
..F                                                          [100%]
=========================== short test summary info ============================
FAILED tests/test_a.py::test_one[a] - AssertionError: 1
ERROR tests/test_b.py
= 1 failed, 270 passed, 20 skipped, 1 error in 183.65s (0:03:03) =
"""


def test_unittest() -> None:
    outcome = read(UNITTEST)
    assert outcome.told == "ran 1517: FAILED (failures=1, errors=1, skipped=112)"
    assert outcome.failed == {
        "test_a (some.test.Case.test_a)",
        "test_b (some.test.Case.test_b)",
    }


def test_pytest() -> None:
    outcome = read(PYTEST)
    assert outcome.told == "1 failed, 270 passed, 20 skipped, 1 error"
    assert outcome.failed == {"tests/test_a.py::test_one[a]", "tests/test_b.py"}
    assert outcome.good


def test_one_that_did_not_come_to_its_end() -> None:
    assert not read("Traceback (most recent call last):\nImportError: nothing").good
    assert not read("").good


def test_what_fails_under_the_shim_alone_has_to_be_known() -> None:
    suite = Suite("x", "1", (), known={"a": "why"})
    plain = Outcome("fine", {"flaky"})
    assert told(suite, plain, Outcome("fine", {"a", "flaky"}))
    assert told(suite, plain, Outcome("fine", set()))
    assert not told(suite, plain, Outcome("not fine", {"b"}))


def test_releases_are_pinned() -> None:
    assert all(suite.version[0].isdigit() for suite in SUITES)
