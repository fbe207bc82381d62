"""Metrics against Keras's numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jitgrad import nn

BINARY = ([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], [[0.8, 0.3, 0.6], [0.1, 0.9, 0.45]])
CLASSES = ([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], [[0.2, 0.7, 0.1], [0.3, 0.45, 0.25]])
KERAS = [       # after one batch, and after the same with weights 0.5 and 2: Keras 3.15.1
    ("MeanSquaredError", "binary", 0.08542, 0.08167),
    ("MeanAbsoluteError", "binary", 0.25833, 0.24444),
    ("MeanAbsolutePercentageError", "binary", 141666688.00000, 155555568.00000),
    ("MeanSquaredLogarithmicError", "binary", 0.04658, 0.04770),
    ("LogCoshError", "binary", 0.04169, 0.03979),
    ("Hinge", "binary", 0.75833, 0.80000),
    ("SquaredHinge", "binary", 0.86875, 0.94833),
    ("KLDivergence", "binary", 0.41966, 0.31489),
    ("Poisson", "binary", 0.66489, 0.61608),
    ("CosineSimilarity", "binary", 0.91912, 0.90943),
    ("RootMeanSquaredError", "binary", 0.29226, 0.28577),
    ("BinaryCrossentropy", "binary", 0.31653, 0.30086),
    ("CategoricalCrossentropy", "classes", 0.78032, 0.92154),
]


@pytest.mark.parametrize(("name", "data", "first", "second"), KERAS)
def test_means_of_losses_give_keras_numbers(name: str, data: str, first: float, second: float) -> None:
    batch = CLASSES if data == "classes" else BINARY
    metric = getattr(nn.metrics, name)()
    np.testing.assert_allclose(float(metric(*batch)), first, rtol=1e-4)
    metric.update_state(*batch, sample_weight=[0.5, 2.0])
    np.testing.assert_allclose(float(metric.result()), second, rtol=1e-4)
    metric.reset_state()
    assert float(metric.result()) == 0.0
    np.testing.assert_allclose(float(metric(*batch)), first, rtol=1e-4)


def test_options_reach_the_function() -> None:
    scores = [[0.1, -1.0, 4.0], [-2.0, 0.3, 0.9]]
    found = nn.metrics.BinaryCrossentropy(from_logits=True)(BINARY[0], scores)
    np.testing.assert_allclose(float(found), (0.32526943 + 0.64081234) / 2, rtol=1e-6)
    hinge = nn.metrics.CategoricalHinge()(CLASSES[0], scores)
    np.testing.assert_allclose(float(hinge), (6.0 + 3.9) / 2, rtol=1e-6)
    sparse = nn.metrics.SparseCategoricalCrossentropy()([1, 2], CLASSES[1])
    np.testing.assert_allclose(float(sparse), -(math.log(0.7) + math.log(0.25)) / 2, rtol=1e-6)
    across = nn.metrics.CosineSimilarity(axis=0)([[1.0, 2.0], [3.0, 0.0]], [[2.0, 1.0], [6.0, 1.0]])
    np.testing.assert_allclose(float(across), (1.0 + math.sqrt(0.5)) / 2, rtol=1e-6)
    own = nn.metrics.MeanMetricWrapper(lambda y, p, scale: abs(y - p) * scale, scale=2.0)
    assert float(own(np.array([1.0, 2.0]), np.array([0.0, 4.0]))) == 3.0
    with pytest.raises(TypeError, match="fn must be a function"):
        nn.metrics.MeanMetricWrapper(3)  # type: ignore[arg-type]


def test_top_k() -> None:
    scores = np.array([[0.1, 0.9, 0.3, 0.3], [0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]])
    labels = [2, 3, 0]
    for k, want in ((1, 1 / 3), (2, 2 / 3), (3, 2 / 3), (4, 1.0)):
        np.testing.assert_allclose(float(nn.metrics.SparseTopKCategoricalAccuracy(k)(labels, scores)), want, rtol=1e-6)
        hot = np.eye(4)[labels]
        np.testing.assert_allclose(float(nn.metrics.TopKCategoricalAccuracy(k)(hot, scores)), want, rtol=1e-6)


def test_sum() -> None:
    total = nn.metrics.Sum()
    total.update_state([1.0, 2.0], [2.0, 0.5])
    assert float(total.result()) == 3.0 and float(total(4)) == 7.0


def test_metrics() -> None:
    mean = nn.metrics.Mean()
    assert float(mean.result()) == 0.0
    mean.update_state([1.0, 3.0, 5.0, 7.0])
    assert float(mean.result()) == 4.0
    mean.reset_state()
    mean.update_state([1, 3, 5, 7], sample_weight=[1, 1, 0, 0])
    assert float(mean.result()) == 2.0 and mean.result().dtype == np.float32
    accuracy = nn.metrics.Accuracy()
    assert float(accuracy([[1], [2], [3], [4]], [[0], [2], [3], [4]])) == 0.75
    sparse = nn.metrics.SparseCategoricalAccuracy(name="acc")
    assert float(sparse([[2], [1]], [[0.1, 0.6, 0.3], [0.05, 0.95, 0]])) == 0.5 and sparse.name == "acc"
    assert float(sparse([2.0, 1.0], [[0.1, 0.6, 0.3], [0.05, 0.95, 0]], sample_weight=[0.7, 0.3])) == pytest.approx(1.3 / 3)
    assert float(nn.metrics.CategoricalAccuracy()([[0, 0, 1], [0, 1, 0]], [[0.1, 0.9, 0.8], [0.05, 0.95, 0]])) == 0.5
    assert float(nn.metrics.BinaryAccuracy()([[1], [1], [0], [0]], [[0.98], [1], [0], [0.6]])) == 0.75


def test_weights_may_have_a_last_axis_of_one() -> None:
    """As those of a loss; and they fit, or the sentence is about them."""
    labels, scores = [1, 0, 1], [[0.1, 0.9], [0.2, 0.8], [0.7, 0.3]]
    hits = nn.metrics.SparseCategoricalAccuracy()
    hits.update_state(labels, scores, sample_weight=[[1.0], [2.0], [5.0]])
    np.testing.assert_allclose(float(hits.result()), 1 / 8, rtol=1e-6)
    error = nn.metrics.MeanSquaredError()
    error.update_state([[0.0], [1.0], [1.0]], [[0.0], [0.0], [1.0]], sample_weight=[[4.0], [6.0], [0.0]])
    np.testing.assert_allclose(float(error.result()), 0.6, rtol=1e-6)
    with pytest.raises(ValueError, match=r"sample_weight of shape \(2,\) does not fit values of shape \(3,\)"):
        nn.metrics.SparseCategoricalAccuracy().update_state(labels, scores, sample_weight=[1.0, 2.0])
