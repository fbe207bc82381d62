"""Losses by Keras's names, arguments and numbers: functions give one number a sample, classes reduce them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

from jitgrad import ops
from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.nn.activations import softplus
from jitgrad.nn.names import by_name
from jitgrad.ops import composite

_REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None)
_EPSILON = 1e-7                # probabilities are kept this far from 0 and 1


class Loss:
    """Reduces what a function of ``(y_true, y_pred)`` gives for each sample to one number.

    ``reduction``: "sum_over_batch_size" or "mean" (the sum over the number of samples), "sum",
    "mean_with_sample_weight" (over the sum of the weights), "none" or None.
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = None) -> None:
        if reduction not in _REDUCTIONS:
            raise user_error(ValueError, f"{type(self).__name__}: reduction must be one of {_REDUCTIONS}, "
                                         f"got {reduction!r}")
        self.reduction = reduction
        self.name = name

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each sample."""
        raise NotImplementedError(f"{type(self).__name__} must define call")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        losses = self.call(y_true, y_pred)
        if sample_weight is None:
            if self.reduction == "sum":
                return composite.sum(losses)
            return losses if self.reduction in ("none", None) else composite.mean(losses)
        return self._weighted(losses, sample_weight)

    def _weighted(self, losses: Any, sample_weight: Any) -> Any:
        have = AVALS[losses._aval]
        weights = tensor(sample_weight, have.code, "sample_weight")
        shape = weights.shape
        if len(shape) == have.ndim + 1 and shape[-1] == 1:
            weights = composite.squeeze(weights, -1)
        elif len(shape) < have.ndim:
            weights = composite.reshape(weights, shape + (1,) * (have.ndim - len(shape)))
        if weights.ndim != have.ndim or any(n not in (1, m) for n, m in zip(weights.shape, have.shape, strict=True)):
            raise user_error(ValueError, f"sample_weight of shape {shape} does not fit losses of shape {have.shape}")
        losses = losses * weights
        if self.reduction in ("none", None):
            return losses
        if self.reduction == "mean_with_sample_weight":
            return composite.sum(losses) / composite.sum(composite.broadcast_to(weights, have.shape))
        return composite.sum(losses) if self.reduction == "sum" else composite.mean(losses)


class MeanSquaredError(Loss):
    """Mean of ``(y_pred - y_true) ** 2``.

    >>> float(MeanSquaredError()([[0., 1.], [0., 0.]], [[1., 1.], [1., 0.]]))
    0.5
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return mean_squared_error(y_true, y_pred)


class MeanAbsoluteError(Loss):
    """Mean of ``|y_pred - y_true|``.

    >>> float(MeanAbsoluteError(reduction="sum")([[0., 1.], [0., 0.]], [[1., 1.], [1., 0.]]))
    1.0
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return mean_absolute_error(y_true, y_pred)


class BinaryCrossentropy(Loss):
    """Cross-entropy of labels 0 and 1 with probabilities, or with scores if ``from_logits``.

    >>> loss = BinaryCrossentropy(from_logits=True)
    >>> round(float(loss([0., 1., 0., 0.], [-18.6, 0.51, 2.94, -12.8])), 3)
    0.865
    """

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1,
                 reduction: str | None = "sum_over_batch_size", name: str | None = None) -> None:
        super().__init__(reduction, name)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return binary_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing, self.axis)


class CategoricalCrossentropy(Loss):
    """Cross-entropy of rows of probabilities (one-hot labels) with probabilities, or scores if ``from_logits``.

    >>> loss = CategoricalCrossentropy()
    >>> round(float(loss([[0., 1., 0.], [0., 0., 1.]], [[.05, .95, 0.], [.1, .8, .1]])), 3)
    1.177
    """

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1,
                 reduction: str | None = "sum_over_batch_size", name: str | None = None) -> None:
        super().__init__(reduction, name)
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return categorical_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing, self.axis)


class SparseCategoricalCrossentropy(Loss):
    """Cross-entropy of class numbers with rows of probabilities, or of scores if ``from_logits``.

    >>> loss = SparseCategoricalCrossentropy()
    >>> round(float(loss([1, 2], [[.05, .95, 0.], [.1, .8, .1]])), 3)
    1.177
    """

    def __init__(self, from_logits: bool = False, ignore_class: int | None = None,
                 reduction: str | None = "sum_over_batch_size", axis: int = -1, name: str | None = None) -> None:
        super().__init__(reduction, name)
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return sparse_categorical_crossentropy(y_true, y_pred, self.from_logits, self.ignore_class, self.axis)


# ---- one number a sample -------------------------------------------------------------------------

def mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """Mean of the squared differences along the last axis.

    >>> mean_squared_error([[0., 2.]], [[1., 1.]]).numpy()
    array([1.], dtype=float32)
    """
    y_true, y_pred = _matched("mean_squared_error", y_true, y_pred)
    return _last_mean(ops.square(y_pred - y_true))


def mean_absolute_error(y_true: Any, y_pred: Any) -> Any:
    """Mean of the absolute differences along the last axis."""
    y_true, y_pred = _matched("mean_absolute_error", y_true, y_pred)
    return _last_mean(abs(y_pred - y_true))


def binary_crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0,
                        axis: int = -1) -> Any:
    """``-y_true log(p) - (1 - y_true) log(1 - p)``, its mean along an axis; p is a probability or a score."""
    y_true, y_pred = _matched("binary_crossentropy", y_true, y_pred)
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        losses = y_true * softplus(-y_pred) + (1.0 - y_true) * softplus(y_pred)
    else:
        p = _clipped(y_pred)
        losses = -(y_true * ops.log(p) + (1.0 - y_true) * ops.log(1.0 - p))
    return _last_mean(losses, axis)


def categorical_crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0,
                             axis: int = -1) -> Any:
    """``-sum(y_true log(p))`` along an axis; p are probabilities or scores."""
    y_true, y_pred = _matched("categorical_crossentropy", y_true, y_pred)
    if y_true.shape != y_pred.shape:
        raise user_error(ValueError, f"categorical_crossentropy: y_true of shape {y_true.shape} does not fit y_pred of "
                                     f"shape {y_pred.shape}; class numbers go to sparse_categorical_crossentropy")
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / y_pred.shape[axis]
    if from_logits:
        log_p = composite.log_softmax(y_pred, axis)
    else:
        log_p = ops.log(_clipped(y_pred / composite.sum(y_pred, axis, True)))
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
    labels = ops.where(labels < 0, classes, labels)         # no class either way: indices would count from the end
    if from_logits:
        scores = y_pred - ops.reduce_max(ops.stop_gradient(y_pred), last)       # the axis stays, of length 1
        total = ops.reshape(ops.reduce_sum(ops.exp(scores), last), shape)
    else:
        scores = _clipped(y_pred / ops.reduce_sum(y_pred, last))
    try:
        picked = ops.pick(scores, labels)
    except IndexError:
        raise user_error(ValueError, f"sparse_categorical_crossentropy: received a label outside the valid range of "
                                     f"[0, {classes})") from None
    return ops.log(total) - picked if from_logits else -ops.log(picked)


def _matched(what: str, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
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


def _last_mean(losses: Any, axis: int = -1) -> Any:
    return composite.mean(losses, axis) if AVALS[losses._aval].ndim else losses


def _clipped(p: Any) -> Any:
    return ops.minimum(ops.maximum(p, _EPSILON), 1.0 - _EPSILON)


mse = mean_squared_error
mae = mean_absolute_error


def get(identifier: Any) -> Callable[..., Any]:
    """A loss from its name ("mse", "MeanSquaredError", "sparse_categorical_crossentropy"...), class or function.

    >>> get("mse") is mean_squared_error
    True
    """
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    if callable(identifier):
        return cast(Callable[..., Any], identifier)
    found: Callable[..., Any] = by_name("loss", identifier, globals())
    return found
