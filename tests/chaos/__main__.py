"""``python -m tests.chaos``: runs scenarios, prints one table; exit code 1 if a check failed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.chaos import report
from tests.chaos.beside import may_run_together, run_mutants, run_together, to_json
from tests.chaos.kit import MUTANTS, Scenario
from tests.chaos.runner import Outcome, load_scenarios, run_scenario
from tests.harness.compiled import compile_all


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--full", action="store_true", help="full length (make soak)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these scenarios")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="run with something broken")
    parser.add_argument(
        "--mutants", action="store_true", help="then each scenario once more, short, with its own"
    )
    parser.add_argument(
        "--together", action="store_true", help="those that measure no times two at once (short)"
    )
    parser.add_argument("--dispatcher", choices=["c", "python"], default="c")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table into FILE")
    parser.add_argument("--as-json", action="store_true", help="the last outcome as one line")
    parser.add_argument("--list", action="store_true", help="names and titles, nothing is run")
    return parser.parse_args()


def chosen(only: list[str] | None, full: bool) -> list[Scenario]:
    known = load_scenarios()
    unknown = sorted(set(only or ()) - set(known))
    if unknown:
        raise SystemExit(f"no scenario {', '.join(unknown)}; there are: {', '.join(known)}")
    usual = [name for name, each in known.items() if full or not each.long]
    return [known[name] for name in only or usual]


def outcomes(options: argparse.Namespace, scenarios: list[Scenario]) -> Iterator[Outcome]:
    together = [each for each in scenarios if options.together and may_run_together(each)]
    yield from run_together(together, options.dispatcher)
    for each in scenarios:
        if each not in together:
            yield run_scenario(
                each, full=options.full, mutant=options.mutant or "", dispatcher=options.dispatcher
            )
    if options.mutants:
        yield from run_mutants([each for each in scenarios if each.mutant], options.dispatcher)


def left_out(scenarios: list[Scenario], options: argparse.Namespace) -> str:
    """What a short run does not do shall not look as if it were done."""
    names = [name for name, each in load_scenarios().items() if each not in scenarios]
    return "" if options.only or not names else f" In the full run only: {', '.join(names)}."


def main() -> int:
    options = arguments()
    scenarios = chosen(options.only, options.full or options.list)
    if options.together and (options.full or options.mutant):
        raise SystemExit("--together is for the short run without a mutant")
    if options.list:
        for each in scenarios:
            print(f"{each.name:<24} {each.title}{f'  [{each.mutant}]' if each.mutant else ''}")
        return 0
    compile_all()
    print(f"chaos: {report.machine()}", flush=True)
    done: list[Outcome] = []
    for outcome in outcomes(options, scenarios):
        print(report.line(outcome), flush=True)
        done.append(outcome)
    if options.as_json:
        print(to_json(done[-1]))
        return 0
    text = report.markdown(done, full=options.full)
    print(f"\n{text}\n\n{report.summary(done)}{left_out(scenarios, options)}", flush=True)
    if options.markdown:
        report.write_between_markers(options.markdown, text)
    return 0 if all(each.good for each in done) else 1


if __name__ == "__main__":
    sys.exit(main())
