"""Losses that compare numbers, by Keras's names and formulas: one number a sample."""

from __future__ import annotations

import math
from typing import Any

from jitgrad import ops
from jitgrad.core.aval import AVALS
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.ops import composite

EPSILON = 1e-7                 # Keras's: probabilities are kept this far from 0 and 1


def matched(what: str, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Both in the dtype of the predictions; of columns and vectors, the vector becomes a column."""
    y_pred = composite.as_float(y_pred)
    have = AVALS[y_pred._aval]
    y_true = tensor(y_true, have.code, what)
    given = AVALS[y_true._aval]
    if given is have:
        return y_true, y_pred
    if have.ndim == given.ndim + 1 and have.shape[-1] == 1:
        return (composite.reshape(y_true, (given.size, 1)), y_pred) if given.ndim == 1 else (
            y_true, composite.reshape(y_pred, have.shape[:-1]))
    if given.ndim == have.ndim + 1 and given.shape[-1] == 1:
        return (y_true, composite.reshape(y_pred, (have.size, 1))) if have.ndim == 1 else (
            composite.reshape(y_true, given.shape[:-1]), y_pred)
    return y_true, y_pred


def last_mean(losses: Any, axis: int = -1) -> Any:
    """The mean along an axis; of a single number itself."""
    return composite.mean(losses, axis) if AVALS[losses._aval].ndim else losses


def fitted(values: Any, sample_weight: Any) -> Any:
    """Weights with the axes of what they weigh, in its dtype: one for each along the first axes, or of length 1."""
    have = AVALS[values._aval]
    weights = tensor(sample_weight, have.code, "sample_weight")
    shape = weights.shape
    if len(shape) == have.ndim + 1 and shape[-1] == 1:
        weights = composite.squeeze(weights, -1)
    elif len(shape) < have.ndim:
        weights = composite.reshape(weights, shape + (1,) * (have.ndim - len(shape)))
    if weights.ndim != have.ndim or any(n not in (1, m) for n, m in zip(weights.shape, have.shape, strict=True)):
        raise user_error(ValueError, f"sample_weight of shape {shape} does not fit values of shape {have.shape}")
    return weights


def clipped(p: Any) -> Any:
    """Probabilities that are neither 0 nor 1."""
    return composite.clip(p, EPSILON, 1.0 - EPSILON)


def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """Mean of the squared differences along the last axis.

    >>> mean_squared_error([[0., 2.]], [[1., 1.]]).numpy()
    array([1.], dtype=float32)
    """
    y_true, y_pred = matched("mean_squared_error", y_true, y_pred)
    return last_mean(ops.square(y_pred - y_true))


def mean_absolute_error(y_true: Any, y_pred: Any) -> Any:
    """Mean of the absolute differences along the last axis."""
    y_true, y_pred = matched("mean_absolute_error", y_true, y_pred)
    return last_mean(abs(y_pred - y_true))


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Any:
    """100 times the mean of ``|y_true - y_pred| / |y_true|``; labels nearer to 0 than 1e-7 divide as 1e-7."""
    y_true, y_pred = matched("mean_absolute_percentage_error", y_true, y_pred)
    return last_mean(abs((y_true - y_pred) / ops.maximum(abs(y_true), EPSILON))) * 100.0


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Any:
    """Mean of ``(log(y_true + 1) - log(y_pred + 1)) ** 2``, both from 1e-7 up."""
    y_true, y_pred = matched("mean_squared_logarithmic_error", y_true, y_pred)
    return last_mean(ops.square(ops.log1p(ops.maximum(y_pred, EPSILON)) - ops.log1p(ops.maximum(y_true, EPSILON))))


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Any:
    """Mean of ``e ** 2 / 2``, or ``delta |e| - delta ** 2 / 2`` where ``|e|`` is above ``delta`` (Huber, 1964)."""
    y_true, y_pred = matched("huber", y_true, y_pred)
    error = y_pred - y_true
    size = abs(error)
    small = size <= delta
    return last_mean(ops.where(small, ops.square(ops.where(small, error, 0.0)) * 0.5,
                               size * delta - 0.5 * delta * delta))


def log_cosh(y_true: Any, y_pred: Any) -> Any:
    """Mean of ``log(cosh(y_pred - y_true))``: no overflow far out, no digits lost near 0."""
    y_true, y_pred = matched("log_cosh", y_true, y_pred)
    size = abs(y_pred - y_true)
    small = size < 1.0
    # cosh(x) - 1 = expm1(x)^2 / (2 exp(x))
    near, far = ops.where(small, y_pred - y_true, 0.0), ops.where(small, 1.0, size)
    by_square = ops.log1p(ops.square(ops.expm1(near)) * ops.exp(-near) * 0.5)
    return last_mean(ops.where(small, by_square, far + ops.log1p(ops.exp(far * -2.0)) - math.log(2)))


def hinge(y_true: Any, y_pred: Any) -> Any:
    """Mean of ``max(1 - y_true * y_pred, 0)``; labels are -1 and 1, and of 0 and 1 alone 0 counts as -1."""
    y_true, y_pred = _signed("hinge", y_true, y_pred)
    return last_mean(ops.relu(1.0 - y_true * y_pred))


def squared_hinge(y_true: Any, y_pred: Any) -> Any:
    """Mean of the squares of what `hinge` takes the mean of."""
    y_true, y_pred = _signed("squared_hinge", y_true, y_pred)
    return last_mean(ops.square(ops.relu(1.0 - y_true * y_pred)))


def _signed(what: str, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Labels 0 and 1 as -1 and 1."""
    y_true, y_pred = matched(what, y_true, y_pred)
    if AVALS[y_true._aval].size == 0:
        return y_true, y_pred
    binary = composite.min((y_true == 0.0) | (y_true == 1.0))
    return ops.where(binary, y_true * 2.0 - 1.0, y_true), y_pred


def categorical_hinge(y_true: Any, y_pred: Any) -> Any:
    """``max(neg - pos + 1, 0)``, ``pos`` the score of the right class, ``neg`` the greatest of the others."""
    y_true, y_pred = matched("categorical_hinge", y_true, y_pred)
    right = composite.sum(y_true * y_pred, -1)
    return ops.relu(composite.max((1.0 - y_true) * y_pred, -1) - right + 1.0)


def poisson(y_true: Any, y_pred: Any) -> Any:
    """Mean of ``y_pred - y_true log(y_pred + 1e-7)``."""
    y_true, y_pred = matched("poisson", y_true, y_pred)
    return last_mean(y_pred - y_true * ops.log(y_pred + EPSILON))


def kl_divergence(y_true: Any, y_pred: Any) -> Any:
    """``sum(y_true log(y_true / y_pred))`` along the last axis, of probabilities from 1e-7 to 1."""
    y_true, y_pred = matched("kl_divergence", y_true, y_pred)
    y_true, y_pred = (composite.clip(p, EPSILON, 1.0) for p in (y_true, y_pred))
    return composite.sum(y_true * ops.log(y_true / y_pred), -1)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """Minus the cosine of the angle between two vectors along an axis: -1 for one direction, 0 where one is 0."""
    y_true, y_pred = matched("cosine_similarity", y_true, y_pred)
    return -composite.sum(_unit(y_true, axis) * _unit(y_pred, axis), axis)


def _unit(x: Any, axis: int) -> Any:
    """Of length 1, or shorter where the length is below Keras's epsilon."""
    length = ops.sqrt(composite.sum(ops.square(x), axis, True))
    return x / ops.maximum(length, EPSILON)


def dice(y_true: Any, y_pred: Any, axis: Any = None) -> Any:
    """``1 - 2 sum(y_true y_pred) / (sum(y_true) + sum(y_pred))``, over all elements by default."""
    y_true, y_pred = matched("dice", y_true, y_pred)
    both = composite.sum(y_true * y_pred, axis)
    total = composite.sum(y_true, axis) + composite.sum(y_pred, axis)
    return 1.0 - (both * 2.0 + EPSILON) / (total + EPSILON)


def tversky(y_true: Any, y_pred: Any, alpha: float = 0.5, beta: float = 0.5, axis: Any = None) -> Any:
    """One less ``both / (both + alpha missed + beta wrong)`` (Salehi et al., 2017), over all elements by default.

    ``both`` sums ``y_true y_pred``, ``missed`` what is only in the labels, ``wrong`` what is only predicted: Keras's
    documentation has the last two the other way round, its numbers are these.
    """
    y_true, y_pred = matched("tversky", y_true, y_pred)
    both = composite.sum(y_true * y_pred, axis)
    missed = composite.sum(y_true * (1.0 - y_pred), axis)
    wrong = composite.sum((1.0 - y_true) * y_pred, axis)
    return 1.0 - both / (both + missed * alpha + wrong * beta + EPSILON)
