"""What tutorials of the tape write, with only the import changed."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

import jitgrad as jg
import jitgrad.interop.tensorflow as tf
from jitgrad.interop.tensorflow.keras import Model, layers

tfe = tf.contrib.eager
rng = np.random.default_rng(11)


# ---- tutorials -----------------------------------------------------------------------------------

def test_the_first_example_of_every_tutorial() -> None:
    def f(w1: Any, w2: Any) -> Any:
        return 3 * w1 ** 2 + 2 * w1 * w2
    w1, w2 = tf.Variable(5.), tf.Variable(3.)
    with tf.GradientTape() as tape:
        z = f(w1, w2)
    assert [g.numpy() for g in tape.gradient(z, [w1, w2])] == [36.0, 10.0]
    with tf.GradientTape(persistent=True) as tape:
        z = f(w1, w2)
    assert tape.gradient(z, w1).numpy() == 36.0 and tape.gradient(z, w2).numpy() == 10.0
    c1, c2 = tf.constant(5.), tf.constant(3.)
    with tf.GradientTape() as tape:
        z = f(c1, c2)
    assert tape.gradient(z, [c1, c2]) == [None, None]
    with tf.GradientTape() as tape:
        tape.watch([c1, c2])
        z = f(c1, c2)
    assert [float(g) for g in tape.gradient(z, [c1, c2])] == [36.0, 10.0]
    with tf.GradientTape(persistent=True) as hessian_tape:
        with tf.GradientTape() as jacobian_tape:
            z = f(w1, w2)
        jacobians = jacobian_tape.gradient(z, [w1, w2])
    hessians = [hessian_tape.gradient(j, [w1, w2], unconnected_gradients=tf.UnconnectedGradients.ZERO) for j in jacobians]
    assert [[float(h) for h in row] for row in hessians] == [[6.0, 2.0], [2.0, 0.0]]


def test_linear_regression_on_a_tape() -> None:
    tf.random.set_seed(2)
    x = tf.random.normal([200])
    noise = tf.random.normal(shape=[200], stddev=0.01)
    y = x * 3.0 + 2.0 + noise

    class Linear:
        def __init__(self) -> None:
            self.w, self.b = tf.Variable(5.0), tf.Variable(0.0)

        def __call__(self, x: Any) -> Any:
            return self.w * x + self.b

    def loss(target_y: Any, predicted_y: Any) -> Any:
        return tf.reduce_mean(tf.square(target_y - predicted_y))
    model = Linear()
    for _ in range(100):
        with tf.GradientTape() as t:
            current_loss = loss(y, model(x))
        dw, db = t.gradient(current_loss, [model.w, model.b])
        model.w.assign_sub(0.1 * dw)
        model.b.assign_sub(0.1 * db)
    np.testing.assert_allclose([model.w.numpy(), model.b.numpy()], [3.0, 2.0], atol=0.01)


def test_a_training_loop_of_a_subclassed_model() -> None:
    class MyModel(Model):
        def __init__(self) -> None:
            super().__init__()
            self.flatten = layers.Flatten()
            self.d1 = layers.Dense(16, activation="relu")
            self.drop = layers.Dropout(0.1)
            self.d2 = layers.Dense(3)

        def call(self, x: Any, training: bool = False) -> Any:
            return self.d2(self.drop(self.d1(self.flatten(x)), training=training))
    tf.random.set_seed(1)
    centres = rng.normal(size=(3, 4, 4)) * 2
    y = rng.integers(0, 3, 120)
    x = (centres[y] + rng.normal(size=(120, 4, 4)) * 0.3).astype("float32")
    model = MyModel()
    loss_object = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = tf.keras.optimizers.Adam(0.01)
    train_loss = tf.keras.metrics.Mean(name="train_loss")
    train_accuracy = tf.keras.metrics.SparseCategoricalAccuracy(name="train_accuracy")
    for _epoch in range(5):
        train_loss.reset_state()
        train_accuracy.reset_state()
        for i in range(0, 120, 30):
            with tf.GradientTape() as tape:
                predictions = model(x[i:i + 30], training=True)
                loss = loss_object(y[i:i + 30], predictions)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            train_loss(loss)
            train_accuracy(y[i:i + 30], predictions)
    assert float(f"{train_loss.result():0.2f}") < 0.5 and train_accuracy.result() * 100 > 95
    assert [v.name for v in model.trainable_variables] == ["kernel", "bias"] * 2


def test_the_guide_to_automatic_differentiation() -> None:
    w = tf.Variable(tf.random.normal((3, 2)), name="w")
    b = tf.Variable(tf.zeros(2, dtype=tf.float32), name="b")
    x = [[1., 2., 3.]]
    with tf.GradientTape(persistent=True) as tape:
        y = x @ w + b
        loss = tf.reduce_mean(y ** 2)
    dw, db = tape.gradient(loss, [w, b])
    assert dw.shape == w.shape
    np.testing.assert_allclose(tape.gradient(loss, {"w": w, "b": b})["b"].numpy(), db.numpy())
    layer = tf.keras.layers.Dense(2, activation="relu")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(layer(tf.constant(x)) ** 2)
    assert [g.shape for g in tape.gradient(loss, layer.trainable_variables)] == [(3, 2), (2,)]
    x1 = tf.linspace(-10.0, 10.0, 200 + 1)
    with tf.GradientTape() as tape:
        tape.watch(x1)
        y = tf.nn.sigmoid(x1)
    s = 1 / (1 + np.exp(-x1.numpy()))
    np.testing.assert_allclose(tape.gradient(y, x1).numpy(), s * (1 - s), rtol=1e-4, atol=1e-7)


def test_jacobians_of_a_layer() -> None:
    x = tf.random.normal([7, 5])
    layer = tf.keras.layers.Dense(10, activation="relu")
    with tf.GradientTape(persistent=True) as tape:
        y = layer(x)
    j = tape.jacobian(y, layer.kernel)
    assert j.shape == (7, 10, 5, 10)
    np.testing.assert_allclose(tf.reduce_sum(j, axis=[0, 1]).numpy(), tape.gradient(y, layer.kernel).numpy(), rtol=1e-4,
                               atol=1e-5)


def test_custom_gradient_and_clipping() -> None:
    @tf.custom_gradient
    def clip_gradients(y: Any) -> Any:
        def backward(dy: Any) -> Any:
            return tf.clip_by_norm(dy, 0.5)
        return y, backward
    v = tf.Variable(2.0)
    with tf.GradientTape() as t:
        output = clip_gradients(v * v)
    assert float(t.gradient(output, v)) == 2.0
    assert tf.clip_by_norm([3.0, 4.0], 1.0).numpy() == pytest.approx([0.6, 0.8])
    clipped, norm = tf.clip_by_global_norm([tf.constant([3.0]), None, tf.constant([4.0])], 1.0)
    assert float(norm) == 5.0 and clipped[1] is None and float(clipped[2][0]) == pytest.approx(0.8)


# ---- TensorFlow 1's eager mode -------------------------------------------------------------------

def test_gradients_functions() -> None:
    tf.enable_eager_execution()
    assert tf.executing_eagerly() and tfe.executing_eagerly()
    grad = tfe.gradients_function(tf.square)
    assert tf.square(3.).numpy() == 9.0 and grad(3.)[0].numpy() == 6.0

    def cube(x: float) -> Any:
        return tfe.gradients_function(lambda x: tfe.gradients_function(lambda x: x ** 3)(x)[0])(x)[0]
    assert float(cube(3.0)) == 18.0
    assert [float(g) for g in tfe.gradients_function(lambda x, y: x * y)(3., 4.)] == [4.0, 3.0]
    both = tfe.gradients_function(lambda x, y: x * y, params=["y"])
    assert [float(g) for g in both(3., 4.)] == [3.0]
    assert float(tfe.gradients_function(lambda x, y: x * y, params=[1])(3., 4., dy=2.)[0]) == 6.0
    value, (g,) = tfe.value_and_gradients_function(lambda x: tf.reduce_sum(x * x))(np.float32([1, 2]))
    assert float(value) == 5.0 and g.numpy().tolist() == [2.0, 4.0]
    assert tfe.gradients_function(lambda x: tf.abs(x))(tf.constant([-2., 3.]))[0].numpy().tolist() == [-1.0, 1.0]


def test_gradients_functions_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="Cannot differentiate a function that returns None; did you forget"):
        tfe.gradients_function(lambda x: None)(1.0)
    with pytest.raises(ValueError, match="No trainable variables were accessed"):
        tfe.implicit_gradients(lambda: tf.constant(1.0))()
    with pytest.raises(ValueError, match="none of them is 'z'"):
        tfe.gradients_function(lambda x: x, params=["z"])(1.0)


def test_implicit_gradients_train() -> None:
    x = tf.random_normal([100], seed=1)
    w, b = tfe.Variable(5.), tfe.Variable(10.)
    optimizer = tf.keras.optimizers.SGD(learning_rate=0.1)
    grad_fn = tfe.implicit_value_and_gradients(lambda: tf.reduce_mean(tf.square(x * w + b - (x * 3. + 2.))))
    for _ in range(200):
        loss, grads = grad_fn()
        optimizer.apply_gradients(grads)
    assert float(loss) < 1e-6 and [v for _, v in grads] == [w, b]


# ---- names ---------------------------------------------------------------------------------------

NAMES = """Variable constant convert_to_tensor GradientTape UnconnectedGradients custom_gradient stop_gradient ones zeros
ones_like zeros_like eye fill range cast square sqrt multiply add subtract divide pow exp log sin cos tanh sigmoid abs
maximum minimum where equal not_equal less less_equal greater greater_equal reduce_sum reduce_mean reduce_max reduce_min
argmax argmin reshape transpose concat stack unstack matmul gather one_hot linspace lin_space clip_by_norm norm identity
expand_dims squeeze random nn math linalg keras contrib float32 float64 int32 int64 bool newaxis optimizers losses
enable_eager_execution executing_eagerly function TensorSpec config autodiff cond case switch_case while_loop foldl foldr
scan map_fn vectorized_map recompute_grad""".split()


@pytest.mark.parametrize("name", NAMES)
def test_tutorials_find_their_names(name: str) -> None:
    assert hasattr(tf, name)


def test_modules_can_be_imported_by_name() -> None:
    for name in ("keras", "keras.layers", "keras.losses", "keras.optimizers", "keras.metrics", "keras.activations",
                 "keras.initializers", "keras.models", "nn", "math", "linalg", "random", "contrib.eager"):
        module = importlib.import_module(f"jitgrad.interop.tensorflow.{name}")
        assert module.__doc__
    assert tf.keras.layers.Dense is jg.nn.layers.Dense and tf.keras.Model is Model


def same(found: Any, wanted: Any, dtype: str = "float32") -> None:
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)
    assert found.dtype == dtype


def test_argument_names_and_defaults() -> None:
    x = tf.constant([[1., 2.], [3., 4.]], name="x")
    same(tf.reduce_sum(input_tensor=x, axis=1, keepdims=True, name="total"), [[3], [7]])
    same(tf.reduce_mean(x, axis=0), [2, 3])
    same(tf.reduce_max(x), 4)
    same(tf.reduce_min(x, axis=-1), [1, 3])
    same(tf.argmax(x), [1, 1], "int64")                     # along the first axis, unlike NumPy
    same(tf.argmax(x, axis=1, output_type=tf.int32), [1, 1], "int32")
    same(tf.matmul(x, x, transpose_b=True), x.numpy() @ x.numpy().T)
    same(tf.linalg.matvec(x, [1., 1.]), [3, 7])
    same(tf.multiply(x, 2, name="twice"), x.numpy() * 2)
    same(tf.pow(x, 2), x.numpy() ** 2)
    same(tf.transpose(x, perm=[1, 0]), x.numpy().T)
    same(tf.concat([x, x], axis=0), np.concatenate([x.numpy()] * 2))
    same(tf.stack([x, x], axis=1), np.stack([x.numpy()] * 2, 1))
    same(tf.unstack(x, axis=1)[0], [1, 3])
    same(tf.gather(params=x, indices=[1, 0]), [[3, 4], [1, 2]])
    same(tf.gather(x, [1], axis=1), [[2], [4]])
    same(tf.one_hot(indices=[0, 2], depth=3, on_value=5.0, off_value=-1.0), [[5, -1, -1], [-1, -1, 5]])
    same(tf.cast(x, tf.int32), [[1, 2], [3, 4]], "int32")
    same(tf.fill([2, 2], 9), [[9, 9], [9, 9]], "int32")
    same(tf.range(3), [0, 1, 2], "int32")
    same(tf.range(start=3, limit=18, delta=3), [3, 6, 9, 12, 15], "int32")
    same(tf.eye(2, batch_shape=[3]), [np.eye(2)] * 3)
    same(tf.lin_space(0.0, 1.0, 3), [0, 0.5, 1])
    same(tf.where(x > 2, x, tf.zeros_like(x)), [[0, 0], [3, 4]])
    same(tf.where(x > 2), [[1, 0], [1, 1]], "int64")
    same(tf.expand_dims(x, axis=-1), x.numpy()[..., None])
    same(tf.squeeze(tf.ones([1, 2, 1]), axis=[0]), [[1], [1]])
    same(tf.norm(x), np.linalg.norm(x.numpy()))
    same(tf.norm(x, ord=1, axis=1), [3, 7])
    same(tf.shape(x), [2, 2], "int32")
    same(tf.add_n([x, x, x]), x.numpy() * 3)
    same(tf.math.reduce_variance(x), 1.25)
    same(tf.clip_by_value(x, 2.0, 3.0), [[2, 2], [3, 3]])
    same(tf.logical_and([True, False], [True, True]), [True, False], "bool")
    same(tf.logical_not([True, False]), [False, True], "bool")
    same(tf.nn.softmax([1., 1.]), [0.5, 0.5])
    same(tf.nn.softplus([0.]), [np.log(2)])
    same(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=[1], logits=[[0., 0.]]), [np.log(2)])
    same(tf.nn.softmax_cross_entropy_with_logits(labels=[[0., 1.]], logits=[[0., 0.]]), [np.log(2)])
    same(tf.nn.sigmoid_cross_entropy_with_logits(labels=[1.], logits=tf.constant([0.])), [np.log(2)])


def test_random_numbers() -> None:
    tf.random.set_seed(4)
    a = tf.random.uniform([50], maxval=7, dtype=tf.int32)
    assert a.dtype == tf.int32 and a.numpy().min() >= 0 and a.numpy().max() <= 6
    b = tf.random.uniform((1000,), -1, 1)
    assert b.dtype == tf.float32 and b.numpy().min() < -0.9 and b.numpy().max() > 0.9
    tf.random.set_seed(4)
    np.testing.assert_array_equal(a.numpy(), tf.random.uniform([50], maxval=7, dtype=tf.int32).numpy())
    assert tf.random.normal([2, 3], mean=5.0, stddev=0.0).numpy().tolist() == [[5.0] * 3] * 2


def test_norms_have_a_gradient_at_zero() -> None:
    x = tf.Variable([0.0, 0.0])
    with tf.GradientTape() as tape:
        y = tf.norm(x)
    assert tape.gradient(y, x).numpy().tolist() == [0.0, 0.0]


def test_random_choices() -> None:
    g = tf.random.Generator(3)
    assert g.normal((2,)).shape == (2,) and len(g.split(2)) == 2
    tf.random.set_seed(8)
    a = tf.random.truncated_normal([500], stddev=2.0)
    assert np.abs(a.numpy()).max() <= 4.0 and a.dtype == np.float32
    classes = tf.random.categorical([[0.0, -np.inf], [-np.inf, 0.0]], 3)
    assert classes.numpy().tolist() == [[0, 0, 0], [1, 1, 1]] and classes.dtype == np.int64
    assert sorted(tf.random.shuffle(tf.range(5)).numpy().tolist()) == [0, 1, 2, 3, 4]
    saved = tf.random.get_global_generator().state
    first = tf.random.uniform([3]).numpy()
    tf.random.get_global_generator().state = saved
    np.testing.assert_array_equal(tf.random.uniform([3]).numpy(), first)


def test_nn_and_norms() -> None:
    x = np.array([[-1.0, 0.5, 2.0], [3.0, -4.0, 0.0]])
    s = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(tf.nn.silu(x).numpy(), x * s, rtol=1e-14)
    np.testing.assert_allclose(tf.nn.silu(x, beta=2.0).numpy(), x / (1 + np.exp(-2 * x)), rtol=1e-14)
    np.testing.assert_allclose(tf.math.log_sigmoid(x).numpy(), np.log(s), rtol=1e-13)
    np.testing.assert_allclose(tf.nn.relu6(x * 3).numpy(), np.clip(x * 3, 0, 6))
    np.testing.assert_allclose(tf.nn.gelu([1.0]).numpy(), [0.8413447], rtol=1e-6)
    np.testing.assert_allclose(tf.nn.l2_normalize(x, axis=1).numpy(), x / np.linalg.norm(x, axis=1, keepdims=True))
    mean, variance = tf.nn.moments(x, axes=[0])
    np.testing.assert_allclose([mean.numpy(), variance.numpy()], [x.mean(0), x.var(0)])
    np.testing.assert_allclose(tf.math.reduce_std(x).numpy(), x.std())
    np.testing.assert_allclose(tf.nn.weighted_cross_entropy_with_logits(x > 0, x, 2.0).numpy(),
                               np.where(x > 0, -2 * np.log(s), -np.log(1 - s)), rtol=1e-13)
    for ord, axis in (("euclidean", None), (1, 0), (3, 1), (np.inf, None), (1, (0, 1)), (np.inf, [-2, -1]), ("fro", (0, 1))):
        numpys = {"euclidean": None}.get(ord, ord)
        want = np.linalg.norm(x.ravel() if axis is None else x, numpys, axis if axis is None else
                              tuple(axis) if not isinstance(axis, int) else axis)
        np.testing.assert_allclose(tf.norm(x, ord=ord, axis=axis).numpy(), want, rtol=1e-14)
    assert tf.norm(x, ord=1, axis=(0, 1), keepdims=True).shape == (1, 1)
    np.testing.assert_allclose(tf.math.reduce_euclidean_norm(x, axis=1).numpy(), np.linalg.norm(x, axis=1))
    assert tf.nn.dropout(tf.ones([4]), 0.5, seed=1).shape == (4,) and tf.nn.zero_fraction([0, 1]).numpy() == 0.5


@pytest.mark.parametrize(("call", "words"), [
    (lambda: tf.where([True], 1.0), "needs both x and y"), (lambda: tf.gather([1.0], [0], batch_dims=1), "batch_dims"),
    (lambda: tf.one_hot([0], 2, axis=0), "last one"), (lambda: tf.norm([1.0], ord="nuc"), "ord must be"),
    (lambda: tf.linspace(0.0, 1.0, 3, axis=1), "axis"), (lambda: tf.add_n([]), "at least one")])
def test_what_is_not_offered_is_said(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_special_functions_by_tensorflows_names():
    x = tf.constant([0.25, 0.5])
    for name in "acos asin asinh atan atanh cosh sinh tan floor round".split():
        same(getattr(tf, name)(x), getattr(tf.math, name)(x).numpy())
        same(getattr(tf, name)(x), getattr(np, name)(x.numpy()))
    same(tf.math.erf(x) + tf.math.erfc(x), [1.0, 1.0])
    same(tf.math.ceil(x), [1.0, 1.0])
    same(tf.math.rint([0.5, 1.5]), [0.0, 2.0])
    same(tf.atan2(1.0, -1.0), 2.3561945)
    same(tf.math.log_sigmoid([0.0, -200.0]), [-0.6931472, -200.0])
    same(tf.math.xlogy([0.0, 2.0], [0.0, 1.0]), [0.0, 0.0])
    same(tf.math.multiply_no_nan([np.inf, 2.0], [0.0, 3.0]), [0.0, 6.0])
    same(tf.math.divide_no_nan([1.0, 3.0], [0.0, 2.0]), [0.0, 1.5])
    same(tf.math.reciprocal_no_nan([0.0, 2.0]), [0.0, 0.5])
    same(tf.truncatemod([-7, 7], [2, -2]), [-1, 1], "int32")
    same(tf.truncatediv([-7, 7], [2, -2]), [-3, -3], "int32")
    same(tf.truncatediv([-7.0, 7.0], 2.0), [-3.0, 3.0])
    same(tf.math.is_nan([np.nan, 1.0]), [True, False], "bool")
    same(tf.math.logical_xor([True, False], [True, True]), [False, True], "bool")
