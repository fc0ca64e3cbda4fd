"""The Python twin of the border has the numbers of the C, wherever the C was built."""

from __future__ import annotations

import importlib
import re
import struct
from enum import IntEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrdispatch import _core
from rrdispatch._core import layout
from rrdispatch._core.layout import Control, Message

INC = Path(__file__).parents[2] / "csrc" / "rr_core.inc"
SOURCE = re.sub(r"/\*.*?\*/", "", INC.read_text(), flags=re.DOTALL)

ENUMS: dict[str, tuple[str, type[IntEnum]]] = {
    "rr_kind": ("RR_KIND_", layout.Kind),
    "rr_field": ("RR_FIELD_", layout.Field),
    "rr_policy": ("RR_", layout.Policy),
    "rr_state": ("RR_STATE_", layout.State),
    "rr_control_kind": ("RR_(?:CONTROL|EVENT)_", layout.ControlKind),
    "rr_spawn_step": ("RR_STEP_", layout.Step),
    "rr_ledger_role": ("RR_LEDGER_", layout.LedgerRole),
    "rr_ledger_event": ("RR_LEDGER_", layout.LedgerEvent),
    "rr_inherit": ("RR_INHERIT_", layout.Inherit),
    "rr_app_tag": ("RR_APP_", layout.AppTag),
    "rr_worker_tag": ("RR_WORKER_", layout.WorkerTag),
}
NUMBERS = {
    "RR_PROTOCOL": layout.PROTOCOL,
    "RR_MESSAGE_SIZE": layout.MESSAGE_SIZE,
    "RR_BATCH_MAX": layout.BATCH_MAX,
    "RR_PEER_SIZE": layout.PEER_SIZE,
    "RR_SCOREBOARD_MAGIC": layout.SCOREBOARD_MAGIC,
    "RR_SCOREBOARD_VERSION": layout.SCOREBOARD_VERSION,
    "RR_SCOREBOARD_SIZE": layout.SCOREBOARD_SIZE,
    "RR_MAX_WORKERS": layout.MAX_WORKERS,
    "RR_MAX_LISTENERS": layout.MAX_LISTENERS,
    "RR_QUEUE_LIMIT_MAX": layout.QUEUE_LIMIT_MAX,
    "RR_CONTROL_VERSION": layout.CONTROL_VERSION,
    "RR_CONTROL_VALUES": layout.CONTROL_VALUES,
    "RR_CONTROL_FDS": layout.CONTROL_FDS,
    "RR_LEDGER_MAGIC": layout.LEDGER_MAGIC,
    "RR_LEDGER_VERSION": layout.LEDGER_VERSION,
    "RR_LEDGER_HEAD_SIZE": layout.LEDGER_HEAD_SIZE,
    "RR_LEDGER_ENTRY_SIZE": layout.LEDGER_ENTRY_SIZE,
    "RR_KEPT_FDS": layout.KEPT_FDS,
    "RR_KEPT_TAGS": layout.KEPT_TAGS,
    "RR_HEIR_COMMAND_MAX": layout.HEIR_COMMAND_MAX,
    "RR_HEIR_ARGUMENTS_MAX": layout.HEIR_ARGUMENTS_MAX,
    "RR_HEIR_VARIABLES_MAX": layout.HEIR_VARIABLES_MAX,
    "RR_HEIRS_MAX": layout.HEIRS_MAX,
}


@pytest.mark.parametrize("name", ENUMS)
def test_every_name_of_an_enum_has_its_number(name: str):
    prefix, enum = ENUMS[name]
    found = re.search(rf"enum {name} \{{(.*?)\}}", SOURCE, re.DOTALL)
    assert found
    declared = {
        re.sub(f"^{prefix}", "", one): int(number)
        for one, number in re.findall(r"(\w+)\s*=\s*(\d+)", found[1])
    }
    assert declared == {one.name: one.value for one in enum}


def test_every_constant_has_its_number():
    declared = dict(re.findall(r"#define (RR_\w+) (\w+)", SOURCE))
    ours = {name: number for name, number in declared.items() if not name.startswith("RR_SPAWN_")}
    assert {name: int(number, 0) for name, number in ours.items()} == NUMBERS
    assert re.search(r"RR_FLAG_MOVED = 1\b", SOURCE)


def test_sizes():
    assert layout.MESSAGE.size == layout.MESSAGE_SIZE
    assert layout.CONTROL.size == layout.CONTROL_SIZE
    assert layout.SCOREBOARD_HEAD.size == 16
    assert layout.LEDGER_ENTRY.size == layout.LEDGER_ENTRY_SIZE


def native() -> list[object]:
    """The C as cffi sees it, where it was built."""
    return [importlib.import_module("rrdispatch._core._native")] if _core.NATIVE else []


def test_structs_are_where_the_c_compiler_puts_them():
    for module in native():
        ffi = module.ffi  # type: ignore[attr-defined]
        assert ffi.sizeof("struct rr_message") == layout.MESSAGE_SIZE
        assert ffi.sizeof("struct rr_control") == layout.CONTROL_SIZE
        assert ffi.sizeof("struct rr_ledger_entry") == layout.LEDGER_ENTRY_SIZE
        assert ffi.sizeof("struct rr_ledger_head") == layout.LEDGER_HEAD.size
        names = {
            layout.Field.HEARTBEAT: "heartbeat_ns",
            **{one: one.name.lower() for one in layout.Field if one.name != "HEARTBEAT"},
        }
        board = ffi.typeof("struct rr_scoreboard")
        fields = dict(board.fields)
        for one, (offset, code) in layout.FIELD_OFFSETS.items():
            assert ffi.offsetof(board, names[one]) == offset
            assert ffi.sizeof(fields[names[one]].type) == struct.calcsize(code)


def test_a_message_is_read_alike_by_both():
    for module in native():
        ffi = module.ffi  # type: ignore[attr-defined]
        ours = Message(2, 3, 1, 1 << 60, b"peer").pack()
        theirs = ffi.from_buffer("struct rr_message *", ours)
        assert (theirs.version, theirs.kind, theirs.count, theirs.flags) == (1, 2, 3, 1)
        assert (theirs.peer_length, theirs.accepted_ns) == (4, 1 << 60)
        assert bytes(theirs.peer)[:5] == b"peer\0"


def test_a_control_message_is_read_alike_by_both():
    for module in native():
        ffi = module.ffi  # type: ignore[attr-defined]
        ours = Control(4, 5, -6, 7, 8, tuple(range(12))).pack()
        theirs = ffi.from_buffer("struct rr_control *", ours)
        head = (theirs.version, theirs.kind, theirs.sequence, theirs.result, theirs.worker)
        assert head == (1, 4, 5, -6, 7)
        assert theirs.listener == 8
        assert list(theirs.value) == list(range(12))


@given(
    st.builds(
        Message,
        kind=st.integers(0, 255),
        count=st.integers(0, 255),
        flags=st.integers(0, 255),
        accepted_ns=st.integers(0, (1 << 64) - 1),
        peer=st.binary(max_size=48),
        version=st.integers(0, 255),
    )
)
def test_messages_round_trip(message: Message):
    assert Message.unpack(message.pack()) == message


def test_a_long_peer_is_cut_and_a_long_length_is_not_believed():
    assert Message.unpack(Message(peer=b"x" * 90).pack()).peer == b"x" * 48
    forged = bytearray(Message(peer=b"x" * 48).pack())
    forged[4:8] = b"\xff" * 4
    assert Message.unpack(bytes(forged)).peer == b"x" * 48


@given(
    st.builds(
        Control,
        kind=st.integers(0, (1 << 32) - 1),
        sequence=st.integers(0, (1 << 32) - 1),
        result=st.integers(-(1 << 31), (1 << 31) - 1),
        worker=st.integers(0, (1 << 32) - 1),
        listener=st.integers(0, (1 << 32) - 1),
        values=st.lists(st.integers(0, (1 << 64) - 1), min_size=12, max_size=12).map(tuple),
    )
)
def test_control_messages_round_trip(message: Control):
    assert Control.unpack(message.pack()) == message


@pytest.mark.parametrize("size", [0, 1, 63, 65, 119, 121])
def test_other_sizes_are_refused(size: int):
    for kind in (Message, Control):
        with pytest.raises(struct.error):
            kind.unpack(bytes(size))
