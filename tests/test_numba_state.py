"""Recorded functions inside `numba.njit` code: Variables, threads, memory, life."""

from __future__ import annotations

import gc
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.runtime import _nrt_python as _nrt
from numba.core.runtime import rtsys

import jitgrad as jg
from inside_numba import apply1, apply2, loss, repeat
from tolerance import assert_same_bits

# ---- Variables ----

def test_variables_are_read_afresh():
    v = jg.Variable([1.0, 2.0])
    made = jg.function(lambda x: v * x).njit(1.0)
    assert apply1(made, 1.0).tolist() == [1, 2]
    v.assign([3.0, 4.0])
    assert apply1(made, 1.0).tolist() == [3, 4]
    v.assign_sub([1.0, 1.0])
    assert apply1(made, 2.0).tolist() == [4, 6]
    jg.function(lambda: v.assign_add([1.0, 1.0]))()
    assert apply1(made, 1.0).tolist() == [3, 4]
    jg.function(lambda: v.assign_add([1.0, 1.0]) + 0.0).njit()()
    assert apply1(made, 1.0).tolist() == [4, 5]


def test_variables_are_assigned_as_python_does():
    def step(x):
        with jg.GradientTape() as tape:
            value = jg.sum((w - x) ** 2)
        w.assign_sub(0.1 * tape.gradient(value, w))
        count.assign_add(1)
        return value

    w, count = jg.Variable([1.0, 2.0]), jg.Variable(0)
    made = jg.function(step).njit(np.zeros(2))
    assert w.numpy().tolist() == [1, 2] and count.numpy() == 0          # recording leaves no trace
    held = w.numpy()
    value = repeat(made, np.zeros(2), 10)
    after = w.numpy()
    assert held.tolist() == [1, 2] and count.numpy() == 10
    w.assign([1.0, 2.0])
    for _ in range(10):
        want = step(jg.constant(np.zeros(2)))
    assert value == want.numpy()
    assert_same_bits(after, w.numpy())


def test_a_guard_that_fails_assigns_nothing():
    v = jg.Variable(0.0)

    def f(x):
        v.assign_add(1.0)
        return x if x > 0 else -x

    made = jg.function(f).njit(1.0)
    apply1(made, 1.0)
    with pytest.raises(RuntimeError, match="is not the one"):
        apply1(made, -1.0)
    assert v.numpy() == 1


def test_random_numbers_go_on():
    jg.random.set_seed(3)
    made = jg.function(lambda: jg.random.normal(4)).njit()
    got = [made() for _ in range(3)]
    jg.random.set_seed(3)
    f = jg.function(lambda: jg.random.normal(4))
    for a in got:
        assert_same_bits(a, f().numpy())


def test_a_model_and_its_optimizer_made_by_the_first_call(rng):
    x, y = rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=(8, 1)).astype(np.float32)
    kernel, bias = jg.Variable(np.zeros((3, 1), np.float32)), jg.Variable(np.zeros(1, np.float32))
    slots = {}

    def step(x, y):
        with jg.GradientTape() as tape:
            value = jg.mean((x @ kernel + bias - y) ** 2)
        for v, g in zip((kernel, bias), tape.gradient(value, (kernel, bias)), strict=True):
            if v.name + str(v.shape) not in slots:
                slots[v.name + str(v.shape)] = jg.Variable(np.zeros(v.shape, np.float32))
            m = slots[v.name + str(v.shape)]
            m.assign(0.9 * m + g)
            v.assign_sub(0.05 * m)
        return value

    made = jg.function(step).njit(x, y)

    @numba.njit(nogil=True)
    def train(x, y, n):
        first = last = made(x, y)
        for _ in range(n):
            last = made(x, y)
        return first, last

    first, last = train(x, y, 200)
    assert np.isclose(first, np.mean(y ** 2)) and last < first and len(slots) == 2
    best = np.linalg.lstsq(np.c_[x, np.ones(8)], y, rcond=None)[0]
    assert np.allclose(np.r_[kernel.numpy(), bias.numpy()[:, None]], best, atol=1e-3)


def test_variables_in_threads_that_python_does_not_know():
    v = jg.Variable(0.0)
    reads, writes = (jg.function(f).njit(1.0) for f in (lambda x: x + v, lambda x: [v.assign_add(x), x][1]))

    @numba.njit(parallel=True)
    def many(f, out):
        for i in numba.prange(len(out)):
            out[i] = f(1.0)

    out = np.zeros(1000)
    many(reads, out)
    assert (out == 1).all()
    many(writes, out)                                # Numba swallows the exceptions of such threads
    assert 0 <= v.numpy() <= 1000


# ---- threads, memory, life ----

def in_threads(count, work):
    done, errors = [], []

    def run():
        try:
            done.append(work())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors
    return done


def test_eight_threads_without_the_gil(xw):
    f = jg.function(jg.value_and_grad(loss, argnums=1))
    made, (want, slope) = f.njit(*xw), f(*map(jg.constant, xw))

    @numba.njit(nogil=True)
    def work(x, w):
        for _ in range(2000):
            value, found = made(x, w)
        return value, found

    for value, found in in_threads(8, lambda: work(*xw)):
        assert np.float32(value) == want.numpy()
        assert_same_bits(found, slope.numpy())


def test_threads_that_assign_a_variable_which_others_read():
    v = jg.Variable(np.zeros(1000))
    write = jg.function(lambda x: [v.assign(jg.broadcast_to(x, shape=(1000,))), x][1]).njit(1.0)
    read = jg.function(lambda x: jg.max(jg.abs(v)) * x).njit(1.0)
    for got in in_threads(8, lambda: (repeat(write, 2.0, 500), repeat(read, 1.0, 500), v.assign(np.ones(1000)))):
        assert got[0] == 2 and got[1] in (0, 1, 2)
    assert set(v.numpy().tolist()) <= {1.0, 2.0}


def test_arrays_that_another_thread_changes_meanwhile():
    x = np.ones(10_000)
    made, stop = jg.function(lambda x: jg.sum(jg.cumulative_sum(x))).njit(x), threading.Event()

    def change():
        while not stop.is_set():
            x[:] = np.nan
            x[:] = 1

    t = threading.Thread(target=change)
    t.start()
    repeat(made, x, 500)
    stop.set()
    t.join()
    x[:] = 1
    assert apply1(made, x) == 10_000 * 10_001 / 2


def test_recursion():
    half = jg.function(lambda x: x * 0.5).njit(np.ones(3))

    @numba.njit
    def down(x, n):
        if n == 0:
            return x
        return half(down(half(x), n - 1))

    assert down(np.ones(3), 20).tolist() == [0.25 ** 20] * 3


def test_one_type_for_functions_alike_and_objects_that_come_back():
    a, b = (jg.function(lambda x, k=k: x * k).njit(1.0) for k in (2.0, 3.0))

    @numba.njit
    def choose(fs, which, x):
        f = fs[which]
        return f(x), f

    assert numba.typeof(a) == numba.typeof(b)
    assert choose((a, b), 0, 5.0) == (10, a) and choose((a, b), 1, 5.0) == (15, b)


def test_functions_live_as_long_as_compiled_code_that_knows_them():
    made = jg.function(lambda x: x + np.arange(3.0) * 2).njit(np.ones(3))
    call = (lambda made: numba.njit(lambda x: made(x)))(made)
    assert call(np.ones(3)).tolist() == [1, 3, 5]
    del made
    gc.collect()
    kept = [np.ones(100) for _ in range(1000)]
    assert call(np.ones(3)).tolist() == [1, 3, 5] and kept


def test_results_are_freed():
    made = jg.function(lambda x: (x + 1, (x * 2,), jg.sum(x))).njit(np.ones(1000))
    repeat(made, np.ones(1000), 2)
    _nrt.memsys_enable_stats()
    before = rtsys.get_allocation_stats()
    repeat(made, np.ones(1000), 1000)
    after = rtsys.get_allocation_stats()
    assert after.alloc - before.alloc == after.free - before.free >= 2000


def test_results_of_calls_that_fail_are_freed():
    """Numba itself loses its hold of the argument, so that is all that stays."""
    made = jg.function(lambda x: [x + k if jg.sum(x) > 0 else -x for k in range(5)]).njit(np.ones(10))
    _nrt.memsys_enable_stats()
    before = rtsys.get_allocation_stats()
    for _ in range(100):
        with pytest.raises(RuntimeError):
            apply1(made, np.zeros(10))
    after = rtsys.get_allocation_stats()
    assert after.mi_alloc - before.mi_alloc >= 500
    assert (after.mi_alloc - before.mi_alloc) - (after.mi_free - before.mi_free) <= 100


def test_memory_of_the_callers():
    f = jg.function(lambda x, y: (x + y, jg.sum(x), y - x))
    made = f.njit(np.ones(3), np.ones(3), out=True)

    @numba.njit
    def call(x, y, a, b):
        before = x.sum()
        p, q, r = made(x, y, a, b)
        return p, q, r, before

    x, y, a, b = np.arange(3.0), np.ones(3), np.zeros(3), np.zeros(3)
    p, q, r, _ = call(x, y, a, b)
    assert a.tolist() == [1, 2, 3] and b.tolist() == [1, 0, -1] and q == 3
    assert np.shares_memory(p, a) and np.shares_memory(r, b)
    room = np.zeros(8)
    for wrong in ((x, x, a, b), (x, y, a, a), (x, y, y, b), (room[:3], y, room[2:5], b)):
        if wrong[0] is wrong[1]:
            call(*wrong)
        else:
            with pytest.raises(ValueError, match="the memory given for result . is that of an argument or of another"):
                call(*wrong)
    call(room[:3], y, room[3:6], b)
    with pytest.raises(ValueError, match=r"the memory given for result 2 was recorded with shape \(3,\), but axis 0 has length 4"):
        call(x, y, a, np.zeros(4))
    b.flags.writeable = False
    with pytest.raises(numba.TypingError, match="is a writable array of float64 with 1 axes"):
        call(x, y, a, b)


def test_a_loop_without_end_can_be_interrupted():
    forever = jg.function(lambda x: jg.while_loop(lambda v: v > 0.0, lambda v: v + 0.0 * v, x))
    made = forever.njit(0.0)

    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    apply1(made, 0.0)
    made(0.0)                                        # a signal is for the loop, not for Numba's compiler
    was = signal.signal(signal.SIGALRM, stop)
    try:
        for call in (lambda: apply1(made, 1.0), lambda: made(1.0)):
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Stop):
                call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, was)


def test_the_entry_point_needs_no_numba_before_numba_asks():
    code = ("import sys; from jitgrad.interop.numba import init; assert 'numba' not in sys.modules; init(); "
            "import numba, jitgrad as jg; f = jg.function(lambda x: x * 2).njit(1.0); "
            "assert numba.njit(lambda x: f(x))(4.0) == 8")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_machine_code_the_sweep_does_the_same(monkeypatch, xw):
    from jitgrad.execute.cpu import engine
    f = jg.function(jg.value_and_grad(loss, argnums=1))
    machine = f.njit(*xw)
    assert machine._plan.machine is not None

    def broken(*args):
        raise RuntimeError("no machine code today")

    monkeypatch.setattr(engine, "machine_code", broken)
    monkeypatch.setattr("jitgrad.execute.cpu.compiling._compiler.warned", True)
    sweep = f.njit(*xw)
    assert sweep._plan.machine is None
    (a, b), (c, d) = apply2(machine, *xw), apply2(sweep, *xw)
    assert a == c
    assert_same_bits(b, d)


def test_a_call_in_a_try_goes_no_further():
    """Numba lets what follows a failed call in a `try` run: neither wrong shapes nor freed results may be met there."""
    made = jg.function(lambda x: [jg.cumulative_sum(x), x * 2, jg.sum(x) if x[0] > 0 else x[0]]).njit(np.ones(50_000))

    @numba.njit(nogil=True)
    def careful(x, n):
        total, failed = 0.0, 0
        for _ in range(n):
            try:
                a, b, c = made(x)
                total += a[-1] + b[0] + c
            except Exception:
                failed += 1
        return total, failed

    x = np.ones(50_000)
    assert careful(x, 3) == (3 * (2 * 50_000 + 2), 0)
    for wrong in (np.ones(2), np.zeros(50_000), np.ones(0), np.ones(100_000)[::2]):
        assert careful(wrong, 100) == (0, 100)
    assert careful(x, 3) == (3 * (2 * 50_000 + 2), 0)


def test_the_training_loop_in_the_readme():
    text = (Path(__file__).parent.parent / "README.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.S) if "numba.njit" in b]
    names = {"jg": jg}
    exec(compile(block, "README.md", "exec"), names)
    w, x, y = (names[name] for name in ("w", "x", "y"))
    want = {name: v.copy() for name, v in w.items()}
    f = jg.function(jg.value_and_grad(names["loss"]))
    for _ in range(200):
        for k in range(0, len(x), 32):
            value, slopes = f(want, x[k: k + 32], y[k: k + 32])
            want = {name: v - 0.05 * slopes[name].numpy() for name, v in want.items()}
    assert names["value"] == value.numpy() < 0.1
    assert_same_bits(names["hidden"], want["hidden"])
    assert_same_bits(names["out"], want["out"])
