"""Control flow as rows: choices and loops against the oracle, plain Python and finite differences."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.aval import aval
from jitgrad.core.dtypes import CODES
from jitgrad.core.record import tensor
from jitgrad.core.recorder import Recorder
from jitgrad.execute import oracle
from jitgrad.execute.cpu.plans import plan_of
from jitgrad.transform import control
from jitgrad.transform.vjp import vjp

F = CODES[np.dtype("float64")]


def recorded(function, *avals):
    """The Program of a function of dry Tensors; shapes stand for float64."""
    recorder = Recorder()
    given = [recorder.input(a if not isinstance(a, tuple) else aval(F, a)) for a in avals]
    out = function(*given)
    return recorder.program(list(out) if isinstance(out, tuple) else [out])


def avals_of(arrays):
    return [aval(CODES[np.asarray(a).dtype], np.shape(a)) for a in arrays]


def program_of(function, arrays):
    """One row of control flow (or more) as a Program of these operands."""
    return recorded(lambda *ts: tuple(function(list(ts))), *avals_of(arrays))


def run(program, arrays):
    return [None if t is None else t.numpy() for t in plan_of(program).run([tensor(np.asarray(a)) for a in arrays])]


def agree(got, want, tolerance=1e-11):
    for x, y in zip(got, want, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            assert x.dtype == y.dtype and x.shape == y.shape
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def floats(values):
    return [k for k, v in enumerate(values) if np.asarray(v).dtype.kind == "f"]


def check(program, arrays, rng, order=2):
    """The machine against the oracle, and each order's vjp against differences of what it is the vjp of."""
    arrays = [np.asarray(a) for a in arrays]
    got, want = run(program, arrays), oracle.run(program, arrays)
    agree(got, want)
    if order == 0:
        return
    sources = floats(arrays)
    back = vjp(program, sources)
    live = [r for r in want if r is not None]
    seeds = [rng.normal(size=r.shape).astype(r.dtype) if r.dtype.kind == "f" else np.zeros_like(r) for r in live]
    pulled = run(back, [*arrays, *seeds])
    directions = {k: rng.normal(size=arrays[k].shape) for k in sources}
    step = 1e-6

    def at(e):
        moved = [a + e * directions[k] if k in directions else a for k, a in enumerate(arrays)]
        return [r for r in oracle.run(program, moved) if r is not None]
    slope = sum(float(((hi - lo) * g).sum()) / (2 * step) for hi, lo, g in zip(at(step), at(-step), seeds, strict=True)
                if g.dtype.kind == "f")
    along = sum(float((ct * directions[k]).sum()) for k, ct in zip(sources, pulled, strict=True) if ct is not None)
    size = sum(float(abs(ct * directions[k]).sum()) for k, ct in zip(sources, pulled, strict=True) if ct is not None)
    assert abs(slope - along) <= 2e-6 * (1 + size), (slope, along)
    check(back, [*arrays, *seeds], rng, order - 1)


# ---- each entry, plainly ---------------------------------------------------------------------------

POWER = recorded(lambda c, x: x * c, (), ())


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
