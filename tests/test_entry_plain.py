"""The plainest calls of recorded functions, which the machine does at once, and the blocks that Tensors leave behind."""

from __future__ import annotations

import gc
import sys
import threading
import weakref

import numpy as np
import pytest

import jitgrad as jg
from entry import DOWN, F32, F64, I64, UP, branch, function, is_slow, trace
from jitgrad import config
from jitgrad.execute.cpu import compiling, layout, types
from jitgrad.execute.cpu.functions import install
from still import still

KEY = object()


def at_once(made):
    return types.peek(made.address + layout.E_PLAIN)


def sums(xs):
    """x + x and x + 1 of the first, and all of them added up."""
    total = xs[0]
    for x in xs[1:]:
        total = total + x
    return [xs[0] + xs[0], xs[0] + 1, total]


ANSWERS = {
    "one": ([("result", 2)], lambda a, r: r[2]),
    "twice": ([("result", 1), ("result", 0), ("result", 1), ("tuple", 3)], lambda a, r: (r[1], r[0], r[1])),
    "nest": ([("const", None), ("result", 0), ("argument", 0), ("const", KEY), ("list", 2), ("result", 2),
              ("dict", ("a", "b")), ("tuple", 3)], lambda a, r: (None, r[0], {"a": [a, KEY], "b": r[2]})),
    "call": ([("result", 0), ("result", 1), ("call", tuple, 2)], lambda a, r: (r[0], r[1])),
    "no result": ([("argument", 0)], lambda a, r: a),
}
GIVEN = {
    "tensor": ([(F64, (3,))] * 2, "tensor", lambda: [jg.asarray(UP), jg.asarray(DOWN)]),
    "array": ([(F64, (3,))] * 2, "array", lambda: [UP.copy(), DOWN.copy()]),
    "float": ([(F64, ())] * 2, "float", lambda: [0.25, 3.5]),
    "single": ([(F32, ())] * 2, "float", lambda: [0.25, 3.5]),
    "int": ([(I64, ())] * 2, "int", lambda: [7, 2**40]),
}


def same(got, want):
    if isinstance(want, (tuple, list)):
        return type(got) is type(want) and len(got) == len(want) and all(map(same, got, want))
    if isinstance(want, dict):
        return list(got) == list(want) and all(map(same, got.values(), want.values()))
    if want is None or want is KEY:
        return got is want
    return np.array_equal(np.asarray(got), np.asarray(want))


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("given", GIVEN)
def test_answers_and_what_they_leave(given, answer):
    """Numbers, and after many calls every count as it was."""
    avals, name, make = GIVEN[given]
    steps, wanted = ANSWERS[answer]
    with still():
        made = trace(avals, lambda *xs: sums(xs), [(name, i, i) for i in range(2)], answer=steps)
        assert at_once(made) == 3
        f, arguments = function(made), make()
        numbers = [np.asarray(a) for a in arguments]
        assert same(f(*arguments), wanted(arguments[0], [numbers[0] * 2, numbers[0] + 1, numbers[0] + numbers[1]]))
        watched = [*arguments, KEY, None, made, f, jg.Tensor, tuple]
        gc.disable()
        try:
            f(*arguments)
            before, blocks = [sys.getrefcount(o) for o in watched], sys.getallocatedblocks()
            for _ in range(2000):
                f(*arguments)
            assert [sys.getrefcount(o) for o in watched] == before
            assert sys.getallocatedblocks() - blocks < 100
        finally:
            gc.enable()
        assert made.hits == 2002
        for wrong in ((arguments[0],), (*arguments, 1), (arguments[0], "x"), (jg.zeros(2), arguments[1])):
            assert is_slow(f(*wrong))


def test_one_object_for_two_inputs_is_another_call():
    made = trace([(F64, (3,))] * 2, lambda x, y: x + y, [("tensor", 0, 0), ("tensor", 1, 1)])
    x, y = jg.asarray(UP), jg.asarray(DOWN)
    f = function(made)
    np.testing.assert_array_equal(f(x, y).numpy(), UP + DOWN)
    assert at_once(made) and is_slow(f(x, x))


def test_guards_lead_on():
    up, down = (branch(sign, scale, [("array", 0, 0)]) for sign, scale in ((True, 1.0), (False, -1.0)))
    assert at_once(up) and at_once(down)
    f = function(up)
    counts = [sys.getrefcount(o) for o in (up, down)]
    np.testing.assert_array_equal(f(UP).numpy(), UP)
    assert f(DOWN)[0] == "failed"
    up.follow_with([(0, down)])
    for _ in range(100):
        np.testing.assert_array_equal(f(DOWN).numpy(), -DOWN)
        np.testing.assert_array_equal(f(UP).numpy(), UP)
    up.follow_with([])
    install(f, [up])
    assert [sys.getrefcount(o) for o in (up, down)] == counts


def test_a_call_outlives_its_trace():
    """A collection while the answer is built takes the trace away."""
    answer = [*(("result", 0) for _ in range(20)), ("tuple", 20), ("const", "s"), ("list", 2)]
    f, dropped = function(trace([(F64, (3,))], lambda x: x + x, [("array", 0, 0)], answer=answer)), []

    def drop(phase, info):
        install(f, [])
        dropped.append(phase)
    gc.callbacks.append(drop)
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        (first, *_), word = f(UP)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(drop)
    np.testing.assert_array_equal(first.numpy(), UP * 2)
    assert word == "s"
    if sys.version_info < (3, 12):           # from there on Python collects between calls only
        assert dropped and is_slow(f(UP))


def helper(x):
    return x * 2.0


def other(x):
    return x * 3.0


def test_functions_are_known_by_their_code():
    f, x = jg.function(lambda x: helper(x) + 1.0), jg.asarray(UP)
    for _ in range(3):
        np.testing.assert_array_equal(f(x).numpy(), UP * 2 + 1)
    kept = helper.__code__
    helper.__code__ = other.__code__
    try:
        np.testing.assert_array_equal(f(x).numpy(), UP * 3 + 1)
    finally:
        helper.__code__ = kept
    np.testing.assert_array_equal(f(x).numpy(), UP * 2 + 1)


def test_hot_plans_become_machine_code(monkeypatch):
    monkeypatch.setenv("JITGRAD_MACHINE_CODE", "hot")
    if config.machine_code() != "hot":
        pytest.skip("kernels by Numba stay on the sweep")
    made = trace([(F64, (3,))], lambda x: jg.sin(x) + x, [("array", 0, 0)])
    f, want = function(made), np.sin(UP) + UP
    for _ in range(40):
        np.testing.assert_allclose(f(UP).numpy(), want, rtol=1e-15)
    compiling.wait()
    assert made.plan.machine is not None and made.hits == 40
    np.testing.assert_allclose(f(UP).numpy(), want, rtol=1e-15)


def test_threads():
    f = jg.function(lambda x, s: (x * s, x + s))
    f(jg.asarray(UP), 1.0), f(jg.asarray(UP), 2.0)
    wrong = []

    def work(k):
        x = jg.asarray(UP * k)
        for i in range(3000):
            a, b = f(x, float(i))
            if (a.numpy() != UP * k * i).any() or (b.numpy() != UP * k + i).any():
                wrong.append((k, i))
    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.parametrize("size", [0, 1, 2, 8, 9, 511, 512, 520, 8000, 8191, 8192])
def test_blocks_are_used_again(size):
    """The last first, and only those that nobody has; a weak reference does not come back to life with one."""
    x = jg.asarray(np.arange(size, dtype=np.float64))
    kept = [x + float(k) for k in range(40)]
    a = x + x
    gone, at = weakref.ref(a), id(a)
    del a
    b = x + x
    assert id(b) == at and gone() is None
    assert len({id(t) for t in (*kept, b)}) == 41
    for k, t in enumerate(kept):
        np.testing.assert_array_equal(t.numpy(), np.arange(size) + k)
    np.testing.assert_array_equal(b.numpy(), np.arange(size) * 2.0)


def test_few_blocks_wait():
    """Of each size, and in all."""
    for size in (1, 16, 100, 1000, *range(8, 8000, 64)):
        x = jg.zeros(size, "float64")
        many = [x + 1.0 for _ in range(3 * layout.WAITING // (8 * size + 1) if size < 1000 else 8)]
        del many
    table = types._waiting.reshape(-1, 2)
    rooms = np.maximum(np.arange(len(table)) * layout.LINE, layout.TINY)
    assert (table[:, 1] * rooms < layout.WAITING + rooms).all()
    held = types.get_state(layout.S_WAITING_BYTES)
    assert held == (table[:, 1] * rooms).sum() and layout.WAITING < held <= layout.MOST_WAITING
