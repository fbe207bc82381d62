"""Hot plans become machine code in the background; whatever happens to the compiler, answers stay right."""

from __future__ import annotations

import gc
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.lock import TABLES
from jitgrad.execute.cpu import compiling, engine
from tolerance import assert_same_bits

_serial = itertools.count(1)


@pytest.fixture(autouse=True)
def hot(monkeypatch):
    monkeypatch.setenv("JITGRAD_MACHINE_CODE", "hot")


def fresh():
    """A function that nobody has compiled, and what it computes."""
    k = float(next(_serial))
    return jg.function(lambda x: jg.sum(jg.tanh(x * k) + x)), k


def value_of(k):
    return float(np.tanh(0.5 * k) + np.tanh(2.0 * k) + 2.5)


def plan_of(f):
    return f._impl.entries[0].plan


def test_a_function_that_is_called_often_is_compiled():
    f, _ = fresh()
    x = jg.constant(np.linspace(-1.0, 1.0, 100, dtype=np.float32))
    first = f(x).numpy()
    assert plan_of(f).machine is None
    for _ in range(40):
        assert_same_bits(f(x).numpy(), first)
    compiling.wait()
    assert plan_of(f).machine is not None
    assert_same_bits(f(x).numpy(), first)


def test_code_is_swapped_under_calls_of_eight_threads():
    functions = [fresh()[0] for _ in range(6)]
    xs = [jg.constant(np.linspace(-1.0, i + 1.0, 50, dtype=np.float32)) for i in range(8)]
    want, wrong = [[f(x).numpy() for x in xs] for f in functions], []

    def work(i):
        for _ in range(300):
            for f, answers in zip(functions, want, strict=True):
                if f(xs[i]).numpy().tobytes() != answers[i].tobytes():
                    wrong.append(i)
    team = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    [t.start() for t in team]
    [t.join() for t in team]
    compiling.wait()
    assert not wrong
    assert all(plan_of(f).machine is not None for f in functions)


def test_a_failure_is_told_once_and_changes_no_answer(monkeypatch, caplog):
    compiling.wait()
    monkeypatch.setattr(compiling._compiler, "warned", False)

    def failing(*_):
        raise RuntimeError("LLVM ERROR: out of registers\nand more")
    monkeypatch.setattr(engine, "machine_code", failing)
    x = jg.constant([0.5, 2.0])
    with caplog.at_level(logging.WARNING, "jitgrad"):
        for _ in range(3):
            f, k = fresh()
            want = value_of(k)
            for _ in range(40):
                assert float(f(x)) == pytest.approx(want, rel=1e-6)
            compiling.wait()
            assert plan_of(f).machine is None
    (record,) = caplog.records
    assert "runs on the interpreter" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_code_dies_with_its_function():
    f, _ = fresh()
    x = jg.constant([0.5, 2.0])
    for _ in range(40):
        f(x)
    compiling.wait()
    plan, code = weakref.ref(plan_of(f)), weakref.ref(plan_of(f).machine.held[-1])
    assert code() is not None
    del f
    gc.collect()
    assert plan() is None
    assert code() is None


def test_nobody_compiles_with_the_lock_of_the_tables(monkeypatch):
    """A fork and the compiler take the compiler's first."""
    monkeypatch.setenv("JITGRAD_MACHINE_CODE", "1")
    held, make = [], engine.machine_code

    def watched(*args):
        held.append(TABLES._is_owned())
        return make(*args)
    monkeypatch.setattr(engine, "machine_code", watched)
    f, k = fresh()
    x = jg.constant([0.5, 2.0, float(next(_serial))])
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.sum(jg.tanh(x * k) * jg.sin(x) + jg.exp(x) * jg.cos(x * jg.sqrt(x)))
    assert tape.gradient(y, x) is not None
    f(x)
    assert held == [False, False]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_a_fork_compiles_by_itself():
    f, _ = fresh()
    x = jg.constant([0.5, 2.0])
    want = float(f(x))
    for _ in range(20):
        f(x)                                     # the parent's thread may be at work
    child = os.fork()
    if child == 0:
        good = False
        try:
            g, k = fresh()
            value = value_of(k)
            good = all(abs(float(g(x)) - value) < 1e-5 and float(f(x)) == want for _ in range(40))
            compiling.wait()
            good = good and plan_of(g).machine is not None and float(f(x)) == want
        finally:
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    compiling.wait()
    assert float(f(x)) == want


def test_a_process_ends_while_plans_wait():
    code = """
import jitgrad as jg
fs = [jg.function(lambda x, k=float(k): jg.sin(x * k) + k) for k in range(40)]
for f in fs:
    for _ in range(20):
        f(jg.constant([1.0, 2.0]))
print("done")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout.strip()) == (0, "done"), run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no statm here")
def test_a_million_calls_keep_no_memory():
    f, _ = fresh()
    x = jg.constant(np.ones(16, np.float32))
    for _ in range(1000):
        f(x)
    compiling.wait()
    assert plan_of(f).machine is not None

    def pages():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])
    before = pages()
    for _ in range(1_000_000):
        f(x)
    assert pages() - before < 256


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_a_compiled_loop_without_end_can_be_interrupted(monkeypatch):
    monkeypatch.setenv("JITGRAD_MACHINE_CODE", "1")

    @jg.function
    def forever(x):
        return jg.while_loop(lambda x: x > 0.0, lambda x: x * 1.0 + 0.0, x)

    def stop(*_):
        raise TimeoutError("enough")
    x = jg.constant(1.0)
    forever(-x)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(TimeoutError, match="enough"):
            forever(x)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert float(forever(-x)) == -1.0
