"""Real processes on a dispatcher with sanitizers: ``make san-dispatch``.

Builds the executable by the CMake presets and runs tests of the dispatcher, of heirs and some chaos
scenarios with it in the place of the built one. A sanitizer's report fails the run, also that of a
dispatcher whose exit code nobody looks at.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A sanitizer's report is a descriptor more than there should be: no census.
CHOSEN = "not python and not holds_exactly"
# The C dispatcher's share; a thread sanitizer has little to see in a program of one thread. UBSan
# speaks on stderr whatever its options: nothing is captured.
PYTEST = ("-q", "-x", "-s", "-p", "no:cacheprovider", "-k", CHOSEN, "--timeout", "300")
TESTS = {
    "asan": ["tests/dispatch", "tests/heirs"],
    "tsan": ["tests/dispatch/test_take_back.py", "tests/dispatch/test_succession.py"],
}
FINDINGS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "WARNING: Thread", "runtime error:")
SCENARIOS = {"asan": ["kill-sync", "primary-busy"]}


def build(preset: str) -> Path:
    """The program; one without a sanitizer would prove nothing."""
    quiet = subprocess.DEVNULL
    configure = ["cmake", "--preset", preset]
    subprocess.run(configure, cwd=ROOT, check=True, stdout=quiet)
    command = ["cmake", "--build", "--preset", preset, "--target", "rr-dispatcher"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=quiet)
    program = ROOT / "build" / preset / "rr-dispatcher"
    if f"__{preset}_init".encode() not in program.read_bytes():
        sys.exit(f"error: {program} was built without a sanitizer")
    return program


def environment(program: Path, reports: Path) -> dict[str, str]:
    """What makes the tests use that program, and it write there: with `verbosity`, that it ran."""
    options = f"log_path={reports}/report:exitcode=99:verbosity=1"
    sanitizers = ("ASAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS")
    return {
        **os.environ,
        "RRDISPATCH_DISPATCHER_PROGRAM": str(program),
        **{name: f"{options}:{os.environ.get(name, '')}" for name in sanitizers},
    }


def judge(preset: str, texts: dict[str, str], processes: int) -> int:
    """1 for a finding, or if no dispatcher with a sanitizer ran at all."""
    found = [name for name, text in texts.items() if any(one in text for one in FINDINGS)]
    for name in found:
        print(f"{name}:\n{texts[name]}", file=sys.stderr)
    print(f"{preset}: {processes} processes, {len(found)} reports", flush=True)
    return int(bool(found) or not processes)


def execute(command: list[str], env: dict[str, str]) -> tuple[int, str]:
    """Exit code and output, which is shown, too."""
    output = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)


def run(preset: str) -> int:
    """Exit code: of the tests, or 1 for a report."""
    program = build(preset)
    commands = [[sys.executable, "-m", "pytest", *PYTEST, *TESTS[preset]]]
    if preset in SCENARIOS:
        commands.append([sys.executable, "-m", "tests.chaos", "--only", *SCENARIOS[preset]])
    with tempfile.TemporaryDirectory(prefix="rr-san-") as folder:
        # Whoever the dispatcher runs as may write there.
        Path(folder).chmod(0o777)
        env = environment(program, Path(folder))
        results = [execute(command, env) for command in commands]
        reports = {
            one.name: one.read_text(errors="replace") for one in Path(folder).glob("report*")
        }
    texts = reports | {commands[i][2]: text for i, (_, text) in enumerate(results)}
    return max(*(code for code, _ in results), judge(preset, texts, len(reports)))


if __name__ == "__main__":
    sys.exit(max(run(preset) for preset in TESTS))
