"""What this machine, this Python and this user's folders give, and what that means for apps.

Each check looks at one thing and changes nothing. Must not know how it is shown.
"""

from __future__ import annotations

import errno
import fcntl
import importlib.metadata
import os
import platform
import re
import resource
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rrdispatch import _core, cpus
from rrdispatch.cluster import memory
from rrdispatch.cluster.handle import PIDFD_GET_INFO, PIDFD_INFO, PIDFD_INFO_EXIT
from rrdispatch.control import statedir
from rrdispatch.errors import ConfigError
from rrdispatch.settings import DEFAULTS

OK, WORSE, FAILS = "ok", "worse", "fails"
TRIED = "6.18"  # the kernel that the tests ran on
FEW_FDS, MANY_FDS = 256, 8192
FEW_TASKS = 256
SPACE = 64 << 20  # bytes that a start should find free
EXTRA = re.compile(r"([A-Za-z0-9._-]+)[^;]*;.*extra == [\"']([a-z]+)[\"']")


@dataclass(frozen=True)
class Finding:
    """``state``: ok; worse: something is slower or missing; fails: apps cannot run."""

    group: str
    name: str
    state: str
    value: str
    meaning: str = ""
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Machine:
    """Where it is looked; a tree of files can stand for a machine."""

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    uid: int = field(default_factory=os.getuid)

    def number(self, path: str) -> int | None:
        text = memory.content(self.root / path).strip()
        return int(text) if text.isdigit() else None


Check = Callable[[Machine], Iterator[Finding]]


def examine(machine: Machine | None = None) -> list[Finding]:
    """All that is found, in the order of ``CHECKS``."""
    where = machine or Machine()
    return [finding for check in CHECKS for finding in check(where)]


# ---- kernel ------------------------------------------------------------------------------------


def kernel(_machine: Machine) -> Iterator[Finding]:
    if sys.platform != "linux":
        yield Finding("kernel", "system", FAILS, sys.platform, "it runs on Linux only")
        return
    yield Finding("kernel", "version", OK, platform.release(), f"tests ran on {TRIED}")
    for name, probe, state, meaning in PROBES:
        why = _tried(probe)
        yield Finding("kernel", name, state if why else OK, why or "works", meaning if why else "")


def _tried(probe: Callable[[], None]) -> str:
    try:
        probe()
    except (OSError, AttributeError) as error:
        return (error.strerror if isinstance(error, OSError) else None) or str(error)
    return ""


def _pidfd() -> None:
    os.close(os.pidfd_open(os.getpid()))


def _exit_codes() -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        told = bytearray(PIDFD_INFO.pack(PIDFD_INFO_EXIT, b"", 0))
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, told, True)
    finally:
        os.close(pidfd)


def _sealed_memory() -> None:
    fd = os.memfd_create("rrdispatch-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    finally:
        os.close(fd)


def _passing() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, other:
        socket.send_fds(one, [b"x"], [one.fileno()])
        for fd in socket.recv_fds(other, 1, 1)[1]:
            os.close(fd)


def _cookie() -> None:
    with socket.socket() as sock:
        sock.getsockopt(socket.SOL_SOCKET, 57, 8)  # SO_COOKIE of asm-generic/socket.h


def _filter() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(1)
        _core.gate(sock.fileno())


def _ipv6() -> None:
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))


PROBES = (
    ("passing sockets", _passing, FAILS, "no connection can be given to a worker"),
    ("pidfd", _pidfd, FAILS, "nobody would learn of a worker's end"),
    ("sealed memory", _sealed_memory, FAILS, "workers' counters cannot be protected"),
    ("exit codes by pidfd", _exit_codes, WORSE,
     "after a primary was killed its heir may not learn how a worker ended"),
    ("SO_COOKIE", _cookie, WORSE, "the ledger of connections (tests) cannot name them"),
    ("socket filter", _filter, WORSE,
     "a final stop narrows the backlog to 1 instead of refusing newcomers: one may be reset"),
    ("IPv6", _ipv6, WORSE, "only IPv4 addresses can be listened on"),
)  # fmt: skip


# ---- limits ------------------------------------------------------------------------------------


def descriptors(_machine: Machine) -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 1 << 30
    state = FAILS if most < FEW_FDS else WORSE if most < MANY_FDS else OK
    meaning = f"the dispatcher takes {most}; each worker has {soft}, its connections included"
    hint = "ulimit -Hn, LimitNOFILE= in a unit, nofile in /etc/security/limits.conf"
    yield Finding("limits", "open files", state, f"{soft} soft, {most} hard", meaning,
                  hint if state != OK else "")  # fmt: skip


def tasks(machine: Machine) -> Iterator[Finding]:
    found = [limit for limit in _pids_max(machine.root) if limit is not None]
    user = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if user != resource.RLIM_INFINITY and machine.uid != 0:
        found.append(user)  # root is not bound by it
    least = min(found, default=None)
    state = WORSE if least is not None and least < FEW_TASKS else OK
    meaning = "each app has three processes and its workers; threads count, too" if least else ""
    hint = "pids.max, TasksMax=, ulimit -u" if state != OK else ""
    yield Finding("limits", "processes", state, str(least or "no limit"), meaning, hint)


def _pids_max(root: Path) -> Iterator[int | None]:
    for line in memory.content(root / "proc/self/cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0":
            tops = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif "pids" in controllers.split(","):
            tops = [root / "sys/fs/cgroup/pids"]
        else:
            continue
        for top in tops:
            for folder in memory.upwards(top, path):
                text = memory.content(folder / "pids.max").strip()
                yield int(text) if text.isdigit() else None


def backlog(machine: Machine) -> Iterator[Finding]:
    most, wanted = machine.number("proc/sys/net/core/somaxconn"), DEFAULTS.backlog
    small = most is not None and most < wanted
    yield Finding("limits", "somaxconn", WORSE if small else OK, _shown(most),
                  f"the backlog of {wanted} is cut to this" if small else "",
                  f"sysctl -w net.core.somaxconn={wanted}" if small else "")  # fmt: skip
    most = machine.number("proc/sys/net/ipv4/tcp_max_syn_backlog")
    small = most is not None and most < 256
    meaning = "handshakes under way, before a connection is in the backlog"
    yield Finding("limits", "tcp_max_syn_backlog", WORSE if small else OK, _shown(most), meaning)
    if machine.number("proc/sys/net/ipv4/tcp_abort_on_overflow"):
        meaning = "clients are reset when the backlog is full, instead of trying again"
        yield Finding("limits", "tcp_abort_on_overflow", WORSE, "1", meaning,
                      "sysctl -w net.ipv4.tcp_abort_on_overflow=0")  # fmt: skip


def _shown(number: int | None) -> str:
    return "not known" if number is None else str(number)


def cores(machine: Machine) -> Iterator[Finding]:
    facts = cpus.detect(machine.root)
    quota = "no quota" if facts.quota is None else f"quota {facts.quota:g}"
    yield Finding("limits", "cores", OK, f"{facts.usable} of {facts.logical}, {quota}",
                  f"-i max: {cpus.count('max', facts)}")  # fmt: skip
    found = memory.available(machine.root)
    if found is None:
        yield Finding("limits", "memory", OK, "no limit but the machine's")
        return
    state = WORSE if found.free < 64 << 20 else OK
    value = f"{found.free >> 20} MiB free of {found.limit >> 20}"
    meaning = "a reload keeps two generations for a while; without room it does not park"
    yield Finding("limits", "memory", state, value, meaning)


# ---- what is installed -------------------------------------------------------------------------


def build(_machine: Machine) -> Iterator[Finding]:
    again = "install a C compiler and reinstall"
    pure = os.environ.get("RRDISPATCH_PURE") == "1"
    hint = "unset RRDISPATCH_PURE" if pure else again
    slower = "the Python one costs more CPU per connection"
    yield Finding("build", "C core", OK if _core.NATIVE else WORSE,
                  "built" if _core.NATIVE else "not in use" if pure else "not built",
                  "" if _core.NATIVE else slower, "" if _core.NATIVE else hint)  # fmt: skip
    program = _core.dispatcher_program()
    yield Finding("build", "dispatcher", OK if program else WORSE, program or "not built",
                  "" if program else slower, "" if program else hint)  # fmt: skip
    shim = _core.shim_library()
    missing = "unmodified programs are not dispatched to; apps are, and --share-listener works"
    yield Finding("build", "shim", OK if shim else WORSE, shim or "not built",
                  "" if shim else missing, "" if shim else hint)  # fmt: skip


def python(_machine: Machine) -> Iterator[Finding]:
    version = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    good = sys.version_info >= (3, 10)
    yield Finding("python", "interpreter", OK if good else FAILS, version)
    for extra, missing in _extras().items():
        value = "present" if not missing else f"missing: {', '.join(missing)}"
        hint = f'{sys.executable} -m pip install "rrdispatch[{extra}]"' if missing else ""
        yield Finding("python", f"extra {extra}", WORSE if missing else OK, value,
                      EXTRAS.get(extra, "") if missing else "", hint)  # fmt: skip


EXTRAS = {
    "asgi": "needed for ASGI apps; by the interpreter that runs them, which may be another",
    "wsgi": "needed for WSGI apps; by the interpreter that runs them, which may be another",
    "watch": "needed for --watch",
    "cron": "needed for --cron-restart",
    "fast": "apps work without it, somewhat slower",
    "monit": "needed for rrdispatch monit",
    "yaml": "needed for ecosystem.yaml",
    "metrics": "needed for rrdispatch metrics and for /metrics",
}


def _extras() -> dict[str, list[str]]:
    """What of each extra is not installed; extras as the package declares them."""
    found: dict[str, list[str]] = {}
    try:
        asked = importlib.metadata.requires("rrdispatch") or []
    except importlib.metadata.PackageNotFoundError:
        return found  # from a source tree
    for text in asked:
        match = EXTRA.match(text)
        if match is not None and match[2] != "all":
            missing = found.setdefault(match[2], [])
            if not _installed(match[1]):
                missing.append(match[1])
    return found


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


# ---- state -------------------------------------------------------------------------------------


def state(machine: Machine) -> Iterator[Finding]:
    home = statedir.home(machine.environ, machine.uid)
    yield _folder(home)
    if not home.is_dir():
        return
    free = shutil.disk_usage(home).free
    level, meaning = OK, ""
    if free < SPACE:
        level, meaning = WORSE, "what is known of apps, and logs, may not be written"
    yield Finding("state", "free space", level, f"{free >> 20} MiB", meaning)
    try:
        names = statedir.names(home)
    except ConfigError:
        return  # told above
    wrong = [found for name in names if (found := _folder(home / name)).state != OK]
    yield from wrong
    if not wrong:
        yield Finding("state", "apps", OK, f"{len(names)} known")


def _folder(path: Path) -> Finding:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return _to_be_made(path)
    except OSError as error:
        return Finding("state", str(path), FAILS, error.strerror or "?", "it cannot be looked at")
    mode = stat.S_IMODE(found.st_mode)
    value = f"{stat.filemode(found.st_mode)}, user {found.st_uid}"
    hint = "set RRDISPATCH_HOME to a folder of your own"
    if not stat.S_ISDIR(found.st_mode):
        return Finding("state", str(path), FAILS, value, "it is no folder", hint)
    if found.st_uid != os.getuid():
        return Finding("state", str(path), FAILS, value, "it belongs to somebody else", hint)
    if mode & 0o022:
        meaning = "others can write there: whoever can, could speak for an app; refused"
        return Finding("state", str(path), FAILS, value, meaning, f"chmod 0700 {path}")
    if mode & 0o055:
        meaning = "others can see the names of your apps"
        return Finding("state", str(path), WORSE, value, meaning, f"chmod 0700 {path}")
    return Finding("state", str(path), OK, value)


def _to_be_made(path: Path) -> Finding:
    above = next(folder for folder in path.parents if folder.exists())
    if os.access(above, os.W_OK | os.X_OK):
        return Finding("state", str(path), OK, "not there yet", "the first start makes it")
    told = os.strerror(errno.EACCES)
    hint = "set RRDISPATCH_HOME to a folder of your own"
    return Finding("state", str(path), FAILS, told, f"it cannot be made in {above}", hint)


CHECKS: tuple[Check, ...] = (
    kernel, descriptors, tasks, backlog, cores, build, python, state,
)  # fmt: skip
