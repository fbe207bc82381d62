"""Layers, models and optimizers, against Keras's published numbers and NumPy."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jitgrad as jg
from jitgrad import nn

L, losses, optimizers = nn.layers, nn.losses, nn.optimizers
rng = np.random.default_rng(3)


class Net(nn.Model):
    """Layers in attributes, lists, tuples and dicts, and a Variable of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = jg.Variable(2.0, name="scale")
        self.first = L.Dense(4, activation="tanh")
        self.blocks = [L.Dense(3), (L.Dense(3), {"deep": L.Dense(2)})]
        self.count = jg.Variable(0, trainable=False, name="count")

    def call(self, x: Any) -> Any:
        x = self.blocks[0](self.first(x))
        pair = self.blocks[1]
        return pair[1]["deep"](pair[0](x)) * self.scale


def built(model: Any, shape: tuple[int, ...] = (2, 5)) -> Any:
    model(jg.ones(shape))
    return model


# ---- layers --------------------------------------------------------------------------------------

def test_dense_is_a_product_with_keras_names() -> None:
    layer = L.Dense(3, activation="relu", bias_initializer="ones")
    x = rng.normal(size=(4, 5)).astype(np.float32)
    out = layer(x)
    assert [v.name for v in layer.weights] == ["kernel", "bias"] and layer.kernel.shape == (5, 3)
    np.testing.assert_allclose(out.numpy(), np.maximum(x @ layer.kernel.numpy() + 1, 0), rtol=1e-5)
    np.testing.assert_allclose(layer(jg.ones((2, 7, 5))).shape, (2, 7, 3))
    assert layer(x.astype(np.float64)).dtype == np.float32          # Keras computes in the layer's dtype
    assert layer([[1, 2, 3, 4, 5]]).shape == (1, 3)
    assert [v.name for v in built(L.Dense(2, use_bias=False)).weights] == ["kernel"]
    assert built(L.Dense(2, dtype="float64")).kernel.dtype == np.float64


@pytest.mark.parametrize("shape", [(2, 4), (5,), ()])
def test_dense_names_the_shape_that_does_not_fit(shape: tuple[int, ...]) -> None:
    layer = built(L.Dense(3, name="tail"))
    with pytest.raises(ValueError, match=r"shape .* does not fit the layer 'tail', which takes a last axis of length 5"):
        layer(jg.ones(shape))
    with pytest.raises(ValueError, match="units"):
        L.Dense(0)


def test_gradients_reach_the_weights_and_the_input() -> None:
    layer = L.Dense(2, activation="sigmoid")
    x = jg.constant(rng.normal(size=(3, 4)).astype(np.float32))
    layer(x)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.sum(layer(x))
    gx, (gk, gb) = tape.gradient(y, [x, layer.trainable_variables])
    s = 1 / (1 + np.exp(-(x.numpy() @ layer.kernel.numpy())))
    g = s * (1 - s)
    np.testing.assert_allclose(gk.numpy(), x.numpy().T @ g, rtol=1e-4)
    np.testing.assert_allclose(gb.numpy(), g.sum(0), rtol=1e-4)
    np.testing.assert_allclose(gx.numpy(), g @ layer.kernel.numpy().T, rtol=1e-4, atol=1e-6)


def test_small_layers() -> None:
    x = jg.constant([[-1.0, 0.5, 8.0]])
    np.testing.assert_allclose(L.ReLU(max_value=6, negative_slope=0.5)(x).numpy(), [[-0.5, 0.5, 6.0]])
    np.testing.assert_allclose(L.Activation("tanh")(x).numpy(), np.tanh(x.numpy()), rtol=1e-6)
    np.testing.assert_allclose(L.Softmax()(x).numpy().sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(L.Rescaling(0.5, 1.0)(x).numpy(), x.numpy() * 0.5 + 1)
    assert L.Flatten()(jg.ones((2, 3, 4))).shape == (2, 12) and L.Flatten()(jg.ones((2,))).shape == (2, 1)


def test_dropout_keeps_the_mean_and_hears_the_model() -> None:
    model = nn.Sequential([L.Dropout(0.25, seed=1)])
    x = jg.ones((1000,))
    assert float(jg.max(model(x))) == 1.0
    out = model(x, training=True).numpy()
    assert sorted(set(out.tolist())) == pytest.approx([0.0, 4 / 3]) and abs(out.mean() - 1) < 0.1
    assert float(jg.max(model(x, training=False))) == 1.0
    np.testing.assert_array_equal(L.Dropout(1.0)(x, training=True).numpy(), np.zeros(1000))


def test_training_reaches_nested_layers_and_defaults_return() -> None:
    heard: list[Any] = []

    class Inner(nn.Layer):
        def call(self, x: Any, training: Any = None) -> Any:
            heard.append(training)
            return x

    class Outer(nn.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def call(self, x: Any, training: Any = None) -> Any:
            return self.inner(self.inner(x), training=False) if training else self.inner(x)

    model = Outer()
    for training in ({"training": True}, {}, {"training": False}):
        model(jg.ones((1, 1)), **training)
    model(jg.ones((1, 1)), True)
    assert heard == [True, False, None, False, True, False]


# ---- what layers hold ----------------------------------------------------------------------------

def test_variables_are_found_in_nests() -> None:
    model = built(Net())
    names = [v.name for v in model.trainable_variables]
    assert names == ["scale", *["kernel", "bias"] * 4]
    assert [v.name for v in model.non_trainable_variables] == ["count"]
    assert len(model.variables) == len(model.weights) == 10 and len(model.layers) == 4
    assert model.count_params() == 1 + 24 + 15 + 12 + 8 + 1
    assert len(set(map(id, model.variables))) == 10


def test_what_changes_is_seen() -> None:
    model = built(Net())
    assert len(model.trainable_variables) == 9
    model.blocks.append(built(L.Dense(1)))
    assert len(model.trainable_variables) == 11
    model.blocks[1][1]["more"] = built(L.Dense(1))
    assert len(model.trainable_variables) == 13
    model.first.trainable = False
    assert len(model.trainable_variables) == 11 and len(model.non_trainable_variables) == 3
    model.first = None
    assert len(model.variables) == 12
    model.blocks = []
    assert [v.name for v in model.variables] == ["scale", "count"]
    inner: list[Any] = []
    model.nested = [inner]
    model.nested[0].append(built(L.Dense(1)))
    model.plain = {}
    model.plain["list"] = inner
    inner.append(built(L.Dense(1)))
    assert len(model.trainable_variables) == 5
    inner.append(built(L.Dense(1)))
    assert len(model.trainable_variables) == 7


def test_a_shared_layer_counts_once_and_cycles_end() -> None:
    model = nn.Sequential()
    layer = L.Dense(5)
    model.add(layer)
    model.add(layer)
    layer.parent = model
    assert len(built(model).trainable_variables) == 2


def test_a_layer_of_the_users() -> None:
    class Scale(nn.Layer):
        def __init__(self) -> None:                     # no super().__init__(): nothing is lost
            self.units = 3

        def build(self, input_shape: Any) -> None:
            self.w = self.add_weight(shape=(input_shape[-1], self.units), initializer="ones", name="w")
            self.add_weight(shape=(), trainable=False, name="unseen")

        def call(self, x: Any) -> Any:
            return x @ self.w
    layer = Scale()
    assert float(layer(jg.ones((1, 4)))[0, 0]) == 4.0
    assert [v.name for v in layer.variables] == ["w", "unseen"] and layer.built
    assert layer.name == "scale" and Scale().name == "scale_1"
    with pytest.raises(TypeError, match="shape"):
        layer.add_weight("w", (2,))


def test_weights_go_out_and_in() -> None:
    model, other = built(Net()), built(Net())
    other.set_weights(model.get_weights())
    x = jg.constant(rng.normal(size=(3, 5)).astype(np.float32))
    np.testing.assert_array_equal(model(x).numpy(), other(x).numpy())
    with pytest.raises(ValueError, match="10 weights"):
        model.set_weights([])
    before = model.get_weights()
    with pytest.raises(ValueError, match="does not fit the weight"):
        model.set_weights([*before[:-1], np.zeros(7)])
    with pytest.raises(ValueError, match="not built"):
        Net().count_params()


def test_weights_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    model, other = built(Net()), built(Net())
    model.save_weights(path)
    with np.load(path, allow_pickle=False) as file:
        assert "blocks/1/1/deep/kernel" in file.files
    other.load_weights(path)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == ["weights.npz"]
    with pytest.raises(FileExistsError):
        model.save_weights(path, overwrite=False)
    with pytest.raises(ValueError, match=r"layers/0/kernel is only in the model|only in the file"):
        built(nn.Sequential([L.Dense(2)])).load_weights(path)
    with pytest.raises(ValueError, match="first/kernel has shape"):
        built(Net(), (2, 6)).load_weights(path)
    with pytest.raises(ValueError, match="no weights yet"):
        nn.Sequential([L.Dense(2)]).save_weights(path)


def test_an_old_file_survives_a_failed_save_and_a_torn_file_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "weights.npz"
    model = built(Net())
    model.save_weights(path)
    good = path.read_bytes()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")
    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array", fail)
        with pytest.raises(OSError, match="disk full"):
            model.save_weights(path)
    assert path.read_bytes() == good and len(list(tmp_path.iterdir())) == 1
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match="no complete"):
        model.load_weights(path)
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.npy", "w") as member:
        np.lib.format.write_array(member, np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="no complete"):
        model.load_weights(path)


def test_summary_build_and_get_layer() -> None:
    model = nn.Sequential([L.Dense(4, name="a"), L.ReLU(name="b"), L.Dense(2, name="c")], name="net")
    lines: list[str] = []
    model.summary(lines.append)
    assert "not built" in lines[2]
    model.build((None, 3))
    lines.clear()
    model.summary(lines.append)
    assert lines[0] == "Model: net (Sequential)" and lines[-1] == "Parameters: 26, trainable 26, others 0"
    assert "(None, 4)" in lines[2] and lines[2].endswith("16")
    assert model.get_layer("c") is model.layers[2] and len(model) == 3
    with pytest.raises(ValueError, match="a, b, c"):
        model.get_layer("d")
    assert model.pop().name == "c" and len(model.trainable_variables) == 2
    with pytest.raises(TypeError, match="layers"):
        model.add(3)  # type: ignore[arg-type]


# ---- optimizers ----------------------------------------------------------------------------------

def by_hand(kind: str, w: np.ndarray, gs: list[np.ndarray], **o: Any) -> np.ndarray:
    """Keras's rules in float64."""
    m, v, top = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gs, 1):
        if (decay := o.get("weight_decay")) is not None:
            w = w - w * decay * o["learning_rate"]
        if kind == "SGD":
            m = o.get("momentum", 0.0) * m - o["learning_rate"] * g
            w = w + (o.get("momentum", 0.0) * m - o["learning_rate"] * g if o.get("nesterov") else m)
        else:
            b1, b2 = o.get("beta_1", 0.9), o.get("beta_2", 0.999)
            m, v = m + (g - m) * (1 - b1), v + (g * g - v) * (1 - b2)
            top = np.maximum(top, v)
            rate = o["learning_rate"] * np.sqrt(1 - b2**t) / (1 - b1**t)
            w = w - rate * m / (np.sqrt(top if o.get("amsgrad") else v) + 1e-7)
    return w


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("kind", "options"), [
    ("SGD", {}), ("SGD", {"momentum": 0.9}), ("SGD", {"momentum": 0.9, "nesterov": True}), ("SGD", {"weight_decay": 0.1}),
    ("Adam", {}), ("Adam", {"amsgrad": True}), ("Adam", {"beta_1": 0.8, "beta_2": 0.9, "weight_decay": 0.01})])
def test_optimizers_step_by_step(kind: str, options: dict[str, Any], dtype: str) -> None:
    start = rng.normal(size=(3, 2))
    gs = [rng.normal(size=(3, 2)).astype(np.float32).astype(np.float64) * 0.25**t for t in range(6)]
    w, other = jg.Variable(start, dtype=dtype), jg.Variable([1.0])
    optimizer = getattr(optimizers, kind)(learning_rate=0.125, **options)
    for t in range(len(gs)):
        optimizer.apply_gradients([(jg.asarray(gs[t], dtype), w), (jg.constant([1.0]), other)])
        want = by_hand(kind, start, gs[: t + 1], learning_rate=0.125, **options)
        np.testing.assert_allclose(w.numpy(), want, **({"rtol": 2e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-12}))
    assert int(optimizer.iterations) == 6
    assert len(optimizer.variables) == 2 + 2 * len(optimizer.slots)


def test_clipping() -> None:
    gs = [jg.constant([3.0, 4.0]), jg.constant([0.0, 12.0])]
    for word, want in (("clipnorm", [[0.6, 0.8], [0.0, 1.0]]), ("clipvalue", [[1, 1], [0, 1]]),
                       ("global_clipnorm", [[3 / 13, 4 / 13], [0, 12 / 13]])):
        ws = [jg.Variable([0.0, 0.0]), jg.Variable([0.0, 0.0])]
        optimizers.SGD(1.0, **{word: 1.0}).apply_gradients(zip(gs, ws, strict=True))
        np.testing.assert_allclose([-w.numpy() for w in ws], want, rtol=1e-6)
    with pytest.raises(ValueError, match="only one"):
        optimizers.Adam(clipnorm=1.0, clipvalue=1.0)


def test_settings_may_change_between_steps() -> None:
    w = jg.Variable([1.0])
    optimizer = optimizers.SGD(0.5)
    pair = [(jg.constant([1.0]), w)]
    optimizer.apply_gradients(pair)
    optimizer.learning_rate = 0.25
    optimizer.apply_gradients(pair)
    optimizer.learning_rate.assign(0.125)
    optimizer.apply_gradients(pair)
    assert float(w[0]) == 0.125 and optimizer.learning_rate.numpy() == np.float32(0.125)
    optimizer.clipvalue = 0.5
    optimizer.apply_gradients(pair)
    assert float(w[0]) == 0.0625


def test_none_gradients_are_skipped_with_one_warning(caplog: Any) -> None:
    a, b = jg.Variable([1.0], name="a"), jg.Variable([1.0], name="b")
    optimizer = optimizers.SGD(0.5)
    with caplog.at_level(logging.WARNING, "jitgrad"):
        for _ in range(2):
            optimizer.apply_gradients([(jg.constant([1.0]), a), (None, b)])
    assert (float(a[0]), float(b[0])) == (0.0, 1.0) and len(caplog.records) == 1 and "'b'" in caplog.text
    with pytest.raises(ValueError, match="no gradients provided for any variable: a, b"):
        optimizer.apply_gradients([(None, a), (None, b)])
    with pytest.raises(ValueError, match="no gradients"):
        optimizer.apply_gradients([])


def test_gradients_that_do_not_fit_change_nothing() -> None:
    w, n = jg.Variable([1.0, 2.0], name="w"), jg.Variable([1], name="n")
    optimizer = optimizers.Adam()
    with pytest.raises(ValueError, match=r"gradient of shape \(3,\) does not fit the variable 'w' of shape \(2,\)"):
        optimizer.apply_gradients([(jg.ones((3,)), w)])
    with pytest.raises(ValueError, match="twice"):
        optimizer.apply_gradients([(jg.ones((2,)), w), (jg.ones((2,)), w)])
    with pytest.raises(TypeError, match="int32, not floats"):
        optimizer.apply_gradients([(jg.constant([1]), n)])
    assert w.numpy().tolist() == [1.0, 2.0] and int(optimizer.iterations) == 0
    optimizer.apply_gradients([(np.array([1.0, 1.0]), w)])              # a float64 array is cast
    optimizer.apply_gradients([([1.0, 1.0], w)])
    assert int(optimizer.iterations) == 2 and w.dtype == np.float32


def test_a_step_inside_a_tape_is_not_recorded() -> None:
    w = jg.Variable(3.0)
    optimizer = optimizers.SGD(0.5, momentum=0.9)
    with jg.GradientTape(persistent=True) as outer:
        with jg.GradientTape() as inner:
            loss = w * w
        g = inner.gradient(loss, w)
        rows = outer.show()
        optimizer.apply_gradients([(g, w)])
        assert outer.show() == rows
        y = w * w
    assert float(w) == 0.0 and float(outer.gradient(loss, w)) == 6.0
    assert float(outer.gradient(y, w)) == 0.0


def test_minimize_and_a_regression_to_its_optimum() -> None:
    x = rng.normal(size=(64, 3))
    y = x @ [1.0, -2.0, 0.5] + 3.0
    best = np.linalg.lstsq(np.c_[x, np.ones(64)], y, rcond=None)[0]
    jg.random.set_seed(1)
    model = nn.Sequential([L.Dense(1, dtype="float64")])
    loss_of = losses.MeanSquaredError()
    optimizer = optimizers.Adam(0.1)
    model(x)
    for _ in range(400):
        optimizer.minimize(lambda: loss_of(y, model(x)), model.trainable_variables)
    kernel, bias = model.get_weights()
    np.testing.assert_allclose([*kernel[:, 0], bias[0]], best, atol=1e-4)
    with pytest.raises(ValueError, match="tape"):
        optimizer.minimize(jg.constant(1.0), model.trainable_variables)


def test_training_lowers_the_loss_and_repeats_with_a_seed() -> None:
    def train() -> list[float]:
        jg.random.set_seed(5)
        x, y = jg.random.normal((32, 6)), jg.random.uniform((32,), 0, 3, "int32")
        model = nn.Sequential([L.Dense(16, "tanh"), L.Dense(3)])
        optimizer, loss_of = optimizers.SGD(0.2, momentum=0.9), losses.SparseCategoricalCrossentropy(from_logits=True)
        out = []
        for _ in range(60):
            with jg.GradientTape() as tape:
                loss = loss_of(y, model(x, training=True))
            optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True))
            out.append(float(loss))
        return out
    first = train()
    assert first[-1] < 0.2 * first[0] and train() == first
