"""TensorFlow's two tape guides through jitgrad's own names: what each snippet shows, with its numbers."""

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.nn.layers import Dense
from tape_omissions import awaiting
from tapes import leakless, numbers

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


# ---- Introduction to gradients and automatic differentiation -------------------------------------

def test_intro_first_example():
    x = jg.Variable(3.0)
    with jg.GradientTape() as tape:
        y = x ** 2
    assert tape.gradient(y, x).numpy() == 6.0


def test_intro_matrix_and_containers():
    start = normal(3, 2)
    w, b = jg.Variable(start, name="w"), jg.Variable(jg.zeros(2, dtype=jg.float32), name="b")
    x = [[1.0, 2.0, 3.0]]
    with jg.GradientTape(persistent=True) as tape:
        y = x @ w + b
        loss = jg.mean(y ** 2)
    [dw, db] = tape.gradient(loss, [w, b])
    assert dw.shape == w.shape and db.shape == b.shape
    np.testing.assert_allclose(db.numpy(), (x @ start)[0], rtol=1e-6)
    np.testing.assert_allclose(dw.numpy(), np.transpose(x) @ (x @ start), rtol=1e-6)
    grad = tape.gradient(loss, {"w": w, "b": b})
    np.testing.assert_array_equal(grad["b"].numpy(), db.numpy())


def test_intro_model():
    layer = Dense(2, activation="relu")
    x = jg.constant([[1.0, 2.0, 3.0]])
    with jg.GradientTape() as tape:
        y = layer(x)
        loss = jg.mean(y ** 2)
    grad = tape.gradient(loss, layer.trainable_variables)
    assert [(v.name.split("/")[-1].split(":")[0], g.shape)
            for v, g in zip(layer.trainable_variables, grad, strict=True)] == [("kernel", (3, 2)), ("bias", (2,))]
    np.testing.assert_allclose(grad[1].numpy(), y.numpy()[0], rtol=1e-6)


def test_intro_what_is_watched():
    x0, x1 = jg.Variable(3.0, name="x0"), jg.Variable(3.0, name="x1", trainable=False)
    x2, x3 = jg.Variable(2.0, name="x2") + 1.0, jg.constant(3.0, name="x3")
    with jg.GradientTape() as tape:
        y = x0 ** 2 + x1 ** 2 + x2 ** 2
    assert numbers(tape.gradient(y, [x0, x1, x2, x3])) == [6.0, None, None, None]
    assert [v.name.split(":")[0] for v in tape.watched_variables()] == ["x0"]


def test_intro_watch_a_constant():
    x = jg.constant(3.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = x ** 2
    assert tape.gradient(y, x).numpy() == 6.0


def test_intro_watch_only_one_variable():
    x0, x1 = jg.Variable(0.0), jg.Variable(10.0)
    with jg.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x1)
        y = jg.sin(x0) + jg.log1p(jg.exp(x1))               # softplus
        ys = jg.sum(y)
    grad = tape.gradient(ys, {"x0": x0, "x1": x1})
    assert grad["x0"] is None
    assert numbers(grad["x1"]) == pytest.approx(0.9999546, rel=1e-6)


@leakless
def test_intro_intermediate_result():
    x = jg.constant(3.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = x * x
        z = y * y
    assert tape.gradient(z, y).numpy() == 18.0


@leakless
def test_intro_persistent_tape():
    x = jg.constant([1, 3.0])
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = x * x
        z = y * y
    assert numbers([tape.gradient(z, x), tape.gradient(y, x)]) == [[4.0, 108.0], [2.0, 6.0]]
    del tape


def test_intro_memory_notes():
    x = jg.Variable(jg.ones((1000,)))
    with jg.GradientTape() as tape:
        y = jg.relu(x)
    assert tape.nbytes > 0
    tape.gradient(y, x)
    assert tape.nbytes == 0


def test_intro_targets_that_are_not_scalar():
    x = jg.Variable(2.0)
    with jg.GradientTape(persistent=True) as tape:
        y0 = x ** 2
        y1 = 1 / x
    assert numbers([tape.gradient(y0, x), tape.gradient(y1, x)]) == [4.0, -0.25]
    assert numbers(tape.gradient({"y0": y0, "y1": y1}, x)) == 3.75
    with jg.GradientTape() as tape:
        y = x * [3.0, 4.0]
    assert numbers(tape.gradient(y, x)) == 7.0


def test_intro_elementwise_sigmoid():
    x = jg.linspace(-10.0, 10.0, 200 + 1)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.sigmoid(x)
    dy = tape.gradient(y, x).numpy()
    s = 1 / (1 + np.exp(-np.linspace(-10, 10, 201)))
    np.testing.assert_allclose(y.numpy(), s, rtol=1e-5)
    np.testing.assert_allclose(dy, s * (1 - s), rtol=1e-4, atol=1e-7)
    assert dy[100] == 0.25


def test_intro_control_flow():
    x, v0, v1 = jg.constant(1.0), jg.Variable(2.0), jg.Variable(2.0)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        result = v0 if x > 0.0 else v1 ** 2
    assert numbers(tape.gradient(result, [v0, v1])) == [1.0, None]
    assert tape.gradient(result, x) is None


def test_intro_none_when_unconnected():
    x, y = jg.Variable(2.0), jg.Variable(3.0)
    with jg.GradientTape() as tape:
        z = y * y
    assert tape.gradient(z, x) is None


def test_intro_none_1_variable_replaced_by_a_tensor():
    x = jg.Variable(2.0)
    found = []
    for _ in range(2):
        with jg.GradientTape() as tape:
            y = x + 1
        found.append((type(x).__name__, numbers(tape.gradient(y, x))))
        x = x + 1
    assert found == [("Variable", 1.0), ("Tensor", None)]


def test_intro_none_2_computed_elsewhere():
    x = jg.Variable([[1.0, 2.0], [3.0, 4.0]], dtype=jg.float32)
    with jg.GradientTape() as tape:
        squares = x ** 2
        y = jg.mean(np.mean(squares, axis=0), axis=0)
    assert numbers(y) == 7.5
    assert tape.gradient(y, x) is None


def test_intro_none_3_integers(caplog):
    x = jg.constant(10)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = x * x
    assert tape.gradient(y, x) is None
    assert "must be floating" in caplog.text


def test_intro_none_4_state():
    x0, x1 = jg.Variable(3.0), jg.Variable(0.0)
    with jg.GradientTape() as tape:
        x1.assign_add(x0)
        y = x1 ** 2
    assert numbers(y) == 9.0
    assert tape.gradient(y, x0) is None


def test_intro_no_gradient_registered():
    """TensorFlow shows it with adjust_contrast; here an entry without a rule raises where it is recorded."""
    from jitgrad.core.primitive import BY_NAME, OPS, TABLE, elementwise, missing, uniform

    @elementwise(vjp=missing, ref=np.add, samples=uniform((3,), (3,)))
    def adjusted(image, delta):
        return image + delta

    image, delta = jg.Variable([[[0.5, 0.0, 0.0]]]), jg.Variable(0.1)
    try:
        with pytest.raises(LookupError, match="gradient registry has no entry for: adjusted"), jg.GradientTape() as tape:
            tape.gradient(OPS["adjusted"](image, delta), [image, delta])
    finally:
        TABLE.remove(BY_NAME.pop("adjusted"))
        del OPS["adjusted"]


def test_intro_zeros_instead_of_none():
    x, y = jg.Variable([2.0, 2.0]), jg.Variable(3.0)
    with jg.GradientTape() as tape:
        z = y ** 2
    assert numbers(tape.gradient(z, x, unconnected_gradients=jg.UnconnectedGradients.ZERO)) == [0.0, 0.0]


# ---- Advanced automatic differentiation ----------------------------------------------------------

def test_advanced_stop_recording():
    x, y = jg.Variable(2.0), jg.Variable(3.0)
    with jg.GradientTape() as tape:
        x_sq = x * x
        with tape.stop_recording():
            y_sq = y * y
        z = x_sq + y_sq
    assert numbers(tape.gradient(z, {"x": x, "y": y})) == {"x": 4.0, "y": None}


def test_advanced_reset():
    x, y = jg.Variable(2.0), jg.Variable(3.0)
    with jg.GradientTape() as tape:
        y_sq = y * y
        tape.reset()
        z = x * x + y_sq
    assert numbers(tape.gradient(z, {"x": x, "y": y})) == {"x": 4.0, "y": None}


def test_advanced_stop_gradient():
    x, y = jg.Variable(2.0), jg.Variable(3.0)
    with jg.GradientTape() as tape:
        z = x ** 2 + jg.stop_gradient(y ** 2)
    assert numbers(tape.gradient(z, {"x": x, "y": y})) == {"x": 4.0, "y": None}


@jg.custom_gradient
def clip_gradients(y):
    def backward(dy):
        return dy * 0.5 / jg.maximum(jg.sqrt(jg.sum(dy * dy)), 0.5)        # clip_by_norm(dy, 0.5)
    return y, backward


def test_advanced_custom_gradient():
    v = jg.Variable(2.0)
    with jg.GradientTape() as tape:
        output = clip_gradients(v * v)
    assert numbers([output, tape.gradient(output, v)]) == [4.0, 2.0]


def test_advanced_custom_gradient_in_a_saved_model():
    v, saved = jg.Variable(2.0), jg.function(clip_gradients)
    with jg.GradientTape() as tape:
        output = saved(v * v)
    assert numbers(tape.gradient(output, v)) == 2.0


def test_advanced_several_tapes():
    x0, x1 = jg.constant(0.0), jg.constant(0.0)
    with jg.GradientTape() as tape0, jg.GradientTape() as tape1:
        tape0.watch(x0)
        tape1.watch(x1)
        ys = jg.sum(jg.sin(x0) + jg.sigmoid(x1))
    assert tape0.gradient(ys, x0).numpy() == 1.0
    assert tape1.gradient(ys, x1).numpy() == 0.25


def test_advanced_higher_order():
    x = jg.Variable(1.0)
    with jg.GradientTape() as t2:
        with jg.GradientTape() as t1:
            y = x * x * x
        dy = t1.gradient(y, x)
    assert numbers([dy, t2.gradient(dy, x)]) == [3.0, 6.0]


def test_advanced_input_gradient_regularisation():
    x, layer = jg.constant(normal(7, 5)), Dense(10, activation=jg.relu)
    with jg.GradientTape() as t2:
        with jg.GradientTape(watch_accessed_variables=False) as t1:
            t1.watch(x)
            layer(x)
            out = jg.sum(layer(x) ** 2)
        g1 = t1.gradient(out, x)
        size = jg.sqrt(jg.sum(g1 ** 2))
    found = t2.gradient(size, layer.trainable_variables)
    assert [g.shape for g in found] == [(5, 10), (10,)]
    k = layer.kernel.numpy().astype(np.float64)
    on = x.numpy() @ k > 0
    grad = 2 * (on * (x.numpy() @ k)) @ k.T                  # and its norm's gradient in the bias, with b = 0
    np.testing.assert_allclose(g1.numpy(), grad, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1].numpy(), (2 * on * (grad / np.linalg.norm(grad) @ k)).sum(0), rtol=1e-4, atol=1e-5)


def test_advanced_jacobian_of_a_scalar_source():
    x, delta = jg.linspace(-10.0, 10.0, 200 + 1), jg.Variable(0.0)
    with jg.GradientTape() as tape:
        y = jg.sigmoid(x + delta)
    dy = tape.jacobian(y, delta)
    assert y.shape == dy.shape == (201,)
    np.testing.assert_allclose(dy.numpy(), y.numpy() * (1 - y.numpy()), rtol=1e-4, atol=1e-7)


def test_advanced_jacobian_of_a_tensor_source():
    x, layer = jg.constant(normal(7, 5)), Dense(10, activation=jg.relu)
    with jg.GradientTape(persistent=True) as tape:
        y = layer(x)
    j = tape.jacobian(y, layer.kernel)
    assert (y.shape, layer.kernel.shape, j.shape) == ((7, 10), (5, 10), (7, 10, 5, 10))
    g = tape.gradient(y, layer.kernel)
    assert g.shape == (5, 10)
    assert jg.max(jg.abs(g - jg.sum(j, axis=[0, 1]))).numpy() < 1e-3


def hessian():
    """The guide's Hessian of a mean of squares in the kernel of the first of two layers."""
    x, layer1, layer2 = jg.constant(normal(7, 5)), Dense(8, activation=jg.relu), Dense(6, activation=jg.relu)
    with jg.GradientTape() as t2:
        with jg.GradientTape() as t1:
            loss = jg.mean(layer2(layer1(x)) ** 2)
        g = t1.gradient(loss, layer1.kernel)
    h = t2.jacobian(g, layer1.kernel)
    return layer1, g, h


def test_advanced_hessian_and_newton_step():
    layer1, g, h = hessian()
    assert h.shape == (5, 8, 5, 8)
    n = int(np.prod(layer1.kernel.shape))
    g_vec, h_mat = jg.reshape(g, [n, 1]), jg.reshape(h, [n, n])
    np.testing.assert_allclose(h_mat.numpy(), h_mat.numpy().T, atol=1e-6)
    before = layer1.kernel.numpy().copy()
    system = h_mat + jg.eye(h_mat.shape[0]) * 1e-3
    update = np.linalg.solve(system.numpy(), g_vec.numpy())
    layer1.kernel.assign_sub(jg.reshape(update, layer1.kernel.shape))
    np.testing.assert_allclose(before - layer1.kernel.numpy(), update.reshape(5, 8), atol=1e-5)


@awaiting("jg.linalg.solve")
def test_advanced_newton_step_with_our_own_solve():
    layer1, g, h = hessian()
    n = int(np.prod(layer1.kernel.shape))
    update = jg.linalg.solve(jg.reshape(h, [n, n]) + jg.eye(n) * 1e-3, jg.reshape(g, [n, 1]))
    layer1.kernel.assign_sub(jg.reshape(update, layer1.kernel.shape))


def elu(x):
    return jg.where(x > 0, x, jg.expm1(x))


def test_advanced_batch_jacobian():
    x, layer1, layer2 = jg.constant(normal(7, 5)), Dense(8, activation=elu), Dense(6, activation=elu)
    with jg.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        y = layer2(layer1(x))
    j = tape.jacobian(y, x)
    assert (y.shape, j.shape) == ((7, 6), (7, 6, 7, 5))
    assert numbers(j[:, 0, :, 0] * (1 - jg.eye(7))) == [[0.0] * 7] * 7
    j_sum, j_select = jg.sum(j, axis=2), jg.einsum("bxby->bxy", j)
    jb = tape.batch_jacobian(y, x)
    assert j_sum.shape == j_select.shape == jb.shape == (7, 6, 5)
    assert jg.max(jg.abs(jb - j_sum)).numpy() < 1e-6
    np.testing.assert_allclose(jb.numpy(), j_select.numpy(), atol=1e-6)


def test_advanced_caution_with_normalisation_over_the_batch():
    """Examples that influence one another: the batch Jacobian is not the sum over the batch."""
    x, layer1, layer2 = jg.constant(normal(7, 5)), Dense(8, activation=elu), Dense(6, activation=elu)
    with jg.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        y = layer1(x)
        y = y - jg.mean(y, axis=0)
        y = y / jg.sqrt(jg.mean(y * y, axis=0) + 1e-3)
        y = layer2(y)
    j, jb = tape.jacobian(y, x), tape.batch_jacobian(y, x)
    assert (j.shape, jb.shape) == ((7, 6, 7, 5), (7, 6, 5))
    total = jg.sum(j, axis=2)
    assert jg.max(jg.abs(total - jg.einsum("bxby->bxy", j))).numpy() > 1e-3
    by_example = jg.stack([jg.sum(j[:, :, b], axis=0) for b in range(7)])
    assert jg.max(jg.abs(jb - by_example)).numpy() < 1e-5
