"""Functions that Numba compiles as operations: values, derivatives, replays without Python, bad input."""

from __future__ import annotations

import sys
import threading

import numba
import numpy as np
import pytest

import jitgrad as jg
from jitgrad.execute import oracle
from jitgrad.execute.cpu import compiling
from jitgrad.frontend.traces import simplified
from jitgrad.testing import check_grads
from tolerance import assert_same_bits


@numba.njit
def _cube(x, out):
    for i in range(len(x)):
        out[i] = x[i] ** 3


@numba.njit
def _cube_slope(dy, x, out):
    for i in range(len(x)):
        out[i] = 3 * dy[i] * x[i] * x[i]


cube_slope = jg.numba_op(_cube_slope, vjp=lambda dy, y, g, x: (3 * dy * x * x, 6 * dy * g * x),
                         jvp=lambda ts, y, g, x: cube_slope(ts[0], x) + 6 * g * x * ts[1])
cube = jg.numba_op(_cube, vjp=lambda dy, y, x: cube_slope(dy, x))
plain = jg.numba_op(_cube, vjp=lambda dy, y, x: 3 * dy * x * x)


@numba.njit
def _solve(a, b, c, d, x):
    """Thomas' algorithm: what arrays alone do not do well."""
    n = len(d)
    w, g = np.empty(n), np.empty(n)
    w[0], g[0] = c[0] / b[0], d[0] / b[0]
    for i in range(1, n):
        m = b[i] - a[i] * w[i - 1]
        w[i] = c[i] / m
        g[i] = (d[i] - a[i] * g[i - 1]) / m
    x[n - 1] = g[n - 1]
    for i in range(n - 2, -1, -1):
        x[i] = g[i] - w[i] * x[i + 1]


def _solve_vjp(dy, x, a, b, c, d):
    zero = jg.zeros((1,), dtype=x.dtype)
    u = tridiagonal(jg.concat([zero, c[:-1]]), b, jg.concat([a[1:], zero]), dy)       # of the transpose
    below, above = jg.concat([zero, x[:-1]]), jg.concat([x[1:], zero])
    return -u * below, -u * x, -u * above, u


tridiagonal = jg.numba_op(_solve, vjp=_solve_vjp, shape=lambda a, b, c, d: d)


@numba.njit
def _polar(x, y, scale, r, n):
    r[:] = scale * np.sqrt(x * x + y * y)
    n[()] = len(x)


polar = jg.numba_op(
    _polar, shape=lambda x, y, s: [x, ()], dtype=[None, "int64"],
    vjp=lambda dy, y, x, z, s: (dy[0] * x * s * s / y[0], dy[0] * z * s * s / y[0], jg.sum(dy[0] * y[0]) / s))


@pytest.fixture
def system(rng):
    n = 7
    return tuple(rng.normal(size=n) * 0.3 + shift for shift in (0, 3, 0, 0))


# ---- values and derivatives ----

def test_values_eager_recorded_and_by_the_oracle(system):
    a, b, c, d = system
    f = jg.function(lambda a, b, c, d: jg.sum(jg.sin(tridiagonal(a, b, c, d))))
    matrix = np.diag(b) + np.diag(a[1:], -1) + np.diag(c[:-1], 1)
    assert np.allclose(tridiagonal(a, b, c, d).numpy(), np.linalg.solve(matrix, d))
    eager = jg.sum(jg.sin(tridiagonal(a, b, c, d))).numpy()
    for _ in range(6):
        assert_same_bits(f(a, b, c, d).numpy(), eager)
    (ours,) = oracle.run(f.program(a, b, c, d), system)
    assert np.allclose(ours, eager, rtol=1e-14)
    assert apply(f.njit(a, b, c, d), a, b, c, d) == eager


@numba.njit(nogil=True)
def apply(f, a, b, c, d):
    return f(a, b, c, d)


@pytest.mark.parametrize("op", [cube, plain])
def test_derivatives_of_three_orders_in_both_modes(op):
    check_grads(op, (np.array([0.5, -1.0, 2.0]),), order=3)
    check_grads(jg.function(op), (np.array([0.5, -1.0, 2.0]),), order=2)


def test_derivatives_that_call_the_operation_again(system):
    check_grads(tridiagonal, system, order=1, modes=("rev",))
    check_grads(tridiagonal, system, order=2, modes=("rev",))


def test_a_wrong_derivative_is_found():
    wrong = jg.numba_op(_cube, vjp=lambda dy, y, x: 2 * dy * x * x)
    for mode, said in (("fwd", "by jvp but"), ("rev", "by the tape but")):
        with pytest.raises(AssertionError, match=said):
            check_grads(wrong, (np.array([0.5, 1.0]),), order=1, modes=(mode,))
    tangent = jg.numba_op(_cube, vjp=lambda dy, y, x: 3 * dy * x * x, jvp=lambda ts, y, x: ts[0] * x * x)
    check_grads(tangent, (np.array([0.5, 1.0]),), order=1, modes=("rev",))
    with pytest.raises(AssertionError, match="by jvp but"):
        check_grads(tangent, (np.array([0.5, 1.0]),), order=1, modes=("fwd",))


def test_several_results_of_several_dtypes():
    x, y = np.array([3.0, 5.0]), np.array([4.0, 12.0])
    r, n = polar(x, y, np.float64(2))
    assert r.numpy().tolist() == [10, 26] and n.numpy() == 2 and n.dtype == np.int64
    check_grads(lambda *args: polar(*args)[0], (x, y, np.float64(2)), order=2, modes=("rev",))
    check_grads(lambda *args: polar(*args)[0], (x, y, np.float64(2)), order=1)
    r, n = jg.function(polar)(x, y, np.float64(2))
    assert r.numpy().tolist() == [10, 26] and n.numpy() == 2


@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.int64, np.float32, np.float64])
def test_every_dtype_as_array_and_as_number(dtype):
    @numba.njit
    def copy(x, s, a, b):
        a[:] = x
        b[()] = s

    op = jg.numba_op(copy, shape=lambda x, s: [x, s], dtype=dtype)
    x = np.array([[1, 0], [1, 1]], dtype)
    for f in (op, jg.function(op)):
        a, b = f(x, dtype(1))
        assert_same_bits(a.numpy(), x)
        assert_same_bits(b.numpy(), np.asarray(dtype(1)))


def test_variables_numbers_and_no_operands():
    v = jg.Variable([1.0, 2.0])
    with jg.GradientTape() as tape:
        y = jg.sum(cube(v))
    assert tape.gradient(y, v).numpy().tolist() == [3, 12]

    @numba.njit
    def three(out):
        out[:] = 3

    assert jg.numba_op(three, shape=(2,))().numpy().tolist() == [3, 3]
    assert jg.numba_op(three, shape=(0,))().shape == (0,)


def test_loops_branches_and_batches():
    def f(x):
        y, ys = jg.scan(lambda c, r: (cube(c) * 0.5 + r, jg.sum(c)), jg.zeros_like(x[0]), x)
        z = jg.while_loop(lambda v: jg.sum(v) < 5.0, lambda v: cube(v) + 1.0, y)
        return jg.sum(jg.cond(jg.sum(z) > 0, cube, lambda v: v, z)) + jg.sum(ys)

    x = np.full((4, 3), 0.4)
    eager = f(jg.constant(x)).numpy()
    made = jg.function(f)
    for _ in range(6):
        assert_same_bits(made(x).numpy(), eager)
    check_grads(lambda x: jg.scan(lambda c, r: (cube(c) * 0.5 + r, c), jg.zeros_like(x[0]), x)[0], (x,), order=1)
    assert_same_bits(jg.vmap(cube)(x).numpy(), np.stack([cube(row).numpy() for row in x]))
    assert np.allclose(jg.jacobian(cube)(x[0]).numpy(), np.diag(3 * x[0] ** 2))
    check_grads(lambda x: jg.vmap(cube)(x), (x,), order=1)


# ---- replays ----

def test_replays_call_no_python():
    f = jg.function(jg.value_and_grad(lambda x: jg.sum(cube(x) * x)))
    x = jg.constant(np.arange(4.0))
    for _ in range(40):
        f(x)
    compiling.wait()
    called = []
    sys.setprofile(lambda frame, event, arg: called.append((event, frame.f_code.co_name)))
    try:
        for _ in range(20):
            value, slope = f(x)
    finally:
        sys.setprofile(None)
    assert [c for c in called if c[0] == "call"] == []
    assert value.numpy() == 98 and slope.numpy().tolist() == [0, 4, 32, 108]
    assert f.cache_info().hits == 59


def test_rows_that_nobody_reads_are_not_run_and_equal_ones_run_once():
    program = jg.function(lambda x: (cube(x), cube(x) + 1, [cube(x + 2), x][1])).program(np.ones(2))
    names = [made.prim.name for made, _, _ in simplified(program).rows()]
    assert names.count("numba_op") == 1


def test_eight_threads():
    f = jg.function(jg.value_and_grad(lambda x: jg.sum(cube(x))))
    x, wrong = np.arange(2000.0), []

    def work():
        for k in range(50):
            value, slope = f(x + k)
            if not (np.isclose(value.numpy(), np.sum((x + k) ** 3)) and np.allclose(slope.numpy(), 3 * (x + k) ** 2)):
                wrong.append(k)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_kernels_that_are_parallel_or_have_signatures():
    @numba.njit(parallel=True)
    def spread(x, out):
        for i in numba.prange(len(x)):
            out[i] = 2 * x[i]

    @numba.njit("void(float64[::1], float64[::1])")
    def fixed(x, out):
        out[:] = 2 * x

    x = np.arange(5000.0)
    for kernel in (spread, fixed):
        f = jg.function(jg.numba_op(kernel))
        for _ in range(5):
            assert_same_bits(f(x).numpy(), 2 * x)
    with pytest.raises(TypeError, match="Numba does not compile fixed for float32"):
        jg.numba_op(fixed)(x.astype(np.float32))


# ---- bad input ----

def test_what_is_no_njit_function():
    for kernel in (lambda x, out: None, 3, jg.exp):
        with pytest.raises(TypeError, match=r"numba_op: takes a function that numba.njit has decorated, not .*test_numba_op.py:\d"):
            jg.numba_op(kernel)


def test_what_numba_does_not_compile():
    @numba.njit
    def bad(x, out):
        out[:] = x.nonsense

    @numba.njit
    def few(x):
        x[0]

    @numba.njit
    def writes(x, out):
        x[0] = 1

    for kernel, said in ((bad, "nonsense"), (few, "Cannot bind"), (writes, "readonly|writes")):
        for call in (jg.numba_op(kernel), jg.function(jg.numba_op(kernel)), jg.vmap(jg.numba_op(kernel))):
            with pytest.raises(TypeError, match=rf"Numba does not compile {kernel.__name__} for float64.*({said}).*test_numba_op.py:\d") as e:
                call(np.ones((2, 2)))
            assert len(str(e.value)) < 400


@pytest.mark.parametrize("shape", [3, lambda x: 3, (1.5,), (-1,), [], [(2,), 3], lambda x: None, "ab"])
def test_shapes_that_are_none(shape):
    with pytest.raises(ValueError, match=r"shape= of _cube is to give a tuple of lengths.*test_numba_op.py:\d"):
        jg.numba_op(_cube, shape=shape)(np.ones(2))


def test_dtypes_that_are_none():
    with pytest.raises(TypeError, match="_cube: there are no Tensors of dtype complex128"):
        jg.numba_op(_cube, dtype=complex)(np.ones(2))
    with pytest.raises(ValueError, match="has 1 shapes but 2 dtypes"):
        jg.numba_op(_cube, dtype=[None, None])(np.ones(2))


def test_gradients_that_are_none_or_wrong():
    x = jg.constant([1.0, 2.0])
    with pytest.raises(LookupError, match=r"_cube has no derivative; give it one by vjp="):
        jg.grad(lambda x: jg.sum(jg.numba_op(_cube)(x)))(x)
    for vjp, said in ((lambda dy, y, x: (dy, dy), "is to return 1 gradients, .* but returned 2"),
                      (lambda dy, y, x: jg.sum(dy), r"returned shape \(\) in place 0, for float32\[2\]")):
        with pytest.raises(ValueError, match=said):
            jg.grad(lambda x, vjp=vjp: jg.sum(jg.numba_op(_cube, vjp=vjp)(x)))(x)
    with pytest.raises(ValueError, match="is to return 1 tangents, but returned 2"):
        jg.jvp(jg.numba_op(_cube, jvp=lambda ts, y, x: (y, y)), (x,), (x,))
    none = jg.numba_op(_cube, vjp=lambda dy, y, x: None)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.sum(none(x))
    assert tape.gradient(y, x) is None


def test_functions_that_raise():
    @numba.njit
    def picky(x, out):
        if x[0] < 0:
            raise ValueError("negative")
        out[:] = np.sqrt(x)

    op = jg.numba_op(picky, vjp=lambda dy, y, x: dy / (2 * y))
    f = jg.function(jg.grad(lambda x: jg.sum(op(x))))
    made, good, bad = f.njit(np.ones(2)), np.full(2, 4.0), np.full(2, -4.0)
    call = numba.njit(nogil=True)(lambda made, x: made(x))
    for _ in range(4):
        for run in (op, f, made, lambda x: call(made, x)):
            with pytest.raises(RuntimeError, match="raised an exception; call it on NumPy arrays to see which"):
                run(bad)
        for run in (f, made):
            assert np.asarray(run(good)).tolist() == [0.25, 0.25]
    with pytest.raises(ValueError, match="negative"):
        picky(bad, np.ones(2))


def test_operations_and_their_forms_can_be_shown():
    assert "numba_op cube" not in repr(cube) and repr(cube) == "<numba_op _cube>"
    assert "op=<numba_op _cube>" in jg.function(cube).program(np.ones(2)).show()
    with pytest.raises(ValueError, match="cannot be saved"):
        jg.function(cube).program(np.ones(2)).save("/nowhere")
