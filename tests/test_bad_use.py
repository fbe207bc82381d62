"""Tapes used wrongly, threads, forks, interrupts and memory that runs out: an answer or an exception, never a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import jitgrad as jg


def square_tape(persistent=False):
    x = jg.constant([1.0, 2.0])
    with jg.GradientTape(persistent=persistent) as tape:
        tape.watch(x)
        y = x * x
    return tape, x, y


# ---- tapes ----

def test_a_tape_used_after_its_gradient():
    tape, x, y = square_tape()
    tape.gradient(y, x)
    for ask in (lambda: tape.gradient(y, x), lambda: tape.jacobian(y, x), lambda: tape.batch_jacobian(jg.zeros((1, 1)), jg.zeros((1, 1)))):
        with pytest.raises(RuntimeError, match="non-persistent GradientTape can only be used to compute one set"):
            ask()
    assert tape.explain(y, x)


def test_gradients_of_what_was_never_recorded():
    tape, x, _ = square_tape(persistent=True)
    stranger, variable = jg.constant([3.0, 4.0]), jg.Variable([1.0, 2.0])
    late = x * 2.0
    for target, source in ((stranger, x), (late, x), (variable, x), (x * x, variable), (stranger, stranger)):
        found = tape.gradient(target, source)
        assert found is None or (target is source and found.numpy().tolist() == [1, 1])
    assert tape.gradient([], x) is None and tape.gradient(x * x, []) == [] and tape.gradient(x, {}) == {}
    for thing in (1.0, None, "x", np.zeros(2), object()):
        assert tape.gradient(thing, x) is None
        assert tape.gradient(x, [thing, x])[1].numpy().tolist() == [1, 1]


def test_seeds_that_do_not_fit():
    tape, x, y = square_tape(persistent=True)
    for seed, phrase in ((jg.zeros(3), r"shape \(3,\)"), ([jg.zeros(2), None], "2 output_gradients for 1 targets")):
        with pytest.raises(ValueError, match=phrase):
            tape.gradient(y, x, output_gradients=seed)
    with pytest.raises(TypeError, match="cannot make a Tensor of str"):
        tape.gradient(y, x, output_gradients="abc")
    with pytest.raises(ValueError, match="Unknown value for unconnected_gradients: 'sideways'"):
        tape.gradient(y, x, unconnected_gradients="sideways")
    assert tape.gradient(y, x).numpy().tolist() == [2, 4]


def test_entering_and_leaving_out_of_order():
    tape = jg.GradientTape()
    tape.__exit__(None, None, None)                       # not entered: nothing to leave
    x = jg.constant(2.0)
    with tape:
        with pytest.raises(ValueError, match="Tape is still recording"):
            tape.__enter__()
        tape.watch(x)
        y = x * x
    tape.__exit__(None, None, None)
    assert tape.gradient(y, x).numpy() == 4
    with pytest.raises(RuntimeError, match="not recording"), jg.GradientTape().stop_recording():
        pass
    first, second = jg.GradientTape(), jg.GradientTape()
    first.__enter__()
    second.__enter__()
    first.watch(x)
    second.watch(x)
    y = x * x
    first.__exit__(None, None, None)                      # crossed, not nested
    z = y * x
    second.__exit__(None, None, None)
    assert first.gradient(y, x).numpy() == 4 and second.gradient(z, x).numpy() == 12


def test_an_exception_in_the_block_leaves_the_tape_usable():
    x = jg.constant(3.0)
    tape = jg.GradientTape()
    with pytest.raises(ZeroDivisionError), tape:
        tape.watch(x)
        y = x * x
        raise ZeroDivisionError
    assert tape.gradient(y, x).numpy() == 6
    with jg.GradientTape() as other:                       # and the thread records for others as before
        other.watch(x)
        z = x * 2.0
    assert other.gradient(z, x).numpy() == 2


def test_an_interrupt_from_a_derivative_rule_loses_nothing():
    @jg.custom_gradient
    def touchy(x):
        def grad(g):
            if strikes:
                raise KeyboardInterrupt
            return g * 5.0
        return x * 1.0, grad
    x, strikes = jg.constant(1.0), [1]
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = touchy(x) * 2.0
    with pytest.raises(KeyboardInterrupt):
        tape.gradient(y, x)
    strikes.clear()
    assert tape.gradient(y, x).numpy() == 10


def test_ctrl_c_in_a_loop_of_operations():
    code = """
import faulthandler, signal, sys, threading, os, time, jitgrad as jg
faulthandler.dump_traceback_later(50, exit=True)        # a hang says where
signal.signal(signal.SIGINT, signal.default_int_handler)       # a shell's background jobs ignore the signal
x = jg.constant([1.0, 2.0]); v = jg.Variable(1.0)
jg.sum(x * x * v)                                       # compiled, so that the signal meets the loop
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
tape = jg.GradientTape(persistent=True)
try:
    with tape:
        tape.watch(x)
        y = x * x
        while True:
            z = jg.sum(y * v)
except KeyboardInterrupt:
    pass
print(tape.gradient(y, x).numpy().tolist(), v.numpy())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[2.0, 4.0] 1.0\n"), done.stderr


# ---- threads ----

def in_threads(count, work):
    """Run ``work(i)`` at once in threads; what they return, or the first exception."""
    out, wrong = [None] * count, []
    gate = threading.Barrier(count)

    def run(i):
        try:
            gate.wait()
            out[i] = work(i)
        except BaseException as error:
            wrong.append(error)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if wrong:
        raise wrong[0]
    return out


@pytest.fixture
def eager_switching():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_eight_threads_with_tapes_of_their_own(eager_switching):
    """Shared Variables, different structures, small and large (above which other threads may run meanwhile)."""
    small, large = jg.Variable([1.0, 2.0, 3.0], dtype="float64"), jg.Variable(np.linspace(0.5, 1.5, 70_000))

    def work(i):
        for step in range(40):
            v = large if step % 8 == 0 else small
            n = 1 + (i + step) % 5
            with jg.GradientTape() as outer:
                with jg.GradientTape() as tape:
                    y = v * 1.0
                    for _ in range(n):
                        y = y * v
                    y = jg.sum(y) * float(i)
                g = tape.gradient(y, v)
            h = outer.gradient(g, v)
            x = v.numpy()
            np.testing.assert_allclose(g.numpy(), i * (n + 1) * x**n, rtol=1e-12)
            np.testing.assert_allclose(h.numpy(), i * n * (n + 1) * x ** (n - 1), rtol=1e-12)
        return True
    assert in_threads(8, work) == [True] * 8


def test_first_use_of_an_operation_in_eight_threads(eager_switching):
    """Forms, avals, kernels, fragments and plans are made once, whoever comes first."""
    def work(i):
        out = []
        for k in range(12):
            x = jg.constant(np.full((k + 1, 5, 2), 0.5))
            with jg.GradientTape() as tape:
                tape.watch(x)
                y = jg.sum(jg.exp(jg.sin(x) * jg.reshape(x, (k + 1, 5, 2))), axis=(0, 2))
            out.append(tape.gradient(y, x).numpy()[0, 0, 0])
        return out
    found = in_threads(8, work)
    x = 0.5
    want = np.exp(np.sin(x) * x) * (np.cos(x) * x + np.sin(x))
    np.testing.assert_allclose(found, want, rtol=1e-14)


def test_a_thread_records_for_its_own_tapes_only():
    x = jg.constant(2.0)
    seen = []
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)

        def work(_):
            seen.append(x * 10.0)
            with jg.GradientTape() as own:
                own.watch(x)
                y = x * x
            return float(own.gradient(y, x))
        assert in_threads(4, work) == [4.0] * 4
        z = x * 3.0
    assert all(tape.gradient(t, x) is None for t in seen) and tape.gradient(z, x).numpy() == 3


def test_a_tape_may_be_asked_and_dropped_in_another_thread():
    def make(_):
        v = jg.Variable([1.0, 2.0])
        with jg.GradientTape(persistent=True) as tape:
            y = v * v
        return tape, v, y
    for tape, v, y in in_threads(8, make):                  # the threads are gone, their logs live as long as the tapes
        assert tape.gradient(y, v).numpy().tolist() == [2, 4]
        in_threads(1, lambda _, tape=tape, v=v, y=y: tape.gradient(y, v))
        del tape
    tapes = [jg.GradientTape(persistent=True) for _ in range(8)]

    def enter(i):
        tapes[i].__enter__()                                # a thread that ends while its tape records
        return jg.constant(1.0) * 2.0
    in_threads(8, enter)
    tapes.clear()
    tape, x, y = square_tape()
    assert tape.gradient(y, x).numpy().tolist() == [2, 4]


def test_assigning_while_others_read(eager_switching):
    v = jg.Variable(np.full(50, 1.0))

    def work(i):
        for k in range(300):
            if i < 2:
                v.assign(np.full(50, float(k % 7 + 1)))
            else:
                with jg.GradientTape() as tape:
                    y = v * v
                g = tape.gradient(y, v)
                if g is not None:                           # the value read is one that was assigned, whole
                    assert len(set(g.numpy().tolist())) == 1
        return True
    assert in_threads(6, work) == [True] * 6


# ---- forks ----

@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("threads", (0, 3))
def test_a_forked_child_computes_gradients(threads):
    """Also when the parent forks while it records, and while other threads record."""
    stop = threading.Event()

    def busy():
        v = jg.Variable([1.0, 2.0])
        while not stop.is_set():
            with jg.GradientTape() as tape:
                y = jg.sum(v * v)
            tape.gradient(y, v)
    others = [threading.Thread(target=busy) for _ in range(threads)]
    for t in others:
        t.start()
    try:
        for _ in range(5):
            tape, x, y = square_tape()
            with jg.GradientTape() as outer:
                outer.watch(x)
                z = x * 3.0
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        signal.alarm(30)
                        w = jg.constant(np.linspace(0, 1, 31))          # a new form: kernels are still made
                        with jg.GradientTape() as own:
                            own.watch(w)
                            u = jg.sum(jg.tanh(w) * w)
                        right = bool(np.isfinite(own.gradient(u, w).numpy()).all())
                        right &= tape.gradient(y, x).numpy().tolist() == [2, 4]
                        outer.__exit__(None, None, None)
                        right &= outer.gradient(z, x).numpy().tolist() == [3, 3]
                        code = 0 if right else 2
                    finally:
                        os._exit(code)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert outer.gradient(z, x).numpy().tolist() == [3, 3]
    finally:
        stop.set()
        for t in others:
            t.join()


# ---- memory ----

LIMITED = """
import resource, numpy as np, jitgrad as jg
def used():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
n = 1_000_000
x = jg.constant(np.ones(n))
def tape_of():
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = jg.sum(x[: n // 2] * x[n // 2 :]) + jg.sum(jg.exp(x)) * jg.sum(jg.sin(x))
    return tape, y
tape, y = tape_of()
want = tape.gradient(y, x).numpy().copy()
tape, y = tape_of()
room = used()
caught = 0
for extra in range(0, 60, 2):
    limit = room + extra * n // 2
    resource.setrlimit(resource.RLIMIT_AS, (limit, -1))
    try:
        got = tape.gradient(y, x)
    except MemoryError as error:
        caught += 1
        text = str(error)
        assert "memory" in text and "<string>" in text, text
    else:
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))       # NumPy's comparison wants memory too
        assert (got.numpy() == want).all()
        del got
        resource.setrlimit(resource.RLIMIT_AS, (limit, -1))
    try:
        z = x + 1.0
        z = z * z
    except MemoryError as error:
        assert "no memory for a result of shape (1000000,)" in str(error), error
    z = None
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
assert (tape.gradient(y, x).numpy() == want).all()
print("caught", caught > 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
def test_memory_that_runs_out_anywhere_in_a_gradient():
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "JITGRAD_POOL_MB": "0"})      # what it keeps would cover the gradient
    assert (done.returncode, done.stdout) == (0, "caught True\n"), done.stderr[-2000:]
