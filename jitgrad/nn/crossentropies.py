"""Cross-entropies of labels with probabilities or scores, by Keras's names and numbers: one number a sample."""

from __future__ import annotations

import functools
from typing import Any

from jitgrad import ops
from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.nn.distances import clipped, last_mean, matched
from jitgrad.ops import composite


def binary_crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0,
                        axis: int = -1) -> Any:
    """``-y_true log(p) - (1 - y_true) log(1 - p)``, its mean along an axis; p is a probability or a score."""
    y_true, y_pred = matched("binary_crossentropy", y_true, y_pred)
    if label_smoothing:
        y_true = _smoothed(y_true, label_smoothing, 2)
    return last_mean(_binary(y_true, y_pred, from_logits), axis)


def _smoothed(y_true: Any, share: float, classes: int) -> Any:
    """Labels that give a share of their weight to all classes alike."""
    return y_true * (1.0 - share) + share / classes


def _binary(y_true: Any, y_pred: Any, from_logits: bool) -> Any:
    """`binary_crossentropy`, one number an element."""
    if from_logits:
        return y_true * ops.softplus(-y_pred) + (1.0 - y_true) * ops.softplus(y_pred)
    p = clipped(y_pred)
    return -(y_true * ops.log(p) + (1.0 - y_true) * ops.log(1.0 - p))


def categorical_crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0,
                             axis: int = -1) -> Any:
    """``-sum(y_true log(p))`` along an axis; p are probabilities or scores."""
    y_true, y_pred = matched("categorical_crossentropy", y_true, y_pred)
    if y_true.shape != y_pred.shape:
        raise user_error(ValueError, f"categorical_crossentropy: y_true of shape {y_true.shape} does not fit y_pred of "
                                     f"shape {y_pred.shape}; class numbers go to sparse_categorical_crossentropy")
    if label_smoothing:
        y_true = _smoothed(y_true, label_smoothing, y_pred.shape[axis])
    if from_logits:
        log_p = composite.log_softmax(y_pred, axis)
    else:
        log_p = ops.log(clipped(y_pred / composite.sum(y_pred, axis, True)))
    return -composite.sum(y_true * log_p, axis)


def sparse_categorical_crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False,
                                    ignore_class: int | None = None, axis: int = -1) -> Any:
    """``-log(p[y_true])`` along the axis of classes; p are probabilities or scores.

    Labels may be floats with whole values, as Keras takes them. A label that is no class raises ValueError;
    ``ignore_class`` has loss 0.
    """
    y_pred = composite.as_float(y_pred)
    have = AVALS[y_pred._aval]
    if have.ndim and axis not in (-1, have.ndim - 1):
        order = [i for i in range(have.ndim) if i != axis % have.ndim]
        y_pred = composite.permute_dims(y_pred, (*order, axis % have.ndim))
        have = AVALS[y_pred._aval]
    labels = tensor(y_true, what="y_true")
    if not _fit(labels._aval, y_pred._aval):
        labels = _labels(labels, have)
    ignored = None
    if ignore_class is not None:
        ignored = labels == ignore_class
        labels = ops.where(ignored, 0, labels)
        y_pred = ops.where(composite.expand_dims(ignored, -1), 1.0, y_pred)        # nor is a NaN there looked at
    losses = _picked(labels, y_pred, from_logits)
    return losses if ignored is None else ops.where(ignored, 0.0, losses)


@functools.lru_cache(maxsize=1024)
def _fit(labels: int, scores: int) -> bool:
    """Labels of an aval are class numbers for scores of another as they are."""
    return AVALS[labels].dtype.kind == "i" and AVALS[scores].ndim > 0 and (
        AVALS[labels].shape == AVALS[scores].shape[:-1])


def _labels(labels: Any, scores: Aval) -> Any:
    """Class numbers as integers of the shape of the scores without their last axis."""
    have = AVALS[labels._aval]
    if have.dtype.kind != "i":
        labels = ops.cast(labels, "int32" if scores.size < 2**31 else "int64")
    if scores.ndim == 0 or have.shape != scores.shape[:-1]:
        if have.shape[-1:] == (1,) and have.shape[:-1] == scores.shape[:-1]:
            return ops.reshape(labels, have.shape[:-1])
        raise user_error(ValueError, f"sparse_categorical_crossentropy: labels of shape {have.shape} do not fit "
                                     f"y_pred of shape {scores.shape}, classes last")
    return labels


@functools.lru_cache(maxsize=1024)
def _rows(aval_id: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Classes, their axis and the shape of one number a row, of scores of an aval."""
    shape = AVALS[aval_id].shape
    return shape[-1], (len(shape) - 1,), shape[:-1]


def _picked(labels: Any, y_pred: Any, from_logits: bool) -> Any:
    """``-log(p)`` at the labels."""
    classes, last, shape = _rows(y_pred._aval)
    if from_logits:
        scores = y_pred - ops.reduce_max(ops.stop_gradient(y_pred), last)       # the axis stays, of length 1
        total = ops.reshape(ops.reduce_sum(ops.exp(scores), last), shape)
    else:
        scores = clipped(y_pred / ops.reduce_sum(y_pred, last))
    try:
        picked = ops.pick(scores, labels)
    except IndexError:
        raise user_error(ValueError, f"sparse_categorical_crossentropy: received a label outside the valid range of "
                                     f"[0, {classes})") from None
    return ops.log(total) - picked if from_logits else -ops.log(picked)


def binary_focal_crossentropy(y_true: Any, y_pred: Any, apply_class_balancing: bool = False, alpha: float = 0.25,
                              gamma: float = 2.0, from_logits: bool = False, label_smoothing: float = 0.0,
                              axis: int = -1) -> Any:
    """`binary_crossentropy` times ``(1 - p_t) ** gamma``, p_t the probability of the right class (Lin et al., 2017).

    With class balancing, times ``alpha`` for labels 1 and ``1 - alpha`` for labels 0 as well.
    """
    y_true, y_pred = matched("binary_focal_crossentropy", y_true, y_pred)
    if label_smoothing:
        y_true = _smoothed(y_true, label_smoothing, 2)
    other = 1.0 - y_true
    if from_logits:
        wrong = y_true * ops.sigmoid(-y_pred) + other * ops.sigmoid(y_pred)
    else:
        p = clipped(y_pred)
        wrong = y_true * (1.0 - p) + other * p          # above 0, where a power below 1 has a slope
    losses = ops.power(wrong, float(gamma)) * _binary(y_true, y_pred, from_logits)
    if apply_class_balancing:
        losses = losses * (y_true * alpha + other * (1.0 - alpha))
    return last_mean(losses, axis)


def categorical_focal_crossentropy(y_true: Any, y_pred: Any, alpha: Any = 0.25, gamma: float = 2.0,
                                   from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1) -> Any:
    """``-sum(alpha (1 - p) ** gamma y_true log(p))`` along an axis; ``alpha`` may be one number a class."""
    y_true, y_pred = matched("categorical_focal_crossentropy", y_true, y_pred)
    if label_smoothing:
        y_true = _smoothed(y_true, label_smoothing, y_pred.shape[axis])
    if from_logits:
        log_p = composite.log_softmax(y_pred, axis)
        p = ops.exp(log_p)
    else:
        p = clipped(y_pred / composite.sum(y_pred, axis, True))
        log_p = ops.log(p)
    weights = ops.power(ops.relu(1.0 - p), float(gamma)) * (alpha if isinstance(alpha, int | float) else tensor(
        alpha, AVALS[y_pred._aval].code, "alpha"))
    return -composite.sum(weights * y_true * log_p, axis)


def sigmoid_cross_entropy_with_logits(labels: Any, logits: Any) -> Any:
    """``-labels log(sigmoid(logits)) - (1 - labels) log(1 - sigmoid(logits))``, one number an element."""
    return weighted_cross_entropy_with_logits(labels, logits, 1.0)


def weighted_cross_entropy_with_logits(labels: Any, logits: Any, pos_weight: Any) -> Any:
    """`sigmoid_cross_entropy_with_logits` with ``pos_weight`` times the loss of positive labels."""
    logits = composite.as_float(logits)
    labels = tensor(labels, AVALS[logits._aval].code, "labels")
    return labels * pos_weight * ops.softplus(-logits) + (1.0 - labels) * ops.softplus(logits)


def softmax_cross_entropy_with_logits(labels: Any, logits: Any, axis: int = -1) -> Any:
    """``-sum(labels log(softmax(logits)))`` along an axis: one number a row of labels that are probabilities."""
    return categorical_crossentropy(labels, logits, from_logits=True, axis=axis)


def sparse_softmax_cross_entropy_with_logits(labels: Any, logits: Any) -> Any:
    """``-log(softmax(logits))`` at each class label: one number a label."""
    return sparse_categorical_crossentropy(labels, logits, from_logits=True)
