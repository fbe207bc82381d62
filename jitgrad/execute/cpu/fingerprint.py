"""What cached machine code depends on: digests of the sources that generate it."""

from __future__ import annotations

import functools
import marshal
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

from jitgrad import config
from jitgrad.execute.cpu import cache, layout, llvm

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
    return cache.digest(_digest("execute/cpu/native", "execute/cpu/layout.py"), f"{layout.GUARD_FAILED} {layout.ENTRY}",
                        str(config.numba_kernels()))


@functools.cache
def kernels() -> str:
    """Of everything that kernels are generated from."""
    return cache.digest(natives(), _digest("ops/scalar.py", "ops/maths", "execute/cpu", "execute/source.py"))


_COVERED = ("jitgrad.ops.scalar", "jitgrad.ops.maths")     # by `kernels`, with the modules inside


def meaning(value: Any) -> bytes:
    """A digest of what a kernel's body computes: its code, what it closes over, and the same of what it names."""
    return cache.digest(*_parts(value, set())).encode()


def _parts(value: Any, met: set[int]) -> Iterator[bytes]:
    if isinstance(value, functools.partial):
        value = (value.func, value.args, tuple(sorted(value.keywords.items())))
    if isinstance(value, tuple | list):
        for v in value:
            yield from _parts(v, met)
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield value.tobytes()
    elif not isinstance(value, types.FunctionType):
        yield (value.__name__ if isinstance(value, types.ModuleType) else repr(value)).encode()
    elif value.__module__.startswith(_COVERED):
        yield value.__qualname__.encode()
    elif id(value) not in met:
        met.add(id(value))
        yield marshal.dumps(value.__code__)
        for cell in (*(c.cell_contents for c in value.__closure__ or ()), value.__defaults__ or (),
                     tuple((value.__kwdefaults__ or {}).values())):
            yield from _parts(cell, met)
        names = [n for code in _codes(value.__code__) for n in code.co_names]
        spaces = [value.__globals__]
        for name in names:
            found = next((space[name] for space in spaces if name in space), None)
            if isinstance(found, types.ModuleType) and not found.__name__.startswith(_COVERED):
                spaces.append(vars(found))          # what follows may be an attribute of it
            elif isinstance(found, types.FunctionType | int | float | str | tuple | np.generic | np.ndarray):
                yield from _parts(found, met)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
