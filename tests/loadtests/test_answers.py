"""What the report answers a reader, from figures that were made up."""

from __future__ import annotations

from loadtests.answers import answers
from loadtests.report import markdown, summary
from loadtests.results import Results

BAD_DAY = "Requests without an answer: rrdispatch 1 (killed every s 1); other 8 (killed every s 8)"
CORE = (
    "CPU of a connection from a deep backlog: rrdispatch 5 us, rrdispatch, Python dispatcher 11 us"
)
POLICY = "Which policy is wrong when, up to 256 workers: docs/policies.md."


def test_each_question_is_answered_from_what_was_measured() -> None:
    results = Results("compare")
    for name, split, cpu, lost in (("rrdispatch", 1.0, 90.0, 0.0), ("other", 9.0, 60.0, 7.0)):
        results.add(name, "split at 40: most/fewest", split)
        results.add(name, "connection per request: CPU", cpu, "us")
        results.add(name, "killed every s: lost", lost)
        results.add(name, "killed every s: hung", 1.0)
    results.add("rrdispatch", "deep backlog: CPU", 5.0, "us")
    results.add("rrdispatch, Python dispatcher", "deep backlog: CPU", 11.0, "us")
    told = answers(results)
    assert [line.split("** ", 1) for line in told] == [
        ["* **Is it even?", "split at 40: 1, others 9 (other)"],
        ["* **Is it fast?", "CPU, a connection per request: 90 us, others 60 (other)"],
        ["* **What happens on a bad day?", BAD_DAY],
        ["* **What does the C core buy?", CORE],
        ["* **When not round robin?", POLICY],
    ]
    assert "\n".join(told) in markdown(results, {}, None)
    assert "Python dispatcher" not in summary(results), "a row of nothing"
