"""Recorded functions of Tensors on a GPU: replays against plain Python."""

from __future__ import annotations

import functools
import gc
import logging
import math
import sys

import numpy as np
import pytest

import jitgrad as jg
from cuda_here import RUNS
from jitgrad import nn
from jitgrad.execute.cuda import blas, memory, stream, toolkit
from jitgrad.frontend import lazy
from tolerance import assert_close

pytestmark = RUNS

X = np.array([0.5, -1.5, 2.0], np.float32)


def there(x):
    return jg.constant(np.asarray(x)).to_device("cuda")


def close(got, want):
    assert_close(got.numpy(), want.numpy(), 1e-5)


def both(make, calls, hits):
    """A function with its state against plain Python on the CPU: answers of calls, on which device, how many replays."""
    plain, _ = make("cpu", lambda f: f)
    f, state = make("cuda", jg.function)
    for args in calls:
        want, got = plain(*map(jg.constant, args)), f(*map(there, args))
        assert got.device == "cuda"
        close(got, want)
    assert f.cache_info().hits == hits, f.cache_info()
    return f, state


def test_values_and_gradients():
    f = jg.function(jg.value_and_grad(lambda x: jg.sum(jg.tanh(x) * jg.exp(-x * x) + jg.log1p(x * x))))
    plain = jg.value_and_grad(lambda x: jg.sum(jg.tanh(x) * jg.exp(-x * x) + jg.log1p(x * x)))
    for k in range(5):
        got, want = f(there(X + k)), plain(jg.constant(X + k))
        close(got[0], want[0])
        close(got[1], want[1])
    assert f.cache_info()[:2] == (4, 1)


@pytest.mark.parametrize("make", [lambda: nn.optimizers.SGD(0.1, momentum=0.9), lambda: nn.optimizers.Adam(0.05)], ids=["SGD", "Adam"])
def test_training_steps(make):
    def program(device, wrap):
        with jg.device(device):
            w, b, optimizer = jg.Variable(np.full((3, 2), 0.3, np.float32)), jg.Variable(np.zeros(2, np.float32)), make()

        @wrap
        def step(x, y):
            with jg.GradientTape() as tape:
                h = jg.tanh(x @ w + b)
                loss = jg.mean((jg.softmax(h) - y) ** 2)
            optimizer.apply_gradients(zip(tape.gradient(loss, [w, b]), [w, b], strict=True))
            return loss
        return step, (w, b)
    rng = np.random.default_rng(1)
    batches = [(rng.normal(size=(4, 3)).astype(np.float32), rng.random((4, 2)).astype(np.float32)) for _ in range(2)]
    _, (w, b) = both(program, batches * 3, 4)                    # the first call makes the optimizer's Variables
    assert w.device == b.device == "cuda"
    plain, (u, c) = program("cpu", lambda f: f)
    for args in batches * 3:
        plain(*map(jg.constant, args))
    close(w, u)
    close(b, c)


def test_python_takes_ways_by_numbers():
    def program(device, wrap):
        return wrap(lambda x: x * 2.0 if jg.sum(x) > 0.0 else -x), None
    f, _ = both(program, [(X,), (-X,), (X,), (-X,), (X,)], 3)
    assert f.cache_info().recordings == 2


def test_numbers_from_python_and_arrays_come_along():
    rate = jg.Variable(0.5)
    w = jg.Variable(X, device="cuda")
    f = jg.function(lambda k, a: jg.sum(w * k * jg.constant(a).to_device("cuda")) * rate)
    for k in (1.0, 2.0, 3.0, 4.0):
        got = f(k, X + np.float32(k))
        assert got.device == "cuda"
        np.testing.assert_allclose(float(got), 0.5 * k * float(np.sum(X * (X + np.float32(k)))), rtol=1e-5)
        rate.assign(0.5)
    assert f.cache_info().hits >= 1
    rate.assign(2.0)
    np.testing.assert_allclose(float(f(1.0, X)), 2.0 * float(np.sum(X * X)), rtol=1e-5)


def test_halves_have_their_results_where_python_has_them():
    w = jg.Variable(X, device="cuda")
    count = jg.Variable(0)

    @jg.function
    def f(x, k):
        count.assign_add(1)
        return x * w, k * 2.0 + 1.0, jg.cast(count, "float32") * jg.sum(w)
    for n in range(4):
        a, b, c = f(there(X), jg.constant(float(n)))
        assert (a.device, b.device, c.device) == ("cuda", "cpu", "cuda")
        assert (float(b), int(count)) == (2.0 * n + 1.0, n + 1)
        np.testing.assert_allclose(float(c), (n + 1) * float(X.sum()), rtol=1e-6)
        np.testing.assert_allclose(a.numpy(), X * X, rtol=1e-6)
    assert f.cache_info()[:2] == (3, 1)


def test_numbers_that_come_back_are_pythons_business(caplog):
    f = jg.function(lambda x: jg.sum(x).to_device("cpu") * 2.0)
    with caplog.at_level(logging.WARNING, "jitgrad"):
        for k in range(3):
            got = f(there(X + k))
            assert got.device == "cpu"
            np.testing.assert_allclose(float(got), 2.0 * float((X + k).sum()), rtol=1e-6)
    assert "moved from the GPU to the CPU" in caplog.text


def test_results_may_come_back():
    f = jg.function(lambda x: (jg.sum(x).to_device("cpu"), x * 2.0, jg.sum(x)))
    for k in range(4):
        a, b, c = f(there(X + k))
        assert (a.device, b.device, c.device) == ("cpu", "cuda", "cuda")
        np.testing.assert_allclose([float(a), float(c)], [(X + k).sum()] * 2, rtol=1e-6)
    assert f.cache_info()[:2] == (3, 1)


@pytest.mark.parametrize("read", [float, int, lambda t: t.item(), lambda t: float(t.numpy()), lambda t: t.tolist(), np.float32, lambda t: float(np.asarray(t)), lambda t: float(repr(t).split("(")[-1].rstrip(")>")), lambda t: float(f"{t}".split("(")[-1].rstrip(")>"))])
def test_numbers_that_python_reads_are_guarded(read):
    f = jg.function(lambda x: x * read(jg.sum(x)))
    for k in (0, 0, 1, 1, 2, 0):
        np.testing.assert_allclose(f(there(X + k)).numpy(), (X + k) * (X + k).sum(), rtol=1e-6)


def test_an_index_out_of_range_changes_nothing():
    w = jg.Variable(X, device="cuda")

    @jg.function
    def f(i):
        w.assign(w * 2.0)
        return jg.take(w, i)
    for i in (0, 1, 2):
        f(there(np.array([i], np.int32)))
    before = w.numpy()
    with pytest.raises(IndexError, match="out of range"):
        f(there(np.array([3], np.int32)))
    assert f.cache_info().hits == 2
    np.testing.assert_array_equal(w.numpy(), before * 2.0)        # as plain Python leaves it


def test_tapes_outside_see_the_operations():
    f, w = jg.function(lambda x: jg.sum(x * x)), jg.Variable(X, device="cuda")
    for _ in range(3):
        with jg.GradientTape() as tape:
            y = f(w) * 3.0
        np.testing.assert_allclose(tape.gradient(y, w).numpy(), 6.0 * X, rtol=1e-6)


def test_graphs_are_made_where_memory_recurs_and_memory_does_not_grow():
    f = jg.function(lambda x: jg.sum(jg.sin(x) * x, keepdims=True))
    x = there(X)
    for _ in range(3):
        f(x)
    gc.collect()
    before = memory.Use.nbytes
    for _ in range(20):
        np.testing.assert_allclose(f(x).numpy(), np.sum(np.sin(X) * X, keepdims=True), rtol=1e-5)
    gc.collect()
    assert memory.Use.nbytes == before
    graphs = f._impl.entries[0].plan._graphs.values()
    assert len(graphs) <= 16 and any(hasattr(g, "launch") for g in graphs)


def test_inputs_and_results_that_are_elsewhere_at_each_call_are_copied():
    """Batches out of many, whose results are kept: a few graphs do for all."""
    f = jg.function(lambda x, w: (x * w, jg.sum(x)))
    w, batches = there(X), [there(X + k) for k in range(24)]
    kept = [f(x, w) for x in batches * 2]
    plan = f._impl.entries[0].plan
    assert [room.nbytes for _, room in sorted(plan._memory.rooms.items())] == [12, 12, 4]        # x and both results
    assert len(plan._graphs) == 1 and plan._halves.device_inputs == [0, 1]
    for k, (product, total) in enumerate(kept):
        np.testing.assert_allclose(product.numpy(), (X + k % 24) * X, rtol=1e-6)
        np.testing.assert_allclose(total.numpy(), (X + k % 24).sum(), rtol=1e-6)


def test_variables_keep_a_few_places_and_what_they_held_stays():
    """The small ones lie together; a Tensor of before is no less what it was."""
    with jg.device("cuda"):
        held = [jg.Variable(np.full(n, 1.0, np.float32)) for n in (2, 3)]

    @jg.function
    def step(x):
        for v in held:
            v.assign_add(v * x)
        return jg.sum(held[0])
    before = []
    for turn in range(12):
        before.append([v + 0.0 if turn % 2 else v.read_value() for v in held])
        got = step(there(np.float32(1.0)))
        np.testing.assert_allclose(got.numpy(), 2.0 * 2.0 ** (turn + 1))
    for turn, tensors in enumerate(before):
        for t, n in zip(tensors, (2, 3), strict=True):
            np.testing.assert_array_equal(t.numpy(), np.full(n, 2.0 ** turn))
    assert len(step._impl.entries[0].plan._blocks) == 2


def test_memory_that_is_let_go_is_taken_again_and_given_back_when_there_is_no_other(monkeypatch):
    one, other = memory.empty(1000), memory.empty(1000)
    addresses = one.address, other.address
    del one, other
    again = memory.empty(1020)                       # of the same block
    assert again.address == addresses[1] and again.nbytes == 1020
    allocated, calls = stream.driver().allocate, []

    def full(nbytes):
        calls.append(nbytes)
        if any(memory._kept.values()):
            raise MemoryError("no memory")
        return allocated(nbytes)
    monkeypatch.setattr(stream.driver(), "allocate", full)
    memory.empty(5 << 20)
    assert calls == [5 << 20] * 2 and memory._kept[1024] == []


def test_what_the_plan_does_is_printed():
    f = jg.function(lambda x: jg.softmax(x * 2.0) @ x)
    f(there(np.ones((3, 3), np.float32)))
    assert "multiply" in f.show() and "what the GPU does" in f.show() and " blocks of " in f.show()
    assert "def rows" in f.ir() or "def nest" in f.ir()


def test_functions_are_replayed_in_blocks_of_a_device():
    @jg.function
    def f(x):
        return jg.sum(jg.asarray([1.0, 2.0, 3.0]) * x)
    with jg.device("cuda"):
        w = jg.Variable(X)
        for _ in range(4):
            got = f(w)
            assert got.device == "cuda"
            np.testing.assert_allclose(float(got), float((X * np.array([1, 2, 3])).sum()), rtol=1e-6)
        with jg.device("cpu"):
            assert [f(X).device for _ in range(3)] == ["cpu"] * 3
    assert [f(X).device for _ in range(3)] == ["cpu"] * 3
    assert f.cache_info()[:2] == (7, 3)


@pytest.mark.parametrize("reverse", [False, True])
def test_scans_are_rounds_of_launches(reverse):
    def f(w, x):
        def body(c, row):
            new = jg.tanh(c * w + row)
            return new, (new * 2.0, jg.sum(new))
        last, (rows, sums) = jg.scan(body, jg.zeros_like(w), x, reverse=reverse)
        return jg.sum(last * w) + jg.sum(rows * rows) + jg.sum(sums)
    w, x = X, np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)
    g = jg.function(jg.value_and_grad(f, argnums=(0, 1)))
    want = jg.value_and_grad(f, argnums=(0, 1))(jg.constant(w), jg.constant(x))
    for _ in range(4):
        value, (dw, dx) = g(there(w), there(x))
        close(value, want[0])
        close(dw, want[1][0])
        close(dx, want[1][1])
    assert g.cache_info()[:2] == (3, 1)
    assert "rounds" in g.show()


def test_a_scan_of_nothing_hands_on_what_it_got():
    f = jg.function(lambda c, x: jg.scan(lambda c, row: (c + row, row), c, x)[0] * 2.0)
    for _ in range(3):
        np.testing.assert_array_equal(f(there(X), there(np.zeros((0, 3), np.float32))).numpy(), 2.0 * X)
    assert f.cache_info().hits == 2


def test_other_loops_are_led_by_the_host(caplog):
    f = jg.function(lambda x: jg.cond(jg.sum(x) > 0.0, lambda: x * 2.0, lambda: -x))
    with caplog.at_level(logging.WARNING, "jitgrad"):
        for sign in (1.0, -1.0, 1.0):
            x = X * np.float32(sign)
            np.testing.assert_array_equal(f(there(x)).numpy(), x * 2.0 if x.sum() > 0 else -x)
    assert "which the host leads" in caplog.text


@pytest.mark.parametrize("make", [lambda f: jg.function(f, eager_compile=True), lambda f: _warm(jg.function(f))], ids=["eager", "warm"])
def test_traces_made_ahead_are_for_the_cpu(make):
    with jg.device("cuda"):
        v = jg.Variable(X)
    f = make(lambda x: jg.sum(x * x))
    for k in range(3):
        close(f(there(X + k)), jg.constant(((X + k) ** 2).sum()))
    g = jg.function(lambda: v * 2.0, eager_compile=True)
    for _ in range(3):
        np.testing.assert_array_equal(g().numpy(), X * 2.0)
    assert g.cache_info().hits == 2


def _warm(f):
    f.warmup(there(X))
    return f


def test_variables_are_handed_on_without_an_operation():
    with jg.device("cuda"):
        v, w = jg.Variable(X), jg.Variable(X)
    f = jg.function(lambda: v.assign(w).size)
    for k in range(3):
        w.assign(there(X + k))
        assert f() == 3
        np.testing.assert_array_equal(v.numpy(), X + k)
        assert v.device == "cuda"


def test_variables_may_share_a_value():
    with jg.device("cuda"):
        v, w = jg.Variable(X), jg.Variable(X)

    @jg.function
    def f(x):
        v.assign(x * 2.0)
        w.assign(v)
        return v * 1.0
    for k in range(6):
        x = there(X + k)
        junk = [jg.constant(np.int64(123456789)) * 1 for _ in range(50)]      # their blocks are taken next
        del junk
        f(x)
        np.testing.assert_array_equal(v.numpy(), 2 * (X + k))
        np.testing.assert_array_equal(w.numpy(), 2 * (X + k))


def test_first_calls_with_much_data_that_wait(monkeypatch):
    monkeypatch.setattr(lazy, "LARGE", 1)
    with jg.device("cuda"):
        v = jg.Variable(X)
    total = jg.Variable(X)

    def step(x):
        total.assign_add(x)
        v.assign(x * 2.0)                                            # goes where the Variable is
        return (total * 2.0).to_device("cuda") + v, x.to_device("cuda") * v
    f = jg.function(step)
    for k in range(3):
        with jg.device("cpu"):
            x = jg.constant(X + k)
        y, z = f(x)
        assert (y.device, z.device, v.device, total.device) == ("cuda", "cuda", "cuda", "cpu")
        np.testing.assert_array_equal(v.numpy(), 2 * (X + k))
        np.testing.assert_array_equal(z.numpy(), 2 * (X + k) ** 2)
        np.testing.assert_allclose(y.numpy(), 2 * total.numpy() + 2 * (X + k), 1e-6)
    assert f.cache_info()[:2] == (2, 1)


def test_an_error_of_the_host_behind_a_guard_is_none():
    w = jg.constant([1.0, 2.0, 3.0])
    f = jg.function(lambda x, i: x * jg.take(w, i) if i < 3 else -x)
    for i in (0, 1, 5, 2, 7, 1):
        factor = np.float32(i + 1 if i < 3 else -1)
        np.testing.assert_array_equal(f(there(X), jg.constant(i)).numpy(), X * factor)
    with pytest.raises(IndexError, match="out of range"):
        f(there(X), jg.constant(-4))
    assert f.cache_info()[:2] == (4, 2)


def test_without_graphs_kernels_are_launched_one_by_one(monkeypatch, caplog):
    def fail(ask):
        raise RuntimeError("no graphs here")
    monkeypatch.setattr(stream.driver(), "record", fail)
    f, x = jg.function(lambda x: jg.sum(jg.cos(x) * x, keepdims=True)), there(X)
    with caplog.at_level(logging.WARNING, "jitgrad"):
        for _ in range(8):
            np.testing.assert_allclose(f(x).numpy(), np.sum(np.cos(X) * X, keepdims=True), rtol=1e-5)
    assert caplog.text.count("no graphs here") == 1


def multiplied(kept, product, pointers):
    """A product in the simulator, which has no cuBLAS."""
    if kept(functools.partial(multiplied, kept, product, pointers)):
        return
    b, m, n, k = product.batch, product.m, product.n, product.k
    shapes = (b, m, n), (b, k, m) if product.x_turned else (b, m, k), (b, n, k) if product.y_turned else (b, k, n)
    out, x, y = (base[at: at + 4 * math.prod(shape)].view(np.float32).reshape(shape)
                 for (base, at), shape in zip(pointers, shapes, strict=True))
    made = (x.swapaxes(1, 2) if product.x_turned else x) @ (y.swapaxes(1, 2) if product.y_turned else y)
    out[:] = made + out if product.add else made


def test_products_that_are_added_to_others(monkeypatch):
    asked, gpu = [], stream.driver()
    by_blas = functools.partial(multiplied, gpu._kept) if toolkit.simulated() else gpu.multiply

    def multiply(product, pointers):
        sys.modules[__name__]._asked.append(product.add)         # nothing that the function is seen to change
        by_blas(product, pointers)
    monkeypatch.setattr(blas, "available", lambda: True)
    monkeypatch.setattr(gpu, "multiply", multiply)
    monkeypatch.setattr(sys.modules[__name__], "_asked", asked, raising=False)

    def loss(w, x, y):
        last, _ = jg.scan(lambda c, row: (jg.tanh(c @ w) + (c * row) @ y, None), x, y)
        return jg.sum((jg.tanh(last @ w + last.T @ y) @ w) ** 2)
    rng = np.random.default_rng(2)
    given = [rng.normal(size=(3, 3)).astype(np.float32) / 2 for _ in range(3)]
    f = jg.function(jg.value_and_grad(loss, argnums=(0, 2)))
    value, grads = jg.value_and_grad(loss, argnums=(0, 2))(*map(jg.constant, given))
    for _ in range(4):
        got, more = f(*map(there, given))
        for a, b in zip((got, *more), (value, *grads), strict=True):
            assert_close(a.numpy(), b.numpy(), 1e-4)
    assert f.cache_info().hits == 3 and True in asked and False in asked


def test_layers_make_their_weights_where_their_first_input_is():
    model = nn.Sequential([nn.layers.Dense(3, "tanh"), nn.layers.Dense(1)])
    f = jg.function(lambda x: model(x))
    for k in range(3):
        assert f(there(np.full((2, 2), k, np.float32))).device == "cuda"
    assert {v.device for v in model.trainable_variables} == {"cuda"} and f.cache_info().hits == 1
