"""Recorded functions that are disturbed: exceptions, Ctrl-C, threads, forks; and what they keep alive."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import sys
import threading
import weakref

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.execute.cpu.plans import Plan
from jitgrad.frontend.traces import Call
from replays import told
from still import still

X = jg.constant([1.0, -2.0, 3.0])


def interrupt():
    signal.raise_signal(signal.SIGINT)


def fail():
    raise ValueError("no")


@pytest.mark.parametrize("disturb", [interrupt, fail])
def test_what_stops_a_recording_leaves_the_function_and_the_tapes_usable(disturb):
    w, quiet = jg.Variable(0.0), {"on": False}

    @jg.function
    def f(x):
        w.assign_add(1.0)
        if not quiet["on"]:
            disturb()
        w.assign_add(10.0)
        return x * w
    out = []
    for on in (False, True, True, False, True):
        quiet["on"] = on
        with jg.GradientTape() as tape:
            tape.watch(X)
            try:
                y = f(X)
                out.append(float(y[0]))
            except (KeyboardInterrupt, ValueError):
                y = X * 5.0
        assert float(tape.gradient(y, X)[0]) == (out[-1] if on else 5.0)
    assert (out, float(w)) == ([12.0, 23.0, 35.0], 35.0)


def test_a_recording_that_raises_keeps_nothing():
    def f(x):
        y = x * 2.0
        raise ValueError(y.shape)
    g, before = jg.function(f), sys.getrefcount(X)
    for _ in range(50):
        with pytest.raises(ValueError, match="3"):
            g(X)
    gc.collect()
    assert sys.getrefcount(X) <= before


def test_ctrl_c_in_a_long_replay_changes_nothing():
    w = jg.Variable(0.0)

    @jg.function
    def f(n):
        w.assign_add(1.0)
        return jg.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 0.5 + 1.0), (jg.constant(0), X))[1]
    few = jg.constant(10)
    f(few)
    expected = told(f(few))

    def interrupted(*args):
        raise KeyboardInterrupt
    before = signal.signal(signal.SIGALRM, interrupted)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            f(jg.constant(2**31 - 1))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert float(w) == 2.0
    assert told(f(few)) == expected
    assert float(w) == 3.0


def test_threads_record_and_replay_at_once():
    w = jg.Variable(2.0)

    def plain(x):
        return jg.sum(x * w) if jg.sum(x) > 0 else -x
    f, wrong = jg.function(plain), []

    def slope(function, x):
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = jg.sum(function(x))
        return told(y), told(tape.gradient(y, x))

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(100):
            x = jg.constant(rng.normal(size=int(rng.integers(1, 6))))
            if slope(f, x) != slope(plain, x) or told(f(x)) != told(plain(x)):
                wrong.append((seed, x))
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    info = f.cache_info()
    assert wrong == []
    assert info.recordings < 80
    assert info.hits > 1400


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_replays_and_records():
    w = jg.Variable(np.ones((200, 200), np.float32))

    def plain(x):
        return w @ x * 2.0
    f, a, b = jg.function(plain), jg.ones((200, 200)), jg.ones((200, 3))
    f(a)
    expected = told(f(a)), told(plain(b))
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if (told(f(a)), told(f(b))) == expected and told(f(b)) == expected[1] else 3)
    assert os.waitpid(child, 0)[1] == 0
    assert told(f(b)) == expected[1]


class Owner:
    def __init__(self, factor):
        self.factor = factor

    @jg.function
    def __call__(self, x):
        return x * self.factor


def test_an_object_dies_while_another_thread_has_the_lock():
    """It may die in a collection, in a thread that has what the other one waits for."""
    owner = Owner(3.0)
    owner(X)
    impl = Owner.__dict__["__call__"]._impl
    known, held, free = len(impl.entries), threading.Event(), threading.Event()

    def hold():
        with impl.lock:
            held.set()
            free.wait(20)
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    dying = [owner]
    del owner
    killer = threading.Thread(target=dying.clear)
    killer.start()
    killer.join(5)
    stuck = killer.is_alive()
    free.set()
    holder.join()
    killer.join()
    assert not stuck
    assert len(impl.entries) == known - 1


def test_one_recording_does_not_wait_for_another(monkeypatch):
    begun, done, late = threading.Event(), threading.Event(), []
    make = Call._entry

    def slowly(call):
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            late.append(not done.wait(5))
        return make(call)
    monkeypatch.setattr(Call, "_entry", slowly)
    other = threading.Thread(target=jg.function(lambda x: x * 2.0), args=(X,))
    other.start()
    begun.wait()
    jg.function(lambda x: x * 3.0)(X)
    done.set()
    other.join()
    assert late == [False]


def test_a_function_is_not_locked_while_it_is_compiled(monkeypatch):
    f = jg.function(lambda x: x * 7.0, eager_compile=True)
    free = []

    def attempt():
        with f._impl.lock:
            free.append(True)

    def compile_(plan):
        other = threading.Thread(target=attempt, daemon=True)
        other.start()
        other.join(5)
        free.append(other.is_alive())
    monkeypatch.setattr(Plan, "compile", compile_)
    f(X)
    assert free == [True, False]


def test_memory_stays_over_many_calls():
    def statm():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("tells memory by /proc")
    w = jg.Variable(1.0)
    f = jg.function(lambda x, a: {"k": [x * w, (x + a,)], "z": None} if x[0] > 0 else [x - a])
    args = [X, -X]
    for k in range(3000):
        f(args[k % 2], float(k))
    before = statm()
    for k in range(100_000):
        f(args[k % 2], float(k))
    assert statm() - before < 256
    assert f.cache_info().hits > 100_000


@still()
def test_calls_leave_reference_counts_and_make_no_cycles():
    held = jg.constant([1.0, 2.0, 3.0])
    nest, array = {"a": held, "l": [held, (held,)]}, np.ones(3, np.float32)
    f = jg.function(lambda d, array, s: {"r": d["a"] * array * s, "d": d["l"]})

    def counts():
        return [sys.getrefcount(x) for x in (held, nest, nest["l"], array)]
    for k in range(4):
        f(nest, array, k + 0.5)
    before = counts()
    gc.collect()
    gc.disable()
    try:
        for k in range(1000):
            f(nest, array, k + 0.5)
        assert gc.collect() < 5
    finally:
        gc.enable()
    assert counts() == before


class Model:
    """Has a recorded method, and makes one of its own."""

    def __init__(self):
        self.w = jg.Variable(2.0)
        self.own = jg.function(self.step)

    def step(self, x):
        return self.w * x

    decorated = jg.function(step)


@pytest.mark.parametrize("name", ["own", "decorated"])
def test_models_die(name):
    model = Model()
    for _ in range(3):
        getattr(model, name)(X)
    seen = weakref.ref(model)
    del model
    gc.collect()
    assert seen() is None


def test_instances_have_their_own_traces():
    one, two = Model(), Model()
    two.w.assign(5.0)
    for _ in range(3):
        assert told(one.decorated(X)) == told(X * 2.0)
        assert told(two.decorated(X)) == told(X * 5.0)


@pytest.mark.parametrize("make", [
    lambda held: lambda x: x * held.rate, lambda held: lambda x, h=held: x * h.rate,
    lambda held: jg.function(lambda x: x * held.rate)], ids=["closure", "default", "nested"])
def test_functions_die_with_what_they_saw(make):
    class Held:
        rate = 2.0
    held = Held()
    f = jg.function(make(held))
    for _ in range(3):
        f(X)
    seen = weakref.ref(held), weakref.ref(f)
    del f, held
    gc.collect()
    assert [r() for r in seen] == [None, None]


def test_a_recursive_function_dies():
    def make():
        @jg.function
        def f(x, n):
            return x if n == 0 else f(x * 2.0, n - 1)
        assert told(f(X, 3)) == told(f(X, 3)) == told(X * 8.0)
        return weakref.ref(f)
    seen = make()
    gc.collect()
    assert seen() is None


def test_closures_and_counters_that_change():
    def make(wrap):
        count, cfg = 0, {"rate": 1.0, "sizes": [1.0, 2.0]}

        class Part:
            rate = 1.0
        part = Part()

        def f(x, what):
            nonlocal count
            if what == "count":
                count += 1
            elif what == "cfg":
                cfg["rate"] += 1.0
            elif what == "list":
                cfg["sizes"].append(3.0)
            elif what == "object":
                part.rate = part.rate + 0.5
            elif what == "class":
                Part.rate = Part.rate + 1
            return x * count + cfg["rate"] + len(cfg["sizes"]) * part.rate + sum(cfg["sizes"])
        return wrap(f)
    replayed, plain = make(jg.function), make(lambda f: f)
    for what in [*"-,count,count,-,-,cfg,cfg,-,list,-,list,class,class,-,object,object,-,count,count,-".split(",")]:
        assert told(replayed(X, what)) == told(plain(X, what)), what


@jg.function
def doubled(x):
    return x * 2.0


def test_functions_are_copied_and_pickled_as_pythons_are():
    assert copy.copy(doubled) is copy.deepcopy(doubled) is pickle.loads(pickle.dumps(doubled)) is doubled
    with pytest.raises((pickle.PicklingError, AttributeError)):     # as versions of Python differ
        pickle.dumps(jg.function(lambda x: x))
