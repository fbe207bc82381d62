"""`tf.math`: arithmetic, comparisons and reductions, with TensorFlow's argument names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jitgrad as jg
from jitgrad.core.errors import user_error
from jitgrad.nn import activations


def _unary(op: Callable[..., Any]) -> Callable[..., Any]:
    def function(x: Any, name: str | None = None) -> Any:
        return op(x)
    return _named(function, op)


def _binary(op: Callable[..., Any]) -> Callable[..., Any]:
    def function(x: Any, y: Any, name: str | None = None) -> Any:
        return op(x, y)
    return _named(function, op)


def _named(function: Callable[..., Any], op: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = op.__name__
    function.__doc__ = f"`jg.{op.__name__}`; ``name`` is ignored."
    return function


abs, exp, expm1, log, log1p = _unary(jg.abs), _unary(jg.exp), _unary(jg.expm1), _unary(jg.log), _unary(jg.log1p)
sin, cos, tanh, sigmoid = _unary(jg.sin), _unary(jg.cos), _unary(jg.tanh), _unary(jg.sigmoid)
square, sqrt, negative, sign = _unary(jg.square), _unary(jg.sqrt), _unary(jg.negative), _unary(jg.sign)
add, subtract, multiply, divide = _binary(jg.add), _binary(jg.subtract), _binary(jg.multiply), _binary(jg.divide)
truediv, floordiv, floormod, pow = divide, _binary(jg.floor_divide), _binary(jg.remainder), _binary(jg.power)
mod = floormod
maximum, minimum = _binary(jg.maximum), _binary(jg.minimum)
equal, not_equal = _binary(jg.equal), _binary(jg.not_equal)
less, less_equal = _binary(jg.less), _binary(jg.less_equal)
greater, greater_equal = _binary(jg.greater), _binary(jg.greater_equal)


def _boolean(op: Callable[..., Any]) -> Callable[..., Any]:
    def function(x: Any, y: Any, name: str | None = None) -> Any:
        return op(jg.astype(x, jg.bool_), jg.astype(y, jg.bool_))
    return _named(function, op)


logical_and, logical_or = _boolean(jg.bitwise_and), _boolean(jg.bitwise_or)


def logical_not(x: Any, name: str | None = None) -> Any:
    """`jg.bitwise_invert` of booleans."""
    return jg.bitwise_invert(jg.astype(x, jg.bool_))


def softplus(features: Any, name: str | None = None) -> Any:
    """``log(1 + exp(x))``."""
    return activations.softplus(features)


def log_sigmoid(x: Any, name: str | None = None) -> Any:
    """`jg.log_sigmoid`."""
    return jg.log_sigmoid(x)


def l2_normalize(x: Any, axis: Any = None, epsilon: float = 1e-12, name: str | None = None) -> Any:
    """`jg.nn.l2_normalize`."""
    return jg.nn.l2_normalize(x, axis, epsilon)


def reciprocal(x: Any, name: str | None = None) -> Any:
    """``1 / x``."""
    return 1.0 / jg.asarray(x)


def rsqrt(x: Any, name: str | None = None) -> Any:
    """``1 / sqrt(x)``."""
    return 1.0 / jg.sqrt(x)


def squared_difference(x: Any, y: Any, name: str | None = None) -> Any:
    """``(x - y) ** 2``."""
    return jg.square(jg.subtract(x, y))


def add_n(inputs: Sequence[Any], name: str | None = None) -> Any:
    """The sum of a list of Tensors."""
    if not inputs:
        raise user_error(ValueError, "add_n: needs at least one Tensor")
    total = jg.asarray(inputs[0])
    for x in inputs[1:]:
        total = total + x
    return total


def reduce_sum(input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None) -> Any:
    """`jg.sum`."""
    return jg.sum(input_tensor, axis, keepdims)


def reduce_mean(input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None) -> Any:
    """`jg.mean`; of integers it is a float, where TensorFlow rounds down."""
    return jg.mean(input_tensor, axis, keepdims)


def reduce_max(input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None) -> Any:
    """`jg.max`."""
    return jg.max(input_tensor, axis, keepdims)


def reduce_min(input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None) -> Any:
    """`jg.min`."""
    return jg.min(input_tensor, axis, keepdims)


def reduce_logsumexp(input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None) -> Any:
    """`jg.logsumexp`."""
    return jg.logsumexp(input_tensor, axis, keepdims)


def reduce_variance(input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None) -> Any:
    """The mean squared distance from the mean."""
    return jg.var(input_tensor, axis, keepdims=keepdims)


def reduce_std(input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None) -> Any:
    """`jg.std`."""
    return jg.std(input_tensor, axis, keepdims=keepdims)


def reduce_euclidean_norm(input_tensor: Any, axis: Any = None, keepdims: bool = False, name: str | None = None) -> Any:
    """`jg.linalg.vector_norm`."""
    return jg.linalg.vector_norm(input_tensor, axis=axis, keepdims=keepdims)


def argmax(input: Any, axis: int | None = None, output_type: Any = jg.int64, name: str | None = None) -> Any:
    """`jg.argmax`, along the first axis unless told otherwise."""
    return jg.astype(jg.argmax(input, 0 if axis is None else axis), output_type)


def argmin(input: Any, axis: int | None = None, output_type: Any = jg.int64, name: str | None = None) -> Any:
    """`jg.argmin`, along the first axis unless told otherwise."""
    return jg.astype(jg.argmin(input, 0 if axis is None else axis), output_type)


def clip_by_value(t: Any, clip_value_min: Any, clip_value_max: Any, name: str | None = None) -> Any:
    """Elements below or above the limits become the limits."""
    return jg.minimum(jg.maximum(t, clip_value_min), clip_value_max)
