"""Machine code of whole plans gives the bits of the sweep, with any number of threads, and what the oracle says."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.primitive import OPS
from jitgrad.core.record import tensor
from jitgrad.execute import oracle
from jitgrad.execute.cpu import compiling
from jitgrad.execute.cpu.plans import Plan
from jitgrad.testing import tolerances
from jitgrad.transform import control
from nests import LARGE, TINY, arguments, random_nests
from programs import arguments as tame_arguments
from programs import random_body, random_program, recorded
from table import ENTRIES, dtypes_of, ident, samples
from tolerance import assert_close, assert_same_bits


@pytest.fixture(autouse=True)
def no_machine_code(monkeypatch):
    """Plans stay on the sweep until a test wants otherwise."""
    monkeypatch.setenv("JITGRAD_MACHINE_CODE", "0")


@pytest.fixture
def threads():
    before = jg.get_num_threads()
    yield jg.set_num_threads
    jg.set_num_threads(before)


def arrays_of(results):
    return [None if t is None else t.numpy() for t in results]


def both(program, arrays):
    """Results on the sweep, checked against those of machine code; and the plan, which has it now."""
    plan = Plan(program, range(len(program.inputs)))
    given = [tensor(np.asarray(a)) for a in arrays]
    want = arrays_of(plan.run(given))
    assert compiling.compiled(plan)
    for _ in range(2):
        assert_same(arrays_of(plan.run(given)), want)
    return want, plan, given


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert_same_bits(a, b)


# ---- the table ----

@pytest.mark.parametrize("prim", ENTRIES, ids=ident)
def test_entries(prim, rng):
    """Every sample in every dtype, with its gradient where it has one."""
    def run(*xs, params):
        floats = [x for x in xs if x.dtype.kind == "f"]
        with jg.GradientTape() as tape:
            tape.watch(floats)
            y = OPS[prim.name](*xs, **params)
        y_is_real = y.dtype.kind == "f" and prim.vjp is not None
        return y, tape.gradient(y, floats) if y_is_real else None

    for dtype in dtypes_of(prim):
        for arrays, params in samples(prim, dtype, rng):
            f = jg.function(functools.partial(run, params=params))
            program = f.program(*(tensor(np.asarray(a)) for a in arrays))
            both(program, arrays)


# ---- random programs ----

@pytest.mark.parametrize("block", range(10))
def test_random_nests(block):
    for seed in range(30 * block, 30 * block + 30):
        rng = np.random.default_rng(seed)
        program = random_nests(rng, int(rng.integers(3, 40)))
        both(program, arguments(program, rng))


@pytest.mark.parametrize("block", range(6))
def test_random_straight_code(block):
    """What has few elements is computed one by one."""
    for seed in range(30 * block, 30 * block + 30):
        rng = np.random.default_rng([9, seed])
        program = random_nests(rng, int(rng.integers(3, 60)), TINY)
        both(program, arguments(program, rng))


@pytest.mark.parametrize("block", range(5))
def test_random_programs_of_the_table(block):
    for seed in range(20 * block, 20 * block + 20):
        rng = np.random.default_rng([7, seed])
        program = random_program(rng, int(rng.integers(3, 20)))
        arrays = tame_arguments(program, rng)
        got, _, _ = both(program, arrays)
        for a, b in zip(got, oracle.run(program, arrays), strict=True):
            assert_close(a, b, rtol=tolerances("float64").values * 100)


@pytest.mark.parametrize("seed", range(20))
def test_large_nests_have_the_same_bits_with_any_number_of_threads(seed, threads):
    rng = np.random.default_rng([3, seed])
    program = random_nests(rng, int(rng.integers(3, 12)), LARGE)
    threads(1)
    want, plan, given = both(program, arguments(program, rng))
    for count in (2, 3):
        threads(count)
        assert_same(arrays_of(plan.run(given)), want)


@pytest.mark.parametrize("seed", range(25))
def test_random_loops_and_choices(seed):
    """Bodies become machine code of their own."""
    rng = np.random.default_rng([5, seed])
    shapes = [(3,), (2, 2)]
    step = random_body(rng, [*shapes, (4,)], [*shapes, (5,)], 4)
    go = recorded(lambda a, b: jg.sum(a) + jg.sum(b) < 40.0, *shapes)
    grow = recorded(lambda a, b: (a * 1.5 + 0.25, b + jg.mean(a)), *shapes)
    yes, no = random_body(rng, shapes, [(3,)], 3), random_body(rng, shapes, [(3,)], 3)

    def run(a, b, xs):
        a, b, ys = control.scan([a, b, xs], step, 0, 2, 6, bool(seed % 2))
        a, b = control.while_loop([a, b], go, grow, 0)[:2]
        return a, b, ys, *control.cond(jg.sum(a) > jg.sum(b), [a, b], yes, no)

    arrays = [rng.uniform(0.5, 1.5, s) for s in (*shapes, (6, 4))]
    program = jg.function(run).program(*arrays)
    got, _, _ = both(program, arrays)
    for a, b in zip(got, oracle.run(program, arrays), strict=True):
        assert_close(a, b, rtol=tolerances("float64").values * 100)


# ---- edges ----

@pytest.mark.parametrize("f", [
    lambda x: x,
    lambda x: (x, x, x + 0.0),
    lambda x: x[1:],
    lambda x: (x * 2.0)[1:2],
    lambda x: (jg.reshape(x * 2.0, (3, 1)), x * 2.0),
    lambda x: jg.constant([1.0, 2.0]),
    lambda x: jg.sum(x[:0]),
    lambda x: x[:0] * 2.0,
    lambda x: jg.max(x, axis=0, keepdims=True) - x,
    lambda x: jg.stack([x, x * 2.0])[:, 1:] + 1.0,
    lambda x: jg.exp(x - jg.max(x)) / jg.sum(jg.exp(x - jg.max(x))),
], ids=range(11))
@pytest.mark.parametrize("x", [[1.0, -0.0, 3.0], [np.nan, np.inf, -np.inf], [1e-45, -3e38, 88.8]], ids=("few", "odd", "far"))
def test_edges(f, x):
    x = np.array(x, np.float32)
    both(jg.function(f).program(x), [x])


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 255, 257, 4095, 4096, 4097, 8192, 9001])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
def test_lengths(n, dtype, rng):
    """Around every length at which code changes: vectors, unrolled rows, chunks."""
    def f(x, y):
        z = jg.where(x > y, x, y)
        return z, jg.sum(z, axis=-1), jg.max(jg.astype(z, "float32") * 2.0, axis=-1, keepdims=True) - y
    x, y = (rng.integers(-3, 4, (3, n)).astype(dtype) for _ in range(2))
    both(jg.function(f).program(x, y[0]), [x, y[0]])


@pytest.mark.parametrize("f", [
    lambda x, s: s * s[..., 1:2],
    lambda x, s: s * s[0, 0],
    lambda x, s: x * jg.reshape(jg.reshape(s, (-1,))[:4], (4, 1, 1)),
    lambda x, s: x + s[0, 0] * s[3, 2],
    lambda x, s: jg.sum(x - s[..., :1, None], axis=2) + s[:1],
], ids=range(5))
def test_parts_of_reductions(f, rng):
    """A row of a nest knows its own number alone."""
    x = rng.normal(size=(4, 3, 5)).astype(np.float32)
    program = jg.function(lambda x: f(x, jg.sum(x, axis=2))).program(x)
    (got,), _, _ = both(program, [x])
    assert_close(got, oracle.run(program, [x])[0], rtol=tolerances("float32").values * 100)


def test_a_long_plan_is_several_functions(threads):
    """With tasks of threads, products and guards in more than one; LLVM's time would grow with the square of one's."""
    def f(x, w, wide):
        for k in range(130):
            x = jg.sort(x * 2.0 - 1.0)
            if k % 40 == 39:
                OPS["guard"](jg.sum(x) < 1e30, jg.constant(True))
                x, wide = jg.tanh(jg.matmul(x, w)), wide * jg.mean(x)
        return x, jg.sum(wide)
    rng = np.random.default_rng(0)
    x, w, wide = (rng.normal(size=s).astype(np.float32) for s in ((4, 4), (4, 4), (300_000,)))
    program = recorded(f, (4, 4), (4, 4), (300_000,), dtype="float32")
    threads(2)
    _, plan, given = both(program, [x, w, wide])
    assert plan.ir().count("define internal i64 @plan.part") > 2
    for later in (False, True):                      # the guards of the first part, of the second
        odd = np.where(x == x.max(), np.float32("inf"), x)
        given[0], given[1] = tensor(x if later else odd), tensor(w * np.float32("inf") if later else w)
        with pytest.raises(RuntimeError, match="guard"):
            plan.run(given)


def test_guards_in_machine_code_send_python_its_own_way():
    @jg.function
    def f(x):
        return jg.sin(x) * 2.0 if jg.sum(x) > 0.0 else jg.cos(x) - 1.0
    xs = [jg.constant(np.full(3, v, np.float32)) for v in (1.0, -1.0, 2.0, -2.0)]
    want = [f(x).numpy() for x in xs]
    for entry in f._impl.entries:
        assert compiling.compiled(entry.plan)
    for _ in range(3):
        assert_same([f(x).numpy() for x in xs], want)
    assert f.cache_info().recordings == 2


# ---- products that are added up ----

def _added(a, b, c, d):
    return a @ b + c @ d, (a @ b) * 2.0 + c @ d + b @ d, jg.tanh((c @ d + a @ b) + a.T @ d)


@pytest.mark.parametrize("f", [
    lambda a, b, c, d: a @ b + c @ d,
    lambda a, b, c, d: jg.tanh(a @ b + c @ d + a @ d + b @ c) * 2.0,
    lambda a, b, c, d: (jg.exp(a * 0.01) + b @ c, d),
    lambda a, b, c, d: a + b @ c,
    lambda a, b, c, d: ((s := a @ b + c @ d), s * 2.0, s[1:], jg.sum(s, axis=0)),
    lambda a, b, c, d: ((p := a @ b), p + c @ d),
    lambda a, b, c, d: (p := a @ b) + p,
    lambda a, b, c, d: jg.reshape(jg.reshape(a @ b, (-1,)) + jg.reshape(c @ d, (-1,)), (40, 160))[:, 3:],
    lambda a, b, c, d: jg.stack([a @ b + c, c @ d + a]) @ jg.stack([c, d]) + jg.stack([a @ b, b @ c]) @ jg.stack([a, d]),
    _added,
], ids=range(10))
def test_products_are_added_where_the_other_addend_lies(f, rng, threads):
    arrays = [rng.normal(size=(80, 80)) for _ in range(4)]
    program = jg.function(f).program(*arrays)
    plan = Plan(program, range(len(program.inputs)))
    given = [tensor(a) for a in arrays]
    want = oracle.run(program, arrays)
    assert compiling.compiled(plan)
    for count in (1, 2, 1):
        threads(count)
        for got, answer in zip(plan.run(given), want, strict=True):
            assert_close(got.numpy(), answer)


def test_a_sum_of_products_is_shown():
    f = jg.function(lambda a, b, c, d: jg.tanh(a @ b + c @ d))
    f(*[np.full((80, 80), k, np.float32) for k in range(4)])
    assert "matmul added to (80,80) (80,80)" in f.show()
