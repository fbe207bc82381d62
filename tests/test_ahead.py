"""Functions that are compiled before their first run: `eager_compile`, `warmup`."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import jitgrad as jg
from jitgrad import nn
from jitgrad.interop.tensorflow import TensorSpec
from tolerance import assert_same_bits

X = np.array([0.5, -1.5, 2.0], np.float32)


def machine_code_of(f):
    return [entry.plan.machine is not None for entry in f._impl.entries]


def ahead(f):
    return jg.function(f, eager_compile=True)


# ---- the first call ----

@pytest.mark.parametrize("x", [X, jg.constant(X)], ids=("array", "Tensor"))
def test_machine_code_answers_the_first_call(x):
    f = ahead(lambda x: {"y": jg.sin(x) * 2.0, "n": (jg.sum(x), 3)})
    got = f(x)
    assert machine_code_of(f) == [True]
    assert (f.cache_info().hits, f.cache_info().recordings, got["n"][1]) == (1, 1, 3)
    assert_same_bits(got["y"].numpy(), (jg.sin(X) * 2.0).numpy())


def test_code_that_goes_by_numbers_runs_as_a_plain_first_call():
    f = ahead(lambda x: x * 2.0 if jg.sum(x) > 0.0 else -x)
    for sign in (1.0, -1.0, 1.0, -1.0):
        assert_same_bits(f(jg.constant(X * sign)).numpy(), X * np.float32(2.0 * sign if sign > 0 else -sign))
    assert f.cache_info()[:2] == (2, 2)
    assert machine_code_of(f) == [True, True]


@pytest.mark.parametrize("read", [float, bool, np.asarray, lambda x: x.numpy(), lambda x: x.tolist(), jg.Variable],
                         ids=["float", "bool", "asarray", "numpy", "tolist", "Variable"])
def test_a_number_that_was_asked_for_in_vain_is_not_part_of_the_trace(read):
    def f(x):
        try:
            read(x)
        except Exception:
            return x * 0.0
        return x * 2.0
    assert float(ahead(f)(jg.constant(3.0))) == 6.0


def test_training_steps():
    def make(how):
        w = jg.Variable([1.0, -2.0, 0.5])
        optimizer = nn.optimizers.Adam(0.1)

        def step(x, y):
            with jg.GradientTape() as tape:
                loss = jg.mean((jg.tanh(x * w) - y) ** 2)
            optimizer.apply_gradients([(tape.gradient(loss, w), w)])
            return loss
        return how(step), w
    (plain, v), (f, w) = make(lambda step: step), make(ahead)
    for k in range(5):
        x = jg.constant(X + k)
        assert_same_bits(f(x, jg.constant(1.0)).numpy(), plain(x, jg.constant(1.0)).numpy())
        assert_same_bits(w.numpy(), v.numpy())
    assert f.cache_info()[:2] == (5, 1)


def test_loops_random_numbers_and_nested_functions():
    inner = jg.function(lambda c, x: (c * 0.5 + x, c))

    def f(x):
        c, ys = jg.scan(inner, jg.sum(x), x)
        return c, ys, jg.cond(c > 0.0, lambda: c * 2.0, lambda: -c)
    want, got = f(jg.constant(X)), ahead(f)(jg.constant(X))
    for a, b in zip(got, want, strict=True):
        assert_same_bits(a.numpy(), b.numpy())
    draw = ahead(lambda: jg.random.normal((4,)))
    assert not np.array_equal(draw().numpy(), draw().numpy())
    assert draw.cache_info()[:2] == (2, 1)


def test_a_tape_sees_the_variables_that_a_loop_reads():
    w = jg.Variable(X)

    def f(x):
        with jg.GradientTape() as tape:
            y, _ = jg.scan(lambda c, v: (c * jg.sum(w) + v, None), jg.constant(1.0), x)
        return tape.gradient(y, w)
    assert_same_bits(ahead(f)(X).numpy(), f(jg.constant(X)).numpy())


def test_python_numbers_become_data():
    f = ahead(lambda x, k: x * k)
    assert [float(f(jg.constant(2.0), k)) for k in (1.0, 2.0, 3.0, 4.0)] == [2.0, 4.0, 6.0, 8.0]
    assert f.cache_info().recordings <= 2


def test_under_a_tape_the_first_call_is_a_plain_one():
    f, w = ahead(lambda x: jg.sum(w * x)), jg.Variable(X)
    for _ in range(3):
        with jg.GradientTape() as tape:
            y = f(jg.constant(X))
        assert_same_bits(tape.gradient(y, w).numpy(), X)


def test_an_exception_is_that_of_a_plain_call_and_changes_nothing():
    w = jg.Variable(1.0)

    def f(x):
        w.assign_add(x)
        raise KeyError("mine")
    g = ahead(f)
    for k in (1, 2):
        with pytest.raises(KeyError, match="mine"):
            g(jg.constant(1.0))
        assert float(w) == 1.0 + k                   # once, as plain Python has it


def test_what_was_recorded_dies():
    class Model:
        def __init__(self):
            self.w = jg.Variable(X)

        @jg.function(eager_compile=True)
        def __call__(self, x):
            return x * self.w
    model = Model()
    model(jg.constant(X))
    gone = weakref.ref(model), weakref.ref(model.w)
    del model
    gc.collect()
    assert gone[0]() is None
    assert gone[1]() is None


# ---- warmup ----

@pytest.mark.parametrize("like", [X, jg.constant(X), TensorSpec((3,), "float32")], ids=("array", "Tensor", "shape"))
def test_warmup_compiles_and_calls_nothing(like):
    w = jg.Variable(1.0)

    @jg.function
    def f(x, k):
        w.assign_add(jg.sum(x) * k)
        return x * w
    f.warmup(like, 2.0)
    f.warmup(like, 2.0)
    assert (machine_code_of(f), f.cache_info()[:2], float(w)) == ([True], (0, 1), 1.0)
    got = f(X if isinstance(like, np.ndarray) else jg.constant(X), 2.0)
    assert (float(w), f.cache_info()[:2]) == (3.0, (1, 1))
    assert_same_bits(got.numpy(), X * np.float32(3.0))


def test_warmup_of_code_that_goes_by_numbers():
    w = jg.Variable(1.0)

    @jg.function
    def f(x):
        w.assign_add(1.0)
        return x * 2.0 if x[0] > 0.0 else x
    f.warmup(jg.constant(X))
    assert (machine_code_of(f), f.cache_info()[:2], float(w)) == ([True], (0, 1), 1.0)
    assert_same_bits(f(jg.constant(X)).numpy(), X * 2.0)
    assert (f.cache_info().hits, float(w)) == (1, 2.0)
    with pytest.raises(TypeError, match=r"warmup: .*f goes by the numbers .*test_ahead.py"):
        f.warmup(TensorSpec((2,), "float32"))
    with pytest.raises(TypeError, match=r"shape has to be known in full, got \(None, 2\)"):
        f.warmup(TensorSpec((None, 2), "float32"))


def test_warmup_takes_nests():
    f = jg.function(lambda d, *rest: d["a"][0] + d["a"][1] + rest[0])
    spec = TensorSpec((2,), "float64")
    f.warmup({"a": [spec, spec]}, spec)
    a, b, c = (jg.constant([k, 1.0], "float64") for k in (1.0, 2.0, 3.0))
    assert f({"a": [a, b]}, c).tolist() == [6.0, 3.0]
    assert f.cache_info()[:2] == (1, 1)


def test_the_program_of_a_call_tells_what_variables_hold_after_it():
    w = jg.Variable(1.0)

    @jg.function
    def f(x):
        w.assign_add(x)
        return x * 2.0
    program = f.program(jg.constant(3.0))
    assert float(w) == 1.0
    assert [made.prim.name for made, _, _ in program.rows()] == ["add", "multiply"]
    assert len(set(program.results.tolist()) - set(program.inputs.tolist())) == 2
