"""The results as a person reads them: a table for the terminal, Markdown, one page of HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from . import page, plots
from .answers import answers
from .bad_days import BAD_DAYS
from .figures import number
from .results import LEAST_CHANGE, Change, Results, Row, against
from .verdicts import dispatchers, verdicts

TERMINAL = {
    "split at 1: most/fewest": "split@1",
    "split at 40: most/fewest": "@40",
    "split at 200: most/fewest": "@200",
    "connection per request: requests": "conn/s",
    "connection per request: CPU": "us/conn",
    "keep-alive: requests": "kept/s",
    "keep-alive: CPU": "us/kept",
    "1 % block 500 ms: p99": "mix p99",
    "1 stopped: hung": "stop hung",
    "killed every s: lost": "kill lost",
    "reload: lost": "reload lost",
    "memory": "MiB",
}
BASE = "uvicorn --workers"  # what ratios are of
RATIOS = (
    "keep-alive: requests",
    "keep-alive: CPU",
    "connection per request: requests",
    "connection per request: CPU",
    "1 % block 500 ms: p99",
    "memory",
)
TABLES = (
    ("Split over the workers (most by fewest; variation)", ("split at",)),
    ("A connection per request", ("connection per request",)),
    ("Kept connections", ("keep-alive",)),
    ("1 % of the requests block for 500 ms: the others", ("1 % block",)),
    ("A worker is stopped, or blocked", ("1 stopped", "1 blocked")),
    ("Workers are killed", ("killed every", "all dead")),
    ("Releases", ("reload", "broken release")),
    ("Too much at once", ("10 times", "10,000 idle", "slow clients")),
    ("A deep backlog: CPU of the dispatching process alone", ("deep backlog",)),
    ("Memory and start", ("memory", "start until")),
)


def cell(row: Row | None) -> str:
    """The median, with least and most where there is more than one round."""
    if row is None or not row.values:
        return ""
    text = number(row.median)
    low, high = row.spread
    return f"{text} ({number(low)} to {number(high)})" if low != high else text


def summary(results: Results, old: Results | None = None) -> str:
    """The table that the command ends with."""
    columns = [name for name in TERMINAL if name in results.measures]
    heads = ["", *(TERMINAL[name] for name in columns)]
    rows = []
    for contender in results.contenders:
        found = [results.find(contender, name) for name in columns]
        if any(found):
            rows.append([contender, *("" if row is None else number(row.median) for row in found)])
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = []
    for row in [heads, *rows]:
        first, *rest = [text.rjust(width) for text, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(len(first)), *rest]))
    lines += [f"skipped: {name}; to have it: {how}" for name, how in results.skipped.items()]
    lines += [f"{name}: {note}" for name, note in results.notes.items() if _trouble(note)]
    if old is not None:
        lines += ["", *changes(results, old)]
    return "\n".join(lines)


def _trouble(note: str) -> bool:
    return note.startswith(("could not", "the time", "interrupted"))


def changes(new: Results, old: Results) -> Iterator[str]:
    """What is worse or better than in the other file, by more than both runs' spread."""
    found = [each for each in against(new, old) if each.verdict]
    yield f"against {old.about.get('made', 'the old run')}: {len(found)} figures changed"
    for change in sorted(found, key=lambda each: (each.verdict != "worse", -abs(each.ratio - 1))):
        yield f"  {change.verdict}: {described(change)}"


def described(change: Change) -> str:
    row, old = change.row, change.old
    values = f"{cell(old)} -> {cell(row)} {row.unit}".rstrip()
    return f"{row.contender}, {row.measure}: {values} (x {number(change.ratio)})"


def tables(results: Results) -> Iterator[tuple[str, list[list[str]]]]:
    """Title, and rows of which the first is the head."""
    first = [
        ("What is meant to be reached", verdicts(results)),
        ("What the C core buys: CPU of a connection", dispatchers(results)),
        (f"Ratios to {BASE}, median by median", ratios(results)),
    ]
    yield from ((title, rows) for title, rows in first if rows)
    for title, starts in TABLES:
        names = [name for name in results.measures if name.startswith(starts)]
        rows = _rows(results, names)
        if rows:
            common = _common(names)
            heads = [_head(results, name).removeprefix(common) for name in names]
            yield title, [["contender", *heads], *rows]
    others = [name for name in results.measures if not _tabled(name)]
    rows = _rows(results, others)
    if rows:
        yield "Other figures", [["contender", *others], *rows]


def _tabled(name: str) -> bool:
    return any(name.startswith(starts) for _, starts in TABLES)


def _common(names: Sequence[str]) -> str:
    """The test, where all figures of a table are of one."""
    tests = {name.partition(": ")[0] for name in names}
    return f"{tests.pop()}: " if len(tests) == 1 else ""


def _head(results: Results, name: str) -> str:
    unit = next((row.unit for row in results.rows if row.measure == name and row.unit), "")
    return f"{name}, {unit}" if unit else name


def _rows(results: Results, names: Sequence[str]) -> list[list[str]]:
    rows = []
    for contender in results.contenders:
        cells = [cell(results.find(contender, name)) for name in names]
        if any(cells):
            rows.append([contender, *cells])
    return rows


def ratios(results: Results) -> list[list[str]]:
    """Beside the server that most would take; nothing if it was not measured."""
    names = [name for name in RATIOS if results.find(BASE, name)]
    if not names:
        return []
    rows = [["contender", *names]]
    for contender in results.contenders:
        cells = []
        for name in names:
            row, base = results.find(contender, name), results.find(BASE, name)
            assert base is not None
            known = row is not None and row.values and base.median
            cells.append(number(row.median / base.median) if row and known else "")
        if any(cells):
            rows.append([contender, *cells])
    return rows


COMPARED = (  # of what a loss is worth telling, and the test that it is of
    "split at 1: variation", "split at 40: variation", "split at 200: variation",
    "connection per request: requests", "connection per request: CPU",
    "connection per request: p99",
    "keep-alive: requests", "keep-alive: CPU", "keep-alive: p99",
    "1 % block 500 ms: p99", "1 % block 500 ms: failed", "1 stopped: hung", "1 stopped: p99",
    "1 blocked 4 s: p99", "killed every s: lost", "killed every s: p99", "reload: lost",
    "reload: p99", "reload: until all is new", "all dead: until an answer", "all dead: lost",
    "10 times too many: answered", "10,000 idle: p99", "slow clients: p99", "memory",
)  # fmt: skip
OURS = "rrdispatch"


def losses(results: Results) -> Iterator[str]:
    """Where somebody else did better than ours does by default, by more than both spreads."""
    for name in COMPARED:
        mine = results.find(OURS, name)
        if mine is None:
            continue
        others = [row for row in results.rows if row.measure == name and _beats(row, mine)]
        if others:
            sign = 1 if mine.better == "less" else -1
            best = sorted(others, key=lambda row: sign * row.median)
            told = ", ".join(f"{row.contender} {number(row.median)}" for row in best[:4])
            more = f" and {len(best) - 4} others" if len(best) > 4 else ""
            yield f"* {name}: {number(mine.median)} {mine.unit}".rstrip() + f"; {told}{more}"


def _beats(other: Row, mine: Row) -> bool:
    if other.contender.startswith(OURS) or not other.values:
        return False
    better = other.spread[1] < mine.spread[0]
    if mine.better == "more":
        better = other.spread[0] > mine.spread[1]
    worth = abs(other.median - mine.median) > LEAST_CHANGE * abs(mine.median)
    return better and worth


def markdown(results: Results, figures: dict[str, Path], old: Results | None) -> str:
    lines = ["# rrdispatch beside others", "", *preface(results), ""]
    for title, path in figures.items():
        lines += [f"![{title}]({path.name})", "", f"Again: `{again(results)}`", ""]
    lines += ["## A reader's questions", "", *answers(results), ""]
    lines += ["## Where others did better", "", *(list(losses(results)) or ["Nowhere."]), ""]
    for title, rows in tables(results):
        lines += [f"## {title}", "", *_table(rows), ""]
    lines += ["## Who took part", "", *_table(taking_part(results)), ""]
    if old is not None:
        lines += ["## Changes", "", "```", *changes(results, old), "```", ""]
    return "\n".join(lines)


def _table(rows: list[list[str]]) -> list[str]:
    marks = ["---", *["---:" for _ in rows[0][1:]]]
    return [f"| {' | '.join(row)} |" for row in [rows[0], marks, *rows[1:]]]


def again(results: Results) -> str:
    return results.command


def preface(results: Results) -> list[str]:
    about = results.about
    size = about.get("size")
    made = (
        f"Made {about.get('made')} by `{again(results)}` in {about.get('seconds', '?')} s: "
        f"rounds: {about.get('rounds')}, {about.get('workers')} workers each, "
        f"{about.get('cores')} cores, {about.get('machine')}, "
        f"1-minute load average {about.get('load before')} before it began."
    )
    said = [made]
    if size == "quick":
        said.append(
            "This is not a full run, which takes hours on a quiet machine: it shows the kind of a "
            "difference, not its exact size. Figures of bad days are of one trial each."
        )
    if about.get("minutes"):
        said.append(
            f"This is a full run that was given {number(about['minutes'])} minutes instead of "
            "three hours: all tests are shorter, by the same for all, and bad days that leave a "
            "server whole follow each other on one. It shows the kind of a difference rather than "
            "its exact size."
        )
    if size == "full":
        said.append(
            "A worker stopped or blocked is tried in each round that there is time for; other bad "
            "days once."
        )
    if "who" in about:
        said.append(f"Who and what: {about['who']}.")
    if "lengths" in about:
        said.append(about["lengths"])
    if about.get("rounds") == 1:
        said.append("There was time for one round only, so the spread is not known.")
    if cut := results.notes.get("cut short"):
        said.append(f"Not all was measured: {cut}.")
    said.append(
        "Medians of the rounds, least and most in brackets. CPU is that of all processes of a "
        "contender, by answered request. Where the generator was busy near 100 %, requests per "
        "second are its limit and CPU is what compares. A request is never tried again; `hung`: "
        "no answer within 2.5 s (5 s on good days); `lost`: refused, reset or ended early."
    )
    return "\n\n".join(said).split("\n")


def taking_part(results: Results) -> list[list[str]]:
    rows = [["contender", "versions", "remarks"]]
    for name in {**results.versions, **results.skipped}:
        notes = [note for key, note in results.notes.items() if key.partition(",")[0] == name]
        notes = [results.notes[name]] if name in results.notes else []
        notes += [
            f"{key.removeprefix(name + ', ')}: {note}"
            for key, note in results.notes.items()
            if key.startswith(f"{name}, ") and key not in results.versions
        ]
        if name in results.skipped:
            notes.append(f"not installed: {results.skipped[name]}")
        rows.append([name, results.versions.get(name, ""), "; ".join(notes)])
    return rows


def write_report(results: Results, directory: Path, old: Results | None = None) -> Path:
    """results.json, report.md, report.html and a PNG per figure; the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(results.to_json(), encoding="utf-8")
    figures, missing = plots.draw(results, directory)
    (directory / "report.md").write_text(markdown(results, figures, old), encoding="utf-8")
    document = page.Page("rrdispatch beside others", again(results))
    document.paragraphs(preface(results))
    if missing:
        document.paragraphs([missing])
    for title, path in figures.items():
        document.figure(title, path)
    document.points("A reader's questions", answers(results))
    document.lines("Where others did better", list(losses(results)) or ["Nowhere."])
    for title, rows in tables(results):
        document.table(title, rows)
    document.table("Who took part", taking_part(results))
    days = [["bad day", "what happens"], *([each.name, each.title] for each in BAD_DAYS)]
    document.table("Bad days", days)
    if old is not None:
        document.lines("Changes", list(changes(results, old)))
    path = directory / "report.html"
    path.write_text(document.text(), encoding="utf-8")
    return path
