"""Finds the app: ``module:attribute``, or a path to a Python file, in the working directory.

Owns imports of the target and the errors about them: a module that does not exist is another
thing than an error inside one. It must not know what the app is.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from rrdispatch.errors import TargetError

DEFAULT_ATTRIBUTES = ("app", "application", "serve")
_OURS = str(Path(__file__).resolve().parents[1])


class AppError(TargetError):
    """The app was found and refused to start."""


def load(target: str, *, factory: bool = False) -> Any:
    """The object that ``target`` names; with ``factory`` what it returns."""
    name, attribute = _split(target)
    if attribute.endswith("()"):
        attribute, factory = attribute[:-2], True
    module = _module(name, target)
    found = _attribute(module, attribute, target)
    return _made(found, target) if factory else found


def _split(target: str) -> tuple[str, str]:
    name, colon, attribute = target.rpartition(":")
    if not colon:
        name, attribute = target, ""
    if not name or (colon and not attribute):
        raise TargetError(
            f"{target!r} does not name an app", hint="MODULE:ATTRIBUTE, for example main:app"
        )
    return name, attribute


# ---- the module ---------------------------------------------------------------------------------


def _module(name: str, target: str) -> ModuleType:
    if name.endswith(".py") or "/" in name:
        name = _name_of_file(name, target)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise _no_module(error.name, target) from None
        raise broken(f"{target} can't be imported", error) from None
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise broken(f"{target} can't be imported", error) from None


def _name_of_file(text: str, target: str) -> str:
    """Make the file importable by the name it has in its package, and give that name."""
    path = Path(text if text.endswith(".py") else text + ".py").absolute()
    if not path.is_file():
        near = nearest(path.name, [item.name for item in path.parent.glob("*.py")])
        raise TargetError(f"{target}: there is no file {path}", hint=near or "look at --cwd")
    parts = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        parts.insert(0, folder.name)
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return ".".join(parts)


def _no_module(absent: str, target: str) -> TargetError:
    parent, _, last = absent.rpartition(".")
    where = f"the package {parent}" if parent else os.getcwd()
    if parent:
        folders: Iterable[str] | None = getattr(sys.modules.get(parent), "__path__", None)
        if folders is None:
            where = f"{parent}, which is a module and not a package"
    else:
        folders = [os.getcwd()]
    names = [item.name for item in pkgutil.iter_modules(list(folders or []))]
    near = nearest(last, names)
    if near is None:
        near = "the module is looked for in the working directory first; --cwd sets it"
    return TargetError(f"{target}: no module {last!r} in {where}", hint=near)


# ---- the attribute ------------------------------------------------------------------------------


def _attribute(module: ModuleType, attribute: str, target: str) -> Any:
    if not attribute:
        attribute = _default(module, target)
    found: Any = module
    part = ""
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        owner = module.__name__ if found is module else f"{module.__name__}:{attribute}"
        near = nearest(part, dir(found))
        raise TargetError(
            f"{target}: {owner} has no attribute {part!r}", hint=near or _offer(module)
        ) from None
    except Exception as error:
        raise broken(f"{target} can't be loaded", error) from None
    if not callable(found):
        raise TargetError(
            f"{target} is {_an(type(found).__name__)}, which can't be called",
            hint="an ASGI or WSGI app, or a function serve(listener), is wanted",
        )
    return found


def _default(module: ModuleType, target: str) -> str:
    for name in DEFAULT_ATTRIBUTES:
        if callable(getattr(module, name, None)):
            return name
    raise TargetError(
        f"{target} names no attribute, and {module.__name__} has no {_or(DEFAULT_ATTRIBUTES)}",
        hint=_offer(module) or f"say which: {target}:NAME",
    )


def _offer(module: ModuleType) -> str | None:
    """What of the module could be meant: public callables that were made in it."""
    names = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", None) == module.__name__
    ]
    return f"it has {_or(sorted(names)[:5])}" if names else None


def _made(factory: Any, target: str) -> Any:
    if not _callable_alone(factory):
        raise TargetError(
            f"{target} wants arguments: it is no factory",
            hint="leave out --factory if it is the app itself",
        )
    try:
        made = factory()
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise broken(f"the factory {target} failed", error) from None
    if not callable(made):
        raise TargetError(
            f"the factory {target} returned {_an(type(made).__name__)}, which can't be called",
            hint="an `async def` can't be a factory" if hasattr(made, "__await__") else None,
        )
    return made


def _callable_alone(factory: Any) -> bool:
    try:
        inspect.signature(factory).bind()
    except TypeError:
        return False
    except ValueError:
        return True  # it cannot be seen
    return True


# ---- words --------------------------------------------------------------------------------------


def broken(what: str, error: BaseException, kind: type[TargetError] = TargetError) -> TargetError:
    """An error of the app's own code, with its traceback and without our frames."""
    if isinstance(error, SystemExit):
        said = f"it exited with {error.code!r}"
    else:
        said = "".join(traceback.format_exception_only(type(error), error)).strip().split("\n")[-1]
    return kind(f"{what}: {said}", traceback=traceback_of(error))


def traceback_of(error: BaseException) -> str:
    """The traceback as Python prints it, from the first frame that is the app's."""
    told = traceback.TracebackException.from_exception(error)
    frames = told.stack
    while frames and _is_no_apps(frames[0].filename):
        del frames[0]
    return "".join(told.format())


def _is_no_apps(path: str) -> bool:
    """Ours, the import system's or the event loop's."""
    ours = path.startswith((_OURS, "<frozen importlib", "uvloop/"))
    return ours or "/importlib/" in path or "/asyncio/" in path


def nearest(name: str, names: Iterable[str]) -> str | None:
    import difflib

    found = difflib.get_close_matches(name, sorted(set(names)), n=1, cutoff=0.6)
    return f"did you mean {found[0]!r}?" if found else None


def _or(names: Iterable[str]) -> str:
    *first, last = [repr(name) for name in names]
    return f"{', '.join(first)} or {last}" if first else last


def _an(word: str) -> str:
    return f"an {word}" if word[:1].lower() in "aeiou" else f"a {word}"
