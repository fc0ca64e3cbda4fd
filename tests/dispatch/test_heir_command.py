"""The command that starts an heir: what is accepted, what is refused."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from rrdispatch._core.layout import ControlKind, heir_command
from rrdispatch.dispatch.heirs import parse

from .heirs import LONG, House, memory

K = ControlKind


GOOD = heir_command("/bin/true", "/", ["true", "x"], {"A": "1", "B": ""})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:7],
        GOOD[:8],
        GOOD[:-1],
        GOOD + b"\0",
        GOOD + b"x\0",
        GOOD.replace(b"/bin/true", b"bin//true"),
        GOOD.replace(b"\0/\0", b"\0x\0"),
        GOOD.replace(b"A=1", b"A-1"),
        struct.pack("=II", 0, 4) + GOOD[8:],
        struct.pack("=II", 5, 0) + GOOD[8:],
        struct.pack("=II", 65, 0) + b"/x\0/\0" + b"a\0" * 65,
        struct.pack("=II", 1, 2049) + b"/x\0/\0a\0" + b"A=\0" * 2049,
        struct.pack("=II", 1 << 31, 1 << 31) + GOOD[8:],
        struct.pack("=II", 1, 0) + b"/x\0/\0" + b"a" * (256 * 1024 - 13) + b"\0",
    ],
)
def test_a_malformed_command_is_refused_and_the_old_one_stays(house: House, data: bytes):
    before = house.rig.fds()
    house.expect()
    assert house.say(data) == -errno.EINVAL
    assert house.rig.fds() == before
    house.die()
    house.succeed()


def test_other_wrong_requests_leave_the_old_command(house: House):
    rig = house.rig
    house.expect()
    for values in ((17, LONG, 0), (3, 0, 0), (1 << 63, LONG, 0)):
        assert house.say(GOOD, values) == -errno.EINVAL
    reading, writing = os.pipe()
    folder = os.open("/", os.O_RDONLY)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (reading, writing, folder, null):
        assert rig.refused(K.HEIR, values=(3, LONG, 0), fds=[fd]) == errno.EINVAL
        os.close(fd)
    with memory(GOOD) as fd:
        assert rig.refused(K.HEIR, values=(3, LONG, 0), fds=[fd, fd]) == errno.EPROTO
    house.die()
    house.succeed()


def test_the_largest_command_and_the_longest_times(house: House):
    most = (1 << 64) - 1
    size = len(heir_command("/x", "/", house.command, {"A": ""}))
    text = "a" * 1000
    variables = {f"V{number}": text for number in range((256 * 1024 - size) // 1010)}
    house.expect(16, most, most, environment=variables)
    house.die()
    house.succeed()
    house.facts["environment"].pop("LC_CTYPE", None)
    assert house.facts["environment"] == variables


def test_parse_reads_what_heir_command_writes():
    read = parse(GOOD)
    assert (read.program, read.cwd, read.arguments) == (b"/bin/true", b"/", [b"true", b"x"])
    assert read.environment == {b"A": b"1", b"B": b""}


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        ([], {}),
        (["x"] * 65, {}),
        (["x\0y"], {}),
        (["x"], {f"V{number}": "" for number in range(2049)}),
        (["x"], {"V": "x" * (256 * 1024)}),
    ],
)
def test_a_command_beyond_the_limits(arguments: list[str], environment: dict[str, str]):
    with pytest.raises(ValueError, match="heir"):
        heir_command("/bin/true", "/", arguments, environment)
