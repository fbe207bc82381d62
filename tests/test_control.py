"""Control flow as rows: choices and loops against the oracle, plain Python and finite differences."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.aval import aval
from jitgrad.core.dtypes import CODES
from jitgrad.core.primitive import OPS
from jitgrad.core.program import programs_in
from jitgrad.core.record import tensor
from jitgrad.core.recorder import Recorder
from jitgrad.execute import oracle
from jitgrad.execute.cpu.plans import plan_of
from jitgrad.transform import control
from jitgrad.transform.higher import called
from jitgrad.transform.jvp import jvp
from jitgrad.transform.vjp import vjp
from jitgrad.transform.vmap import vmap
from programs import random_body

F = CODES[np.dtype("float64")]


def recorded(function, *avals):
    """The Program of a function of dry Tensors; shapes stand for float64."""
    recorder = Recorder()
    given = [recorder.input(a if not isinstance(a, tuple) else aval(F, a)) for a in avals]
    out = function(*given)
    return recorder.program(list(out) if isinstance(out, tuple) else [out])


@pytest.mark.parametrize("answers", [(lambda x: x * x, lambda x: 0), (lambda x: 0.5, lambda x: -x)])
def test_a_branch_may_return_a_number(answers):
    for x in (3.0, -3.0):
        found = jg.cond(jg.constant(x) > 0, *answers, jg.constant(x))
        assert float(found) == float(answers[x < 0](x)) and found.dtype == np.float32


def avals_of(arrays):
    return [aval(CODES[np.asarray(a).dtype], np.shape(a)) for a in arrays]


def program_of(function, arrays):
    """One row of control flow (or more) as a Program of these operands."""
    return recorded(lambda *ts: tuple(function(list(ts))), *avals_of(arrays))


def verify(program):
    """The grammar, within rows too."""
    program.verify()
    for made, _, _ in program.rows():
        for _, inner in programs_in(made.params):
            verify(inner)


def run(program, arrays):
    verify(program)
    return [None if t is None else t.numpy() for t in plan_of(program).run([tensor(np.asarray(a)) for a in arrays])]


def agree(got, want, tolerance=1e-11):
    for x, y in zip(got, want, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            assert x.dtype == y.dtype and x.shape == y.shape
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def floats(arrays):
    return [k for k, a in enumerate(arrays) if a.dtype.kind == "f"]


def slope(program, arrays, directions, step=1e-6):
    """Differences of the results along a direction, by the oracle."""
    ends = []
    for e in (step, -step):
        moved = [a + e * directions[k] if k in directions else a for k, a in enumerate(arrays)]
        ends.append(oracle.run(program, moved))
    return [None if x is None or x.dtype.kind != "f" else (x - y) / (2 * step) for x, y in zip(*ends, strict=True)]


def like(array, rng):
    return rng.normal(size=array.shape) if array.dtype.kind == "f" else np.zeros_like(array)


def pulled(program, arrays, rng):
    """The vjp and operands for it, compared with differences."""
    sources = floats(arrays)
    seeds = [like(r, rng) for r in oracle.run(program, arrays) if r is not None]
    back = vjp(program, sources)
    got = run(back, [*arrays, *seeds])
    directions = {k: like(arrays[k], rng) for k in sources}
    want = sum(float((d * g).sum()) for d, g in zip(
        [d for d, r in zip(slope(program, arrays, directions), program.results, strict=True) if r >= 0], seeds,
        strict=True) if d is not None)
    terms = [ct * directions[k] for k, ct in zip(sources, got, strict=True) if ct is not None]
    assert abs(want - sum(t.sum() for t in terms)) <= 3e-6 * (1 + sum(abs(t).sum() for t in terms))
    return back, [*arrays, *seeds]


def pushed(program, arrays, rng):
    """The jvp and operands for it, compared with differences."""
    sources = floats(arrays)
    directions = {k: like(arrays[k], rng) for k in sources}
    both = jvp(program, sources)
    given = [*arrays, *directions.values()]
    got, n = run(both, given), len(program.results)
    agree(got[:n], oracle.run(program, arrays))
    for t, d in zip(got[n:], slope(program, arrays, directions), strict=True):
        if t is None:
            assert d is None or not d.any()
        else:
            np.testing.assert_allclose(t, d, rtol=3e-6, atol=3e-6 * (1 + np.abs(t).max(initial=0)))
    return both, given


def batched(program, arrays, rng, size=3, flags=None):
    """The vmap over some operands, compared with one example after the other. Examples differ, booleans too."""
    flags = flags or [a.dtype.kind != "i" and bool(rng.integers(3)) for a in arrays]
    many = [np.stack([a * rng.uniform(0.8, 1.25) if a.dtype.kind == "f" else a if e else ~a for e in range(size)])
            if flag else a for a, flag in zip(arrays, flags, strict=True)]
    wide, out = vmap(program, flags, size)
    got = run(wide, many)
    for e in range(size):
        one = oracle.run(program, [a[e] if flag else a for a, flag in zip(many, flags, strict=True)])
        agree([None if t is None else t[e] if has else t for t, has in zip(got, out, strict=True)], one)
    return wide, many


def check(program, arrays, rng, order=2, transforms=(pulled,)):
    """The machine against the oracle, and each transform of the Program, to an order."""
    arrays = [np.asarray(a) for a in arrays]
    agree(run(program, arrays), oracle.run(program, arrays))
    for transform in transforms if order else ():
        check(*transform(program, arrays, rng), rng, order - 1, transforms)


# ---- each entry, plainly ---------------------------------------------------------------------------

@pytest.mark.parametrize("pred", [True, False])
def test_cond_runs_the_branch_that_it_is_told_to(pred, rng):
    yes = recorded(lambda x, y: (jg.sin(x) * y, y), (3,), (3,))
    no = recorded(lambda x, y: (x * x, jg.constant(np.ones(3))), (3,), (3,))
    arrays = [np.bool_(pred), rng.normal(size=3), rng.normal(size=3)]
    program = program_of(lambda ts: control.cond(ts[0], ts[1:], yes, no), arrays)
    _, x, y = arrays
    agree(run(program, arrays), [np.sin(x) * y, y] if pred else [x * x, np.ones(3)])
    check(program, arrays, rng)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_scan_is_a_loop(length, reverse, rng):
    body = recorded(lambda w, h, n, x: (jg.tanh(w @ h + x), n + 1, h * x, n), (3, 3), (3,), aval(1, ()), (3,))
    w, h, xs = rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=(length, 3))
    arrays = [w, h, np.int32(5), xs]
    program = program_of(lambda ts: control.scan(ts, body, 1, 2, length, reverse), arrays)
    ys, ns, n = np.zeros((length, 3)), np.zeros(length, np.int32), 5
    for i in range(length)[::-1 if reverse else 1]:
        ys[i], ns[i] = h * xs[i], n
        h, n = np.tanh(w @ h + xs[i]), n + 1
    agree(run(program, arrays), [h, np.int32(n), ys, ns])
    check(program, arrays, rng)


@pytest.mark.parametrize("limit", [0.5, 30.0, 1e4])
def test_while_runs_until_its_condition_fails(limit, rng):
    condition = recorded(lambda c, x, i: jg.sum(x) < limit, (), (2,), aval(1, ()))
    body = recorded(lambda c, x, i: (x * c + jg.tanh(x), i + 1), (), (2,), aval(1, ()))
    arrays = [np.float64(1.7), np.array([0.5, 0.9]), np.int32(0)]
    program = program_of(lambda ts: control.while_loop(ts, condition, body, 1), arrays)
    (c, x, _), n = arrays, 0
    while x.sum() < limit:
        x, n = x * c + np.tanh(x), n + 1
    assert n == 0 or n > 1
    agree(run(program, arrays), [x, np.int32(n), np.int32(n)])
    check(program, arrays, rng, order=3 if limit == 30.0 else 2)


# ---- what rows may look like -----------------------------------------------------------------------

def test_results_that_alias_operands_and_each_other(rng):
    """Carries swapped, handed on, the same value twice, constants, operands that nobody reads."""
    body = recorded(lambda c, a, b, d, x: (b, a, d, x, x, jg.constant(np.ones(2)), d, a * c),
                    (), (2,), (2,), (2,), (2,))
    c, a, b, d, xs = np.float64(0.5), *rng.normal(size=(3, 2)), rng.normal(size=(5, 2))
    arrays = [c, a, b, d, xs]
    for length in (0, 3, 4):
        given = [*arrays[:4], xs[:length]]
        program = program_of(lambda ts, n=length: control.scan(ts, body, 1, 3, n), given)
        swapped = (b, a) if length % 2 else (a, b)
        ones, ds = np.ones((length, 2)), np.broadcast_to(d, (length, 2))
        turns = np.array([(a, b)[i % 2] * c for i in range(length)]).reshape(length, 2)
        agree(run(program, given), [*swapped, d, xs[:length], xs[:length], ones, ds, turns])
        check(program, given, rng)
    no = recorded(lambda a, b, d: (b, b, a), (2,), (2,), (2,))
    yes = recorded(lambda a, b, d: (a, jg.constant(np.zeros(2)), d * a), (2,), (2,), (2,))
    for pred in (False, True):
        given = [np.bool_(pred), a, b, d]
        check(program_of(lambda ts: control.cond(ts[0], ts[1:], yes, no), given), given, rng)


def test_a_loop_that_makes_its_carry_anew_hands_it_on_where_it_does_not_run():
    """The gradient of a carry that each iteration overwrites is what comes in without iterations, else zero."""
    anew = recorded(lambda x, i: (jg.constant(np.float64(5.0)), i + 1), (), aval(1, ()))
    for n in (0, 2):
        below = recorded(lambda x, i, n=n: i < n, (), aval(1, ()))
        for program, given in (
                (program_of(lambda ts, below=below: control.while_loop(ts, below, anew, 0)[:1], [2.0, np.int32(0)]),
                 [np.float64(2.0), np.int32(0)]),
                (program_of(lambda ts, n=n: control.scan(ts, anew, 0, 2, n)[:1], [2.0, np.int32(0)]),
                 [np.float64(2.0), np.int32(0)])):
            assert run(vjp(program, [0]), [*given, np.float64(3.0)]) == [0.0 if n else 3.0]
            check(program, given, np.random.default_rng(0))


def test_no_elements_no_operands_no_xs(rng):
    body = recorded(lambda x, e: (x + jg.sum(e), e * 2.0), (), (0, 3))
    given = [np.float64(1.5), np.zeros((0, 3))]
    check(program_of(lambda ts: control.scan(ts, body, 0, 2, 4), given), given, rng)
    limit = recorded(lambda x, e: x < 9.0, (), (0, 3))
    grow = recorded(lambda x, e: (x * 2.0 + jg.sum(e), e), (), (0, 3))
    check(program_of(lambda ts: control.while_loop(ts, limit, grow, 0), given), given, rng)
    lone = recorded(lambda x: (x * 1.5,), ())
    stacked = recorded(lambda c, x: (x * c,), (), ())
    given = [np.float64(0.5), rng.normal(size=4)]
    check(program_of(lambda ts: control.scan(ts, stacked, 1, 0, 4), given), given, rng)
    check(program_of(lambda ts: control.cond(ts[1] > 0.0, ts[:1], lone, lone), given[:1] * 2), given[:1] * 2, rng)


@pytest.mark.parametrize("seed", range(6))
def test_random_bodies(seed, rng):
    rng = np.random.default_rng(seed)
    shapes = [(), (3,), (2, 3)]
    given, carry = [shapes[k] for k in rng.integers(3, size=2)], [shapes[k] for k in rng.integers(3, size=2)]
    xs, ys = [shapes[k] for k in rng.integers(3, size=1)], [shapes[k] for k in rng.integers(3, size=2)]
    draw = lambda shape: rng.uniform(0.6, 1.4, shape)        # noqa: E731
    n = int(rng.integers(1, 5))
    body = random_body(rng, [*given, *carry, *xs], [*carry, *ys], 5)
    arrays = [*map(draw, [*given, *carry]), *(draw((n, *s)) for s in xs)]
    check(program_of(lambda ts: control.scan(ts, body, 2, 2, n, bool(seed % 2)), arrays), arrays, rng)
    turn = random_body(rng, [*given, *carry], carry, 5)
    counted = recorded(lambda *ts: (*control.steps.emit(ts[0]._owner, turn, ts[:-1]), ts[-1] + 1),
                       *given, *carry, aval(1, ()))
    below = recorded(lambda *ts: ts[-1] < n, *given, *carry, aval(1, ()))
    arrays = [*map(draw, [*given, *carry]), np.int32(0)]
    check(program_of(lambda ts: control.while_loop(ts, below, counted, 2), arrays), arrays, rng, order=3 if seed < 2 else 2)
    yes, no = (random_body(rng, given, carry, 4) for _ in range(2))
    arrays = [np.bool_(seed % 2), *map(draw, given)]
    check(program_of(lambda ts: control.cond(ts[0], ts[1:], yes, no), arrays), arrays, rng)


def nest(kind, length, inner, shape):
    """A row of one kind around the Program ``inner`` (c, x) -> x, as such a Program."""
    if kind == "scan":
        return recorded(lambda c, x: control.scan([c, x], inner, 1, 1, length), (), shape)
    if kind == "while":
        below = recorded(lambda c, x, i: i < length, (), shape, aval(1, ()))
        body = recorded(lambda c, x, i: (*control.steps.emit(c._owner, inner, [c, x]), i + 1),
                        (), shape, aval(1, ()))
        return recorded(lambda c, x: control.while_loop([c, x, tensor(np.int32(0))], below, body, 1)[0], (), shape)
    other = recorded(lambda c, x: x * 0.5, (), shape)
    return recorded(lambda c, x: control.cond(jg.sum(x) > 0.3 * c, [c, x], inner, other), (), shape)


@pytest.mark.parametrize("outer", ["scan", "while", "cond"])
@pytest.mark.parametrize("inner", ["scan", "while", "cond"])
def test_rows_nest(inner, outer, rng):
    step = recorded(lambda c, x: jg.sin(x) * c + 0.1 * x * x, (), (2,))
    program = nest("cond", 0, nest(outer, 3, nest(inner, 2, step, (2,)), (2,)), (2,))
    check(program, [np.float64(1.1), np.array([0.4, 0.7])], rng)


def test_hundreds_of_operands(rng):
    """More slots than an instruction of the sweep has on its stack."""
    n = 130
    body = recorded(lambda *ts: tuple(jg.sin(a) * b for a, b in zip(ts, [*ts[1:], ts[0]], strict=True)), *[()] * n)
    arrays = list(rng.normal(size=n))
    program = program_of(lambda ts: control.scan([t * 1.0 for t in ts], body, 0, n, 3), arrays)
    check(program, arrays, rng, order=1)
    agree(control_eager(body, arrays), oracle.run(program, arrays))


def control_eager(body, arrays):
    return [t.numpy() for t in control.scan([tensor(a) for a in arrays], body, 0, len(arrays), 3)]


# ---- transforms of transforms ----------------------------------------------------------------------

EVERY = (pulled, pushed, batched)


def recurrent(ts):
    """A net over time, as scan: consts, carry, xs, ys, and an integer that counts."""
    body = recorded(lambda w, h, n, x: (jg.tanh(w @ h + x), n + 1, h * x), (2, 2), (2,), aval(1, ()), (2,))
    return control.scan(ts, body, 1, 2, 3, True)


def root(ts):
    """Newton's method until it converges, to a number of steps that differs from example to example."""
    far = recorded(lambda a, x: jg.abs(x * x - a) > 1e-3, (), ())
    step = recorded(lambda a, x: 0.5 * (x + a / x), (), ())
    return control.while_loop(ts, far, step, 1)


def growth(ts):
    """The limit differs from example to example, what is carried does not at first."""
    below = recorded(lambda c, x: x < c, (), ())
    times = recorded(lambda c, x: x * 1.5, (), ())
    return control.while_loop(ts, below, times, 1)


def either(ts):
    yes = recorded(lambda x, y: (jg.sin(x) * y, y), (3,), ())
    no = recorded(lambda x, y: (x * x, jg.constant(np.float64(2.0))), (3,), ())
    return control.cond(ts[0], ts[1:], yes, no)


SAMPLES = {
    "scan": (recurrent, [np.array([[0.5, -0.3], [0.2, 0.7]]), np.array([0.3, -0.4]), np.int32(0),
                         np.array([[0.1, 0.5], [-0.6, 0.2], [0.4, 0.9]])]),
    "while": (root, [np.float64(7.0), np.float64(1.3)]),
    "cond": (either, [np.bool_(True), np.array([0.2, 0.5, -0.8]), np.float64(1.3)]),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_transform_of_every_transform(name, rng):
    function, arrays = SAMPLES[name]
    check(program_of(function, arrays), arrays, rng, 2, EVERY)


@pytest.mark.parametrize("function", [root, growth, either, recurrent])
def test_any_operands_may_be_batched(function, rng):
    arrays = next((a for f, a in SAMPLES.values() if f is function), [np.float64(9.0), np.float64(1.1)])
    program = program_of(function, arrays)
    for flags in itertools.product([False, True], repeat=len(arrays)):
        if not any(flag and a.dtype.kind == "i" for flag, a in zip(flags, arrays, strict=True)):
            wide, many = batched(program, arrays, rng, 3, list(flags))
            check(wide, many, rng, 1)


@pytest.mark.parametrize("outer", ["scan", "while", "cond"])
@pytest.mark.parametrize("inner", ["scan", "while", "cond"])
def test_transforms_of_nests(inner, outer, rng):
    step = recorded(lambda c, x: jg.sin(x) * c + 0.1 * x * x, (), (2,))
    check(nest(outer, 3, nest(inner, 2, step, (2,)), (2,)), [np.float64(1.1), np.array([0.4, 0.7])], rng, 2, EVERY)


# ---- the machine -----------------------------------------------------------------------------------

DOUBLE = recorded(lambda c, x: x * 2.0, (), (2,))
FOREVER = recorded(lambda x: x > 0.0, ())
SAME = recorded(lambda x: x * 1.0, ())


@pytest.mark.parametrize("loop", [
    lambda x: control.while_loop([x], FOREVER, SAME, 0), lambda x: control.scan([x], SAME, 0, 1, 1 << 40),
    lambda x: control.while_loop([x], FOREVER, recorded(lambda x: control.scan([x], SAME, 0, 1, 1000)[0], ()), 0),
    lambda x: plan_of(program_of(lambda ts: control.while_loop(ts, FOREVER, SAME, 0), [x])).run([x])],
    ids=["while", "scan", "nested", "plan"])
def test_ctrl_c_ends_a_long_loop(loop):
    """Whether the operation runs by itself or in a plan; the exception is that of the handler."""
    x = tensor(np.float64(1.0))
    for _ in range(2):
        timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            loop(x)
        timer.join()


def test_a_handler_that_returns_lets_the_loop_go_on():
    """It may run operations itself meanwhile."""
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(float(jg.sum(jg.constant(np.ones(300))))))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        count = recorded(lambda i: i + 1, aval(1, ()))
        below = recorded(lambda i: i < 10_000_000, aval(1, ()))
        i, n = control.while_loop([tensor(np.int32(0))], below, count, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert int(i) == int(n) == 10_000_000 and len(seen) > 1 and set(seen) == {300.0}


def test_loops_run_beside_each_other(rng):
    """Long ones let go of the GIL; each thread has working memory of its own."""
    body = recorded(lambda w, h: jg.tanh(w @ h), (6, 6), (6,))
    below = recorded(lambda w, h, i: i < 20_000, (6, 6), (6,), aval(1, ()))
    both = recorded(lambda w, h, i: (jg.tanh(w @ h), i + 1), (6, 6), (6,), aval(1, ()))
    w, h = tensor(rng.normal(size=(6, 6))), tensor(rng.normal(size=6))

    def work(_):
        return [control.scan([w, h], body, 1, 1, 20_000)[0].numpy(),
                control.while_loop([w, h, tensor(np.int32(0))], below, both, 1)[0].numpy()]
    with ThreadPoolExecutor(4) as pool:
        answers = [a for pair in pool.map(work, range(8)) for a in pair]
    assert all((a == answers[0]).all() for a in answers)


def test_no_memory_to_work_in():
    # three arrays of 64 TiB are more than a process has addresses for, however much the system promises
    wide = recorded(lambda x: jg.sum(jg.broadcast_to(x, (1 << 43,)) * jg.broadcast_to(x + 1.0, (1 << 43,))), ())
    x = tensor(np.float64(1.0))
    for run_it in (lambda: control.scan([x], wide, 0, 1, 2), lambda: control.while_loop([x], FOREVER, wide, 0),
                   lambda: control.cond(tensor(np.bool_(True)), [x], wide, SAME)):
        with pytest.raises(MemoryError, match="no memory to work in"):
            run_it()


def test_a_row_that_fails_says_why():
    with pytest.raises(IndexError, match="scan: .*out of range"):
        control.scan([tensor(np.ones(4)), tensor(np.array([0, 1, 9, 2], np.int32))],
                     recorded(lambda x, i: (jg.take(x, i), i), (4,), aval(1, (4,))), 0, 2, 1)


def test_a_tape_records_loops(rng):
    """Alone and beneath another tape, by operations and by a `call` row."""
    w = jg.Variable(rng.normal(size=(3, 3)))
    body = recorded(lambda w, h, x: (jg.tanh(w @ h + x), h), (3, 3), (3,), (3,))
    xs = jg.constant(rng.normal(size=(4, 3)))

    def by_row(w):
        return control.scan([w, jg.zeros(3, dtype="float64"), xs], body, 1, 1, 4)[0]

    def by_hand(w):
        h = jg.zeros(3, dtype="float64")
        for x in xs:
            h = jg.tanh(w @ h + x)
        return h
    found = []
    for run_it in (by_row, by_hand):
        with jg.GradientTape() as outer:
            with jg.GradientTape() as tape:
                y = jg.sum(run_it(w.read_value()) ** 2)
            g = tape.gradient(y, w)
            size = jg.sum(g * g)
        found.append([y.numpy(), g.numpy(), outer.gradient(size, w).numpy()])
    agree(*found)


def test_residuals_that_were_stacked_are_read():
    """A scan that keeps what its derivative reads does not run forward again; the numbers are the same."""
    body = recorded(lambda c, x: jg.sin(x * c) * c, (), ())
    kept = control.with_residuals(body, 1, 1, (0, 1))
    assert len(kept.results) > len(body.results)
    found = []
    for step, rows in ((body, 3), (kept, 2)):
        program = program_of(lambda ts, step=step: [control.scan(ts, step, 1, 1, 5)[0] ** 2], [1.2, 0.7])
        back = vjp(program, [0, 1])
        assert sum(made.prim.name == "scan" for made, _, _ in back.rows()) == rows
        found.append(run(back, [1.2, 0.7, 1.0]))
    assert found[0] == found[1]


def test_calls_within_bodies_and_equal_programs(rng):
    inner = recorded(lambda x, y: (x * y, x + y), (2,), (2,))
    body = recorded(lambda x, y: called(inner, [x, y]), (2,), (2,))
    arrays = list(rng.normal(size=(2, 2)))
    check(program_of(lambda ts: control.scan(ts, body, 0, 2, 3), arrays), arrays, rng, 2, EVERY)
    again = recorded(lambda x, y: (x * y, x + y), (2,), (2,))
    assert again is not inner and control.shared(inner) is control.shared(again)
    other = recorded(lambda x, y: (x * y, x + 2.0 * y), (2,), (2,))
    third = recorded(lambda x, y: (x * y, x + 3.0 * y), (2,), (2,))
    assert len({control.shared(p) for p in (inner, other, third)}) == 3


def test_what_programs_with_loops_say(rng):
    program = nest("while", 3, nest("scan", 2, DOUBLE, (2,)), (2,))
    shown = program.show()
    assert "condition of while_loop %" in shown and "stages[0].body of while_loop %" in shown
    assert "\n        " in shown and "body of scan %" in shown            # two levels
    same = nest("while", 3, nest("scan", 2, DOUBLE, (2,)), (2,))
    assert program.signature() == same.signature() != nest("while", 4, DOUBLE, (2,)).signature()
    with pytest.raises(ValueError, match="while_loop"):
        program.save("nowhere")


def test_bodies_that_do_not_fit():
    x, i = tensor(np.float64(1.0)), tensor(np.int32(1))
    with pytest.raises(TypeError, match=r"entry 0 of the carry is float64\[\], the body gives bool"):
        control.scan([x], FOREVER, 0, 1, 3)
    with pytest.raises(TypeError, match="operand 0 is int32"):
        control.scan([i], SAME, 0, 1, 3)
    with pytest.raises(TypeError, match="must give one bool"):
        control.while_loop([x], SAME, SAME, 0)
    with pytest.raises(TypeError, match="while_loop: the body takes"):
        control.while_loop([x], FOREVER, FOREVER, 0)
    with pytest.raises(TypeError, match="the branches differ"):
        control.cond(tensor(np.bool_(True)), [x], SAME, FOREVER)
    with pytest.raises(TypeError, match="must be a bool"):
        control.cond(x, [x], SAME, SAME)
    with pytest.raises(TypeError, match="takes other operands"):
        control.cond(tensor(np.bool_(True)), [i], SAME, SAME)


def test_a_loop_keeps_the_effects_of_its_body():
    """Also where nothing else is read of it, and where its derivative is taken."""
    def step(x):
        OPS["guard"](jg.floor(x), jg.constant(1.0, "float64"))
        return x + 0.25
    body = recorded(step, ())
    for transform in (lambda p: p, lambda p: vjp(p, [0]), lambda p: jvp(p, [0])):
        for n, holds in ((4, True), (5, False)):
            program = transform(recorded(lambda x, n=n: (control.scan([x], body, 0, 1, n), x)[1], ()))
            given = [1.0] * len(program.inputs)
            if holds:
                run(program, given)
            else:
                with pytest.raises(RuntimeError, match="guard"):
                    run(program, given)
    with pytest.raises(RuntimeError, match="guard"):
        control.scan([tensor(np.float64(1.0))], body, 0, 1, 5)
