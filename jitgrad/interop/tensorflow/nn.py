"""`tf.nn`: activations and cross-entropies."""

from __future__ import annotations

from typing import Any

import jitgrad as jg
from jitgrad.interop.tensorflow.math import sigmoid as sigmoid
from jitgrad.interop.tensorflow.math import softplus as softplus
from jitgrad.interop.tensorflow.math import tanh as tanh
from jitgrad.nn import activations, losses


def relu(features: Any, name: str | None = None) -> Any:
    """`jg.relu`."""
    return jg.relu(features)


def leaky_relu(features: Any, alpha: float = 0.2, name: str | None = None) -> Any:
    """``x`` where it is positive, else ``alpha * x``."""
    return activations.leaky_relu(features, alpha)


def elu(features: Any, name: str | None = None) -> Any:
    """``x`` where it is positive, else ``exp(x) - 1``."""
    return activations.elu(features)


def silu(features: Any, beta: float = 1.0) -> Any:
    """``x * sigmoid(beta * x)``."""
    return features * jg.sigmoid(features * beta)


swish = silu


def softmax(logits: Any, axis: int | None = None, name: str | None = None) -> Any:
    """`jg.softmax`, along the last axis unless told otherwise."""
    return jg.softmax(logits, -1 if axis is None else axis)


def log_softmax(logits: Any, axis: int | None = None, name: str | None = None) -> Any:
    """`jg.log_softmax`, along the last axis unless told otherwise."""
    return jg.log_softmax(logits, -1 if axis is None else axis)


def softmax_cross_entropy_with_logits(labels: Any, logits: Any, axis: int = -1, name: str | None = None) -> Any:
    """One number a row of labels that are probabilities."""
    return losses.categorical_crossentropy(labels, logits, from_logits=True, axis=axis)


def sparse_softmax_cross_entropy_with_logits(labels: Any, logits: Any, name: str | None = None) -> Any:
    """One number a class label."""
    return losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def sigmoid_cross_entropy_with_logits(labels: Any = None, logits: Any = None, name: str | None = None) -> Any:
    """One number an element, of labels between 0 and 1."""
    labels = jg.asarray(labels, jg.asarray(logits).dtype)
    return labels * activations.softplus(-logits) + (1.0 - labels) * activations.softplus(logits)


def l2_loss(t: Any, name: str | None = None) -> Any:
    """Half the sum of squares."""
    return jg.sum(jg.square(t)) * 0.5
