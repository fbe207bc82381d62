"""Tensors on a device through the public names.

Everything is computed twice, there and on the CPU: rounding is that of other sums at most.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import weakref

import numpy as np
import pytest

import jitgrad as jg
from cuda_here import RUNS
from jitgrad.core.primitive import OPS, Kind
from jitgrad.execute.cuda import exchange, memory, toolkit
from table import ENTRIES, cases, ident, samples

pytestmark = RUNS


@pytest.fixture(autouse=True)
def _nothing_is_left():
    gc.collect()
    before = memory.Use.buffers
    yield
    gc.collect()
    assert memory.Use.buffers <= before + ROOM, "memory of the device is still held"


ROOM = 64                      # constants of Programs are kept on the device


def on(array, dtype=np.float32):
    return jg.constant(np.asarray(array, dtype), device="cuda")


def close(got, want, rtol=2e-6):
    if want is None or isinstance(want, list | tuple):
        assert (got is None) if want is None else len(got) == len(want)
        for g, w in zip(got or (), want or (), strict=True):
            close(g, w, rtol)
        return
    assert got.device == "cuda" and got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol, 1e-6)


def both(f, *arrays, rtol=2e-6):
    """``f`` of Tensors on the device gives what it gives on the CPU, on the device."""
    close(f(*map(on, arrays)), f(*(jg.constant(np.asarray(a, np.float32)) for a in arrays)), rtol)


# ---- operations ------------------------------------------------------------------------------------------

FIRST = {(p.kind, p.cuda, p.host, len(p.domains)): p for p in reversed(ENTRIES)}     # test_cuda_device.py has all of them


@pytest.mark.parametrize(("prim", "dtype"), [c for c in cases(FIRST.values()) if c[1] in (None, np.float32, np.int32)],
                         ids=ident)
def test_entries_run_where_their_operands_are(prim, dtype, rng):
    arrays, params = next(samples(prim, dtype, rng))
    want = OPS[prim.name](*map(jg.constant, arrays), **params)
    got = OPS[prim.name](*(jg.constant(a, device="cuda") for a in arrays), **params)
    for g, w in zip(*(x if isinstance(x, tuple) else (x,) for x in (got, want)), strict=True):
        assert g.device == params.get("device", "cuda") and g.dtype == w.dtype and g.shape == w.shape
        if prim.kind is not Kind.OPAQUE:
            np.testing.assert_allclose(g.numpy(), w.numpy(), 1e-5, 1e-5)


def test_operators_take_numbers_and_arrays_along():
    both(lambda x: 2 * x + x / 3 - np.ones(3, np.float32) * x, [1, 2, 3])
    both(lambda x: [1, 2, 3] * x, [1, 2, 3])
    both(lambda x: x[np.array([2, 0])] + x[[0, 1]], [1, 2, 3])
    both(lambda x: x[x > 1.5], [1, 2, 3])
    both(lambda x: jg.tril(x) + jg.pad(x[:1, :1], ((0, 1), (1, 0)), constant_values=2.0), [[1, 2], [3, 4]])
    both(lambda x: jg.concat([x, x]) + jg.cumulative_sum(jg.concat([x, x])), [1, 2])
    half = jg.constant(0.5)                       # a single number on the CPU
    assert (on([1, 2]) * half).tolist() == [0.5, 1.0] and (half * on([1, 2])).device == "cuda"


def test_operands_on_two_devices_are_an_error():
    with pytest.raises(ValueError, match=r"add: operands are on different devices, float32\[2\] on cuda and "
                                         r"float32\[2\] on cpu; to_device moves one \(at .*test_cuda_tensors"):
        on([1, 2]) + jg.constant([1.0, 2.0])
    with pytest.raises(ValueError, match="matmul: operands are on different devices"):
        jg.matmul(jg.ones((2, 2)), jg.ones((2, 2), device="cuda"))


def test_an_entry_without_a_kernel_runs_on_the_host_and_says_so(caplog, monkeypatch):
    from jitgrad.execute.cuda import eager
    eager._reason.cache_clear()
    monkeypatch.setattr(eager, "has_kernel", lambda prim: prim.name != "exp")
    with caplog.at_level(logging.DEBUG, "jitgrad"):
        both(jg.exp, [0.5])
        both(jg.sin, [0.5])
    eager._reason.cache_clear()
    assert [r.message for r in caplog.records] == [
        "exp runs on the host, with copies there and back: there is no kernel for it yet"]


def test_errors_of_kernels_are_raised():
    with pytest.raises(IndexError, match="gather: .*out of range"):
        jg.take(on([1, 2, 3]), jg.constant([5], device="cuda"))


# ---- numbers ---------------------------------------------------------------------------------------------

def test_numbers_are_read_by_every_route():
    x, one = on([[1, 2], [3, 4]]), on(2.5)
    assert float(one) == 2.5 and one.item() == 2.5 and f"{one:.2f}" == "2.50" and bool(one) and int(on(3, np.int32)) == 3
    assert [10, 20, 30][on(1, np.int32)] == 20 and x.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    np.testing.assert_array_equal(np.asarray(x), x.numpy())
    assert [row.tolist() for row in x] == x.tolist() and 3.0 in x and len(x) == 2
    assert repr(one) == "<jg.Tensor: shape=(), dtype=float32, device=cuda, numpy=np.float32(2.5)>"
    assert "device=cuda" in repr(jg.Variable(1.0, device="cuda"))
    with pytest.raises(BufferError, match="on cuda"):
        memoryview(one)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)
    with pytest.raises(TypeError, match="only a Tensor with one element"):
        float(x)
    np.testing.assert_array_equal(jg.zeros((0, 3), device="cuda").numpy(), np.zeros((0, 3)))


# ---- places ----------------------------------------------------------------------------------------------

def test_blocks_and_arguments_say_where_new_tensors_are():
    with jg.device("cuda"):
        made = [jg.constant(1.0), jg.asarray(np.ones(2)), jg.zeros((2,)), jg.ones((2,)), jg.full((2,), 3), jg.arange(3),
                jg.linspace(0, 1, 3), jg.eye(2), jg.random.normal((2,)), jg.Variable([1.0]), jg.sqrt(2.0)]
        with jg.device("cpu"):
            assert jg.constant(1.0).device == "cpu"
        assert jg.ones_like(jg.zeros((2,), device="cpu")).device == "cpu"
        assert (jg.constant([1.0], device="cpu") * np.ones(1)).device == "cpu"
    assert {t.device for t in made} == {"cuda"} and jg.constant(1.0).device == "cpu"
    for t in (jg.zeros((2,), device="cuda"), jg.arange(3, device="cuda:0"), jg.constant([1.0, 2.0], shape=(2, 1), device="gpu")):
        assert t.device == jg.device("cuda") and jg.zeros_like(t).device == "cuda"
    assert jg.devices() == ["cpu", "cuda"]


def test_random_numbers_are_those_of_the_cpu():
    a, b = jg.random.Generator(3), jg.random.Generator(3)
    with jg.device("cuda"):
        got = a.normal((5,))
    close(got, b.normal((5,)))


def test_variables_stay_on_their_device():
    v = jg.Variable([1.0, 2.0], device="cuda")
    assert v.device == "cuda" and v.read_value().device == "cuda"
    v.assign(np.array([3.0, 4.0], np.float32))
    v.assign(jg.constant([5.0, 6.0]))
    v.assign_add([1.0, 1.0])
    v.assign_sub(jg.constant([0.5, 0.5], device="cuda"))
    assert v.device == "cuda" and v.numpy().tolist() == [5.5, 6.5]
    with pytest.raises(ValueError, match="different devices"):
        v.assign_add(jg.constant([1.0, 1.0]))
    c = jg.Variable([1.0, 2.0])
    c.assign(on([7, 8]))
    assert c.device == "cpu" and c.numpy().tolist() == [7.0, 8.0]
    w = jg.Variable(v)
    w.assign_add([1.0, 1.0])
    assert w.device == "cuda" and v.numpy().tolist() == [5.5, 6.5]


# ---- derivatives -----------------------------------------------------------------------------------------

def loss(w, b, x):
    return jg.sum(jg.tanh(x @ w + b) ** 2) / x.shape[0]


def test_gradients_of_a_tape():
    def grads(w, b, x):
        with jg.GradientTape() as tape:
            tape.watch([w, b])
            y = loss(w, b, x)
        return tape.gradient(y, [w, b, x])
    arrays = [[0.1, -0.2], [0.3, 0.4], [0.5, 0.6]], [0.1, 0.2], [[1, 2, 3], [4, 5, 6]]
    both(grads, *arrays)
    both(grads, *arrays)                         # what is known by then


def test_gradients_that_read_nothing():
    def ones(x):
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = jg.sum(x)
        return tape.gradient(y, x)
    for _ in range(2):
        both(ones, [1, 2, 3])


def test_long_chains_of_a_constant_cotangent():
    def chain(x):
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = x
            for _ in range(1501):
                y = jg.reshape(y, (1, 1) if y.ndim == 1 else (1,))
        return tape.gradient(y, x)
    both(chain, [2.0])


def test_second_order_and_persistent_tapes():
    def second(x):
        with jg.GradientTape() as outer:
            outer.watch(x)
            with jg.GradientTape(persistent=True) as inner:
                inner.watch(x)
                y = jg.sum(x ** 3 * jg.sin(x))
                z = jg.sum(jg.exp(x))
            g, h = inner.gradient(y, x), inner.gradient(z, x)
            total = jg.sum(g * h)
        return [g, h, outer.gradient(total, x)]
    both(second, [0.5, 1.5], rtol=1e-5)


def test_output_gradients_jacobians_and_transforms():
    def jacobian(x):
        with jg.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = x[0] * x ** 2
        seeded = tape.gradient(y, x, output_gradients=np.array([1.0, 2.0], np.float32))
        return [tape.jacobian(y, x), seeded, tape.gradient(y, jg.identity(x), unconnected_gradients="zero")]
    both(jacobian, [2, 3])
    f = lambda x: jg.sum(jg.sin(x) * x)  # noqa: E731
    both(lambda x: [*jg.value_and_grad(f)(x), jg.hessian(f)(x), *jg.jvp(f, (x,), (jg.ones_like(x),)),
                    jg.hvp(f, (x,), (jg.ones_like(x),)), jg.vmap(jg.grad(lambda v: v ** 3))(x)], [0.5, 2], rtol=1e-5)


def test_a_move_is_differentiated():
    x = jg.constant([1.0, 2.0])
    with jg.GradientTape() as tape:
        tape.watch(x)
        there = x.to_device("cuda")
        y = jg.sum((there * there).to_device("cpu") * x)
    g = tape.gradient(y, x)
    assert there.device == "cuda" and g.device == "cpu" and g.numpy().tolist() == [3.0, 12.0]
    assert x.to_device("cpu") is x
    scale = jg.Variable(3.0)                      # one number, taken along
    with jg.GradientTape() as tape:
        y = jg.sum(on([1, 2]) * scale)
    g = tape.gradient(y, scale)
    assert g.device == "cpu" and float(g) == 3.0


def test_custom_gradients_and_checkpoints():
    @jg.custom_gradient
    def doubled(x):
        return x * x, lambda g: 10.0 * g * x

    def grads(f):
        def of(x):
            with jg.GradientTape() as tape:
                tape.watch(x)
                y = jg.sum(f(x) * x)
            return tape.gradient(y, x)
        return of
    both(grads(doubled), [1, 2])
    both(grads(jg.checkpoint(lambda x: jg.sin(x) * x)), [1, 2])


def test_control_flow_is_led_by_the_host():
    def branches(x):
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = jg.cond(jg.sum(x) > 0, lambda v: jg.sum(v * v), lambda v: jg.sum(-v), x)
            total, steps = jg.scan(lambda c, v: (c * v, c + v), x[0], x)
            last = jg.while_loop(lambda v: v < 50.0, lambda v: v * x[2], x[1])
            z = y + total + jg.sum(steps) + last
        return [z, tape.gradient(z, x)]
    both(branches, [1.5, 2, 3], rtol=1e-5)
    both(branches, [-9, 2, 3], rtol=1e-5)


def test_functions_give_what_plain_python_gives():
    v = jg.Variable([1.0, 2.0], device="cuda")
    held = jg.function(lambda: v * 2.0)
    taken = jg.function(lambda x: x * 2.0)
    moves = jg.function(lambda x: x.to_device("cuda"))
    for _ in range(3):
        assert held().tolist() == [2.0, 4.0] and held().device == "cuda"
        assert taken(on([1, 2])).device == "cuda" and taken(jg.constant([1.0, 2.0])).device == "cpu"
        assert moves(jg.constant([1.0])).device == "cuda"
    v.assign([3.0, 4.0])
    assert held().tolist() == [6.0, 8.0]


def test_nans_are_found_where_they_begin():
    with jg.debug_nans():
        with pytest.raises(FloatingPointError, match=r"log: the result \(float32\[2\]\) has 1 NaN; x .* held numbers from"):
            jg.log(on([1, -2]))
        wrong = jg.custom_gradient(lambda x: (x * 2.0, lambda g: g * jg.log(x - 5.0)))
        x = on([0, 4])
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = jg.sum(wrong(x))
        with pytest.raises(FloatingPointError, match="log, in the backward pass of custom"):
            tape.gradient(y, x)
        close(jg.sqrt(x), jg.constant([0.0, 2.0]))


# ---- training --------------------------------------------------------------------------------------------

def trained(device, make):
    x = jg.constant(np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2), device=device)
    y = jg.constant([[0.5], [0.1], [0.3]], device=device)
    with jg.device(device):
        w1, w2 = jg.Variable([[0.1, -0.2], [0.3, 0.4]]), jg.Variable([[0.5], [0.6]])
        b = jg.Variable([0.0, 0.1])
    optimizer = make()
    for _ in range(3):
        with jg.GradientTape() as tape:
            h = jg.tanh(x @ w1 + b)
            error = jg.mean((h @ w2 - y) ** 2)
        found = tape.gradient(error, [w1, w2, b])
        optimizer.apply_gradients(zip(found, [w1, w2, b], strict=True))
    assert int(optimizer.iterations) == 3 and optimizer.iterations.device == "cpu"
    return [error, w1.value(), w2.value(), b.value()]


@pytest.mark.parametrize("make", [lambda: jg.nn.optimizers.Adam(0.05), lambda: jg.nn.optimizers.SGD(0.1, momentum=0.9),
                                  lambda: jg.nn.optimizers.Adam(0.05, global_clipnorm=0.1, weight_decay=0.1)])
def test_steps_of_an_optimizer(make):
    close(trained("cuda", make), trained("cpu", make), rtol=1e-5)


def test_a_gradient_from_the_cpu_does_not_fit():
    v, optimizer = jg.Variable([1.0, 2.0], device="cuda"), jg.nn.optimizers.SGD(0.1)
    with pytest.raises(ValueError, match="different devices"):
        optimizer.apply_gradients([(jg.constant([1.0, 1.0]), v)])
    optimizer.apply_gradients([(on([1, 1]), v)])
    np.testing.assert_allclose(v.numpy(), [0.9, 1.9], 1e-6)


# ---- memory and other libraries --------------------------------------------------------------------------

def test_memory_is_freed_with_the_last_holder():
    buffers, nbytes = memory.Use.buffers, memory.Use.nbytes
    x = on([1, 2, 3])
    y = x[1:]                                     # a view
    assert memory.Use.buffers == buffers + 1
    del x
    assert y.tolist() == [2.0, 3.0] and memory.Use.nbytes == nbytes + 12
    del y
    assert memory.Use.buffers == buffers
    v = jg.Variable([1.0, 2.0], device="cuda")
    kept = 64                                     # constants of the backward Program
    for _ in range(3):
        with jg.GradientTape() as tape:
            loss = jg.sum(v * v)
        v.assign_sub(tape.gradient(loss, v) * 0.1)
    del tape, loss
    assert memory.Use.nbytes <= nbytes + 8 + kept
    del v


def test_the_cuda_array_interface():
    x = on([[1, 2], [3, 4]])[1:]
    found = x.__cuda_array_interface__
    assert found["shape"] == (1, 2) and found["typestr"] == "<f4" and found["version"] == 3
    assert found["strides"] is None and found["data"][1]
    y = jg.asarray(x_like := Like(found, x))
    assert y.device == "cuda" and y.tolist() == [[3.0, 4.0]]
    gone = weakref.ref(x_like)
    del x, x_like
    assert gone() is not None and y.tolist() == [[3.0, 4.0]]          # it holds what it shares
    del y, found
    assert gone() is None
    assert not hasattr(jg.constant(1.0), "__cuda_array_interface__")


class Like:
    """An array of some other library."""

    def __init__(self, interface, owner):
        self.__cuda_array_interface__, self.owner = interface, owner


def test_foreign_arrays_of_other_layouts_and_types():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)

    def like(a):
        """The same layout on the GPU, as far from a multiple of 16 as here."""
        first, end = np.lib.array_utils.byte_bounds(a)
        begin = first - first % 16
        held = memory.uploaded(np.frombuffer((ctypes.c_char * (end - begin)).from_address(begin), np.uint8))
        return Like({"shape": a.shape, "typestr": a.dtype.str, "data": (held.address + a.ctypes.data - begin, False),
                     "strides": a.strides, "version": 3, "stream": None}, held)
    assert jg.asarray(like(array)).tolist() == array.tolist()
    whole = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    for strided in (array.T, array[::-1], whole[::-2, 1:, ::3], whole.transpose(2, 0, 1)[1:], whole[:, :1, :1] > 7,
                    np.broadcast_to(array[0], (4, 3)), np.frombuffer(bytes(range(17)), np.float32, offset=1)):
        assert jg.asarray(like(strided)).tolist() == strided.tolist()
    assert jg.asarray(like(array), dtype="int32").dtype == np.int32
    with pytest.raises(TypeError, match="complex64 on a GPU has no counterpart"):
        jg.asarray(like(array.astype(np.complex64)))
    with pytest.raises(TypeError, match="cannot be taken"):
        jg.asarray(like(np.zeros(3, "f4, u1")["f0"]))


def test_dlpack():
    before = len(exchange._given)
    array = np.arange(6, dtype=np.float64).reshape(2, 3)
    x = on(array, np.float64)
    for given in (x.__dlpack__(), x.__dlpack__(max_version=(1, 0))):
        y = exchange.unpacked(given)
        assert y.device == "cuda" and y.dtype == np.float64 and y.tolist() == array.tolist()
        with pytest.raises(ValueError, match="taken already"):
            exchange.unpacked(given)
    del x, given
    gc.collect()
    assert y.tolist() == array.tolist() and len(exchange._given) == before + 1
    del y
    gc.collect()
    assert len(exchange._given) == before
    capsule = on([1]).__dlpack__()
    assert len(exchange._given) == before + 1
    del capsule
    assert len(exchange._given) == before
    with pytest.raises(TypeError, match="no counterpart"):
        exchange.unpacked(np.zeros(2, np.int8).__dlpack__())


@pytest.mark.skipif(toolkit.simulated(), reason="the simulator's memory is the CPU's")
def test_a_taker_says_itself_why_it_does_not_take():
    before = len(exchange._given)
    with pytest.raises((BufferError, RuntimeError), match="(?i)device"):
        np.from_dlpack(on([1.0]))
    assert len(exchange._given) == before


@pytest.mark.skipif(not toolkit.simulated(), reason="NumPy has no memory of a GPU")
def test_dlpack_of_numpys_memory():
    x = on([[1, 2], [3, 4]])
    taken = np.from_dlpack(x)
    np.testing.assert_array_equal(taken, [[1, 2], [3, 4]])
    assert not taken.flags.writeable
    before = len(exchange._given)
    del x
    gc.collect()
    np.testing.assert_array_equal(taken, [[1, 2], [3, 4]])
    del taken
    assert len(exchange._given) == before - 1
    array = np.arange(6, dtype=np.float64).reshape(2, 3)
    assert exchange.unpacked(array.__dlpack__()).tolist() == array.tolist()
    assert exchange.unpacked(array.T.__dlpack__()).tolist() == array.T.tolist()


def test_what_is_added_comes_to_the_variable():
    here, there = jg.Variable(1.0), jg.Variable(1.0, device="cuda")
    for _ in range(3):
        here.assign_add(jg.constant(2.0, device="cuda"))
        there.assign_sub(jg.constant(2.0))
    assert (here.device, float(here), there.device, float(there)) == ("cpu", 7.0, "cuda", -5.0)
