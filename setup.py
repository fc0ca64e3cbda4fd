"""Builds what pyproject.toml cannot say: the extension module, the executable, the shim.

Which sources make which is in ``csrc/sources.txt``. Without a C compiler, or without cffi,
the build goes on: the package then runs on its pure-Python twin of the core.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError

ROOT = Path(__file__).parent.resolve()
PROGRAM = "rr-dispatcher"
SHIM = "rr-shim.so"
FAILURES = (CompileError, LinkError, PlatformError, OSError)


def load_builder() -> ModuleType | None:
    """build.py without its package, whose import would look for the extension."""
    spec = importlib.util.spec_from_file_location("rr_build", ROOT / "rrdispatch/_core/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        print(f"warning: {error}: building without the C core", file=sys.stderr)
        return None
    return module


BUILDER = load_builder()


class BuildCore(build_ext):
    """Extension, executable, shim; a failure of the first two leaves the pure core."""

    def run(self) -> None:
        try:
            super().run()
            self.build_program()
            self.build_shim()
        except FAILURES as error:
            self.warn(f"the C core was not built: {error}")
            self.warn("rrdispatch will run its pure-Python core")

    def get_outputs(self) -> list[str]:
        """What an installation may list: only what is really there."""
        outputs: list[str] = super().get_outputs()
        ours = [str(self.target_path(name)) for name in (PROGRAM, SHIM)]
        return [path for path in [*outputs, *ours] if Path(path).exists()]

    def target_path(self, name: str) -> Path:
        """Beside the extension module, in the build directory or in the source tree."""
        base = ROOT if self.inplace else Path(self.build_lib)
        return base / "rrdispatch" / "_core" / name

    def build_program(self) -> None:
        if BUILDER is None:
            return
        objects = self.compiler.compile(
            BUILDER.sources("core", BUILDER.system_group(), "program"),
            output_dir=str(Path(self.build_temp) / "program"),
            macros=[("_GNU_SOURCE", "1")],
            include_dirs=["csrc"],
            extra_postargs=["-std=gnu11", "-O2", "-fvisibility=hidden"],
        )
        target = self.target_path(PROGRAM)
        target.parent.mkdir(parents=True, exist_ok=True)
        # A dispatcher that runs keeps its file busy: replace it, never write into it. Of LDFLAGS
        # setuptools thinks for shared objects only.
        self.compiler.link_executable(
            objects,
            PROGRAM + ".new",
            output_dir=str(target.parent),
            extra_postargs=["-pie", *shlex.split(os.environ.get("LDFLAGS", ""))],
        )
        target.with_name(PROGRAM + ".new").replace(target)

    def build_shim(self) -> None:
        """What is preloaded into unmodified programs; needs no Python."""
        if BUILDER is None or BUILDER.system_group() != "linux":
            return
        objects = self.compiler.compile(
            BUILDER.sources("shim"),
            output_dir=str(Path(self.build_temp) / "shim"),
            macros=[("_GNU_SOURCE", "1")],
            include_dirs=["csrc"],
            extra_postargs=["-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden"],
        )
        target = self.target_path(SHIM)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Programs that run have it mapped: replace it, never write into it.
        new = target.with_name(SHIM + ".new")
        self.compiler.link_shared_object(
            objects, str(new), libraries=["dl"], extra_postargs=["-Wl,-z,now", "-Wl,-z,defs"]
        )
        new.replace(target)


options: dict[str, Any] = {"cmdclass": {"build_ext": BuildCore}}
if BUILDER is not None:
    options["cffi_modules"] = ["rrdispatch/_core/build.py:ffi"]
    options["options"] = {"bdist_wheel": {"py_limited_api": "cp310"}}

setup(**options)
