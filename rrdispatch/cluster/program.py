"""What a target that is no app runs: a script, a program, or a command line; resolved, not started.

Owns the search (extension, shebang, PATH) and what can be seen of a program that cannot be
preloaded. It must not know how a worker is spawned.
"""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rrdispatch import _core
from rrdispatch.checks import names_app
from rrdispatch.errors import ConfigError, TargetError
from rrdispatch.settings import DEFAULTS, Settings

# By extension, as pm2 does; anything else by its shebang or as a program.
INTERPRETERS = {
    ".js": "node", ".cjs": "node", ".mjs": "node", ".ts": "bun", ".tsx": "bun",
    ".rb": "ruby", ".php": "php", ".pl": "perl", ".sh": "sh", ".bash": "bash",
}  # fmt: skip
ELF, PT_INTERP = b"\x7fELF", 3
SEPARATORS = frozenset(" :$")
HINT = "MODULE:ATTRIBUTE, a script, a program on PATH, or -- COMMAND ARGUMENTS"


def argv(
    target: str, arguments: Sequence[str], interpreter: str | None, python: str, cwd: str, path: str
) -> tuple[str, ...]:
    """The command of a worker, its first word an absolute path; () for an app.

    TargetError says what was not found and where.
    """
    if names_app(target):
        return ()
    words = [target, *arguments]
    if not arguments and any(map(str.isspace, target)) and not os.path.exists(_in(cwd, target)):
        words = _split(target)
    file = _in(cwd, words[0])
    if interpreter:
        return (_interpreter(interpreter, words[0], path, cwd), *words)
    if os.path.isfile(file):
        return _of_file(file, words, python, path, cwd)
    return (_find(words[0], path, cwd), *words[1:])


def check(settings: Settings) -> None:
    """What apps may have and programs may not, and the other way round; ConfigError says which."""
    if settings.arguments and not settings.is_program:
        raise ConfigError(
            f"{settings.target} is an app, which takes no arguments: {settings.arguments[0]}",
            hint="tell it by --env; or name a program or script as TARGET",
        )
    if settings.share_listener:
        _check_shared(settings)
    if settings.is_preloaded and _core.shim_library() is None:
        raise ConfigError(
            f"{settings.target} listens by itself: that takes the C core, which was not built",
            hint="install a C compiler and reinstall; --share-listener works without it",
        )


def _check_shared(settings: Settings) -> None:
    source = settings.sources.get("share_listener", "share_listener")
    if not settings.is_program:
        raise ConfigError(
            f"{source}: {settings.target} is an app, which is given its connections one by one",
            hint="leave it out",
        )
    if not settings.listen or settings.take:
        other = "take" if settings.listen else "listen"
        raise ConfigError(
            f"{source}: not together with {settings.sources.get(other, other)}",
            hint="the program listens on what --bind says",
        )
    if "bind" not in settings.sources:
        raise ConfigError(
            f"{source}: where?", hint="say --bind: we open what the program is handed"
        )


def check_command(settings: Settings, argv: Sequence[str]) -> None:
    """For a program that was found: what is known not to listen through us, or not where we say."""
    source = settings.sources.get("bind", "PORT")  # PORT is for the program to read
    if source != "PORT" and settings.bind != DEFAULTS.bind:
        raise ConfigError(
            f"{source}: {settings.target} listens by itself, where it likes",
            hint="tell the program; --listen says which of its ports are distributed, "
            "--share-listener hands it a socket",
        )
    why = cannot_be_preloaded(argv[0])
    if why:
        raise TargetError(
            f"{argv[0]} cannot be distributed to: {why}",
            hint="--share-listener hands it the socket; or --no-listen only supervises it",
        )


def _in(cwd: str, name: str) -> str:
    return os.path.join(cwd, name)


def _split(target: str) -> list[str]:
    try:
        return shlex.split(target)
    except ValueError as error:
        raise TargetError(f"{target!r} is no command line: {error}", hint=HINT) from None


def _of_file(file: str, words: Sequence[str], python: str, path: str, cwd: str) -> tuple[str, ...]:
    suffix = Path(file).suffix.lower()
    if suffix in (".py", ".pyw"):
        return (python, *words)
    if suffix in INTERPRETERS:
        return (_interpreter(INTERPRETERS[suffix], words[0], path, cwd), *words)
    if os.access(file, os.X_OK):
        return (file, *words[1:])
    shebang = _shebang(file)
    if shebang:
        return (_interpreter(shebang[0], words[0], path, cwd), *shebang[1:], *words)
    raise TargetError(
        f"{words[0]} is neither executable nor a script whose interpreter is known",
        hint="chmod +x it, or name its --interpreter",
    )


def _shebang(file: str) -> list[str]:
    with open(file, "rb") as script:
        line = script.readline(256)
    if not line.startswith(b"#!"):
        return []
    words = os.fsdecode(line[2:]).split(maxsplit=1)
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1].split() if word != "-S"] if len(words) > 1 else []
    return words


def _interpreter(name: str, script: str, path: str, cwd: str) -> str:
    try:
        return _find(name, path, cwd)
    except TargetError:
        raise TargetError(
            f"{name!r}, which is to run {script}, is no program on PATH",
            hint="install it, or name another --interpreter; for one with arguments of its own: "
            f"-- INTERPRETER ARGUMENTS {script}",
        ) from None


def _find(name: str, path: str, cwd: str) -> str:
    if "/" in name:
        found = _in(cwd, name)
        if os.path.isfile(found) and os.access(found, os.X_OK):
            return os.path.abspath(found)
        raise TargetError(f"{name} is no program", hint=HINT)
    program = shutil.which(name, path=path)
    if program is None:
        module = os.path.join(cwd, f"{name}.py")
        hint = f"did you mean {name}:app? {HINT}" if os.path.isfile(module) else HINT
        raise TargetError(f"{name!r} is no app, no file and no program on PATH", hint=hint)
    return os.path.abspath(program)


def cannot_be_preloaded(program: str) -> str:
    """Why the dynamic linker will load nothing into it; empty if it will, or if nobody can say."""
    try:
        with open(program, "rb") as file:
            head = file.read(64)
            if head[:4] != ELF:
                return ""
            segments = _segments(file.read, file.seek, head)
    except (OSError, struct.error):
        return ""
    if PT_INTERP in segments:
        return ""
    return "it is linked statically: no dynamic linker runs in it"


def _segments(read: object, seek: object, head: bytes) -> set[int]:
    """Types of an ELF file's program headers (elf(5)), little or big, 32 or 64 bits."""
    order = "<" if head[5] == 1 else ">"
    if head[4] == 2:
        (offset,) = struct.unpack_from(order + "Q", head, 32)
        size, count = struct.unpack_from(order + "HH", head, 54)
    else:
        (offset,) = struct.unpack_from(order + "I", head, 28)
        size, count = struct.unpack_from(order + "HH", head, 42)
    seek(offset)  # type: ignore[operator]
    table = read(size * count)  # type: ignore[operator]
    return {struct.unpack_from(order + "I", table, size * index)[0] for index in range(count)}


def linked(library: str) -> str:
    """A path to it that LD_PRELOAD can say: the same, or a link in a folder of its own. The dynamic
    linker ends a name at a space or colon, and reads more than that into a dollar.
    """
    if not set(library) & SEPARATORS:
        return library
    places = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108
    place = next(filter(_can_be_said, places), "/tmp")  # noqa: S108
    folder = tempfile.mkdtemp(prefix="rrdispatch-", dir=place)
    if os.geteuid() == 0:  # its workers may become anybody
        os.chmod(folder, 0o711)  # noqa: S103
    link = os.path.join(folder, os.path.basename(library))
    os.symlink(library, link)
    return link


def _can_be_said(folder: str) -> bool:
    return not set(folder) & SEPARATORS and os.path.isdir(folder)


def preload(environment: Mapping[str, str], library: str) -> dict[str, str]:
    """LD_PRELOAD with ours at the end: what was there before (jemalloc) stays first."""
    before = environment.get("LD_PRELOAD", "").strip(": ")
    return {"LD_PRELOAD": f"{before}:{library}" if before else library}
