"""Activation functions by Keras's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from jitgrad import ops
from jitgrad.nn.names import by_name
from jitgrad.ops import composite

relu = ops.relu
tanh = ops.tanh
sigmoid = ops.sigmoid
exponential = ops.exp

_SOFTPLUS_LINEAR = 34.0        # from here on log(1 + exp(x)) is x to the last bit of a float64


def linear(x: Any) -> Any:
    """``x`` itself."""
    return x


def softmax(x: Any, axis: Any = -1) -> Any:
    """``exp(x) / sum(exp(x))`` along an axis.

    >>> softmax([0., 0.]).numpy()
    array([0.5, 0.5], dtype=float32)
    """
    return composite.softmax(x, axis)


def log_softmax(x: Any, axis: Any = -1) -> Any:
    """``log(softmax(x))`` along an axis."""
    return composite.log_softmax(x, axis)


def softplus(x: Any) -> Any:
    """``log(1 + exp(x))``, without overflow; right at every order of derivative.

    >>> softplus([0., 100.]).numpy()
    array([  0.6931472, 100.       ], dtype=float32)
    """
    x = composite.as_float(x)
    small = ops.log1p(ops.exp(ops.minimum(x, _SOFTPLUS_LINEAR)))
    return ops.where(x > _SOFTPLUS_LINEAR, x, small)


def softsign(x: Any) -> Any:
    """``x / (1 + |x|)``."""
    x = composite.as_float(x)
    return x / (abs(x) + 1.0)


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """``x`` where it is positive, else ``negative_slope * x``."""
    x = composite.as_float(x)
    return ops.where(x > 0.0, x, x * negative_slope)


def elu(x: Any, alpha: float = 1.0) -> Any:
    """``x`` where it is positive, else ``alpha * (exp(x) - 1)``."""
    x = composite.as_float(x)
    return ops.where(x > 0.0, x, ops.expm1(ops.minimum(x, 0.0)) * alpha)


def selu(x: Any) -> Any:
    """Scaled `elu`, after Klambauer et al. (2017)."""
    return elu(x, 1.6732632423543772) * 1.0507009873554805


def silu(x: Any) -> Any:
    """``x * sigmoid(x)``."""
    x = composite.as_float(x)
    return x * ops.sigmoid(x)


swish = silu


def hard_sigmoid(x: Any) -> Any:
    """``x / 6 + 1/2`` cut off at 0 and 1."""
    x = composite.as_float(x)
    return ops.minimum(ops.maximum(x / 6.0 + 0.5, 0.0), 1.0)


def mish(x: Any) -> Any:
    """``x * tanh(softplus(x))``."""
    x = composite.as_float(x)
    return x * ops.tanh(softplus(x))


def get(identifier: Any) -> Callable[..., Any]:
    """An activation from its name or any function; None is `linear`.

    >>> get("relu")([-1., 2.]).numpy()
    array([0., 2.], dtype=float32)
    """
    if identifier is None:
        return linear
    if callable(identifier):
        return cast(Callable[..., Any], identifier)
    found: Callable[..., Any] = by_name("activation", identifier, globals())
    return found
