"""Nothing is kept: after random work every reference count, Tensor and byte is as before, without the garbage collector."""

from __future__ import annotations

import contextlib
import gc
import logging
import resource
import sys
import threading
import weakref

import numpy as np
import pytest

import jitgrad as jg
from still import still

POOL = [jg.constant([1.0, 2.0, 3.0]), jg.constant([[0.5, 1.5, 2.5]]), jg.constant(2.0), jg.constant([1, 2, 3]),
        jg.constant([True, False, True]), jg.Variable([0.25, 0.5, 0.75]), jg.Variable(1.5),
        jg.asarray(np.linspace(0.5, 1.5, 70_000))]
SHARED = [None, True, NotImplemented, (), jg.Tensor, jg.Variable, jg.GradientTape, float, int, tuple, list, jg.add, jg.sum,
          type(jg.add), 1.25, "keepdims", *POOL]


@pytest.fixture(autouse=True)
def no_collector():
    gc.collect()
    gc.disable()
    logging.disable(logging.CRITICAL)      # pytest keeps every record
    with still():
        yield
    logging.disable(logging.NOTSET)
    gc.enable()


# ---- small pieces of work; each leaves nothing behind ----

def operand(rng, floats=False):
    return POOL[rng.choice([0, 1, 2, 5, 6] if floats else 7)]


STEPS = [lambda x, y: x + y, lambda x, y: y * x, lambda x, y: jg.sin(x), lambda x, y: jg.sum(x, axis=-1) if x.ndim else -x,
         lambda x, y: x * 1.25, lambda x, y: 2 - x, lambda x, y: jg.where(x > 0, x, 0.0), lambda x, y: jg.reshape(x, (-1,)),
         lambda x, y: x[..., ::-1] if x.ndim else x * 1.0]


def expression(rng, depth=4):
    x = operand(rng, floats=True)
    for _ in range(rng.integers(1, depth + 1)):
        x = STEPS[rng.integers(len(STEPS))](x, operand(rng))
    return x


def unrecorded(rng):
    expression(rng)


def long_operations(rng):
    jg.sum(POOL[-1] * POOL[-1] + 1.25)


def errors(rng):
    bad = (lambda: POOL[0] + jg.constant([1.0, 2.0]), lambda: jg.sin("x"), lambda: POOL[0] @ 1.25, lambda: POOL[0][7],
           lambda: jg.take(POOL[0], POOL[3] + 5), lambda: bool(POOL[0]), lambda: POOL[0] + None, lambda: jg.add(1.25),
           lambda: jg.broadcast_to(POOL[2], (10**7, 10**7)), lambda: jg.GradientTape().watch(1.25), lambda: POOL[3] + 2**70,
           lambda: float(POOL[0]), lambda: jg.sum(POOL[0], axis=4), lambda: jg.constant([1.0, 2.0]) + POOL[5])
    with pytest.raises((TypeError, ValueError, IndexError, MemoryError, OverflowError)):
        bad[rng.integers(len(bad))]()


def errors_while_recording(rng):
    with jg.GradientTape() as tape:
        tape.watch(POOL[0])
        y = POOL[0] * 2.0
        errors(rng)
        y = y + operand(rng)
    tape.gradient(y, POOL[0])


def gradient(rng):
    persistent = bool(rng.integers(2))
    with jg.GradientTape(persistent=persistent) as tape:
        tape.watch(POOL[:3])
        y = expression(rng)
    for _ in range(1 + persistent):
        tape.gradient(y, [POOL[0], POOL[5], POOL[6], POOL[2]],
                      unconnected_gradients=["none", "zero"][rng.integers(2)])
    if persistent:
        tape.gradient([y, y], {"a": POOL[0], "b": [POOL[5]]}, output_gradients=[jg.ones_like(y), None])
        tape.show(), tape.nbytes, tape.explain(y, POOL[0]), tape.watched_variables()


def used_twice(rng):
    with jg.GradientTape() as tape:
        y = POOL[6] * POOL[6]
    tape.gradient(y, POOL[6])
    with pytest.raises(RuntimeError):
        tape.gradient(y, POOL[6])


def second_order(rng):
    with jg.GradientTape() as outer, jg.GradientTape() as inner:
        outer.watch(POOL[0])
        inner.watch(POOL[0])
        y = jg.sum(jg.sin(POOL[0]) * POOL[5])
        g = inner.gradient(y, [POOL[0], POOL[5]])
    outer.gradient(g, [POOL[0], POOL[5]])
    jacobians(rng)


def jacobians(rng):
    with jg.GradientTape(persistent=True) as tape:
        tape.watch([POOL[0], POOL[1]])
        y = POOL[0] * POOL[0] * POOL[5]
        z = jg.sin(POOL[1])
    tape.jacobian(y, [POOL[0], POOL[5]])
    tape.batch_jacobian(z, POOL[1])


def released_in_odd_orders(rng):
    tapes = []
    for _ in range(5):
        tape = jg.GradientTape(persistent=bool(rng.integers(2)))
        tape.__enter__()
        tapes.append((tape, expression(rng)))
    results = [y for _, y in tapes]
    for at in rng.permutation(5):
        tape = tapes[at][0]
        if rng.integers(2):
            tape.__exit__(None, None, None)
        if rng.integers(2):
            tape.gradient(results[at], [POOL[5], POOL[6]])
        if rng.integers(2):
            with contextlib.suppress(ValueError):      # it may not record any more
                tape.reset()
        tapes[at] = (None, None)
        del tape
        expression(rng)


def reset_while_recording(rng):
    with jg.GradientTape(persistent=True) as tape:
        for _ in range(3):
            tape.watch(POOL[0])
            y = expression(rng) * POOL[0]
            if rng.integers(2):
                with tape.stop_recording():
                    y = y * expression(rng)
            if rng.integers(2):
                tape.gradient(y, [POOL[0], POOL[6]])
            tape.reset()


def dropped_while_recording(rng):
    tape = jg.GradientTape()
    tape.__enter__()
    tape.watch(POOL[0])
    expression(rng)


def views(rng):
    base = jg.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]) * 1.25
    row = base[1]
    array, memory = row.numpy(), memoryview(jg.reshape(base, (6,)))
    del base, row
    assert array.tolist() == [5.0, 6.25, 7.5] and memory[0] == 1.25


def custom(rng):
    @jg.custom_gradient
    def f(x):
        return x * 2.0, lambda g: g * 3.0
    with jg.GradientTape() as tape:
        tape.watch(POOL[0])
        y = f(POOL[0]) + jg.stop_gradient(POOL[0])
    assert tape.gradient(y, POOL[0]).numpy().tolist() == [3.0] * 3


def variables(rng):
    v = jg.Variable([1.0, 2.0, 3.0], name="v")
    with jg.GradientTape(persistent=True) as tape:
        y = v * v
        v.assign(y)
        v.assign_add([1.0, 1.0, 1.0])
        y = jg.sum(y * v)
    tape.gradient(y, v)


def conversions(rng):
    float(POOL[2]), int(POOL[6]), bool(POOL[2]), repr(POOL[0]), f"{POOL[2]:.1f}", np.asarray(POOL[0]), POOL[0].numpy()
    list(POOL[0]), POOL[0].tolist(), np.sin(POOL[0]), np.ones(3) * POOL[0], POOL[0] == 1.25, POOL[1].T, len(POOL[0])
    jg.asarray([POOL[2], POOL[6]]), jg.concat([POOL[0], POOL[5]]), jg.matmul(POOL[1], POOL[0]), jg.mean(POOL[3])


def under_debug_nans(rng):
    with jg.debug_nans():
        gradient(rng)
        second_order(rng)
        with pytest.raises(FloatingPointError):
            jg.sqrt(-POOL[rng.choice([0, 1, 5])])
        with jg.GradientTape() as tape:
            tape.watch(POOL[0])
            y = POOL[0] * 0.0
        with pytest.raises(FloatingPointError):
            tape.gradient(y, POOL[0], output_gradients=jg.constant([np.inf, 1.0, 1.0]))

def bodies(rng):
    v = POOL[5]

    def body(x):
        v.assign(v * 1.0)
        return x + v * POOL[0]
    jg.while_loop(lambda x: jg.sum(x) < 10.0, body, POOL[0])
    jg.cond(POOL[2] > 1.0, lambda: body(POOL[0]), lambda: v * 2.0)
    jg.scan(lambda c, x: (c + x * v[0], None), 0.0, POOL[0])
    jg.vmap(lambda x: x * v)(POOL[1])
    with pytest.raises(ValueError, match="on purpose"):
        jg.fori_loop(0, 2, lambda i, x: failing(x * v), POOL[0])


def failing(x):
    raise ValueError("on purpose")


WORK = [under_debug_nans, bodies, unrecorded, long_operations, errors, errors_while_recording, gradient, used_twice,
        second_order, jacobians, released_in_odd_orders, reset_while_recording, dropped_while_recording, views, custom, variables, conversions]


def do(work, seed, times):
    rng = np.random.default_rng(seed)
    for _ in range(times):
        work(rng)


def counts():
    gc.collect()         # exceptions and their frames wait for it, and hold None
    return np.array([sys.getrefcount(o) for o in SHARED])


def log_is_empty():
    """No row of this thread is kept: a new tape finds none."""
    core = jg.GradientTape()
    with core:
        pass
    return core.nbytes == 0


@pytest.mark.parametrize("work", WORK, ids=lambda f: f.__name__)
def test_reference_counts_stay(work):
    """The same random work again, so that every cache is warm: not one count may move."""
    do(work, 1, 30)
    for _ in range(3):        # what moves for another reason, a collection or a traceback's frame, does not move each time
        before = counts()
        do(work, 1, 30)
        moved = {repr(o)[:40]: int(d) for o, d in zip(SHARED, counts() - before, strict=True) if d}
        # Python itself counts None, small ints and types of passing objects a little up and down
        if all(abs(d) < 5 for d in moved.values()):
            break
    else:
        pytest.fail(f"counts that moved every time: {moved}")
    assert log_is_empty()


def test_mixed_work_keeps_no_memory():
    """Resident memory after twenty times the work is what it was: 6000 pieces of all kinds in random order.

    A leak of one 0-d Tensor (100 bytes) a piece would be 600 kB.
    """
    def mixed(times):
        for _ in range(times):
            rng = np.random.default_rng(5)
            for _ in range(300):
                WORK[rng.integers(len(WORK))](rng)
    mixed(4)
    objects, held = len(gc.get_objects()), resident()
    mixed(20)
    assert len(gc.get_objects()) - objects < 200
    assert resident() - held < 400_000


def resident():
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


# ---- what dies when ----

def dead(*refs):
    return [r() is None for r in refs]


def test_values_die_with_the_tape():
    x = jg.constant([1.0, 2.0])
    with jg.GradientTape() as tape:
        tape.watch(x)
        a = jg.sin(x)
        b = a * a
    refs = [weakref.ref(t) for t in (a, b, x)]
    del a
    assert dead(*refs) == [False, False, False]           # the rows hold a
    tape.gradient(b, x)
    assert dead(*refs) == [True, False, False]            # not persistent: its rows went with the gradient
    del b, x
    assert dead(*refs) == [True, True, True]


def test_a_persistent_tape_keeps_until_it_dies_or_is_reset():
    def reset(tapes):
        with tapes[0]:
            tapes[0].reset()
    for let_go in (lambda tapes: tapes.clear(), reset):
        x = jg.constant([1.0, 2.0])
        tapes = [jg.GradientTape(persistent=True)]
        with tapes[0]:
            tapes[0].watch(x)
            y = jg.sin(x)
        refs = [weakref.ref(t) for t in (x, y)]
        tapes[0].gradient(y, x)
        del x, y
        assert dead(*refs) == [False, False]
        let_go(tapes)
        assert dead(*refs) == [True, True]


@pytest.mark.parametrize("order", ([0, 1], [1, 0]))
def test_rows_of_two_tapes_die_with_the_last(order):
    x = jg.constant([1.0])
    tapes = [jg.GradientTape(persistent=True) for _ in range(2)]
    with tapes[0], tapes[1]:
        for tape in tapes:
            tape.watch(x)
        y = jg.sin(x) * 2.0
    del tape
    ref = weakref.ref(y)
    for turn, at in enumerate(order):
        assert tapes[at].gradient(y, x) is not None
        tapes[at] = None
        if turn == 0:
            kept = y
            del y
            assert ref() is kept
            y = kept
            del kept
    del y
    assert dead(ref) == [True]


def test_the_base_lives_as_long_as_its_views():
    base = jg.constant([[1.0, 2.0], [3.0, 4.0]]) * 1.0
    row = base[1]
    ref, row_ref = weakref.ref(base), weakref.ref(row)
    array = row.numpy()
    del base
    assert dead(ref) == [False]
    del row
    assert dead(row_ref) == [False] and array.tolist() == [3.0, 4.0]
    del array
    assert dead(ref, row_ref) == [True, True]


def test_variables_and_tapes_die():
    v = jg.Variable([1.0, 2.0])
    with jg.GradientTape() as tape:
        y = v * v
    refs = [weakref.ref(o) for o in (v, tape, y)]
    tape.gradient(y, v)
    del v
    assert tape.watched_variables()[0] is refs[0]()       # still answered after the gradient
    del tape, y
    assert dead(*refs) == [True, True, True]


def test_functions_and_what_they_recorded_die():
    x = jg.constant([1.0, 2.0])
    made = []

    def f(x):
        y = x * 2.0
        made.extend(weakref.ref(t) for t in (x, y))
        return y + float(y[0])
    function = jg.function(f)
    made.append(weakref.ref(function))
    assert function(x).numpy().tolist() == function(x).numpy().tolist() == [4.0, 6.0]
    del function
    assert all(dead(*made))


def test_a_long_persistent_recording_gives_its_memory_back():
    x = jg.constant(np.ones(1000, np.float32))

    def record():
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = x
            for _ in range(3000):
                y = y * 1.0001
        assert tape.nbytes > 3000 * 4000
        tape.gradient(y, x)
    record()
    record()
    before = resident()
    for _ in range(5):
        record()
    assert resident() - before < 6 << 20                   # one such tape holds 12 MB


def test_threads_leave_nothing():
    def work():
        for seed in range(3):
            do(gradient, seed, 3)
            do(dropped_while_recording, seed, 2)
    for _ in range(2):
        before = counts()
        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        del threads, t
    moved = np.abs(counts() - before)
    assert moved.max() < 5, dict(zip(map(repr, SHARED), moved.tolist(), strict=True))
    assert log_is_empty()
