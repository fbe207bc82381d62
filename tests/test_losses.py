"""Losses against Keras's numbers, at extremes, and to the second order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import jitgrad as jg
from jitgrad import nn
from jitgrad.testing import check_grads
from tapes import orders

losses = nn.losses
rng = np.random.default_rng(3)

# ---- one number a sample: what Keras 3.15.1 gives, in float32 ------------------------------------

DATA: dict[str, tuple[Any, Any]] = {
    "numbers": ([[0.5, -1.2, 2.0], [0.0, 0.3, -0.7]], [[0.1, -1.0, 4.0], [-2.0, 0.3, 0.9]]),
    "binary": ([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], [[0.8, 0.3, 0.6], [0.1, 0.9, 0.45]]),
    "scores": ([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], [[0.1, -1.0, 4.0], [-2.0, 0.3, 0.9]]),
    "classes": ([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], [[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]]),
    "class_scores": ([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], [[0.1, -1.0, 4.0], [-2.0, 0.3, 0.9]]),
    "counts": ([[1.0, 0.0, 2.0], [3.0, 1.0, 0.5]], [[0.5, 0.2, 2.5], [2.0, 1.0, 1.0]]),
    "laws": ([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]], [[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]]),
}
KERAS: list[tuple[str, str, dict[str, Any], Any]] = [
    ("mean_squared_error", "numbers", {}, [1.4, 2.1866665]),
    ("mean_absolute_error", "numbers", {}, [0.8666666, 1.1999999]),
    ("mean_absolute_percentage_error", "numbers", {}, [65.55556, 666666750.0]),
    ("mean_absolute_percentage_error", "counts", {}, [66666692.0, 44.444447]),
    ("mean_squared_logarithmic_error", "counts", {}, [0.046588168, 0.055173982]),
    ("huber", "numbers", {}, [0.53333336, 0.8666666]),
    ("huber", "numbers", {"delta": 0.35}, [0.24583334, 0.37916663]),
    ("log_cosh", "numbers", {}, [0.47427472, 0.75726956]),
    ("hinge", "scores", {}, [0.29999998, 0.8666666]),
    ("hinge", "numbers", {}, [0.31666666, 1.18]),
    ("squared_hinge", "scores", {}, [0.26999998, 1.3666667]),
    ("categorical_hinge", "class_scores", {}, [6.0, 3.9]),
    ("poisson", "counts", {}, [0.68685514, 0.6401861]),
    ("kl_divergence", "laws", {}, [0.1613476, 1.3862914]),
    ("cosine_similarity", "numbers", {}, [-0.9402285, 0.32031825]),
    ("cosine_similarity", "numbers", {"axis": 0}, [-0.049937617, -0.9989201, -0.84832144]),
    ("dice", "binary", {}, 0.25203246),
    ("dice", "binary", {"axis": 1}, [0.24324322, 0.26530617]),
    ("tversky", "binary", {"alpha": 0.3, "beta": 0.7}, 0.25925928),
    ("binary_crossentropy", "binary", {}, [0.36354804, 0.26951936]),
    ("binary_crossentropy", "scores", {"from_logits": True}, [0.32526943, 0.64081234]),
    ("binary_crossentropy", "scores", {"from_logits": True, "label_smoothing": 0.2}, [0.4952694, 0.687479]),
    ("categorical_crossentropy", "classes", {"label_smoothing": 0.2}, [0.5699198, 0.7855668]),
    ("categorical_crossentropy", "class_scores", {"from_logits": True}, [5.0266223, 3.3723977]),
    ("binary_focal_crossentropy", "binary", {}, [0.040919524, 0.0410564]),
    ("binary_focal_crossentropy", "binary", {"apply_class_balancing": True, "alpha": 0.3, "gamma": 1.5},
     [0.02859396, 0.043219924]),
    ("binary_focal_crossentropy", "scores", {"from_logits": True, "label_smoothing": 0.1}, [0.060005654, 0.22720368]),
    ("categorical_focal_crossentropy", "classes", {}, [0.008025187, 0.0433217]),
    ("categorical_focal_crossentropy", "class_scores", {"from_logits": True, "alpha": 0.5, "gamma": 1.5, "label_smoothing": 0.1},
     [2.3862298, 1.5048504]),
]


@pytest.mark.parametrize(("name", "data", "options", "want"), KERAS)
def test_functions_give_keras_numbers(name: str, data: str, options: dict[str, Any], want: Any) -> None:
    function = getattr(losses, name)
    got = function(*DATA[data], **options)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.numpy(), want, rtol=3e-6, atol=1e-7)
    y_true, y_pred = (np.array(v) for v in DATA[data])
    np.testing.assert_allclose(function(y_true, y_pred, **options).numpy(), want, rtol=1e-5, atol=1e-7)
    assert function(y_true, y_pred, **options).dtype == np.float64


@pytest.mark.parametrize(("kind", "name", "data", "options"), [
    ("MeanAbsolutePercentageError", "mean_absolute_percentage_error", "numbers", {}),
    ("MeanSquaredLogarithmicError", "mean_squared_logarithmic_error", "counts", {}),
    ("Huber", "huber", "numbers", {"delta": 0.35}), ("LogCosh", "log_cosh", "numbers", {}),
    ("Hinge", "hinge", "scores", {}), ("SquaredHinge", "squared_hinge", "scores", {}),
    ("CategoricalHinge", "categorical_hinge", "class_scores", {}), ("Poisson", "poisson", "counts", {}),
    ("KLDivergence", "kl_divergence", "laws", {}), ("CosineSimilarity", "cosine_similarity", "numbers", {"axis": 0}),
    ("Dice", "dice", "binary", {"axis": 1}), ("Tversky", "tversky", "binary", {"alpha": 0.3, "beta": 0.7}),
    ("BinaryFocalCrossentropy", "binary_focal_crossentropy", "scores",
     {"from_logits": True, "apply_class_balancing": True, "alpha": 0.4, "gamma": 1.5, "label_smoothing": 0.1}),
    ("CategoricalFocalCrossentropy", "categorical_focal_crossentropy", "classes", {"gamma": 3.0, "alpha": 0.5})])
def test_classes_reduce_their_functions(kind: str, name: str, data: str, options: dict[str, Any]) -> None:
    each = getattr(losses, name)(*DATA[data], **options).numpy()
    loss = getattr(losses, kind)
    np.testing.assert_allclose(float(loss(**options)(*DATA[data])), each.mean(), rtol=1e-6)
    np.testing.assert_allclose(float(loss(**options, reduction="sum")(*DATA[data])), each.sum(), rtol=1e-6)
    np.testing.assert_array_equal(loss(**options, reduction=None)(*DATA[data]).numpy(), each)
    if each.shape == (2,):
        weighted = loss(**options)(*DATA[data], sample_weight=[0.5, 2.0])
        np.testing.assert_allclose(float(weighted), (each * [0.5, 2.0]).mean(), rtol=1e-6)


def test_short_names() -> None:
    for short, name in (("mse", "mean_squared_error"), ("MAE", "mean_absolute_error"), ("bce", "binary_crossentropy"),
                        ("mape", "mean_absolute_percentage_error"), ("MSLE", "mean_squared_logarithmic_error"),
                        ("kld", "kl_divergence"), ("logcosh", "log_cosh")):
        assert losses.get(short) is getattr(losses, name)
    assert losses.get("CosineSimilarity") is not None and isinstance(losses.get(losses.Huber), losses.Huber)
    for word in ("matched", "clipped", "cast", "by_name", "nonsense"):
        with pytest.raises(ValueError, match="there is no loss"):
            losses.get(word)


# ---- derivatives ---------------------------------------------------------------------------------

SMOOTH = [(name, data, options) for name, data, options, _ in KERAS]


@pytest.mark.parametrize(("name", "data", "options"), SMOOTH)
def test_derivatives(name: str, data: str, options: dict[str, Any]) -> None:
    """Of the predictions, to second order, a little away from kinks and from the bounds of probabilities."""
    y_true, y_pred = (np.array(v) for v in DATA[data])
    y_pred = y_pred + np.array([[0.013, 0.021, -0.017], [0.011, -0.019, 0.007]])
    check_grads(lambda p: getattr(losses, name)(y_true, p, **options), (jg.asarray(y_pred),), eps=2.0**-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}])
def test_scores_may_be_huge(options: dict[str, Any], dtype: str) -> None:
    """Losses grow as scores do, their first derivatives are bounded and their second vanish."""
    scores = np.array([[1e4, -1e4, 500.0, -500.0]], dtype)
    labels = np.array([[0.0, 1.0, 1.0, 0.0]], dtype)
    for function in (losses.binary_crossentropy, losses.binary_focal_crossentropy, losses.categorical_crossentropy,
                     losses.categorical_focal_crossentropy):
        y, g, h = orders(lambda s, f=function: f(labels, s, from_logits=True, **options), scores)
        assert np.isfinite(y).all() and np.isfinite(g).all() and np.abs(g).max() <= 4 and np.abs(h).max() < 1e-6
    y, g, h = orders(lambda s: nn.sigmoid_cross_entropy_with_logits(labels, s), scores)
    np.testing.assert_allclose(y, [[1e4, 1e4, 0.0, 0.0]], atol=1e-30)
    np.testing.assert_allclose(g, [[1.0, -1.0, 0.0, 0.0]], atol=1e-30)


def test_errors_may_be_huge_or_nothing() -> None:
    for dtype in ("float32", "float64"):
        far = np.array([[1e4, -1e4, 300.0, 0.0, 1e-9]], dtype)
        zeros = np.zeros_like(far)
        y, g, h = orders(lambda p, y=zeros: losses.log_cosh(y, p) * 5.0, far)
        np.testing.assert_allclose(y, 20300.0 - 3 * math.log(2), rtol=1e-6)
        np.testing.assert_allclose(g, [[1.0, -1.0, 1.0, 0.0, 1e-9]], rtol=1e-6)
        np.testing.assert_allclose(h, [[0.0, 0.0, 0.0, 1.0, 1.0]], atol=1e-6)
        y, g, h = orders(lambda p, y=zeros: losses.huber(y, p, 2.0) * 5.0, far)
        np.testing.assert_allclose(g, [[2.0, -2.0, 2.0, 0.0, 1e-9]], rtol=1e-6)
        np.testing.assert_allclose(h, [[0.0, 0.0, 0.0, 1.0, 1.0]])
    tiny = losses.log_cosh(np.zeros(1), np.array([1e-6])).numpy()
    np.testing.assert_allclose(tiny, 5e-13, rtol=1e-9)                # no digit is lost near 0
    for function in (losses.kl_divergence, losses.poisson, losses.mean_squared_logarithmic_error,
                     losses.mean_absolute_percentage_error, losses.cosine_similarity, losses.dice):
        y, g, h = orders(lambda p, f=function: f(np.zeros(3), p), np.zeros(3))
        assert np.isfinite(y).all() and np.isfinite(g).all() and np.isfinite(h).all(), function.__name__


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_certain_probabilities_cost_a_finite_sum(p: float) -> None:
    certain = np.array([[p, 1.0 - p]])
    for function in (losses.binary_crossentropy, losses.binary_focal_crossentropy, losses.categorical_crossentropy,
                     losses.categorical_focal_crossentropy, losses.kl_divergence):
        y, g, h = orders(lambda q, f=function: f([[1.0, 0.0]], q), certain)
        assert np.isfinite(y).all() and np.isfinite(g).all() and np.isfinite(h).all(), function.__name__
    for focal in (losses.binary_focal_crossentropy, losses.categorical_focal_crossentropy):
        y, g, h = orders(lambda q, f=focal: f([[1.0, 0.0]], q, gamma=0.5), certain)
        assert np.isfinite(y).all() and np.isfinite(g).all() and np.isfinite(h).all(), focal.__name__


def test_cross_entropies_by_tensorflows_names() -> None:
    scores = rng.normal(size=(4, 3))
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    labels = rng.dirichlet(np.ones(3), 4)
    np.testing.assert_allclose(nn.softmax_cross_entropy_with_logits(labels, scores).numpy(),
                               -(labels * np.log(p)).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(nn.softmax_cross_entropy_with_logits(labels.T, scores.T, axis=0).numpy(),
                               -(labels * np.log(p)).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(nn.sparse_softmax_cross_entropy_with_logits([2, 0, 1, 1], scores).numpy(),
                               -np.log(p[range(4), [2, 0, 1, 1]]), rtol=1e-12)
    s = 1 / (1 + np.exp(-scores))
    for weight in (1.0, 3.0):
        want = -weight * labels * np.log(s) - (1 - labels) * np.log(1 - s)
        np.testing.assert_allclose(nn.weighted_cross_entropy_with_logits(labels, scores, weight).numpy(), want,
                                   rtol=1e-12)
    check_grads(lambda x: nn.softmax_cross_entropy_with_logits(labels, x), (jg.asarray(scores),))
    check_grads(lambda x: nn.weighted_cross_entropy_with_logits(labels, x, 2.5), (jg.asarray(scores),))


# ---- losses: the numbers of Keras's documentation ------------------------------------------------

SPARSE = ([1, 2], [[0.05, 0.95, 0.0], [0.1, 0.8, 0.1]])
ONE_HOT = ([[0, 1, 0], [0, 0, 1]], [[0.05, 0.95, 0.0], [0.1, 0.8, 0.1]])
SQUARES = ([[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]])
SCORES = ([[0, 1], [0, 0]], [[-18.6, 0.51], [2.94, -12.8]])
CASES: list[tuple[Callable[..., Any], Any, Any, list[float], list[float]]] = [
    # loss, data, sample weights, [mean, weighted mean, sum], none
    (losses.SparseCategoricalCrossentropy, SPARSE, [0.3, 0.7], [1.177, 0.814, 2.354], [0.0513, 2.303]),
    (losses.CategoricalCrossentropy, ONE_HOT, [0.3, 0.7], [1.177, 0.814, 2.354], [0.0513, 2.303]),
    (losses.MeanSquaredError, SQUARES, [0.7, 0.3], [0.5, 0.25, 1.0], [0.5, 0.5]),
    (losses.MeanAbsoluteError, SQUARES, [0.7, 0.3], [0.5, 0.25, 1.0], [0.5, 0.5]),
    (lambda **k: losses.BinaryCrossentropy(from_logits=True, **k), SCORES, [0.8, 0.2], [0.865, 0.243, 1.730],
     [0.235, 1.496]),
    (losses.BinaryCrossentropy, ([[0, 1], [0, 0]], [[0.6, 0.4], [0.4, 0.6]]), [1.0, 0.0], [0.815, 0.458, 1.630],
     [0.916, 0.714])]


@pytest.mark.parametrize(("loss", "data", "weights", "reduced", "each"), CASES)
def test_losses_give_keras_numbers(loss: Any, data: Any, weights: Any, reduced: list[float], each: list[float]) -> None:
    found = [float(loss()(*data)), float(loss()(*data, sample_weight=weights)), float(loss(reduction="sum")(*data))]
    np.testing.assert_allclose(found, reduced, atol=1e-3)
    for none in ("none", None):
        np.testing.assert_allclose(loss(reduction=none)(*data).numpy(), each, atol=6e-4)
    np.testing.assert_allclose(float(loss(reduction="mean_with_sample_weight")(*data, sample_weight=weights)),
                               np.average(each, weights=weights), atol=6e-4)


def test_logits_and_probabilities_agree() -> None:
    scores = rng.normal(size=(4, 5)).astype(np.float32) * 3
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    labels = np.array([0, 4, 2, 1])
    hot = np.eye(5, dtype=np.float32)[labels]
    want = -np.log(p[np.arange(4), labels])
    for found in (losses.sparse_categorical_crossentropy(labels, scores, from_logits=True),
                  losses.sparse_categorical_crossentropy(labels[:, None].astype(np.float32), p),
                  losses.sparse_categorical_crossentropy(labels, scores.T.copy(), from_logits=True, axis=0),
                  losses.categorical_crossentropy(hot, scores, from_logits=True),
                  losses.categorical_crossentropy(hot, p)):
        np.testing.assert_allclose(found.numpy(), want, rtol=1e-5)
    smooth = losses.categorical_crossentropy(hot, scores, from_logits=True, label_smoothing=0.1)
    np.testing.assert_allclose(smooth.numpy(), -((hot * 0.9 + 0.02) * np.log(p)).sum(-1), rtol=1e-5)
    ignored = losses.sparse_categorical_crossentropy([0, -1, 2, 1], scores, from_logits=True, ignore_class=-1)
    assert ignored.numpy()[1] == 0.0


@pytest.mark.parametrize("from_logits", [False, True])
def test_an_ignored_class_does_not_count(from_logits: bool) -> None:
    """Means are over the other labels, as Keras's; what was predicted for an ignored one is not looked at."""
    scores = rng.uniform(0.1, 0.9, (2, 2, 3))
    scores[0, 1] = np.nan
    labels, weights = np.array([[0, -1], [2, 1]]), np.array([[1.0, 5.0], [2.0, 3.0]])
    kept = labels.ravel() != -1
    rows = scores.reshape(4, 3)[kept]
    each = losses.sparse_categorical_crossentropy(labels.ravel()[kept], rows, from_logits=from_logits).numpy()
    shares = weights.ravel()[kept]
    for reduction, plain, weighted in (("sum_over_batch_size", each.mean(), each @ shares / 3),
                                       ("sum", each.sum(), each @ shares),
                                       ("mean_with_sample_weight", each.mean(), np.average(each, weights=shares))):
        loss = losses.SparseCategoricalCrossentropy(from_logits, ignore_class=-1, reduction=reduction)
        np.testing.assert_allclose(loss(labels, scores).numpy(), plain, rtol=1e-13)
        np.testing.assert_allclose(loss(labels, scores, sample_weight=weights).numpy(), weighted, rtol=1e-13)
        assert float(loss(labels * 0 - 1, scores)) == 0.0
        p = jg.constant(scores)
        with jg.GradientTape() as tape:
            tape.watch(p)
            y = loss(labels, p)
        slope = tape.gradient(y, p).numpy()
        assert np.isfinite(slope).all() and not slope[0, 1].any() and slope[0, 0].any()


def test_weights_of_zero_make_a_mean_of_zero() -> None:
    y, g, _ = orders(lambda p: losses.MeanSquaredError("mean_with_sample_weight")([[0.0], [1.0]], p, [0.0, 0.0]),
                     np.array([[1.0], [3.0]]))
    assert y == 0.0 and not g.any()


def test_a_vector_of_nothing_has_kerass_slope() -> None:
    """Its length counts as 1e-7."""
    _, g, _ = orders(lambda p: losses.cosine_similarity([[3.0, 4.0]], p), np.zeros((1, 2)))
    np.testing.assert_allclose(g, [[-6e6, -8e6]], rtol=1e-12)


def test_cross_entropy_is_right_at_extremes() -> None:
    scores = jg.constant([[1000.0, -1000.0], [0.0, -np.inf]])
    with jg.GradientTape() as tape:
        tape.watch(scores)
        loss = losses.sparse_categorical_crossentropy([0, 0], scores, from_logits=True)
    np.testing.assert_array_equal(loss.numpy(), [0.0, 0.0])
    assert np.isfinite(tape.gradient(loss, scores).numpy()).all()
    far = losses.binary_crossentropy([[1.0, 0.0]], [[80.0, -80.0]], from_logits=True)
    np.testing.assert_allclose(far.numpy(), [np.exp(-80.0)], rtol=1e-5)


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("from_logits", [False, True])
def test_a_label_that_is_no_class_is_refused(label: int, from_logits: bool) -> None:
    with pytest.raises(ValueError, match=r"outside the valid range of \[0, 3\)"):
        losses.SparseCategoricalCrossentropy(from_logits)([1, label], SPARSE[1])


def test_losses_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"labels of shape \(3,\) do not fit y_pred of shape \(2, 3\)"):
        losses.SparseCategoricalCrossentropy()([1, 2, 0], SPARSE[1])
    with pytest.raises(ValueError, match="sparse_categorical"):
        losses.CategoricalCrossentropy()([1, 2], SPARSE[1])
    with pytest.raises(ValueError, match="sample_weight of shape"):
        losses.MeanSquaredError()(*SQUARES, sample_weight=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="reduction"):
        losses.MeanSquaredError(reduction="average")


def test_a_vector_against_a_column_does_not_broadcast() -> None:
    y, p = np.array([1.0, 2.0, 3.0]), np.array([[1.0], [2.0], [5.0]])
    np.testing.assert_allclose(losses.mean_squared_error(y, p).numpy(), [0, 0, 4])
    np.testing.assert_allclose(float(losses.MeanSquaredError()(p, y)), 4 / 3)
