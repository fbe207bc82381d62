"""Metrics by Keras's names: running numbers over the batches of an epoch."""

from __future__ import annotations

from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core import backend
from jitgrad.core.dtypes import NAMES, default_float
from jitgrad.core.record import tensor
from jitgrad.nn.names import fresh, snake
from jitgrad.ops import composite


class Metric:
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
        """Take in the numbers of one batch."""
        raise NotImplementedError(f"{type(self).__name__} must define update_state")

    def _take_in(self, values: Any, sample_weight: Any) -> None:
        if sample_weight is None:
            self.total.assign_add(composite.sum(values))
            self.count.assign_add(float(values.size))
            return
        weights = tensor(sample_weight)
        weights = composite.reshape(weights, weights.shape + (1,) * (values.ndim - weights.ndim))
        weights = ops.cast(composite.broadcast_to(weights, values.shape), "float64")
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


class Hits(Metric):
    """The fraction of samples for which `hits` is true."""

    def hits(self, y_true: Any, y_pred: Any) -> Any:
        """A boolean for each sample."""
        raise NotImplementedError(f"{type(self).__name__} must define hits")

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
