"""Finding and recognising the app, and the words when that fails."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rrdispatch.errors import TargetError
from rrdispatch.serve.detect import Interface, detect
from rrdispatch.serve.load import load

from .conftest import TLS, Start

CERT, LOCKED = str(TLS / "cert.pem"), str(TLS / "locked.pem")  # the key's password is "secret"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project as the working directory; what it imports is forgotten again."""
    before = dict(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


APP = "def app(environ, start_response): ...\n"


def write(project: Path, name: str, text: str = APP) -> None:
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    "target", ["shop:app", "shop", "shop.py:app", "./shop.py:app", "shop.py", "shop:app.__call__"]
)
def test_names_for_one_app(project: Path, target: str) -> None:
    write(project, "shop.py")
    assert callable(load(target))


def test_a_file_elsewhere_is_imported_by_its_name_in_its_package(project: Path) -> None:
    write(project, "src/shop/__init__.py", "")
    write(project, "src/shop/web/__init__.py", "")
    write(project, "src/shop/web/main.py", "from shop import web\n" + APP)
    assert load("src/shop/web/main.py:app").__module__ == "shop.web.main"


def test_a_dotted_attribute(project: Path) -> None:
    write(project, "shop.py", "class site:\n    class v1:\n        def app(a, b): ...\n")
    assert callable(load("shop:site.v1.app"))


def test_a_factory(project: Path) -> None:
    write(project, "shop.py", "def make():\n    return lambda environ, start_response: []\n")
    assert detect(load("shop:make", factory=True), "shop:make") is Interface.WSGI
    assert detect(load("shop:make()"), "shop:make()") is Interface.WSGI


def fails(target: str, *, factory: bool = False) -> TargetError:
    with pytest.raises(TargetError) as caught:
        load(target, factory=factory)
    return caught.value


def test_no_such_module(project: Path) -> None:
    write(project, "shop.py")
    error = fails("shpo:app")
    assert error.message == f"shpo:app: no module 'shpo' in {project}"
    assert error.hint == "did you mean 'shop'?"
    assert error.traceback == ""
    assert "--cwd" in (fails("elsewhere:app").hint or "")


def test_no_such_module_in_a_package(project: Path) -> None:
    write(project, "shop/__init__.py", "")
    write(project, "shop/main.py")
    error = fails("shop.mian:app")
    assert error.message == "shop.mian:app: no module 'mian' in the package shop"
    assert error.hint == "did you mean 'main'?"


def test_a_module_is_no_package(project: Path) -> None:
    write(project, "shop.py")
    assert "a module and not a package" in fails("shop.main:app").message


def test_no_such_file(project: Path) -> None:
    write(project, "shop.py")
    error = fails("shpo.py:app")
    assert "there is no file" in error.message
    assert error.hint == "did you mean 'shop.py'?"


def test_a_module_that_the_app_imports_is_missing(project: Path) -> None:
    write(project, "shop.py", "import surely_not_there\n")
    error = fails("shop:app")
    assert error.message == (
        "shop:app can't be imported: ModuleNotFoundError: No module named 'surely_not_there'"
    )
    assert "import surely_not_there" in error.traceback
    assert "rrdispatch" not in error.traceback
    assert "importlib" not in error.traceback


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise ValueError('no database')", "ValueError: no database"),
        ("def app(:\n", "SyntaxError: invalid syntax"),
        ("import sys; sys.exit(7)", "it exited with 7"),
        ("from os import nothing_like_it", "ImportError: cannot import name 'nothing_like_it'"),
    ],
)
def test_an_error_inside_the_module(project: Path, text: str, said: str) -> None:
    write(project, "shop.py", text)
    error = fails("shop:app")
    assert error.message.startswith(f"shop:app can't be imported: {said}")
    assert "shop.py" in error.traceback


def test_no_such_attribute(project: Path) -> None:
    write(project, "shop.py", "def application(environ, start_response): ...\n")
    error = fails("shop:aplication")
    assert error.message == "shop:aplication: shop has no attribute 'aplication'"
    assert error.hint == "did you mean 'application'?"
    assert fails("shop:zzz").hint == "it has 'application'"


def test_no_attribute_and_no_usual_one(project: Path) -> None:
    write(project, "shop.py", "def site(environ, start_response): ...\n")
    error = fails("shop")
    assert error.message == (
        "shop names no attribute, and shop has no 'app', 'application' or 'serve'"
    )
    assert error.hint == "it has 'site'"


def test_not_callable(project: Path) -> None:
    write(project, "shop.py", "app = {}\n")
    assert fails("shop:app").message == "shop:app is a dict, which can't be called"


@pytest.mark.parametrize("target", ["", ":app", "shop:"])
def test_no_target(project: Path, target: str) -> None:
    assert "does not name an app" in fails(target).message


def test_factories_that_fail(project: Path) -> None:
    write(project, "shop.py", "def bad():\n    1/0\ndef none():\n    return None\n")
    error = fails("shop:bad", factory=True)
    assert error.message == "the factory shop:bad failed: ZeroDivisionError: division by zero"
    assert "1/0" in error.traceback
    assert "returned a NoneType" in fails("shop:none", factory=True).message


# ---- what it is ---------------------------------------------------------------------------------


class Asgi3:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class Asgi3Class:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...


class Asgi2:
    def __init__(self, scope: Any) -> None: ...


class Wsgi:
    def __call__(self, environ: Any, start_response: Any) -> None: ...


async def asgi_function(scope: Any, receive: Any, send: Any) -> None: ...
async def with_option(scope: Any, receive: Any, send: Any, option: int = 0) -> None: ...
async def serves(listener: Any) -> None: ...
def serves_too(listener: Any, debug: bool = False) -> None: ...
def anything(*arguments: Any) -> None: ...
def nothing() -> None: ...
def four(a: Any, b: Any, c: Any, d: Any) -> None: ...


@pytest.mark.parametrize(
    ("app", "interface"),
    [
        (Asgi3(), Interface.ASGI),
        (Asgi3Class, Interface.ASGI),
        (Asgi2, Interface.ASGI2),
        (asgi_function, Interface.ASGI),
        (with_option, Interface.ASGI),
        (functools.partial(with_option, option=1), Interface.ASGI),
        (Wsgi(), Interface.WSGI),
        (Wsgi().__call__, Interface.WSGI),
        (serves, Interface.SERVE),
        (serves_too, Interface.SERVE),
    ],
)
def test_what_it_is(app: Any, interface: Interface) -> None:
    assert detect(app, "shop:app") is interface


def test_frameworks() -> None:
    from fastapi import FastAPI
    from flask import Flask

    assert detect(FastAPI(), "shop:app") is Interface.ASGI
    assert detect(Flask("shop"), "shop:app") is Interface.WSGI


@pytest.mark.parametrize("app", [anything, nothing, four, dict])
def test_what_can_not_be_seen_must_be_said(app: Any) -> None:
    with pytest.raises(TargetError) as caught:
        detect(app, "shop:app")
    assert "--interface" in (caught.value.hint or "")
    assert detect(app, "shop:app", "wsgi") is Interface.WSGI


def test_what_is_said_is_believed() -> None:
    assert detect(Wsgi(), "shop:app", "serve") is Interface.SERVE
    assert detect(Asgi2, "shop:app", "asgi") is Interface.ASGI2


def test_an_app_is_no_factory(project: Path) -> None:
    """Not the app's own fault, as a factory that raises is."""
    (project / "shop.py").write_text("def app(environ, start_response): ...\n")
    error = fails("shop:app", factory=True)
    assert error.message == "shop:app wants arguments: it is no factory"
    assert "--factory" in (error.hint or "")
    assert error.traceback == ""


# ---- in a worker --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "code", "status"),
    [
        ("web:ap", "target", 3),
        ("nowhere:app", "target", 3),
        ("broken:app", "target", 3),
        ("needs:app", "target", 3),
        ("leaves:app", "target", 3),
        ("main:nothing", "target", 3),
    ],
)
def test_a_worker_says_it_to_its_primary_only(
    start: Start, target: str, code: str, status: int
) -> None:
    primary = start(target)
    error = primary.hear("ERROR").error()
    assert error["code"] == code
    assert target in error["message"]
    assert primary.wait() == status
    assert primary.output() == ("", "")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ssl_certfile": "no.pem"}, "TLS with no.pem does not work: No such file or directory"),
        ({"ssl_certfile": "web.py"}, "TLS with web.py does not work: it holds no PEM certificate"),
        ({"ssl_certfile": CERT}, f"TLS with {CERT} does not work: it holds no PEM key"),
        (
            {"ssl_certfile": CERT, "ssl_keyfile": LOCKED},
            f"TLS with {CERT} and {LOCKED} does not work: the key's password is wrong or missing",
        ),
        (
            {"ssl_certfile": CERT, "ssl_keyfile": LOCKED, "ssl_keyfile_password": "wrong"},
            f"TLS with {CERT} and {LOCKED} does not work: the key's password is wrong or missing",
        ),
        ({"ssl_keyfile": LOCKED}, "TLS needs a certificate"),
        ({"loop": "nothing:here"}, "there is no event loop 'nothing:here'"),
        ({"http": "nothing:here"}, "uvicorn: "),
    ],
)
@pytest.mark.parametrize("app", ["web:app", "web:wsgi"])
def test_settings_that_do_not_work(
    start: Start, settings: dict[str, Any], said: str, app: str
) -> None:
    if app == "web:wsgi" and not any(key.startswith("ssl_") for key in settings):
        app = "web:app"
    primary = start(app, **settings)
    error = primary.hear("ERROR").error()
    assert error["message"].startswith(said)
    assert error["hint"]
    assert primary.wait() == 3
    assert primary.output() == ("", "")


def test_tls_is_not_promised_to_an_app_that_speaks_by_itself(start: Start) -> None:
    """It would be served in the clear."""
    primary = start("plain:lines", ssl_certfile=CERT, ssl_keyfile=str(TLS / "key.pem"))
    error = primary.hear("ERROR").error()
    assert "TLS" in error["message"]
    assert "wrap" in error["hint"]
    assert primary.wait() == 3
    assert primary.output() == ("", "")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_function_that_refuses_to_start(start: Start, tmp_path: Path, kind: str) -> None:
    """Said to the primary as an app's error at import is, with the app's part of the traceback."""
    start_of = {"sync": "def", "async": "async def"}[kind]
    (tmp_path / "refuses.py").write_text(
        f"{start_of} serve(listener):\n    raise RuntimeError('no such queue')\n"
    )
    primary = start("refuses:serve", cwd=tmp_path)
    error = primary.hear("ERROR").error()
    assert error["code"] == "app"
    assert error["message"] == "refuses:serve failed: RuntimeError: no such queue"
    assert "refuses.py" in error["traceback"]
    assert "plain.py" not in error["traceback"]
    assert primary.wait() == 3
    assert primary.output() == ("", "")


@pytest.mark.parametrize("count", ["", "max", "abc"])
def test_the_number_of_workers_is_not_uvicorns_affair(start: Start, count: str) -> None:
    """It reads the variable too, and knows numbers only."""
    start("web:app", environment={"WEB_CONCURRENCY": count}).ready()


@pytest.mark.parametrize(
    ("target", "package", "extra"),
    [("web:app", "uvicorn", "asgi"), ("web:wsgi", "waitress", "wsgi")],
)
def test_a_missing_extra(
    start: Start, tmp_path: Path, target: str, package: str, extra: str
) -> None:
    """A module of that name that can't be found: as if it were not installed."""
    hook = (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    (tmp_path / "sitecustomize.py").write_text(hook)
    primary = start(target, environment={"PYTHONPATH": str(tmp_path)})
    error = primary.hear("ERROR").error()
    assert error["code"] == "extra"
    assert error["hint"] == f'{sys.executable} -m pip install "rrdispatch[{extra}]"'
    assert package in error["message"]
    assert primary.wait() == 4
    assert primary.output() == ("", "")
