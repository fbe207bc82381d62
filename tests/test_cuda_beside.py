"""A process that works on the CPU and on a GPU in turns."""

from __future__ import annotations

import gc
import logging
import weakref
from collections import namedtuple

import numpy as np
import pytest

import jitgrad as jg
from cuda_here import RUNS
from jitgrad.execute.cpu.plans import Plan
from jitgrad.transform import vjp

pytestmark = RUNS

X = np.array([0.5, -1.5, 2.0], np.float32)


def there(x):
    return jg.constant(x, device="cuda")


def test_gradients_on_the_cpu_come_after_those_in_a_block_of_a_device():
    vjp.one.cache_clear()
    for device in "cuda", "cpu":
        x = jg.constant(X, device=device)
        with jg.device("cuda"), jg.GradientTape() as tape:
            tape.watch(x)
            y = jg.sum(x * x)
            found = tape.gradient(y, x)
        assert found.device == device and found.tolist() == (2 * X).tolist()
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.sum(x * x)
    assert tape.gradient(y, x).device == "cpu"


@pytest.mark.parametrize("wrap", [lambda f: f, jg.function, jg.function(eager_compile=True)], ids=["plain", "function", "ahead"])
@pytest.mark.parametrize("body", [
    lambda p, x: jg.cond(p, lambda: x + jg.random.uniform((3,)), lambda: x),
    lambda p, x: jg.scan(lambda c, _: (c + jg.random.normal((3,)), c), x, None, length=3)[0],
    lambda p, x: jg.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] + jg.random.uniform((3,))), (jg.constant(0), x))[1],
], ids=["cond", "scan", "while"])
def test_random_numbers_in_control_flow_are_those_of_the_cpu(wrap, body):
    found = []
    for device in "cpu", "cuda":
        jg.random.set_seed(3)
        step = wrap(body)
        with jg.device(device):
            p, x = jg.constant(True), jg.constant(X)
            drawn = [step(p, x) for _ in range(4)]
        after = jg.random.uniform((2,))
        assert all(t.device == device for t in drawn) and after.device == "cpu"
        found.append([t.numpy() for t in (*drawn, after)])
    for got, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, 1e-6)


def test_a_variable_on_the_cpu_stays_there_when_a_loop_on_the_device_reads_it():
    total = jg.Variable([0.0, 0.0])

    @jg.function
    def step(x):
        (x, count), _ = jg.scan(lambda c, _: ((c[0] * 1.5, c[1] + 1.0), c[1]), (x, total.value()), None, length=3)
        total.assign(count)
        return x, count
    for n in range(1, 5):
        x, count = step(there(X))
        assert (x.device, count.device, total.device) == ("cuda", "cpu", "cpu")
        assert count.tolist() == total.numpy().tolist() == [3.0 * n] * 2
    assert step.cache_info().hits == 3


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_float32_are_infinite_in_silence():
    f = jg.function(lambda x, a: x + a)
    for a in 1.0, 2.0, 3.0, 1e300, -1e300, 4.0:
        np.testing.assert_array_equal(f(there(X), a).numpy(), X + np.float32(np.clip(a, -np.inf, np.inf) if abs(a) < 9 else a * np.inf))
    assert f.cache_info().hits >= 3


def test_a_function_in_a_block_is_told_of_by_its_name(caplog):
    def changes(given):
        given.append(1)
        return given[0] * 2
    Pair = namedtuple("Pair", "a b")
    product = jg.function(lambda pair: pair.a * pair.b)
    with jg.device("cuda"), caplog.at_level(logging.WARNING):
        jg.function(changes)([jg.constant(X)])
        for _ in range(3):
            product(Pair(there(X), there(X)))
    assert caplog.messages == [f"function {changes.__qualname__} runs as plain Python from now on: it changes a list that it is given"]
    assert product.cache_info()[:2] == (2, 1)


def test_a_function_of_a_block_goes_with_its_last_reference():
    x = there(X)

    def plans():
        return sum(isinstance(o, Plan) for o in gc.get_objects())

    def make(use):
        f = jg.function(lambda given: given[0] * 2)
        with jg.device("cuda"):
            for _ in range(3):
                f(use)
        return weakref.ref(f._impl)
    make((x,))
    gc.collect()
    gc.disable()
    try:
        assert make((x,))() is None
        assert gc.collect() == 0
        before = plans()
        make((x,))
        assert plans() == before
    finally:
        gc.enable()


def test_defaults_of_a_function_are_seen_in_a_block():
    numbers, tensors = [2.0], {"z": jg.constant(3.0)}

    def make(numbers, tensors):
        return jg.function(lambda x, by=numbers, *, held=tensors: x * by[0] * held["z"])
    f = make(numbers, tensors)
    with jg.device("cuda"):
        x = jg.constant(X)
        for by in 2.0, 2.0, 5.0:
            numbers[0] = by
            np.testing.assert_array_equal(f(x).numpy(), X * np.float32(by * 3.0))
        tensors["z"] = c = there(4.0)
        for _ in range(3):
            with jg.GradientTape() as tape:
                tape.watch(c)
                y = f(x)
            np.testing.assert_allclose(float(tape.gradient(y, c)), 5.0 * X.sum(), 1e-6)


def test_numbers_stay_data_where_python_takes_ways():
    f = jg.function(lambda x, a: x + a if x[0] > 0 else x - a)
    for k in range(12):
        x = X * (-1) ** k
        np.testing.assert_array_equal(f(there(x), float(k)).numpy(), x + k if k % 2 == 0 else x - k)
    assert f.cache_info()[:2] == (8, 4)


@pytest.mark.parametrize("block", ["cpu", "cuda"])
def test_unit_vectors_in_a_body_follow_what_they_meet(block):
    def bent(v):
        return jg.sum(jg.hessian(lambda a: jg.sum(a * a * v * v))(x)) / 2
    x = there(X)
    with jg.device(block):
        found = jg.vmap(jg.grad(bent))(jg.stack([x, x * 2]))
        like = jg.vmap(lambda v: jg.ones_like(v) * v + jg.zeros_like(v))(jg.stack([x, x]))
    assert found.device == like.device == "cuda"
    np.testing.assert_allclose(found.numpy(), [2 * X, 4 * X], 1e-5)
    np.testing.assert_allclose(like.numpy(), [X] * 2, 1e-6)


@pytest.mark.parametrize("wrap", [jg.function, jg.function(eager_compile=True)], ids=["function", "ahead"])
@pytest.mark.parametrize("use", [
    lambda x, y: x + jg.tanh(y), lambda x, y: x + jg.asarray(y), lambda x, y: x + jg.reshape(y, (3,)) / 2.0,
    lambda x, y: jg.stack([x, y]), lambda x, y: jg.where(y > 1, x, x * 2), lambda x, y: jg.constant(y),
], ids=["computed", "asarray", "reshaped", "stacked", "compared", "constant"])
def test_arrays_given_to_a_function_in_a_block_are_there(wrap, use):
    f, nested = wrap(use), wrap(lambda given: use(given["x"], given["rest"][0][0]))
    kinds = [np.float32, np.float32, np.float32, np.float16]
    with jg.device("cuda"):
        x = jg.constant(X)
        for k, kind in enumerate(kinds):
            y = np.repeat(np.arange(3), 2).astype(kind)[::2 if k else 1][:3] * kind(k)
            found = [f(x, y), nested({"x": x, "rest": [(y, "a")]})]
            assert [t.device for t in found] == ["cuda"] * 2
            for t in found:
                np.testing.assert_allclose(t.numpy(), use(x, y).numpy(), 1e-6)
        assert f.cache_info().hits >= 2


def test_quantiles_of_nothing_are_where_it_is():
    x = jg.zeros((3, 0), device="cuda")
    for found in jg.median(x, axis=1), jg.quantile(x, [0.5, 0.2], axis=1):
        assert found.device == "cuda" and np.isnan(found.numpy()).all()


@pytest.mark.parametrize("given", [None, {"shape": (2,), "typestr": "<f4"}, {"shape": 2, "typestr": "<f4", "data": (0, True)}])
def test_objects_that_only_look_like_arrays_are_told(given):
    class Other:
        __cuda_array_interface__ = given
    with pytest.raises(TypeError, match=r"the __cuda_array_interface__ of Other is none"):
        jg.asarray(Other())

@pytest.mark.parametrize(("use", "kind"), [
    (lambda x, y: x + y, np.float32), (lambda x, y: jg.take(x, y, axis=0), np.int32),
    (lambda x, y: jg.concat([x, y], 0), np.float32),
], ids=["added", "index", "joined"])
def test_arrays_that_follow_a_tensor_back_to_the_cpu_are_those_of_each_call(use, kind):
    x, f = jg.constant(X, device="cpu"), jg.function(use)
    for k in range(4):
        y = np.roll(np.arange(3, dtype=kind), k)
        with jg.device("cuda"):
            found = f(x, y)
        assert found.device == "cpu"
        np.testing.assert_array_equal(found.numpy(), use(x, y).numpy())
    assert f.cache_info().hits == 3


def test_gradients_come_back_to_arrays_that_followed_a_tensor_to_the_cpu():
    x = jg.constant(X, device="cpu")

    @jg.function
    def gradient(y):
        with jg.GradientTape() as tape:
            tape.watch(y)
            s = jg.sum(x * y)
        return tape.gradient(s, y)
    for k in range(3):
        with jg.device("cuda"):
            found = gradient(np.full(3, k, np.float32))
        np.testing.assert_array_equal(found.numpy(), X)


@pytest.mark.parametrize("block", ["cuda", "cpu"])
@pytest.mark.parametrize("there", ["cuda", "cpu"])
def test_arrays_go_on_to_follow_others_after_a_tensor_was_made_of_them(block, there):
    def use(x, y):
        made = jg.asarray(y)
        with jg.device("cpu"):
            here = jg.asarray(y)
        return x + y, made * 2.0, here * 3.0
    x, f = jg.constant(X, device=there), jg.function(use)
    with jg.device(block):
        for k in range(3):
            y = np.full(3, k, np.float32)
            for got, want in zip(f(x, y), use(x, y), strict=True):
                assert got.device == want.device
                np.testing.assert_array_equal(got.numpy(), want.numpy())
    assert f.cache_info().hits == 2


def test_what_a_call_returns_of_an_array_follows_nobody():
    f, x = jg.function(lambda y: y), jg.constant(X, device="cpu")
    for _ in range(2):
        with jg.device("cuda"):
            y = f(X)
        with pytest.raises(ValueError, match="different devices"):
            x + y
