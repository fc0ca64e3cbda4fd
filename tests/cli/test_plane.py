"""What the harness of these tests ends, and what it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.plane import Plane


def test_a_file_that_the_test_left_open_does_not_end_the_test(tmp_path: Path) -> None:
    made = Plane(tmp_path)
    made.home.mkdir()
    with (made.home / "left").open("w"):
        assert made.living() == []
        with pytest.raises(AssertionError, match="the test itself has them open"):
            made.close()
    made.close()
