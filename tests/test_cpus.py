"""Core counting on trees of files that stand for machines."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rrdispatch import cpus
from rrdispatch.cpus import Cpus, count
from rrdispatch.errors import ConfigError


@dataclass
class Machine:
    """A root folder with the files of one kind of machine."""

    root: Path
    mounts: list[str] = field(default_factory=list)

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def cgroup(self, text: str) -> None:
        self.write("proc/self/cgroup", text)

    def mount(self, kind: str, shown: str, point: str, options: str = "rw") -> None:
        place = point.replace(" ", "\\040")
        self.mounts.append(f"36 35 0:31 {shown} {place} rw shared:9 - {kind} {kind} {options}")
        self.write("proc/self/mountinfo", "\n".join(self.mounts) + "\n")

    def v1_quota(self, folder: str, limit: int, period: int = 100000) -> None:
        self.write(f"{folder}/cpu.cfs_quota_us", f"{limit}\n")
        self.write(f"{folder}/cpu.cfs_period_us", f"{period}\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_nothing_known_is_no_limit(machine: Machine) -> None:
    assert cpus.quota(machine.root) is None


def test_v2_the_smallest_limit_on_the_way_up(machine: Machine) -> None:
    machine.cgroup("0::/a.slice/b.service\n")
    machine.mount("cgroup2", "/", "/sys/fs/cgroup")
    machine.write("/sys/fs/cgroup/a.slice/cpu.max", "150000 100000\n")
    machine.write("/sys/fs/cgroup/a.slice/b.service/cpu.max", "max 100000\n")
    assert cpus.quota(machine.root) == 1.5
    machine.write("/sys/fs/cgroup/a.slice/b.service/cpu.max", "50000 100000\n")
    assert cpus.quota(machine.root) == 0.5


def test_v2_container_with_its_own_namespace(machine: Machine) -> None:
    machine.cgroup("0::/\n")
    machine.mount("cgroup2", "/", "/sys/fs/cgroup")
    machine.write("/sys/fs/cgroup/cpu.max", "250000 100000")
    assert cpus.quota(machine.root) == 2.5


def test_v2_container_without_a_namespace(machine: Machine) -> None:
    machine.cgroup("0::/docker/abc\n")
    machine.mount("cgroup2", "/docker/abc", "/sys/fs/cgroup")
    machine.write("/sys/fs/cgroup/cpu.max", "400000 100000")
    assert cpus.quota(machine.root) == 4


def test_v2_path_outside_of_what_is_shown(machine: Machine) -> None:
    machine.cgroup("0::/../../host.slice\n")
    machine.mount("cgroup2", "/", "/sys/fs/cgroup")
    machine.write("/sys/fs/cgroup/cpu.max", "300000 100000")
    assert cpus.quota(machine.root) == 3


def test_v1_with_controllers_together(machine: Machine) -> None:
    machine.cgroup("9:name=systemd:/\n4:memory:/m\n2:cpu,cpuacct:/docker/abc\n")
    machine.mount("cgroup", "/docker/abc", "/sys/fs/cgroup/cpu,cpuacct", "rw,cpu,cpuacct")
    machine.v1_quota("/sys/fs/cgroup/cpu,cpuacct", 150000)
    assert cpus.quota(machine.root) == 1.5


def test_v1_walks_up_and_minus_one_is_no_limit(machine: Machine) -> None:
    machine.cgroup("2:cpu:/a/b\n")
    machine.mount("cgroup", "/", "/sys/fs/cgroup/cpu", "rw,cpu")
    machine.v1_quota("/sys/fs/cgroup/cpu/a/b", -1)
    machine.v1_quota("/sys/fs/cgroup/cpu/a", 20000, 10000)
    assert cpus.quota(machine.root) == 2
    machine.v1_quota("/sys/fs/cgroup/cpu/a", -1)
    assert cpus.quota(machine.root) is None


def test_hybrid_takes_the_smaller(machine: Machine) -> None:
    machine.cgroup("2:cpu:/\n0::/x\n")
    machine.mount("cgroup", "/", "/sys/fs/cgroup/cpu", "rw,cpu")
    machine.mount("cgroup2", "/", "/sys/fs/cgroup/unified dir")
    machine.v1_quota("/sys/fs/cgroup/cpu", 300000)
    machine.write("/sys/fs/cgroup/unified dir/x/cpu.max", "200000 100000")
    assert cpus.quota(machine.root) == 2


@pytest.mark.parametrize("text", ["", "max", "0 100000", "abc 100000", "100000 0", "1 2 3", "-5 1"])
def test_a_strange_limit_is_none(machine: Machine, text: str) -> None:
    machine.cgroup("0::/\nnonsense\n")
    machine.mount("cgroup2", "/", "/sys/fs/cgroup")
    machine.write("/sys/fs/cgroup/cpu.max", text)
    machine.write("proc/self/mountinfo", "nonsense\n" + machine.mounts[0] + "\n - \n")
    assert cpus.quota(machine.root) is None


@pytest.mark.parametrize(
    ("facts", "usable", "limit"),
    [
        (Cpus(8, 4, 8, None), 8, ""),
        (Cpus(8, 4, 8, 1.5), 2, "cgroup quota of 1.5"),
        (Cpus(8, 4, 8, 4.0), 4, "cgroup quota of 4"),
        (Cpus(8, 4, 8, 0.1), 1, "cgroup quota of 0.1"),
        (Cpus(8, 4, 8, 64.0), 8, ""),
        (Cpus(8, 4, 3, None), 3, "affinity"),
        (Cpus(8, 4, 3, 5.0), 3, "affinity"),
        (Cpus(8, 4, 3, 2.5), 3, "affinity"),
        (Cpus(2, 2, 4, None), 2, ""),
    ],
)
def test_max_is_the_least_of_the_facts(facts: Cpus, usable: int, limit: str) -> None:
    assert (facts.usable, facts.limit) == (usable, limit)


@pytest.mark.parametrize(
    ("instances", "facts", "said"),
    [
        ("max", Cpus(8, 4, 8, 4.0), "4 workers: 4 of 8 cores by cgroup quota of 4"),
        ("max", Cpus(8, 4, 8, None), "8 workers: all 8 cores"),
        ("max", Cpus(1, 1, 1, None), "1 worker: the one core"),
        ("physical", Cpus(8, 4, 8, None), "4 workers: physical cores, with 8 hardware threads"),
        ("physical", Cpus(2, 2, 2, None), "2 workers: every core is a physical one"),
        ("physical", Cpus(8, 4, 2, None),
         "2 workers: 4 physical cores, but 2 of 8 cores by affinity"),
        ("physical", Cpus(8, None, 8, None),
         "8 workers: physical cores are not known here, so max: all 8 cores"),
        ("3", Cpus(8, 4, 8, None), "3 workers: as asked; max is 8 (all 8 cores)"),
        ("-2", Cpus(8, 4, 8, None), "6 workers: 2 fewer than max (all 8 cores)"),
        ("-200", Cpus(8, 4, 8, None), "1 worker: 200 fewer than max (all 8 cores), but at least 1"),
        ("max", Cpus(512, 256, 512, None), "256 workers: the most there can be; all 512 cores"),
    ],
)  # fmt: skip
def test_how_many_and_why(instances: str, facts: Cpus, said: str) -> None:
    assert str(count(instances, facts)) == said


@pytest.mark.parametrize("instances", ["abc", "0.5", "", "0", "max ish", "257"])
def test_anything_else_is_refused_by_its_value(instances: str) -> None:
    with pytest.raises(ConfigError, match="WEB_CONCURRENCY: ") as caught:
        count(instances, Cpus(8, 4, 8, None), "WEB_CONCURRENCY")
    assert instances in caught.value.message


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = cpus.detect()
    assert 1 <= facts.usable <= facts.logical
    assert facts.affinity == len(os.sched_getaffinity(0))
    assert facts.as_dict()["max"] == facts.usable
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    assert cpus.detect().usable == 1
