"""Metrics by Keras's names: running numbers over the batches of an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core import backend
from jitgrad.core.dtypes import NAMES, default_float
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.nn import crossentropies, distances
from jitgrad.nn.names import fresh, snake
from jitgrad.nn.tracking import Versioned
from jitgrad.ops import composite


class Metric(Versioned):
    """A weighted mean of numbers, taken in by `update_state` since the last `reset_state`."""

    def __init__(self, name: str | None = None, dtype: Any = None) -> None:
        variable = backend.current().Variable
        self.name = fresh(snake(type(self).__name__)) if name is None else name
        self.dtype = np.dtype(NAMES[default_float()] if dtype is None else dtype)
        self.total = variable(np.float64(0.0), False, "total")         # a float32 stops counting at 2 ** 24
        self.count = variable(np.float64(0.0), False, "count")

    @property
    def variables(self) -> list[Any]:
        """The running sum, and the sum of the weights."""
        return [self.total, self.count]

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Take in one batch: users define it, or `__call__` itself, so it is not abstract: NotImplementedError, as
        Keras raises, where neither is there.
        """
        raise NotImplementedError(f"{type(self).__name__} must define update_state")

    def _take_in(self, values: Any, sample_weight: Any) -> None:
        if sample_weight is None:
            self.total.assign_add(composite.sum(values))
            self.count.assign_add(float(values.size))
            return
        weights = distances.fitted(ops.cast(values, "float64"), sample_weight)
        weights = composite.broadcast_to(weights, values.shape)
        self.total.assign_add(composite.sum(values * weights))
        self.count.assign_add(composite.sum(weights))

    def result(self) -> Any:
        """The mean; 0 before anything was taken in."""
        count = self.count.read_value()
        return ops.cast(self.total / ops.where(count == 0.0, 1.0, count), self.dtype.name)

    def reset_state(self) -> None:
        """Start again."""
        self.total.assign(0.0)
        self.count.assign(0.0)

    reset_states = reset_state

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`update_state`, then `result`."""
        self.update_state(*args, **kwargs)
        return self.result()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, result={float(self.result()):.6g}>"


class Mean(Metric):
    """The mean of all values given.

    >>> mean = Mean()
    >>> mean.update_state([1., 2., 6.])
    >>> float(mean.result()), float(mean(5.0))
    (3.0, 3.5)
    """

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Take in a Tensor of values, each with a weight if given."""
        self._take_in(tensor(values), sample_weight)


class Sum(Metric):
    """The sum of all values given, times their weights.

    >>> total = Sum()
    >>> float(total([1., 2., 6.])), float(total(0.5))
    (9.0, 9.5)
    """

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Take in a Tensor of values, each with a weight if given."""
        self._take_in(tensor(values), sample_weight)

    def result(self) -> Any:
        """The sum."""
        return ops.cast(self.total.read_value(), self.dtype.name)


class Hits(Metric, ABC):
    """The fraction of samples for which `hits` is true."""

    @abstractmethod
    def hits(self, y_true: Any, y_pred: Any) -> Any:
        """A boolean for each sample."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take in labels and predictions of one batch."""
        self._take_in(ops.cast(self.hits(tensor(y_true), tensor(y_pred)), "int32"), sample_weight)


class Accuracy(Hits):
    """How often predictions equal labels.

    >>> float(Accuracy()([1, 2, 3, 4], [0, 2, 3, 4]))
    0.75
    """

    def hits(self, y_true: Any, y_pred: Any) -> Any:
        return y_true == composite.reshape(y_pred, y_true.shape)


class BinaryAccuracy(Hits):
    """How often a probability is on the label's side of ``threshold``."""

    def __init__(self, name: str | None = None, dtype: Any = None, threshold: float = 0.5) -> None:
        super().__init__(name, dtype)
        self.threshold = float(threshold)

    def hits(self, y_true: Any, y_pred: Any) -> Any:
        return y_true == ops.cast(composite.reshape(y_pred, y_true.shape) > self.threshold, y_true.dtype.name)


class CategoricalAccuracy(Hits):
    """How often the greatest score stands where the one of a one-hot label does."""

    def hits(self, y_true: Any, y_pred: Any) -> Any:
        return composite.argmax(y_true, -1) == composite.argmax(y_pred, -1)


class SparseCategoricalAccuracy(Hits):
    """How often the greatest score stands at the label.

    >>> float(SparseCategoricalAccuracy()([2, 1], [[0.1, 0.6, 0.3], [0.05, 0.95, 0.]]))
    0.5
    """

    def hits(self, y_true: Any, y_pred: Any) -> Any:
        best = composite.argmax(y_pred, -1)
        return composite.reshape(ops.cast(y_true, "int64"), best.shape) == best


class TopKCategoricalAccuracy(Hits):
    """How often the class of a one-hot label is among the ``k`` with the greatest scores."""

    def __init__(self, k: int = 5, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name, dtype)
        self.k = k

    def hits(self, y_true: Any, y_pred: Any) -> Any:
        return _among(composite.argmax(y_true, -1), y_pred, self.k)


class SparseTopKCategoricalAccuracy(TopKCategoricalAccuracy):
    """How often the label is among the ``k`` classes with the greatest scores.

    >>> float(SparseTopKCategoricalAccuracy(k=2)([2, 1], [[0.1, 0.6, 0.3], [0.4, 0.1, 0.5]]))
    0.5
    """

    def hits(self, y_true: Any, y_pred: Any) -> Any:
        return _among(composite.reshape(ops.cast(y_true, "int64"), y_pred.shape[:-1]), y_pred, self.k)


def _among(labels: Any, scores: Any, k: int) -> Any:
    """Fewer than ``k`` classes score more than the label's: a tie counts for it."""
    own = ops.pick(scores, labels)
    above = composite.sum(ops.cast(scores > composite.expand_dims(own, -1), "int32"), -1)
    return above < k


# ---- means of losses -----------------------------------------------------------------------------

class MeanMetricWrapper(Metric):
    """The mean of what a function of ``(y_true, y_pred)`` gives for each sample; options go to the function."""

    def __init__(self, fn: Callable[..., Any], name: str | None = None, dtype: Any = None, **options: Any) -> None:
        if not callable(fn):
            raise user_error(TypeError, f"MeanMetricWrapper: fn must be a function of y_true and y_pred, got {fn!r}")
        super().__init__(name, dtype)
        self._fn, self._options = fn, options

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take in labels and predictions of one batch."""
        self._take_in(tensor(self._fn(y_true, y_pred, **self._options)), sample_weight)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """The cosine of the angle between two vectors along an axis, where the loss of that name is minus it."""
    return -distances.cosine_similarity(y_true, y_pred, axis)


class RootMeanSquaredError(Metric):
    """The root of the mean squared difference.

    >>> float(RootMeanSquaredError()([0., 1., 0., 0.], [2., 1., 0., 0.]))
    1.0
    """

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take in labels and predictions of one batch."""
        y_true, y_pred = distances.matched("RootMeanSquaredError", y_true, y_pred)
        self._take_in(ops.square(y_pred - y_true), sample_weight)

    def result(self) -> Any:
        """The root of the mean."""
        return ops.sqrt(super().result())


class _OfLoss(MeanMetricWrapper):
    """The mean of one loss."""

    loss: Callable[..., Any]

    def __init__(self, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(self.loss, name, dtype)


class MeanSquaredError(_OfLoss):
    """The mean of `mean_squared_error`."""

    loss = staticmethod(distances.mean_squared_error)


class MeanAbsoluteError(_OfLoss):
    """The mean of `mean_absolute_error`."""

    loss = staticmethod(distances.mean_absolute_error)


class MeanAbsolutePercentageError(_OfLoss):
    """The mean of `mean_absolute_percentage_error`."""

    loss = staticmethod(distances.mean_absolute_percentage_error)


class MeanSquaredLogarithmicError(_OfLoss):
    """The mean of `mean_squared_logarithmic_error`."""

    loss = staticmethod(distances.mean_squared_logarithmic_error)


class LogCoshError(_OfLoss):
    """The mean of `log_cosh`."""

    loss = staticmethod(distances.log_cosh)


class Hinge(_OfLoss):
    """The mean of `hinge`."""

    loss = staticmethod(distances.hinge)


class SquaredHinge(_OfLoss):
    """The mean of `squared_hinge`."""

    loss = staticmethod(distances.squared_hinge)


class CategoricalHinge(_OfLoss):
    """The mean of `categorical_hinge`."""

    loss = staticmethod(distances.categorical_hinge)


class KLDivergence(_OfLoss):
    """The mean of `kl_divergence`."""

    loss = staticmethod(distances.kl_divergence)


class Poisson(_OfLoss):
    """The mean of `poisson`."""

    loss = staticmethod(distances.poisson)


class CosineSimilarity(MeanMetricWrapper):
    """The mean of the cosine between labels and predictions."""

    def __init__(self, name: str | None = None, dtype: Any = None, axis: int = -1) -> None:
        super().__init__(cosine_similarity, name, dtype, axis=axis)


class BinaryCrossentropy(MeanMetricWrapper):
    """The mean of `binary_crossentropy`."""

    def __init__(self, name: str | None = None, dtype: Any = None, from_logits: bool = False,
                 label_smoothing: float = 0.0) -> None:
        super().__init__(crossentropies.binary_crossentropy, name, dtype, from_logits=from_logits,
                         label_smoothing=label_smoothing)


class CategoricalCrossentropy(MeanMetricWrapper):
    """The mean of `categorical_crossentropy`."""

    def __init__(self, name: str | None = None, dtype: Any = None, from_logits: bool = False,
                 label_smoothing: float = 0.0, axis: int = -1) -> None:
        super().__init__(crossentropies.categorical_crossentropy, name, dtype, from_logits=from_logits,
                         label_smoothing=label_smoothing, axis=axis)


class SparseCategoricalCrossentropy(MeanMetricWrapper):
    """The mean of `sparse_categorical_crossentropy`."""

    def __init__(self, name: str | None = None, dtype: Any = None, from_logits: bool = False, axis: int = -1) -> None:
        super().__init__(crossentropies.sparse_categorical_crossentropy, name, dtype, from_logits=from_logits,
                         axis=axis)
