"""`tf.nn`: activations and cross-entropies."""

from __future__ import annotations

from typing import Any

import jitgrad as jg
from jitgrad.interop.tensorflow.math import l2_normalize as l2_normalize
from jitgrad.interop.tensorflow.math import log_sigmoid as log_sigmoid
from jitgrad.interop.tensorflow.math import sigmoid as sigmoid
from jitgrad.interop.tensorflow.math import softplus as softplus
from jitgrad.interop.tensorflow.math import tanh as tanh
from jitgrad.nn import activations


def relu(features: Any, name: str | None = None) -> Any:
    """`jg.relu`."""
    return jg.relu(features)


def leaky_relu(features: Any, alpha: float = 0.2, name: str | None = None) -> Any:
    """``x`` where it is positive, else ``alpha * x``."""
    return activations.leaky_relu(features, alpha)


def elu(features: Any, name: str | None = None) -> Any:
    """``x`` where it is positive, else ``exp(x) - 1``."""
    return activations.elu(features)


def selu(features: Any, name: str | None = None) -> Any:
    """`jg.nn.selu`."""
    return activations.selu(features)


def relu6(features: Any, name: str | None = None) -> Any:
    """`jg.nn.relu6`."""
    return activations.relu6(features)


def gelu(features: Any, approximate: bool = False, name: str | None = None) -> Any:
    """`jg.nn.gelu`."""
    return activations.gelu(features, approximate)


def softsign(features: Any, name: str | None = None) -> Any:
    """`jg.nn.softsign`."""
    return activations.softsign(features)


def silu(features: Any, beta: float = 1.0) -> Any:
    """``x * sigmoid(beta * x)``."""
    return activations.silu(jg.asarray(features) * beta) / beta if beta != 1.0 else activations.silu(features)


swish = silu


def softmax(logits: Any, axis: int | None = None, name: str | None = None) -> Any:
    """`jg.softmax`, along the last axis unless told otherwise."""
    return jg.softmax(logits, -1 if axis is None else axis)


def log_softmax(logits: Any, axis: int | None = None, name: str | None = None) -> Any:
    """`jg.log_softmax`, along the last axis unless told otherwise."""
    return jg.log_softmax(logits, -1 if axis is None else axis)


def softmax_cross_entropy_with_logits(labels: Any, logits: Any, axis: int = -1, name: str | None = None) -> Any:
    """One number a row of labels that are probabilities."""
    return jg.nn.softmax_cross_entropy_with_logits(labels, logits, axis)


def sparse_softmax_cross_entropy_with_logits(labels: Any, logits: Any, name: str | None = None) -> Any:
    """One number a class label."""
    return jg.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def sigmoid_cross_entropy_with_logits(labels: Any = None, logits: Any = None, name: str | None = None) -> Any:
    """One number an element, of labels between 0 and 1."""
    return jg.nn.sigmoid_cross_entropy_with_logits(labels, logits)


def weighted_cross_entropy_with_logits(labels: Any, logits: Any, pos_weight: Any, name: str | None = None) -> Any:
    """`sigmoid_cross_entropy_with_logits` with a weight for positive labels."""
    return jg.nn.weighted_cross_entropy_with_logits(labels, logits, pos_weight)


def l2_loss(t: Any, name: str | None = None) -> Any:
    """Half the sum of squares."""
    return jg.nn.l2_loss(t)


def dropout(x: Any, rate: float, noise_shape: Any = None, seed: int | None = None, name: str | None = None) -> Any:
    """`jg.nn.dropout`."""
    return jg.nn.dropout(x, rate, noise_shape, seed)


def bias_add(value: Any, bias: Any, data_format: str | None = None, name: str | None = None) -> Any:
    """`jg.nn.bias_add`: channels come last."""
    return jg.nn.bias_add(value, bias)


def moments(x: Any, axes: Any, shift: Any = None, keepdims: bool = False, name: str | None = None) -> tuple[Any, Any]:
    """`jg.moments`: mean and variance."""
    return jg.moments(x, axes, keepdims)


def zero_fraction(value: Any, name: str | None = None) -> Any:
    """`jg.nn.zero_fraction`."""
    return jg.nn.zero_fraction(value)
