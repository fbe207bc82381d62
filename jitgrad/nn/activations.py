"""Activation functions by Keras's names and defaults.

Each has its limits at +-inf and finite gradients of every order wherever its derivative exists. At a kink the gradient
is TensorFlow's: 0 for `relu`, `relu6` and `hard_sigmoid`, that from above for `elu` and `selu`, that from below for
`leaky_relu`; at the ends of `hard_tanh` it is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from jitgrad import ops
from jitgrad.core.aval import AVALS
from jitgrad.core.errors import user_error
from jitgrad.nn.names import by_name
from jitgrad.ops import composite, logarithms
from jitgrad.ops.axes import axis_index

relu = ops.relu
tanh = ops.tanh
sigmoid = ops.sigmoid
exponential = ops.exp
log_sigmoid = logarithms.log_sigmoid
softplus = ops.softplus

_FLAT = 800.0                  # beyond +-800 every gate below is 0 or 1 in float64 too


def _gated(x: Any, gate: Callable[[Any], Any]) -> Any:
    """``x * gate(x)`` for a gate that rises from 0 to 1: no infinity meets a zero, here or in a derivative."""
    x = composite.as_float(x)
    near = composite.clip(x, -_FLAT, _FLAT)
    return ops.where(x > _FLAT, x, near * gate(near))


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


def softsign(x: Any) -> Any:
    """``x / (1 + |x|)``."""
    x = composite.as_float(x)
    size = abs(x)
    small = size < 1.0
    near = ops.where(small, x, 0.0)
    # far out as 1 - 1 / (1 + |x|), whose derivative does not cancel
    return ops.where(small, near / (abs(near) + 1.0), ops.sign(x) * (1.0 - 1.0 / (size + 1.0)))


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """``x`` where it is positive, else ``negative_slope * x``."""
    x = composite.as_float(x)
    return ops.where(x > 0.0, x, x * negative_slope)


def relu6(x: Any) -> Any:
    """``x`` cut off at 0 and 6."""
    return ops.minimum(6.0, ops.relu(x))           # a tie's gradient goes to the 6


def elu(x: Any, alpha: float = 1.0) -> Any:
    """``x`` where it is positive, else ``alpha * (exp(x) - 1)`` (Clevert et al., 2015)."""
    x = composite.as_float(x)
    return ops.where(x >= 0.0, x, ops.expm1(ops.minimum(x, 0.0)) * alpha)


def selu(x: Any) -> Any:
    """Scaled `elu`, after Klambauer et al. (2017)."""
    return elu(x, 1.6732632423543772) * 1.0507009873554805


def celu(x: Any, alpha: float = 1.0) -> Any:
    """``x`` where it is positive, else ``alpha * (exp(x / alpha) - 1)`` (Barron, 2017): smooth for every alpha."""
    x = composite.as_float(x)
    return ops.where(x >= 0.0, x, ops.expm1(ops.minimum(x, 0.0) / alpha) * alpha)


def silu(x: Any) -> Any:
    """``x * sigmoid(x)``."""
    return _gated(x, ops.sigmoid)


swish = silu


def gelu(x: Any, approximate: bool = False) -> Any:
    """``x`` times the normal distribution function at ``x`` (Hendrycks and Gimpel, 2016), or their formula by tanh.

    >>> gelu([-1., 1.], approximate=True).numpy()
    array([-0.158808,  0.841192], dtype=float32)
    """
    if approximate:
        # (1 + tanh(u)) / 2 is sigmoid(2 u), which keeps its digits below 0
        return _gated(x, lambda z: ops.sigmoid((z + z * z * z * 0.044715) * 1.5957691216057308))
    return _gated(x, lambda z: ops.erfc(z * -0.7071067811865476) * 0.5)


def mish(x: Any) -> Any:
    """``x * tanh(softplus(x))`` (Misra, 2019)."""
    return _gated(x, lambda z: ops.tanh(softplus(z)))


def hard_sigmoid(x: Any) -> Any:
    """``x / 6 + 1/2`` cut off at 0 and 1."""
    return relu6(composite.as_float(x) + 3.0) / 6.0


def hard_silu(x: Any) -> Any:
    """``x * hard_sigmoid(x)``."""
    return _gated(x, hard_sigmoid)


hard_swish = hard_silu


def hard_tanh(x: Any) -> Any:
    """``x`` cut off at -1 and 1."""
    return composite.clip(composite.as_float(x), -1.0, 1.0)


def tanh_shrink(x: Any) -> Any:
    """``x - tanh(x)``."""
    x = composite.as_float(x)
    return x - ops.tanh(x)


def hard_shrink(x: Any, threshold: float = 0.5) -> Any:
    """``x``, but 0 within ``threshold`` of 0."""
    x = composite.as_float(x)
    return ops.where(abs(x) <= threshold, 0.0, x)


def soft_shrink(x: Any, threshold: float = 0.5) -> Any:
    """``x`` moved towards 0 by ``threshold``, and 0 within it."""
    x = composite.as_float(x)
    return ops.where(abs(x) <= threshold, 0.0, x - ops.sign(x) * threshold)


def threshold(x: Any, threshold: float, default_value: float) -> Any:
    """``x`` where it is above the threshold, else ``default_value``."""
    x = composite.as_float(x)
    return ops.where(x > threshold, x, default_value)


def glu(x: Any, axis: int = -1) -> Any:
    """The first half along an axis times the sigmoid of the second (Dauphin et al., 2016).

    >>> glu([[2., 4., 0., 0.]]).numpy()
    array([[1., 2.]], dtype=float32)
    """
    x = composite.as_float(x)
    shape = AVALS[x._aval].shape
    at = axis_index("glu", axis, len(shape))
    half, odd = divmod(shape[at], 2)
    if odd:
        raise user_error(ValueError, f"glu: axis {axis} of shape {shape} has no two halves")
    every = [(0, n, 1) for n in shape]
    values, gates = (ops.slice(x, (*every[:at], (first, half, 1), *every[at + 1:])) for first in (0, half))
    return values * ops.sigmoid(gates)


def get(identifier: Any) -> Callable[..., Any]:
    """An activation from its name or any function; None is `linear`.

    >>> get("relu")([-1., 2.]).numpy()
    array([0., 2.], dtype=float32)
    """
    if identifier is None:
        return linear
    if callable(identifier):
        return cast(Callable[..., Any], identifier)
    found: Callable[..., Any] = by_name("activation", identifier, globals(), homes=(__name__, logarithms.__name__))
    return found
