"""What cached machine code depends on: digests of the sources that generate it."""

from __future__ import annotations

import functools
import os
import sys

from jitgrad.execute.cpu import cache, llvm

_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(os.path.dirname(_HERE))


def _digest(*places: str) -> str:
    parts: list[str | bytes] = [llvm.host(), sys.implementation.cache_tag or ""]
    for place in places:
        path = os.path.join(_ROOT, place)
        names = sorted(os.listdir(path)) if os.path.isdir(path) else [""]
        for name in names:
            if name.endswith(".py") or not name:
                with open(os.path.join(path, name) if name else path, "rb") as file:
                    parts.append(file.read())
    return cache.digest(*parts)


@functools.cache
def natives() -> str:
    """Of the code written in native/, and of what wraps other functions in the same way."""
    return _digest("execute/cpu/native", "execute/cpu/layout.py")


@functools.cache
def kernels() -> str:
    """Of everything that kernels are generated from."""
    return cache.digest(natives(), _digest("ops/scalar.py", "ops/maths.py", "ops/trig.py", "execute/cpu/lanes.py",
                                           "execute/cpu/codegen.py"))
