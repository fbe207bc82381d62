"""The scalar language, its elementary functions, and the two builds of every kernel: vector text and Numba."""

from __future__ import annotations

import ctypes
import itertools
import math

import numpy as np
import pytest

from jitgrad.execute.cpu import llvm, loops
from jitgrad.execute.cpu.codegen import WIDE, elementwise_ir, module
from jitgrad.execute.cpu.lanes import LANES
from jitgrad.execute.cpu.reductions import reduction_ir
from jitgrad.ops import maths, scalar
from jitgrad.ops.scalar import convert, fmuladd, rarely, trace, where

FLOATS = ("float32", "float64")
SIZES = (0, 1, 7, 8, 9, 31, 32, 33, 255, 256, 257, 4095, 4096, 4097, 10000)
ENTRY = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
INF, NAN = math.inf, math.nan


def run(address, params, *arrays):
    words = np.array(params, np.int64)
    slots = np.array([a.ctypes.data for a in arrays], np.uintp)
    assert ENTRY(address)(words.ctypes.data, slots.ctypes.data) == 0


def vector(text, name="kernel"):
    return llvm.link(llvm.emit(module([text])), [name])[name]


def same_bits(a, b):
    return bool(np.all((a.view(f"u{a.itemsize}") == b.view(f"u{b.itemsize}")) | ((a != a) & (b != b))))


def apply(address, *operands):
    out = np.empty_like(operands[0])
    run(address, [out.size, *[1] * len(operands)], out, *operands)
    return out


_built = {}


def function(name, dtype):
    """Addresses of a function of `maths`: the Numba build, and the vector builds of both widths."""
    if (name, dtype) not in _built:
        traced = trace(getattr(maths, name), (dtype,) * (2 if name == "pow" else 1))
        texts = [elementwise_ir("kernel", traced, lanes) for lanes in (LANES, WIDE)]
        numba_built = loops.elementwise_kernel("kernel", traced)
        _built[name, dtype] = numba_built.address, *map(vector, texts), numba_built
    return _built[name, dtype][:3]



# ---- elementary functions ------------------------------------------------------------------------------------------

# Largest error allowed, float32 and float64, in ulp; the docstrings of maths state what was measured.
ULP = {
    "exp": (1.0, 1.01), "expm1": (1.5, 1.8), "log": (0.95, 0.9), "log1p": (1.5, 1.5), "sin": (1.98, 1.7),
    "cos": (1.98, 1.7), "tanh": (2.6, 2.6), "sigmoid": (1.8, 1.7), "pow": (3.2, 1.7),
}  # fmt: skip


def spread(rng, low, high, n):
    """Powers of two with uniform exponents."""
    return np.exp2(rng.uniform(low, high, n))


def arguments(name, dtype, n=20000):
    rng = np.random.default_rng(7)
    info = np.finfo(dtype)
    small, large = math.log2(info.smallest_subnormal), math.log2(info.max) - 1e-3
    low, high = (-104.0, 88.7) if dtype == "float32" else (-746.0, 709.7)
    sign = rng.choice([-1.0, 1.0], n)
    near_one = 1 + sign * spread(rng, -24, -1.1, n)
    if name in ("exp", "expm1"):
        parts = [rng.uniform(low, high, n), rng.uniform(-2, 2, n), sign * spread(rng, -60, 6, n)]
    elif name in ("sigmoid", "tanh"):
        parts = [rng.uniform(low, -low, n), rng.uniform(-3, 3, n), sign * spread(rng, -60, 5, n)]
    elif name == "log":
        parts = [spread(rng, small, large, n), rng.uniform(0.5, 2, n), near_one]
    elif name == "log1p":
        parts = [spread(rng, -70, large, n), rng.uniform(-0.9999, 2, n), sign * spread(rng, -70, -0.001, n)]
    elif name in ("sin", "cos"):
        multiples = (rng.integers(1, 10**5, n) * (math.pi / 2)).astype(dtype)
        parts = [rng.uniform(-10, 10, n), rng.uniform(-1e5, 1e5, n), multiples]
        parts += [np.nextafter(multiples, np.zeros_like(multiples)), rng.uniform(1e5, 2e8, n)]
        parts += [sign * spread(rng, 10, large, n)]
    else:
        x = np.concatenate([spread(rng, -20, 20, n), rng.uniform(0.5, 2, n), spread(rng, small, large, n), near_one])
        x = x.astype(dtype)
        edge = rng.uniform(low, high, n) / np.log(x[-n:].astype(np.float64))
        y = np.concatenate([rng.uniform(-6, 6, n), rng.uniform(low, high, n), rng.uniform(-1, 1, n), edge])
        # results around the largest, the least normal and the least subnormal number
        near = rng.uniform(0.5, 2, n).astype(dtype)
        ends = rng.choice([info.maxexp, info.minexp, info.minexp - info.nmant], n) + rng.uniform(-2, 2, n)
        return np.concatenate([x, near]), np.concatenate([y, ends / np.log2(near.astype(np.float64))]).astype(dtype)
    return (np.concatenate(parts).astype(dtype),)


def exact(name, *xs):
    """The function in extended precision."""
    if name == "sigmoid":
        e = np.exp(-np.abs(xs[0]))
        return np.where(xs[0] >= 0, np.ones_like(e), e) / (1 + e)
    return {"pow": np.power}.get(name, getattr(np, name, None))(*xs)


def ulps(got, want):
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
        error = np.abs(got.astype(want.dtype) - want) / np.spacing(np.abs(rounded)).astype(want.dtype)
    agree = (got == rounded) | ((got != got) & (want != want))
    error = np.where(agree & ~np.isfinite(error), 0, error)
    return np.where(np.isnan(error), np.inf, error)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="the reference is the 80-bit long double")
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ULP)
def test_error_in_ulp(name, dtype):
    xs = arguments(name, dtype)
    got = apply(function(name, dtype)[2], *xs)
    with np.errstate(all="ignore"):
        want = exact(name, *[x.astype(np.longdouble) for x in xs])
    error = ulps(got, want)
    worst = int(np.argmax(error))
    assert error[worst] <= ULP[name][dtype == "float64"], ([float(x[worst]) for x in xs], got[worst], want[worst])


# (argument, value); a list, since 0.0 == -0.0
POINTS = {
    "exp": [(0.0, 1), (-0.0, 1), (INF, INF), (-INF, 0.0), (1e4, INF), (-1e4, 0.0)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1), (1e4, INF), (-1e4, -1), (1e-40, 1e-40),
              (-1e-40, -1e-40)],
    "log": [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (-1.0, NAN), (INF, INF), (-INF, NAN), (-1e-40, NAN)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (-2.0, NAN), (INF, INF), (-INF, NAN), (1e-40, 1e-40),
              (-1e-40, -1e-40)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN), (1e-40, 1e-40), (-1e-40, -1e-40)],
    "cos": [(0.0, 1), (-0.0, 1), (INF, NAN), (-INF, NAN), (1e-40, 1)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1), (-INF, -1), (1e30, 1), (-1e30, -1), (1e-40, 1e-40)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1), (-INF, 0.0), (1e30, 1), (-1e30, 0.0)],
}  # fmt: skip


@pytest.mark.parametrize("build", range(3), ids=("numba", "narrow", "wide"))
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", POINTS)
def test_special_points(name, dtype, build):
    points, values = np.array([*POINTS[name], (NAN, NAN)] * 50, np.float64).T.astype(dtype, order="C")
    got = apply(function(name, dtype)[build], points)
    assert same_bits(got, values), list(zip(points, got, strict=True))


@pytest.mark.parametrize("build", range(3), ids=("numba", "narrow", "wide"))
@pytest.mark.parametrize("dtype", FLOATS)
def test_pow_edges(dtype, build):
    values = [0.0, 0.5, 1.0, 2.0, 3.0, 2.5, 1e300, 1e-310, INF]  # 361 pairs: enough for wide vectors
    with np.errstate(over="ignore"):
        values = np.array([*values, *[-v for v in values], NAN]).astype(dtype)
    x, y = (np.ascontiguousarray(a).ravel() for a in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), y.astype(np.float64)).astype(dtype)
    got = apply(function("pow", dtype)[build], x, y)
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    np.testing.assert_allclose(got, want, rtol=1e-6 if dtype == "float32" else 1e-15)
    number = want == want
    np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ULP)
def test_builds_agree(name, dtype):
    rng = np.random.default_rng(11)
    width = np.dtype(dtype).itemsize
    count = 2 if name == "pow" else 1
    patterns = [np.frombuffer(rng.bytes(width * 20000), dtype) for _ in range(count)]  # every kind of float
    xs = [np.concatenate(pair) for pair in zip(arguments(name, dtype, 5000), patterns, strict=True)]
    first, *others = (apply(address, *xs) for address in function(name, dtype))
    for other in others:
        assert same_bits(first, other)


# ---- loops -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three_operands():
    """A body with a rare branch of two values, mixed dtypes and two results."""

    def body(x, y, i):
        a, b = rarely(x > 1.5, lambda: (x * y, y - x), (x + y, y))
        return fmuladd(a, b, convert(i, "float32")), (i & 3) == 1

    traced = trace(body, ("float32", "float32", "int32"))
    built = loops.elementwise_kernel("kernel", traced)
    return *(vector(elementwise_ir("kernel", traced, lanes)) for lanes in (LANES, WIDE)), built.address, built


@pytest.mark.parametrize("steps", list(itertools.product((0, 1), repeat=3)))
def test_elementwise_sizes_and_steps(three_operands, steps):
    rng = np.random.default_rng(3)
    for n in SIZES:
        lengths = [n if step else 1 for step in steps]
        x, y = (rng.standard_normal(length).astype(np.float32) for length in lengths[:2])
        i = rng.integers(-99, 99, lengths[2]).astype(np.int32)
        a, b = np.where(x > 1.5, x * y, x + y), np.where(x > 1.5, y - x, y)
        want = a.astype(np.float64) * b + i  # rounded once; the product is exact in float64
        for address in three_operands[:3]:
            values, flags = np.full(n + 8, 7, np.float32), np.full(n + 8, 7, np.uint8)
            run(address, [n, *steps], values, flags, x, y, i)
            assert (values[n:] == 7).all() and (flags[n:] == 7).all()
            np.testing.assert_allclose(values[:n], np.broadcast_to(want, (n,)), rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(flags[:n], np.broadcast_to((i & 3) == 1, (n,)))
            if address == three_operands[0]:
                first = values
            assert same_bits(first, values)


def test_elementwise_in_place(three_operands):
    rng = np.random.default_rng(4)
    for n, address in itertools.product(SIZES, three_operands[:3]):
        x, y = rng.standard_normal((2, n)).astype(np.float32)
        i, flags = np.zeros(n, np.int32), np.empty(n, np.uint8)
        want = np.empty_like(x)
        run(address, [n, 1, 1, 1], want, flags, x, y, i)
        run(address, [n, 1, 1, 1], y, flags, x, y, i)
        assert same_bits(y, want)


def arithmetic(a, b):
    return a + b, a - b, a * b, -a, a // b, a % b


def bitwise(a, b):
    return a & b, a | b, a ^ b, ~a, a << (b & 7), a >> (b & 7)


def compared(a, b):
    return a < b, a == b, (a >= b) & ~(a == 3), (a != 0) | (b > 0)


@pytest.mark.parametrize("dtype", ("int32", "int64"))
@pytest.mark.parametrize("body", (arithmetic, bitwise, compared))
def test_integers(body, dtype):
    info = np.iinfo(dtype)
    rng = np.random.default_rng(5)
    edges = np.array([0, 1, -1, 2, 3, -3, 7, info.min, info.max, info.min + 1], dtype)
    a, b = (np.concatenate([m.ravel(), rng.integers(info.min, info.max, 50, dtype)]) for m in np.meshgrid(edges, edges))
    with np.errstate(all="ignore"):
        wanted = body(a, b)
    traced = trace(body, (dtype, dtype))
    built = loops.elementwise_kernel("kernel", traced)
    addresses = vector(elementwise_ir("kernel", traced)), built.address
    for address in addresses:
        outputs = [np.empty_like(w) for w in wanted]
        run(address, [a.size, 1, 1], *outputs, a, b)
        for k, (got, want) in enumerate(zip(outputs, wanted, strict=True)):
            np.testing.assert_array_equal(got, want, err_msg=f"result {k}")


def test_conversions():
    def body(b, x, d, i):
        as_numbers = [convert(b, kind) for kind in ("int32", "int64", "float32", "float64")]
        as_floats = [convert(i, "float32"), convert(i, "float64"), convert(d, "float32"), convert(x, "float64")]
        as_ints = [convert(x, "int32"), convert(d, "int64"), convert(i, "int32"), convert(x, "bool")]
        return (*as_numbers, *as_floats, *as_ints, scalar.table((1.5, 2.0, 3.0), i, "float32"))

    rng = np.random.default_rng(9)
    b, x = rng.random(100) < 0.5, rng.integers(-3, 4, 100).astype(np.float32) * np.float32(1.5)
    d, i = rng.standard_normal(100) * 1e5, rng.integers(-(2**40), 2**40, 100)
    i[:4] = range(4)
    traced = trace(body, ("bool", "float32", "float64", "int64"))
    sources = [b] * 4 + [i, i, d, x, x, d, i, x]
    wanted = [source.astype(dtype) for source, dtype in zip(sources, traced.dtypes, strict=False)]
    wanted.append(np.array([1.5, 2, 3], np.float32)[np.clip(i, 0, 2)])
    built = loops.elementwise_kernel("kernel", traced)
    for address in (vector(elementwise_ir("kernel", traced)), built.address):
        outputs = [np.empty_like(w) for w in wanted]
        run(address, [100, 1, 1, 1, 1], *outputs, b, x, d, i)
        for got, want in zip(outputs, wanted, strict=True):
            np.testing.assert_array_equal(got, want)


def test_unsigned_arithmetic():
    rng = np.random.default_rng(6)
    a, b = rng.integers(-(2**63), 2**63, (2, 100), np.int64)
    traced = trace(lambda a, b: (scalar.mulhi64(a, b), scalar.ult(a, b), scalar.ushr(a, b & 63)), (np.int64, np.int64))
    high, below, shifted = np.empty_like(a), np.empty(100, bool), np.empty_like(a)
    run(vector(elementwise_ir("kernel", traced)), [100, 1, 1], high, below, shifted, a, b)
    unsigned = [(int(x) % 2**64, int(y) % 2**64) for x, y in zip(a, b, strict=True)]
    assert [int(h) % 2**64 for h in high] == [(x * y) >> 64 for x, y in unsigned]
    assert list(below) == [x < y for x, y in unsigned]
    assert [int(s) % 2**64 for s in shifted] == [x >> (y & 63) for x, y in unsigned]


# ---- reductions ------------------------------------------------------------------------------------------------------


def greatest(acc, x):
    return where((x > acc) | (x != x), x, acc)


def least_number(dtype):
    return -INF if dtype.kind == "f" else np.iinfo(dtype).min


REDUCTIONS = {
    "sum float32": (lambda acc, x: acc + x, 0, "float32"),
    "sum float64": (lambda acc, x: acc + x, 0, "float64"),
    "sum int32": (lambda acc, x: acc + x, 0, "int32"),
    "prod int64": (lambda acc, x: acc * x, 1, "int64"),
    "max float32": (greatest, least_number, "float32"),
    "max int64": (greatest, least_number, "int64"),
    "any": (lambda acc, x: acc | x, False, "bool"),
    "all": (lambda acc, x: acc & x, True, "bool"),
}
SHAPES = [(1, n, 1) for n in SIZES] + [(3, 40, 1), (5, 10, 1), (2, 5, 2), (2, 3, 7), (1, 4097, 5), (2, 9, 33)]
SHAPES += [(2, 6, 75), (2, 0, 3), (2, 0, 40), (2, 65, 40), (1, 300, 1100), (2, 9, 8), (1, 264, 33), (1, 64, 32)]


def by_halves(body, values):
    while len(values) > 1:
        values = body(values[: len(values) // 2], values[len(values) // 2 :])
    return values[0]


def in_order(body, init, x):
    """The documented order in NumPy, for NumPy versions of the body."""
    wide = np.float64 if x.dtype == np.float32 else x.dtype
    outer, red, inner = x.shape
    total = np.full((outer, inner), init, wide)
    size = 4096 if inner == 1 else 64
    for start in range(0, red, size):
        chunk = x[:, start : start + size]
        acc = np.full((32 if inner == 1 else 1, outer, inner), init, x.dtype)
        if inner == 1:
            for i in range(chunk.shape[1]):
                acc[i % 32] = body(acc[i % 32], chunk[:, i])
        else:
            grouped = chunk.shape[1] // 8 * 8
            for i in range(0, grouped, 8):
                acc[0] = body(acc[0], by_halves(body, chunk[:, i : i + 8].swapaxes(0, 1)))
            for i in range(grouped, chunk.shape[1]):
                acc[0] = body(acc[0], chunk[:, i])
        part = by_halves(body, acc).astype(wide)
        total = part if start == 0 else body(total, part)
    return total.astype(x.dtype)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduction(name):
    body, init, dtype = REDUCTIONS[name]
    dtype = np.dtype(dtype)
    numpy_body = (lambda acc, x: np.where((x > acc) | (x != x), x, acc)) if body is greatest else body
    start = init(dtype) if callable(init) else init
    traced = trace(body, (dtype, dtype))
    built = loops.reduction_kernel("kernel", traced, init, dtype)
    addresses = vector(reduction_ir("kernel", traced, init, dtype)), built.address
    rng = np.random.default_rng(8)
    for shape in SHAPES:
        x = (rng.standard_normal(shape) * 1000).astype(dtype) if dtype.kind != "b" else rng.random(shape) < 0.03
        if dtype.kind == "b" and name == "all":
            x = ~x
        if dtype.kind == "f" and x.size > 5 and name.startswith("max"):
            x.flat[3] = NAN
        with np.errstate(all="ignore"):
            want = in_order(numpy_body, start, x)
        for address in addresses:
            got = np.zeros_like(want)
            run(address, shape, got, x)
            if dtype.kind == "b":
                got = got.view(bool)
            assert same_bits(got, want), (shape, got, want)


def test_no_byte_beyond_the_operand_is_read():
    """The operand ends at the end of a page that nothing readable follows."""
    mmap = pytest.importorskip("mmap")
    libc = ctypes.CDLL(None)
    page = mmap.PAGESIZE
    area = mmap.mmap(-1, 2 * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(area))
    assert libc.mprotect(ctypes.c_void_p(base + page), page, 0) == 0
    try:
        add = vector(elementwise_ir("kernel", trace(lambda x: x + 1, ("float32",))))
        total = vector(reduction_ir("kernel", trace(lambda acc, x: acc + x, ("float32",) * 2), 0, "float32"))
        for n in range(1, 40):
            x = np.frombuffer(area, np.float32, n, page - 4 * n)
            x[:] = 1
            out = np.empty_like(x)
            run(add, [n, 1], out, x)
            assert (out == 2).all()
            run(add, [n, 1], x, x)
            assert (x == 2).all()
            for inner in (k for k in range(1, n + 1) if n % k == 0):
                out = np.empty(inner, np.float32)
                run(total, [1, n // inner, inner], out, x)
                assert (out == 2 * n // inner).all()
    finally:
        libc.mprotect(ctypes.c_void_p(base + page), page, 3)


# ---- the language ----------------------------------------------------------------------------------------------------


def test_numbers_adapt_and_nothing_widens():
    assert trace(lambda x: 0.1 * x + 1, ("float32",)).dtypes == (np.float32,)
    assert trace(lambda x: where(x > 0, np.float32(1), 2), ("float32",)).dtypes == (np.float32,)
    with pytest.raises(TypeError, match="one dtype"):
        trace(lambda x, y: x + y, ("float32", "float64"))
    with pytest.raises(TypeError, match="not an integer"):
        trace(lambda i: i + 0.5, ("int32",))
    with pytest.raises(TypeError, match="not defined for int32"):
        trace(lambda i: i / 2, ("int32",))


def test_a_body_cannot_branch_on_a_value():
    with pytest.raises(TypeError, match="where"):
        trace(lambda x: x if x > 0 else -x, ("float32",))


def test_equal_nodes_are_one_node_but_zeros_keep_their_sign():
    nodes = trace(lambda x: (x * 2 + 1) - (x * 2 + 1), ("float32",)).nodes
    assert [n.op for n in nodes] == ["argument", "const", "mul", "const", "add", "sub"]
    assert len(trace(lambda x: (x + 0.0) + -0.0, ("float32",)).nodes) == 5


def test_kernels_share_a_module():
    root = trace(scalar.sqrt, ("float32",))
    text = module([elementwise_ir("first", root), elementwise_ir("second", root)])
    declarations = [line for line in text.splitlines() if line.startswith("declare")]
    assert len(declarations) == len(set(declarations))
    addresses = llvm.link(llvm.emit(text), ["first", "second"])
    np.testing.assert_array_equal(apply(addresses["second"], np.array([4, 9], np.float32)), [2, 3])
