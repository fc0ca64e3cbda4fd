"""Between root and the worker's program (``--user``): gives up root for good, and becomes it.

Run by path with ``python -I -S`` and an empty environment; its argument is the descriptor of what
to do. A process of its own: while a child shares the primary's memory, as a spawn's does,
whoever has the new user's rights could stop it, and so the primary. It must not import the package.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal would import enum: 3 ms
import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REFUSED = 126


def give_up(uid: int, gid: int, groups: list[int]) -> None:
    """Groups first: afterwards nobody may set them. Then it is looked at, and tried."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3:
        raise PermissionError(0, "the kernel kept other ids")
    if set(os.getgroups()) - {gid} != set(groups) - {gid}:
        raise PermissionError(0, "the kernel kept other groups")
    if uid == 0:
        return
    try:
        os.setresuid(-1, 0, -1)
    except PermissionError:
        return
    raise PermissionError(0, "there is a way back to root (CAP_SETUID is kept)")


def become(told: dict[str, Any]) -> None:
    at = f"cannot become user {told['name']}"
    try:
        give_up(told["uid"], told["gid"], told["groups"])
        at = f"runs as user {told['name']}, who may not enter {told['cwd']}"
        os.chdir(told["cwd"])
        environment = told["environment"]
        if told["own_pid"] is not None:
            environment[told["own_pid"]] = str(os.getpid())
        program = told["arguments"][0]
        at = f"runs as user {told['name']}, who cannot run {program}"
        # The interpreter ignores these two at its start, and exec would hand that down.
        _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
        _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
        os.execve(program, told["arguments"], environment)  # noqa: S606
    except OSError as error:
        refuse(told["notify"], f"it {at}: {error.strerror}")


def refuse(notify: int, message: str) -> None:
    """As a worker says why it ends (docs/protocol.md 2). By hand: what could be imported may lie
    where the new user may not read.
    """
    hint = "each folder above has to let that user through, and the file has to be readable"
    parts = {"message": message, "hint": hint, "code": "config"}
    told = ", ".join(f"{quoted(key)}: {quoted(text)}" for key, text in parts.items())
    os.write(notify, f"ERROR={{{told}}}".encode("utf-8", "replace"))
    os._exit(REFUSED)


def quoted(text: str) -> str:
    """As JSON has it."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


if __name__ == "__main__":
    with open(int(sys.argv[1]), "rb") as its_file:
        what = marshal.load(its_file)  # noqa: S302 (from the primary)
    become(what)
