"""What cuBLAS is asked for, answered by a stand-in that does as its documentation says: columns, strides, turns."""

from __future__ import annotations

import ctypes as C
import itertools

import numpy as np
import pytest

from jitgrad.core.primitive import BY_NAME
from jitgrad.execute.cuda import blas
from table import form_of


def as_array(address, count, real):
    return np.ctypeslib.as_array(C.cast(address, C.POINTER(real)), (max(count, 1),))


class StandIn:
    """cuBLAS's calls that are used, on the host's memory."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*given):
            self.calls.append((name, given))
            return 0
        return call

    def product(self, real, handle, turn_a, turn_b, m, n, k, alpha, a, lda, stride_a, b, ldb, stride_b, beta, c, ldc, stride_c, batch):
        m, n, k, lda, ldb, ldc, batch = (v.value for v in (m, n, k, lda, ldb, ldc, batch))
        assert lda >= max(1, k if turn_a.value else m)
        assert ldb >= max(1, n if turn_b.value else k)
        for i in range(batch):
            def columns(pointer, stride, lead, rows, cols, i=i):
                flat = as_array(pointer.value, i * stride.value + lead * cols, real)[i * stride.value:]
                return flat[: lead * cols].reshape(cols, lead).T[:rows]
            x = columns(a, stride_a, lda, *((k, m) if turn_a.value else (m, k)))
            y = columns(b, stride_b, ldb, *((n, k) if turn_b.value else (k, n)))
            out = columns(c, stride_c, ldc, m, n)
            out[:] = alpha._obj.value * ((x.T if turn_a.value else x) @ (y.T if turn_b.value else y)) + (
                beta._obj.value * out if beta._obj.value else 0)
        return 0

    def cublasSgemmStridedBatched_64(self, *given):
        return self.product(C.c_float, *given)

    def cublasDgemmStridedBatched_64(self, *given):
        return self.product(C.c_double, *given)


@pytest.fixture
def handle(monkeypatch):
    library = StandIn()
    monkeypatch.setattr(blas, "_library", lambda: library)
    monkeypatch.setattr(blas, "available", lambda: True)
    return blas.Handle(11, 22)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("add", [False, True])
def test_products_of_rows_by_columns(handle, rng, dtype, add):
    prim = BY_NAME["matmul"]
    for batch, turned_x, turned_y in itertools.product((1, 3), (False, True), (False, True)):
        m, n, k = 4, 5, 3
        x = rng.normal(size=(batch, k, m) if turned_x else (batch, m, k)).astype(dtype)
        y = rng.normal(size=(batch, n, k) if turned_y else (batch, k, n)).astype(dtype)
        product = blas.Gemm(x.itemsize, batch, m, n, k, int(turned_x), int(turned_y), add=add)
        out = np.ones((batch, m, n), dtype)
        handle.run(product, [a.ctypes.data for a in (out, x, y)])
        want = np.matmul(x.swapaxes(1, 2) if turned_x else x, y.swapaxes(1, 2) if turned_y else y) + add
        np.testing.assert_allclose(out, want, rtol=1e-5)
    arrays, params = prim.samples(rng)[0]
    made = blas.gemm(form_of(prim, [a.astype(dtype) for a in arrays], params))
    assert made is not None
    out = np.empty(prim.ref(*arrays, **params).shape, dtype)
    given = [np.ascontiguousarray(a.astype(dtype)) for a in arrays]
    handle.run(made, [a.ctypes.data for a in (out, *given)])
    np.testing.assert_allclose(out, prim.ref(*given, **params), rtol=1e-5)


def test_a_handle_has_its_stream_workspace_and_mode(handle, monkeypatch):
    names = [name for name, _ in handle._library.calls]
    assert names.index("cublasSetWorkspace_v2") > names.index("cublasSetStream_v2")       # which forgets it
    modes = [given[1].value for name, given in handle._library.calls if name == "cublasSetMathMode"]
    monkeypatch.setenv("JITGRAD_TF32", "1")
    blas.Handle(11, 22)
    assert [*modes, *(given[1].value for name, given in handle._library.calls if name == "cublasSetMathMode")] == [0, 0, 3]


def test_what_cublas_has_no_product_for(handle):
    matmul = BY_NAME["matmul"]
    params = matmul.samples(np.random.default_rng(0))[0][1]
    for dtype, k in ((np.int32, 3), (np.float32, 0)):
        assert blas.gemm(form_of(matmul, [np.ones((2, k), dtype), np.ones((k, 2), dtype)], params)) is None


def test_a_failure_is_a_sentence(handle, monkeypatch):
    monkeypatch.setattr(StandIn, "cublasSgemmStridedBatched_64", lambda *given: 13)
    with pytest.raises(RuntimeError, match="status 13"):
        handle.run(blas.Gemm(4, 1, 1, 1, 1, 0, 0), [0, 0, 0])
