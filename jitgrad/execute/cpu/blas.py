"""Matrix products by the BLAS that NumPy brought along."""

from __future__ import annotations

import ctypes
import glob
import os
from functools import cache
from typing import Any

import numpy as np

from jitgrad.core.form import Form
from jitgrad.execute.cpu import threads
from jitgrad.execute.cpu.native.blas import ADDED, DIVIDED, FOLLOWED
from jitgrad.execute.cpu.types import NATIVE


@cache
def functions() -> dict[str, int]:
    """Addresses of 64-bit-integer cblas sgemm and dgemm in NumPy's own OpenBLAS, checked by a small product."""
    return _found()[1]


@cache
def _found() -> tuple[str, dict[str, int]]:
    """The library's path and the addresses in it, or '' and none."""
    folder = os.path.join(os.path.dirname(np.__file__), os.pardir, "numpy.libs")
    for path in glob.glob(os.path.join(folder, "*openblas*")):
        library = ctypes.CDLL(path)
        found = {}
        for real in "sd":
            for symbol in (f"scipy_cblas_{real}gemm64_", f"cblas_{real}gemm64_"):
                if hasattr(library, symbol):
                    found[real] = ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value or 0
        if set(found) == {"s", "d"} and _works(found):
            threads.limited_by(*(_address(library, f"openblas_{name}_num_threads64_") for name in ("get", "set")))
            return os.path.abspath(path), found
    return "", {}


def _address(library: ctypes.CDLL, symbol: str) -> int:
    """Of one of OpenBLAS's own functions, or 0."""
    name = next((name for name in (f"scipy_{symbol}", symbol) if hasattr(library, name)), "")
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 if name else 0


def described() -> tuple[str, str, int] | None:
    """The library behind matrix products: path, how it was built and its threads ('' and 0 if it does not say)."""
    path, _ = _found()
    if not path:
        return None
    library = ctypes.CDLL(path)
    built, threads = (_said(library, f"openblas_{name}64_", kind)
                      for name, kind in (("get_config", ctypes.c_char_p), ("get_num_threads", ctypes.c_int)))
    return path, (built or b"").decode(errors="replace").strip(), threads or 0


def _said(library: ctypes.CDLL, symbol: str, kind: Any) -> Any:
    """What one of OpenBLAS's own functions without arguments answers, or None."""
    address = _address(library, symbol)
    return ctypes.CFUNCTYPE(kind)(address)() if address else None


def _works(found: dict[str, int]) -> bool:
    """[[1, 2]] @ [[3], [4]] is 11, in both precisions."""
    for real, dtype in (("s", np.float32), ("d", np.float64)):
        x, y, out = np.array([1, 2], dtype), np.array([3, 4], dtype), np.zeros(1, dtype)
        params = np.array([found[real], out.itemsize, 1, 1, 1, 2, 0, 0, 0], np.int64)
        slots = np.array([a.ctypes.data for a in (out, x, y)], np.int64)
        ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(NATIVE["gemm"])(
            params.ctypes.data, slots.ctypes.data)
        if out[0] != 11:
            return False
    return True


def gemm(f: Form, add: bool = False, followed: bool = False) -> tuple[int, list[int]] | None:
    """Kernel and params of a matrix product, or None where BLAS has no such product. With ``add`` the kernel adds to
    what is in the memory of the result; with ``followed`` it has two more slots (see native/blas.py)."""
    real = {"float32": "s", "float64": "d"}.get(f.outs[0].dtype.name)
    if real not in functions():
        return None
    assert f.prim.words is not None
    return NATIVE["gemm"], [functions()[real], f.outs[0].dtype.itemsize, *f.prim.words(*f.avals, **f.params),
                             ADDED * add | FOLLOWED * followed]


def divided(f: Form) -> tuple[int, int] | None:
    """Rows and columns of the one product of a form that is made in blocks, if it is such."""
    assert f.prim.words is not None
    batch, m, n, k, *_ = f.prim.words(*f.avals, **f.params)
    return (m, n) if batch == 1 and m * n * k >= DIVIDED else None
