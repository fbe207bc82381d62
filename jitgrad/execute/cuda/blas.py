"""Matrix products by cuBLAS, which is called through ctypes so that a stream may be recording while it is.

Arrays of rows are to it transposed arrays of columns, so it makes the transposed product of the operands in the other
order: of x (m, k) and y (k, n) the product as columns is y's columns times x's.
"""

from __future__ import annotations

import ctypes as C
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jitgrad import config
from jitgrad.core.errors import user_error
from jitgrad.core.form import Form
from jitgrad.core.primitive import Kind
from jitgrad.execute.cuda import toolkit

WORKSPACE = 32 << 20           # bytes, as NVIDIA recommends for Hopper; cuBLAS's own could not be had while recording
_HOST, _N, _T = 0, 0, 1
_MATH = {False: 0, True: 3}    # CUBLAS_DEFAULT_MATH, CUBLAS_TF32_TENSOR_OP_MATH
_REAL = {4: (C.c_float, "S"), 8: (C.c_double, "D")}


class Gemm(NamedTuple):
    """A product of ``batch`` pairs of matrices; its slots are the result, x and y. With ``add`` the result's slot
    holds what the product is added to."""

    width: int                 # bytes of an element
    batch: int
    m: int
    n: int
    k: int
    x_turned: int              # whether x is (k, m) and y (n, k)
    y_turned: int
    slots: tuple[int, ...] = (0, 1, 2)
    add: bool = False

    def arguments(self) -> list[int]:
        """What stands between the handle and the first scalar: how y and x are turned, n, m, k."""
        return [(_N, _T)[self.y_turned], (_N, _T)[self.x_turned], self.n, self.m, self.k]

    def operands(self, x: int, y: int) -> list[int]:
        """Address, leading dimension and stride of y, then of x."""
        return [y, self.k if self.y_turned else self.n, self.k * self.n,
                x, self.m if self.x_turned else self.k, self.m * self.k]


def gemm(f: Form) -> Gemm | None:
    """The product of a form, or None where cuBLAS has no such product, of integers or of nothing, or is not here."""
    if not available() or f.prim.kind is not Kind.CONTRACT or f.outs[0].dtype.kind != "f":
        return None
    if not all(a.size for a in (*f.avals, *f.outs)):
        return None
    assert f.prim.words is not None
    return Gemm(f.outs[0].dtype.itemsize, *f.prim.words(*f.avals, **f.params))


@functools.cache
def available() -> bool:
    """Whether cuBLAS can be loaded; the kernel of the table takes its place where not."""
    return not toolkit.simulated() and _library() is not None


@functools.cache
def _library() -> C.CDLL | None:
    path = toolkit.library_path("cublas")
    return C.CDLL(path) if path else None


class Handle:
    """cuBLAS on one stream, with its own workspace."""

    def __init__(self, stream: int, workspace: int) -> None:
        library = _library()
        assert library is not None
        self._library, self._handle = library, C.c_void_p()
        self._call("cublasCreate_v2", C.byref(self._handle))
        self.use(stream, workspace)
        self._call("cublasSetPointerMode_v2", self._handle, C.c_int(_HOST))
        self._call("cublasSetMathMode", self._handle, C.c_int(_MATH[config.tf32()]))

    def use(self, stream: int, workspace: int) -> None:
        """Work on another stream from now on: one that records, say. It forgets the workspace, so that comes after."""
        self._call("cublasSetStream_v2", self._handle, C.c_void_p(stream))
        self._call("cublasSetWorkspace_v2", self._handle, C.c_void_p(workspace), C.c_size_t(WORKSPACE))

    def run(self, product: Gemm, pointers: Sequence[int]) -> None:
        """Start a product of device memory: addresses of the result, of x and of y."""
        real, letter = _REAL[product.width]
        out, x, y = pointers
        one, onto = real(1), real(1 if product.add else 0)
        turned_y, turned_x, *sizes = product.arguments()
        y_at, y_lead, y_stride, x_at, x_lead, x_stride = product.operands(x, y)
        wide = C.c_int64
        self._call(f"cublas{letter}gemmStridedBatched_64", self._handle, C.c_int(turned_y), C.c_int(turned_x),
                   *map(wide, sizes), C.byref(one), C.c_void_p(y_at), wide(y_lead), wide(y_stride), C.c_void_p(x_at),
                   wide(x_lead), wide(x_stride), C.byref(onto), C.c_void_p(out), wide(product.n),
                   wide(product.m * product.n), wide(product.batch))

    def _call(self, name: str, *given: Any) -> None:
        function: Callable[..., int] = getattr(self._library, name)
        status = function(*given)
        if status:
            raise user_error(RuntimeError, f"cuBLAS: {name} failed with status {status}")
