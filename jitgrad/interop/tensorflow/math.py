"""`tf.math`: arithmetic, comparisons and reductions, with TensorFlow's argument names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jitgrad as jg
from jitgrad.core.errors import user_error
from jitgrad.interop.tensorflow.sequences import cumprod as cumprod
from jitgrad.interop.tensorflow.sequences import cumsum as cumsum
from jitgrad.interop.tensorflow.sequences import cumulative_logsumexp as cumulative_logsumexp
from jitgrad.interop.tensorflow.sequences import reduce_all as reduce_all
from jitgrad.interop.tensorflow.sequences import reduce_any as reduce_any
from jitgrad.interop.tensorflow.sequences import reduce_prod as reduce_prod
from jitgrad.interop.tensorflow.sequences import top_k as top_k


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
tan, sinh, cosh = _unary(jg.tan), _unary(jg.sinh), _unary(jg.cosh)
asin, acos, atan, atan2 = _unary(jg.asin), _unary(jg.acos), _unary(jg.atan), _binary(jg.atan2)
asinh, acosh, atanh = _unary(jg.asinh), _unary(jg.acosh), _unary(jg.atanh)
erf, erfc, reciprocal, rsqrt = _unary(jg.erf), _unary(jg.erfc), _unary(jg.reciprocal), _unary(jg.rsqrt)
floor, ceil, round, rint = _unary(jg.floor), _unary(jg.ceil), _unary(jg.round), _unary(jg.round)
is_nan, is_inf, is_finite = _unary(jg.isnan), _unary(jg.isinf), _unary(jg.isfinite)
xlogy, xlog1py, xdivy, nextafter = _binary(jg.xlogy), _binary(jg.xlog1py), _binary(jg.xdivy), _binary(jg.nextafter)
truncatemod = _binary(jg.fmod)
square, sqrt, negative, sign = _unary(jg.square), _unary(jg.sqrt), _unary(jg.negative), _unary(jg.sign)
add, subtract, multiply, divide = _binary(jg.add), _binary(jg.subtract), _binary(jg.multiply), _binary(jg.divide)
truediv, floordiv, floormod, pow = divide, _binary(jg.floor_divide), _binary(jg.remainder), _binary(jg.power)
mod = floormod
maximum, minimum = _binary(jg.maximum), _binary(jg.minimum)
equal, not_equal = _binary(jg.equal), _binary(jg.not_equal)
less, less_equal = _binary(jg.less), _binary(jg.less_equal)
greater, greater_equal = _binary(jg.greater), _binary(jg.greater_equal)
logical_and, logical_or, logical_xor = _binary(jg.logical_and), _binary(jg.logical_or), _binary(jg.logical_xor)
logical_not = _unary(jg.logical_not)


def softplus(features: Any, name: str | None = None) -> Any:
    """``log(1 + exp(x))``."""
    return jg.softplus(features)


def log_sigmoid(x: Any, name: str | None = None) -> Any:
    """`jg.log_sigmoid`."""
    return jg.log_sigmoid(x)


def l2_normalize(x: Any, axis: Any = None, epsilon: float = 1e-12, name: str | None = None) -> Any:
    """`jg.nn.l2_normalize`."""
    return jg.nn.l2_normalize(x, axis, epsilon)


def multiply_no_nan(x: Any, y: Any, name: str | None = None) -> Any:
    """``x * y``, but 0 where ``y`` is 0, be ``x`` infinite or NaN."""
    y = jg.asarray(y)
    return jg.where(y == 0, 0, jg.multiply(jg.where(y == 0, 0, x), y))


def divide_no_nan(x: Any, y: Any, name: str | None = None) -> Any:
    """``x / y``, but 0 where ``y`` is 0."""
    y = jg.asarray(y)
    return jg.where(y == 0, 0, jg.divide(x, jg.where(y == 0, 1, y)))


def reciprocal_no_nan(x: Any, name: str | None = None) -> Any:
    """``1 / x``, but 0 where ``x`` is 0."""
    return divide_no_nan(1.0, x)


def truncatediv(x: Any, y: Any, name: str | None = None) -> Any:
    """``x / y`` without its fraction."""
    x, y = jg.asarray(x), jg.asarray(y)
    return jg.trunc(jg.divide(x - jg.fmod(x, y), y)) if x.dtype.kind == "f" else jg.floor_divide(x - jg.fmod(x, y), y)


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
    return jg.clip(t, clip_value_min, clip_value_max)
