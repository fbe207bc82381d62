"""Guards of recorded functions: numbers that Python read from Tensors, by every route, and what a failure leaves."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

import jitgrad as jg
from replays import assert_alike, told

X = jg.constant([1.0, -2.0, 3.0])
READS = {
    "bool": lambda t: bool(t > 1), "if": lambda t: 1 if t > 1 else 2, "not": lambda t: not t - 1,
    "float": float, "int": int, "index": lambda t: [10, 20, 30, 40][t], "operator": lambda t: t.__index__(),
    "range": lambda t: list(range(t)), "item": lambda t: t.item(), "numpy": lambda t: t.numpy() * 2,
    "asarray": lambda t: np.asarray(t) + 1, "array": lambda t: np.array([t, t + 1]), "stack": lambda t: np.stack([t, t]),
    "float64": np.float64, "ufunc": lambda t: np.sin(t), "repr": repr, "str": str, "format": lambda t: f"{t}",
    "spec": lambda t: f"{float(t):.3f}", "in": lambda t: t in (1, 2), "floor": math.floor, "complex": complex,
    "round": lambda t: round(float(t)), "max": lambda t: max(t, t * 0 + 2), "sorted": lambda t: sorted([t, t * 0 + 2]),
    "iterate": lambda t: [float(v) for v in jg.stack([t, t + 1])], "bytes": lambda t: t.numpy().tobytes(),
    "unpack": lambda t: [v + 1 for v in jg.stack([t, t + 1])], "while": lambda t: next(n for n in range(9) if n >= t),
    "and": lambda t: 3 if t > 1 and t < 3 else 4, "assert": lambda t: 1 // int(t < 3), "divmod": lambda t: divmod(int(t), 2),
    "slice": lambda t: [1, 2, 3][:t], "power": lambda t: 2 ** int(t), "shape": lambda t: jg.zeros(int(t)),
    "key": lambda t: {1: "a", 2: "b"}.get(int(t)), "axis": lambda t: jg.sum(jg.ones((2, 3, 4, 5)), axis=int(t)),
}


@pytest.mark.parametrize("name", READS)
def test_a_number_that_was_read(name):
    read = READS[name]
    assert_alike(lambda wrap: wrap(lambda t: (read(t * 1), t + 1)), [(jg.constant(v),) for v in (1, 2, 3, 1, 2, 3, 1)])


@pytest.mark.parametrize("name", ["item", "float", "numpy", "asarray", "repr", "format", "iterate"])
def test_a_number_of_a_variable_that_was_read(name):
    def make(wrap):
        v = jg.Variable(1.0)

        def f(x):
            v.assign_add(jg.sum(x))
            return v.numpy() if name == "numpy" else READS[name](v if name != "iterate" else v.value()), x
        return wrap(f)
    assert_alike(make, [(jg.constant([k]),) for k in (0.0, 0.0, 1.0, 0.0, -1.0, 0.0, float("nan"), 0.0, 0.0)])


@pytest.mark.parametrize("values", [(math.nan, math.nan, 1.0), (0.0, -0.0, 0.0), (math.inf, -math.inf, math.inf)])
def test_numbers_are_guarded_by_their_bits(values):
    assert_alike(lambda wrap: wrap(lambda t: (float(t * 1.0), t)), [(jg.constant(v),) for v in values * 2])


def test_a_guard_that_fails_after_assignments_leaves_no_change():
    def make(wrap):
        w, v = jg.Variable(1.0), jg.Variable(0.0)

        def f(x):
            w.assign_add(jg.sum(x))
            v.assign(w * 2.0)
            if w > 5.0:
                w.assign(0.0)
            elif w > 3.0:
                v.assign_sub(w)
            return w.value(), v + x, bool(v > 2)
        return wrap(f)
    assert_alike(make, [(jg.constant([float(k)]),) for k in np.random.default_rng(0).integers(0, 3, 40)])


def test_a_branch_that_raises_after_assignments():
    def make(wrap):
        w = jg.Variable(0.0)

        def f(x):
            w.assign_add(x)
            if w > 3.0:
                w.assign(0.0)
                raise ValueError("too much")
            return w * x
        return wrap(f)
    assert_alike(make, [(jg.constant(float(k)),) for k in (1, 1, 1, 2, 1, 1, 2, 1, 3, 1)])


def test_recordings_stop_when_every_branch_was_seen():
    def f(x):
        out = x * 0.0
        for i in range(3):
            out = out * 2.0 + x if x[i] > 0 else out - x
        return out
    replayed, rng = jg.function(f), np.random.default_rng(1)
    for row in rng.normal(size=(200, 3)):
        x = jg.constant(row)
        assert told(replayed(x)) == told(f(x))
    assert replayed.cache_info() == (192, 8, 8, 0, False)


def test_a_loop_as_long_as_its_data_says():
    def f(x):
        n = 0
        while jg.sum(x) < 10:
            x, n = x * 2, n + 1
        return x, n
    assert_alike(lambda wrap: wrap(f), [(jg.constant([v, 1.0]),) for v in (3.0, 1.0, 0.5, 3.0, 8.0, 11.0, 1.0, 0.5)])


def test_a_number_that_is_new_at_every_call_is_told_of_once(caplog):
    f = jg.function(lambda x: x * float(x[0]))
    for k in range(40):
        x = X + float(k)
        assert told(f(x)) == told(x * float(x[0]))
    assert f.cache_info().python_bound
    assert [("runs as plain Python" in r.message, f"{__file__}:" in r.message) for r in caplog.records] == [(True, True)]


def test_another_branch_can_be_an_error():
    f = jg.function(lambda x: x * 2 if jg.sum(x) > 0 else x, on_branch_change="raise")
    f(X)
    f(X)
    with pytest.raises(RuntimeError, match="took another way"):
        f(-X)
    assert told(f(X)) == told(X * 2)


def test_traces_are_bounded(caplog):
    f = jg.function(lambda x: x * 2)
    for size in range(1, 200):
        for _ in range(3):
            x = jg.ones(size)
            assert told(f(x)) == told(x * 2)
    info = f.cache_info()
    assert (info.recordings, info.hits) == (199, 398)
    assert info.traces <= 64
    assert info.traces + info.dropped == 199


def test_check_every_compares_with_plain_python():
    f = jg.function(lambda x: x * 2.0, check_every=2)
    for _ in range(6):
        assert told(f(X)) == told(X * 2.0)
    rng = random.Random(3)
    g = jg.function(lambda x: x * rng.random(), check_every=2)
    with pytest.raises(RuntimeError, match="differ"):
        for _ in range(4):
            g(X)


def test_structures_that_differ_by_branch():
    def f(x, k):
        if x[0] > 0:
            return {"z": x, "a": [x * 2, (x, None, "s", 3, 2.5, True)]}
        return (x,) if k else [x, [[]], (), {}]
    assert_alike(lambda wrap: wrap(f), [(x, k) for k in (0, 1, 0) for x in (X, -X, X, -X)])
