"""pylock.toml (PEP 751): made, checked, and turned into what any pip can install.

    python tools/lock.py make           write pylock.toml anew (network, pip >= 25.1)
    python tools/lock.py check          does it satisfy pyproject.toml? (no network)
    python tools/lock.py fits           exit code 0 if it was made for this interpreter
    python tools/lock.py requirements   print it as `name==version --hash=...` lines

Files are named by a relative path and a hash, not by the address they once came from: which
registry serves them is the installing machine's affair (`make fetch` fetches them).
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "pylock.toml"
HEAD = """\
# The development environment: all extras and the dev group. `make lock` writes this file.
lock-version = "1.0"
created-by = "rrdispatch tools/lock.py"
requires-python = "=={python}.*"
environments = ["sys_platform == '{system}' and platform_machine == '{machine}'"]
"""


def main() -> int:
    commands = {"make": make, "check": check, "fits": fits, "requirements": requirements}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    return commands[sys.argv[1]]()


def read(path: Path) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(path.read_text(encoding="utf-8"))


def direct(project: dict[str, Any]) -> list[str]:
    """What pyproject.toml asks for: dependencies, every extra, and the groups of `dev`."""
    table = project["project"]
    asked = list(table["dependencies"])
    for name, extra in table["optional-dependencies"].items():
        asked += extra if name != "all" else []
    return asked + list(group(project["dependency-groups"], "dev"))


def group(groups: dict[str, list[Any]], name: str) -> Iterator[str]:
    for entry in groups[name]:
        if isinstance(entry, str):
            yield entry
        else:
            yield from group(groups, entry["include-group"])


def make() -> int:
    command = [sys.executable, "-m", "pip", "lock", "--quiet", "--output", "-"]
    command += ["--only-binary", ":all:", *direct(read(ROOT / "pyproject.toml"))]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    import tomllib

    packages = tomllib.loads(output)["packages"]
    LOCK.write_text(render(packages), encoding="utf-8")
    print(f"{LOCK.name}: {len(packages)} packages")
    return check()


def render(packages: list[dict[str, Any]]) -> str:
    python = ".".join(platform.python_version_tuple()[:2])
    head = HEAD.format(python=python, system=sys.platform, machine=platform.machine())
    parts = [head]
    for package in sorted(packages, key=lambda each: str(each["name"])):
        (wheel,) = package["wheels"]
        hashes = f'{{ sha256 = "{wheel["hashes"]["sha256"]}" }}'
        parts.append(
            f'\n[[packages]]\nname = "{package["name"]}"\nversion = "{package["version"]}"\n'
            f'wheels = [{{ path = "wheels/{wheel["name"]}", hashes = {hashes} }}]\n'
        )
    return "".join(parts)


def check() -> int:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lock = read(LOCK)
    locked = {package["name"]: package["version"] for package in lock["packages"]}
    problems = []
    for text in direct(read(ROOT / "pyproject.toml")):
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate(locked_environment(lock)):
            continue
        if name not in locked:
            problems.append(f"{name} is not locked")
        elif not requirement.specifier.contains(locked[name], prereleases=True):
            problems.append(f"{name} {locked[name]} does not satisfy {text!r}")
    if re.search(r"://|path = \"/", LOCK.read_text(encoding="utf-8")):
        problems.append("it names a place where a file came from")
    for problem in problems:
        print(f"error: {LOCK.name}: {problem}\nhint: make lock", file=sys.stderr)
    return 1 if problems else 0


def locked_environment(lock: dict[str, Any]) -> dict[str, str]:
    version = lock["requires-python"].strip("=.*")
    return {"python_version": version, "python_full_version": f"{version}.0"}


def fits() -> int:
    if sys.version_info < (3, 11):
        return 1
    lock = read(LOCK)
    python = "=={}.{}.*".format(*sys.version_info[:2])
    here = f"sys_platform == '{sys.platform}' and platform_machine == '{platform.machine()}'"
    glibc = platform.libc_ver()[0] == "glibc"
    return 0 if glibc and lock["requires-python"] == python and here in lock["environments"] else 1


def requirements() -> int:
    for package in read(LOCK)["packages"]:
        hashes = (wheel["hashes"]["sha256"] for wheel in package["wheels"])
        marks = " ".join(f"--hash=sha256:{digest}" for digest in hashes)
        print(f"{package['name']}=={package['version']} {marks}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
