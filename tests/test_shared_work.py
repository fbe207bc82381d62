"""Large operations in pieces on several threads: elementwise rows, sums and scans of rows, matrix products."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest

import jitgrad as jg
from children import in_child, needs_fork
from jitgrad.core.primitive import OPS, Kind
from jitgrad.core.record import tensor
from jitgrad.execute.cpu import blas, layout, library
from jitgrad.execute.cpu import threads as team
from jitgrad.execute.cpu.types import NATIVE, peek
from table import ENTRIES, call, cases, drawn, form_of, ident
from tolerance import assert_same_bits

pytestmark = pytest.mark.usefixtures("threads_as_before")


def by_threads(made, arrays):
    """The result of a form by 1, 2 and 3 threads, over different garbage; and whether it is in pieces."""
    address, words = library.kernel_of(made)
    results = []
    for threads in (1, 2, 3):
        jg.set_num_threads(threads)
        results.append(np.full(made.outs[0].shape, 5 + threads).astype(made.outs[0].dtype))
        call(address, words, results[-1], *arrays)
    return results, address == NATIVE["divide"]


SHAPES = {"line": lambda k: [(70_001,)] * k,
          "rows": lambda k: [(67, 1999), (1999,), (67, 1)][:k],
          "few long rows": lambda k: [(3, 50_001), (1, 50_001), (3, 1)][:k],
          "inner rows": lambda k: [(40, 3, 700), (40, 1, 700), (3, 1)][:k]}


@pytest.mark.parametrize("prim, dtype", cases(ENTRIES, (Kind.ELEMENTWISE,)), ids=ident)
def test_elementwise_bits_are_the_same_for_any_number(prim, dtype, rng):
    """A piece is what the whole would have made there: compared with the kernel itself too, on one row and on all."""
    for kind, shapes in SHAPES.items():
        if kind != "line" and len(prim.domains) == 1:
            continue
        arrays, params = drawn(prim, dtype, rng, shapes(len(prim.domains)))
        made = form_of(prim, arrays, params)
        results, divided = by_threads(made, arrays)
        assert divided
        whole = np.zeros_like(results[0])
        inner = library._elementwise_kernel(prim, tuple(a.dtype for a in made.avals), tuple(params.items()))
        full = [np.ascontiguousarray(np.broadcast_to(a, whole.shape)) for a in arrays]
        call(inner, [whole.size] + [1] * len(arrays), whole, *full)
        for result in results:
            assert_same_bits(result, whole)


@pytest.mark.parametrize("prim, dtype", cases(ENTRIES, (Kind.REDUCE, Kind.SCAN)), ids=ident)
def test_sums_of_rows_have_the_same_bits_for_any_number(prim, dtype, rng):
    for shape, axis, there in (((1999, 67), 1, True), ((5, 40_001), 1, True), ((301, 9, 40), 1, True),
                               ((4, 9, 40), 1, False), ((70_000,), 0, False)):
        arrays, _ = drawn(prim, dtype, rng, [shape] * len(prim.domains))
        params = {"axes": (axis,)} if prim.kind is Kind.REDUCE else {"axis": axis, "exclusive": True, "reverse": True}
        results, divided = by_threads(form_of(prim, arrays, params), arrays)
        assert divided == there
        rows = results[0]
        if len(shape) > 1 and prim.kind is Kind.REDUCE:
            rows = np.stack([OPS[prim.name](*(tensor(a[i]) for a in arrays), axes=(axis - 1,)).numpy()
                             for i in range(shape[0])])
        for result in results:
            assert_same_bits(result, rows)


def threads_of_blas():
    return blas.described()[2]


PRODUCTS = ((1, 300, 500, 40), (1, 64, 2000, 64), (3, 200, 130, 170), (70, 40, 41, 42), (1, 3000, 10, 300),
            (1, 100, 127, 400), (1, 129, 128, 300), (1, 700, 700, 700), (2, 90, 40, 60))


@pytest.mark.skipif(not blas.functions(), reason="no BLAS here")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", PRODUCTS, ids=str)
def test_products_by_any_number(sizes, dtype, rng):
    """One thread gives the bits of two; BLAS has the threads that it had."""
    batch, m, n, k = sizes
    before = threads_of_blas()
    for ta, tb in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = rng.normal(size=(batch, m, k)).astype(dtype), rng.normal(size=(batch, k, n)).astype(dtype)
        want = x.astype(np.float64) @ y.astype(np.float64)
        given = [np.ascontiguousarray(a.swapaxes(1, 2) if turned else a) for a, turned in ((x, ta), (y, tb))]
        words = [blas.functions()["s" if dtype == "float32" else "d"], x.itemsize, batch, m, n, k, ta, tb, 0]
        results = []
        for threads in (1, 2, 3, 9):
            jg.set_num_threads(threads)
            results.append(np.full((batch, m, n), np.nan, dtype))
            call(NATIVE["gemm"], words, results[-1], *given)
            np.testing.assert_allclose(results[-1], want, rtol=0, atol=np.finfo(dtype).eps * 8 * k)
        assert_same_bits(results[0], results[1])
    assert threads_of_blas() == before


@pytest.mark.skipif(not blas.functions(), reason="no BLAS here")
def test_products_in_many_python_threads(rng):
    """Of several sizes at once: BLAS gets its threads back when the last has gone."""
    before, wrong = threads_of_blas(), []
    pairs = [(rng.normal(size=(n, n)), rng.normal(size=(n, n))) for n in (70, 130, 200, 260)]
    jg.set_num_threads(2)
    want = [(jg.asarray(x) @ jg.asarray(y)).numpy() for x, y in pairs]

    def caller(k):
        for i in range(20):
            x, y = pairs[(i + k) % 4]
            if ((jg.asarray(x) @ jg.asarray(y)).numpy() != want[(i + k) % 4]).any():
                wrong.append(i)
    callers = [threading.Thread(target=caller, args=(k,)) for k in range(8)]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    assert not wrong
    assert threads_of_blas() == before


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_of_a_product_has_the_threads_of_blas_back():
    """A fork while a product runs, in whose process nobody ends it."""
    if not peek(team._team + layout.TEAM_BLAS_SET):
        pytest.skip("no OpenBLAS here")
    users, before = (ctypes.c_int64.from_address(team._team + at)
                     for at in (layout.TEAM_BLAS_USERS, layout.TEAM_BLAS_BEFORE))
    set_ = ctypes.CFUNCTYPE(None, ctypes.c_int)(peek(team._team + layout.TEAM_BLAS_SET))
    had = threads_of_blas()
    try:
        users.value, before.value = 1, 2
        set_(1)
        assert in_child(lambda: bytes([threads_of_blas(), users.value])) == bytes([2, 0])
    finally:
        users.value = 0
        set_(had)


def test_large_operations_in_many_python_threads():
    """Tensors and gradients by eight threads at once, while another changes the number and one lets go of them."""
    x = jg.asarray(np.linspace(-3, 3, 200_000).reshape(400, 500))

    def answer():
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = jg.sum(jg.exp(-x * x) * jg.tanh(x + x[0]), axis=1)
        return y.numpy().tobytes(), tape.gradient(y, x).numpy().tobytes()
    jg.set_num_threads(1)
    want, wrong, stop = answer(), [], threading.Event()

    def changer():
        while not stop.is_set():
            for n in (1, 3, 2):
                jg.set_num_threads(n)
    callers = [threading.Thread(target=lambda: wrong.extend(1 for _ in range(5) if answer() != want)) for _ in range(8)]
    other = threading.Thread(target=changer)
    for t in (*callers, other):
        t.start()
    for t in callers:
        t.join()
    stop.set()
    other.join()
    assert not wrong
