"""TensorFlow's `tf.nn` functions that are neither activations nor cross-entropies."""

from __future__ import annotations

from typing import Any

from jitgrad import ops, random
from jitgrad.core.aval import AVALS, as_shape
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.ops import composite
from jitgrad.ops.axes import Axis
from jitgrad.ops.composite import as_float


def l2_normalize(x: Any, axis: Axis = None, epsilon: float = 1e-12) -> Any:
    """``x`` over its Euclidean length along ``axis``; a square of the length below ``epsilon`` counts as ``epsilon``.

    >>> l2_normalize([3., 4.]).numpy()
    array([0.6, 0.8], dtype=float32)
    """
    x = as_float(x)
    return x / ops.sqrt(ops.maximum(composite.sum(ops.square(x), axis, True), epsilon))


def l2_loss(x: Any) -> Any:
    """Half the sum of squares."""
    return composite.sum(ops.square(as_float(x))) * 0.5


def dropout(x: Any, rate: float, noise_shape: Any = None, seed: int | None = None) -> Any:
    """``x / (1 - rate)`` with elements replaced by 0 at random, each with probability ``rate``.

    ``noise_shape`` broadcasts to the shape of ``x``: elements that share a place of it fall together.

    >>> sorted(set(dropout([1., 1., 1., 1., 1., 1., 1., 1.], 0.5, seed=2).numpy().tolist()))
    [0.0, 2.0]
    """
    x = as_float(x)
    if not 0 <= rate < 1:
        raise user_error(ValueError, f"dropout: rate must be in [0, 1), got {rate}")
    if rate == 0:
        return x
    have = AVALS[x._aval]
    shape = have.shape if noise_shape is None else as_shape(noise_shape)
    kept = random.uniform(shape, dtype=have.dtype, seed=seed) >= rate
    return ops.where(kept, x / (1.0 - rate), 0.0)


def log_poisson_loss(targets: Any, log_input: Any, compute_full_loss: bool = False) -> Any:
    """``exp(log_input) - log_input targets``, one number an element; the full loss adds Stirling's formula for
    ``log(targets!)`` where targets are above 1.
    """
    log_input = as_float(log_input)
    targets = tensor(targets, AVALS[log_input._aval].code, "targets")
    loss = ops.exp(log_input) - log_input * targets
    if not compute_full_loss:
        return loss
    above = targets > 1.0
    safe = ops.where(above, targets, 1.0)
    return loss + ops.where(above, safe * ops.log(safe) - safe + ops.log(safe * 6.283185307179586) * 0.5, 0.0)


def bias_add(value: Any, bias: Any) -> Any:
    """``value + bias`` for one number of ``bias`` for each place of the last axis."""
    value, bias = tensor(value), tensor(bias)
    have, given = AVALS[value._aval].shape, AVALS[bias._aval].shape
    if len(given) != 1 or given != have[-1:]:
        raise user_error(ValueError, f"bias_add: a bias of shape {given} does not fit the last axis of shape {have}")
    return value + bias


def zero_fraction(x: Any) -> Any:
    """The share of elements that are 0."""
    return composite.mean(tensor(x) == 0)
