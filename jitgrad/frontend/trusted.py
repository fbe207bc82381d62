"""Whose code is not watched while a function is recorded: it is taken never to change."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from types import FrameType, ModuleType
from typing import Any

from jitgrad.core.errors import PACKAGE

# the language, and what jitgrad stands on
TRUSTED = frozenset(sys.stdlib_module_names) - {"__main__"} | {
    "jitgrad", "numpy", "scipy", "numba", "llvmlite", "optree", "numba_cuda", "cuda"}
_LIBRARY = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})
_INSTALLED = tuple({folder + os.sep for folder in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"),
                                                   *site.getsitepackages(), site.getusersitepackages())})
_of_files: dict[str, bool] = {}


def user_file(name: str) -> bool:
    """Whether code of a file is watched: not this package's, the standard library's or what jitgrad stands on."""
    found = _of_files.get(name)
    if found is None:
        inside = next((name[len(p):] for p in _INSTALLED if name.startswith(p)), None)
        if inside is not None:
            found = inside.partition("/")[0] not in TRUSTED
        else:
            found = not name.startswith((PACKAGE, "<frozen ", *_LIBRARY))
        _of_files[name] = found
    return found


def generated(frame: FrameType) -> bool:
    """Whether code without a file was made by a library: methods of a dataclass of ours, or of a named tuple."""
    home = frame.f_globals.get("__name__", "")
    return isinstance(home, str) and home.startswith(("namedtuple_", "jitgrad."))


def trusted(thing: Any) -> bool:
    """Whether a module, or the module that defined a class or function, is taken never to change.

    A user's own module may go by the name of one of the standard library, so its file decides.
    """
    name = getattr(thing, "__name__" if issubclass(type(thing), ModuleType) else "__module__", None)
    root = name.partition(".")[0] if isinstance(name, str) else ""
    return root in TRUSTED and not user_file(getattr(sys.modules.get(root), "__file__", None) or PACKAGE)
