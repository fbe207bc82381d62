"""Losses by Keras's names, arguments and numbers: functions give one number a sample, classes reduce them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from jitgrad import ops
from jitgrad.core.aval import AVALS
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.nn import crossentropies, distances
from jitgrad.nn.crossentropies import binary_crossentropy as binary_crossentropy
from jitgrad.nn.crossentropies import binary_focal_crossentropy as binary_focal_crossentropy
from jitgrad.nn.crossentropies import categorical_crossentropy as categorical_crossentropy
from jitgrad.nn.crossentropies import categorical_focal_crossentropy as categorical_focal_crossentropy
from jitgrad.nn.crossentropies import sparse_categorical_crossentropy as sparse_categorical_crossentropy
from jitgrad.nn.distances import categorical_hinge as categorical_hinge
from jitgrad.nn.distances import cosine_similarity as cosine_similarity
from jitgrad.nn.distances import dice as dice
from jitgrad.nn.distances import hinge as hinge
from jitgrad.nn.distances import huber as huber
from jitgrad.nn.distances import kl_divergence as kl_divergence
from jitgrad.nn.distances import log_cosh as log_cosh
from jitgrad.nn.distances import mean_absolute_error as mean_absolute_error
from jitgrad.nn.distances import mean_absolute_percentage_error as mean_absolute_percentage_error
from jitgrad.nn.distances import mean_squared_error as mean_squared_error
from jitgrad.nn.distances import mean_squared_logarithmic_error as mean_squared_logarithmic_error
from jitgrad.nn.distances import poisson as poisson
from jitgrad.nn.distances import squared_hinge as squared_hinge
from jitgrad.nn.distances import tversky as tversky
from jitgrad.nn.names import by_name
from jitgrad.nn.tracking import Versioned
from jitgrad.ops import composite

_REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None)


class Loss(Versioned):
    """Reduces what a function of ``(y_true, y_pred)`` gives for each sample to one number.

    ``reduction``: "sum_over_batch_size" or "mean" (the sum over the number of samples), "sum",
    "mean_with_sample_weight" (over the sum of the weights), "none" or None.
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = None) -> None:
        if not isinstance(reduction, str | None) or reduction not in _REDUCTIONS:       # such as y_true
            raise user_error(ValueError, f"{type(self).__name__}: reduction must be one of {_REDUCTIONS}, "
                                         f"got {reduction!r}")
        self.reduction = reduction
        self.name = name

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each sample: users define it, or `__call__` itself, so it is not abstract: NotImplementedError,
        as Keras raises, where neither is there.
        """
        raise NotImplementedError(f"{type(self).__name__} must define call")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        losses = self.call(y_true, y_pred)
        if sample_weight is None:
            if self.reduction == "sum":
                return composite.sum(losses)
            return losses if self.reduction in ("none", None) else composite.mean(losses)
        weights = distances.fitted(losses, sample_weight)
        return self._weighted(losses, weights, float(AVALS[losses._aval].size))

    def _weighted(self, losses: Any, weights: Any, count: Any) -> Any:
        """Losses times weights, reduced; ``count`` of them have a share in a mean."""
        losses = losses * weights
        if self.reduction in ("none", None):
            return losses
        total = composite.sum(losses)
        if self.reduction == "sum":
            return total
        if self.reduction == "mean_with_sample_weight":
            count = composite.sum(composite.broadcast_to(weights, losses.shape))
        return total / (count if type(count) is float else ops.where(count == 0.0, 1.0, count))


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

    Labels of ``ignore_class`` have loss 0 and do not count in a mean.

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

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if self.ignore_class is None:
            return super().__call__(y_true, y_pred, sample_weight)
        losses = self.call(y_true, y_pred)
        kept = composite.reshape(tensor(y_true, what="y_true") != self.ignore_class, losses.shape)
        kept = ops.cast(kept, AVALS[losses._aval].dtype.name)
        weights = kept if sample_weight is None else kept * distances.fitted(losses, sample_weight)
        return self._weighted(losses, weights, composite.sum(kept))


class MeanAbsolutePercentageError(Loss):
    """100 times the mean of ``|y_true - y_pred| / |y_true|``."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return mean_absolute_percentage_error(y_true, y_pred)


class MeanSquaredLogarithmicError(Loss):
    """Mean of ``(log(y_true + 1) - log(y_pred + 1)) ** 2``."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return mean_squared_logarithmic_error(y_true, y_pred)


class LogCosh(Loss):
    """Mean of ``log(cosh(y_pred - y_true))``."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return log_cosh(y_true, y_pred)


class Hinge(Loss):
    """Mean of ``max(1 - y_true * y_pred, 0)`` for labels -1 and 1 (or 0 and 1)."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return hinge(y_true, y_pred)


class SquaredHinge(Loss):
    """Mean of ``max(1 - y_true * y_pred, 0) ** 2`` for labels -1 and 1 (or 0 and 1)."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return squared_hinge(y_true, y_pred)


class CategoricalHinge(Loss):
    """``max(neg - pos + 1, 0)``: the right class is to score 1 more than any other."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return categorical_hinge(y_true, y_pred)


class Poisson(Loss):
    """Mean of ``y_pred - y_true log(y_pred)``: counts with their expectations."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return poisson(y_true, y_pred)


class KLDivergence(Loss):
    """``sum(y_true log(y_true / y_pred))`` of probabilities."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return kl_divergence(y_true, y_pred)


class Huber(Loss):
    """Squared near 0, straight beyond ``delta``."""

    def __init__(self, delta: float = 1.0,
                 reduction: str | None = "sum_over_batch_size", name: str | None = None) -> None:
        super().__init__(reduction, name)
        self.delta = delta

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return huber(y_true, y_pred, self.delta)


class CosineSimilarity(Loss):
    """Minus the cosine between labels and predictions along an axis."""

    def __init__(self, axis: int = -1, reduction: str | None = "sum_over_batch_size", name: str | None = None) -> None:
        super().__init__(reduction, name)
        self.axis = axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return cosine_similarity(y_true, y_pred, self.axis)


class Dice(Loss):
    """One less the overlap of two sets over their mean size."""

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = None,
                 axis: Any = None) -> None:
        super().__init__(reduction, name)
        self.axis = axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return dice(y_true, y_pred, self.axis)


class Tversky(Loss):
    """`Dice` with weights for what is missed and what is wrong; see `tversky`."""

    def __init__(self, alpha: float = 0.5, beta: float = 0.5, reduction: str | None = "sum_over_batch_size",
                 name: str | None = None, axis: Any = None) -> None:
        super().__init__(reduction, name)
        self.alpha, self.beta, self.axis = alpha, beta, axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return tversky(y_true, y_pred, self.alpha, self.beta, self.axis)


class BinaryFocalCrossentropy(Loss):
    """`BinaryCrossentropy` that looks at samples the less, the better they are known (Lin et al., 2017)."""

    def __init__(self, apply_class_balancing: bool = False, alpha: float = 0.25, gamma: float = 2.0,
                 from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1,
                 reduction: str | None = "sum_over_batch_size", name: str | None = None) -> None:
        super().__init__(reduction, name)
        self.apply_class_balancing, self.alpha, self.gamma = apply_class_balancing, alpha, gamma
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return binary_focal_crossentropy(y_true, y_pred, self.apply_class_balancing, self.alpha, self.gamma,
                                         self.from_logits, self.label_smoothing, self.axis)


class CategoricalFocalCrossentropy(Loss):
    """`CategoricalCrossentropy` that looks at samples the less, the better they are known."""

    def __init__(self, alpha: Any = 0.25, gamma: float = 2.0, from_logits: bool = False, label_smoothing: float = 0.0,
                 axis: int = -1, reduction: str | None = "sum_over_batch_size", name: str | None = None) -> None:
        super().__init__(reduction, name)
        self.alpha, self.gamma = alpha, gamma
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return categorical_focal_crossentropy(y_true, y_pred, self.alpha, self.gamma, self.from_logits,
                                              self.label_smoothing, self.axis)


mse = MSE = mean_squared_error
mae = MAE = mean_absolute_error
mape = MAPE = mean_absolute_percentage_error
msle = MSLE = mean_squared_logarithmic_error
bce = BCE = binary_crossentropy
kld = KLD = kl_divergence
logcosh = log_cosh


def get(identifier: Any) -> Callable[..., Any]:
    """A loss from its name ("mse", "MeanSquaredError", "sparse_categorical_crossentropy"...), class or function.

    >>> get("mse") is mean_squared_error
    True
    """
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    if callable(identifier):
        return cast(Callable[..., Any], identifier)
    homes = (__name__, crossentropies.__name__, distances.__name__)
    found: Callable[..., Any] = by_name("loss", identifier, globals(), homes=homes)
    return found
