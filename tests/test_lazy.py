"""First calls that are given much data: computed at the end, or where the code asks for a number; the code runs once."""

from __future__ import annotations

import copy
import gc
import sys
import threading
import weakref

import numpy as np
import pytest

import jitgrad as jg
from jitgrad import nn
from jitgrad.core import backend
from jitgrad.frontend import lazy
from jitgrad.frontend.arguments import bytes_in
from random_functions import make, run
from replays import assert_alike, told
from tolerance import assert_same_bits

X = np.array([0.5, -1.5, 2.0], np.float32)


@pytest.fixture(autouse=True)
def every_call_is_given_much(monkeypatch):
    monkeypatch.setattr(lazy, "LARGE", 0)


def dry(t):
    return t._data == 0


# ---- what is computed ----

@pytest.mark.parametrize("n", [lazy.LARGE // 4, lazy.LARGE // 4 - 1])
def test_only_calls_of_much_data_wait(monkeypatch, n):
    monkeypatch.undo()
    seen = []

    @jg.function
    def f(x):
        y = x * 2.0
        seen.append(dry(y))
        return y
    y = f(jg.ones((n,)))
    assert seen == [n * 4 >= lazy.LARGE]
    assert y[-1].item() == 2.0


def test_arrays_tensors_and_variables_of_nests_count():
    assert bytes_in(({"a": [X, jg.constant(X)]}, jg.Variable(X), 3.0, "text")) == 36


def test_memory_is_that_of_the_results(monkeypatch):
    """The gradient of a long chain: nothing in between is ever there."""
    given, n = [], 400_000
    give = backend.current().give
    monkeypatch.setattr(type(backend.current()), "give", lambda self, t, value: (given.append(t.nbytes), give(t, value)))

    def layer(x):
        return jg.tanh(x) * jg.exp(-x * x) + jg.log1p(x * x)

    def f(x):
        for _ in range(10):
            x = layer(x)
        return jg.sum(x)
    step = jg.function(jg.value_and_grad(f))
    y, slope = step(jg.constant(np.linspace(-1.0, 1.0, n, dtype=np.float32)))
    assert sum(given) <= 2 * 4 * n + 4               # of the argument, the gradient and the value
    (entry,) = step._impl.entries
    assert entry.plan.machine is not None            # the next call needs no more than this one
    want = jg.value_and_grad(f)(jg.constant(np.linspace(-1.0, 1.0, n, dtype=np.float32)))
    assert_same_bits(y.numpy(), want[0].numpy())
    assert_same_bits(slope.numpy(), want[1].numpy())


def test_what_the_code_keeps_has_numbers():
    kept = []

    @jg.function
    def f(x):
        kept.append(x)
        y = jg.sin(x)
        kept.append([y, {"z": y * 2.0}])
        return jg.sum(y)
    total = f(X)
    assert_same_bits(kept[0].numpy(), X)
    assert_same_bits(kept[1][0].numpy(), jg.sin(X).numpy())
    assert_same_bits((kept[1][1]["z"] + kept[0]).numpy(), (jg.sin(X) * 2.0 + X).numpy())
    assert float(total) == float(jg.sum(jg.sin(X)))


def test_a_tape_that_is_kept_has_numbers():
    tapes = []

    @jg.function
    def f(x):
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = jg.sum(jg.sin(x) * x)
        tapes.append((tape, x, y))
        return y
    f(X)
    tape, x, y = tapes[0]
    assert_same_bits(tape.gradient(y, x).numpy(), (jg.sin(X) + jg.cos(X) * X).numpy())


def test_nothing_is_left_behind():
    class Model:
        def __init__(self):
            self.w = jg.Variable(X)

        @jg.function
        def __call__(self, x):
            y = x * self.w
            return y if float(jg.sum(y)) > 0.0 else -y
    model = Model()
    x = jg.constant(X)
    before = sys.getrefcount(x)
    out = model(x)
    gone = [weakref.ref(o) for o in (model, model.w, out)]
    assert_same_bits(out.numpy(), X * X)
    del model, out
    gc.collect()
    assert [r() for r in gone] == [None] * 3
    assert sys.getrefcount(x) == before


# ---- numbers on the way ----

READS = {"float": float, "bool": bool, "item": lambda t: t.item(), "int": int, "asarray": lambda t: np.asarray(t) + 1,
         "numpy": lambda t: t.numpy() * 2, "tolist": lambda t: t.tolist(), "repr": repr, "str": str,
         "format": lambda t: f"{t:.3f}", "copy": lambda t: np.array(t), "contains": lambda t: 0.0 in t,
         "Variable": lambda t: jg.Variable(t).numpy(), "buffer": lambda t: bytes(memoryview(t)),
         "index": lambda t: list(range(jg.cast(t, "int32")))}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_the_code_runs_once_and_goes_on(read):
    told_of = []

    @jg.function
    def f(x):
        told_of.append("begin")
        y = jg.sum(x) * 2.0
        told_of.append(read(y))
        return x * y
    for k in (1.0, 3.0):
        told_of.clear()
        got = f(jg.constant(X * k))
        y = jg.sum(jg.constant(X * k)) * 2.0
        if told_of or k == 1.0:                      # else a replay
            assert told_of[0] == "begin"
            assert len(told_of) == 2
            assert told(told_of[1]) == told(read(y))
        assert_same_bits(got.numpy(), (X * k * y).numpy())


def test_branches_by_turns():
    @jg.function
    def f(x):
        y = jg.exp(x)
        return y * 2.0 if jg.sum(x) > 0.0 else -y
    for sign in (1.0, -1.0, 1.0, -1.0, 1.0):
        y = jg.exp(X * np.float32(sign))
        assert_same_bits(f(jg.constant(X * sign)).numpy(), (y * 2.0 if sign > 0 else -y).numpy())
    assert f.cache_info()[:2] == (3, 2)


@pytest.mark.parametrize("rounds", [lazy.MOST_STOPS - 1, 3 * lazy.MOST_STOPS])
def test_numbers_in_loops(rounds):
    """After many of them the call goes on as a plain one."""
    def build(wrap):
        w = [jg.Variable(X + k) for k in range(rounds)]

        def f(x):
            total = 0.0
            for v in w:
                with jg.GradientTape() as tape:
                    y = jg.sum(jg.tanh(v * x) + total)
                v.assign_sub(tape.gradient(y, v))
                total += float(y) if float(jg.sum(v)) > 1.0 else 0.5
            return x * total, [v + 0.0 for v in w]
        return wrap(f)
    assert_alike(build, [(jg.constant(X),)] * 3)


def test_variables_that_were_assigned_are_read_as_numbers():
    def build(wrap):
        w, n = jg.Variable(X), jg.Variable(0)

        def f(x):
            n.assign_add(1)
            w.assign(w * x)
            twin = copy.deepcopy(w)
            if int(n) % 2:
                w.assign_sub(x)
            text = f"{n} {w.numpy().sum()} {w[0]:.2f} {len(w)}"
            return w * 2.0, float(jg.sum(w)), text, twin.numpy()
        return wrap(f)
    assert_alike(build, [(jg.constant(X),)] * 4)


def test_a_training_step_that_reads_its_loss():
    def build(wrap):
        w, losses = jg.Variable([1.0, -2.0, 0.5]), []
        optimizer = nn.optimizers.Adam(0.1)

        def step(x, y):
            with jg.GradientTape() as tape:
                loss = jg.mean((jg.tanh(x * w) - y) ** 2)
            losses.append(float(loss))
            optimizer.apply_gradients([(tape.gradient(loss, w), w)])
            return loss, w + 0.0
        return wrap(step)
    assert_alike(build, [(jg.constant(X + k), jg.constant(1.0)) for k in range(4)])


def test_random_numbers_go_on_where_they_would():
    def build(wrap):
        draw = jg.random.Generator(7)

        def f(x):
            a = draw.normal((3,))
            first = float(a[0])
            return a * x, draw.uniform((2,)), first
        return wrap(f)
    assert_alike(build, [(jg.constant(X),)] * 3)


@pytest.mark.parametrize("how", ["checkpoint", "custom_gradient", "function", "cond", "scan"])
def test_numbers_within_other_functions(how):
    def build(wrap):
        w = jg.Variable(2.0)

        def inner(x):
            y = jg.sin(x) * w
            w.assign_add(0.5)
            return y * 3.0 if float(jg.sum(y)) > 0.0 else y
        if how == "custom_gradient":
            @jg.custom_gradient
            def called(x):
                y = jg.sin(x)
                return y, lambda dy: dy * (2.0 if float(jg.sum(y)) > 0.0 else float(jg.sum(dy)))
        elif how == "cond":
            def called(x):
                s = jg.sum(x)
                return jg.cond(jg.exp(s) > 0.0, lambda: x * float(s), lambda: x * w)
        elif how == "scan":
            def called(x):
                return jg.scan(lambda c, v: (c * w + v, c), jg.sum(x), x)[1]
        else:
            called = (jg.checkpoint if how == "checkpoint" else jg.function)(inner)

        def f(x):
            with jg.GradientTape() as tape:
                tape.watch(x)
                y = jg.sum(called(x) * x)
            return y, tape.gradient(y, [x, w])
        return wrap(f)
    assert_alike(build, [(jg.constant(X * k),) for k in (1.0, -1.0, 1.0)])


def test_under_a_tape_the_call_is_a_plain_one():
    seen, w = [], jg.Variable(X)

    @jg.function
    def f(x):
        y = w * x
        seen.append(dry(y))
        return jg.sum(y)
    for _ in range(3):
        with jg.GradientTape() as tape:
            y = f(jg.constant(X))
        assert_same_bits(tape.gradient(y, w).numpy(), X)
    assert True not in seen


# ---- what goes wrong ----

def test_an_exception_leaves_variables_as_plain_python_does():
    w, ran = jg.Variable(X), []

    @jg.function
    def f(x):
        w.assign_add(x)
        ran.append(w * 2.0)
        w.assign(w * x)
        raise KeyError("mine")
    want = X
    for k in range(2):
        with pytest.raises(KeyError, match="mine"):
            f(jg.constant(X))
        assert_same_bits(ran[k].numpy(), (want + X) * np.float32(2.0))
        want = (want + X) * X
        assert_same_bits(w.numpy(), want)
    assert len(ran) == 2


def test_what_may_fail_fails_where_it_stands():
    def build(wrap):
        def f(x, i):
            y = jg.exp(x)
            try:
                return jg.gather(y, jg.cast(i, "int32"))
            except IndexError:
                return y * 0.0
        return wrap(f)
    for i in (1.0, 7.0):
        assert_alike(build, [(jg.constant(X), jg.constant([i]))])


def test_no_memory_for_the_results_changes_nothing(monkeypatch):
    w, kept = jg.Variable(X), []

    @jg.function
    def f(x):
        w.assign_add(x)
        kept.append(w * x)
        return w * 2.0

    def full(program):
        raise MemoryError("none left")
    with monkeypatch.context() as patch:
        patch.setattr(lazy, "simplified", full)
        with pytest.raises(MemoryError, match="none left"):
            f(X)
    assert_same_bits(w.numpy(), X)
    with pytest.raises(TypeError, match="no"):
        kept[0].numpy()
    with pytest.raises(RuntimeError, match="used after the call"):
        kept[0] + 1.0
    assert_same_bits(f(X).numpy(), X * 4)
    assert_same_bits(w.numpy(), X * 2)


def test_an_exception_of_the_users_tells_what_could_not_be_computed(monkeypatch):
    w = jg.Variable(X)

    @jg.function
    def f(x):
        w.assign_add(x)
        raise KeyError("mine")

    def full(program):
        raise MemoryError("none left")
    monkeypatch.setattr(lazy, "simplified", full)
    with pytest.raises(KeyError, match="mine") as caught:
        f(X)
    assert any("hold what they held" in note and "none left" in note for note in caught.value.__notes__)
    assert_same_bits(w.numpy(), X)
    monkeypatch.undo()


def test_other_threads_get_numbers():
    @jg.function
    def f(x):
        y, got = jg.exp(x), []
        thread = threading.Thread(target=lambda: got.append((y * 2.0).numpy()))
        thread.start()
        thread.join()
        return y, got[0].tolist()
    y, got = f(jg.constant(X))
    assert got == (jg.exp(X) * 2.0).tolist()
    assert_same_bits(y.numpy(), jg.exp(X).numpy())


def test_numbers_become_data_and_variables_change_once():
    def build(wrap):
        w = jg.Variable(X)

        def f(x, k):
            w.assign_add(x * k)
            return w * k, range(int(k))
        return wrap(f)
    assert_alike(build, [(jg.constant(X), k) for k in (1.0, 2.0, 2.0, 3.5)])


@pytest.mark.parametrize("seed", range(0, 300, 5))
def test_random_functions_do_what_plain_python_does(tmp_path, seed):
    case = make(seed)
    path = tmp_path / f"case_{seed}.py"
    expected = run(case, path, lambda function, namespace: function)
    done = run(case, path, lambda function, namespace: jg.function(function))
    for n, (here, there) in enumerate(zip(done, expected, strict=True)):
        assert here == there, f"call {n}: {case.calls[n]}"
