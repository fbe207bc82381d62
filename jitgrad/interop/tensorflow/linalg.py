"""`tf.linalg`: products and norms, and the clipping by norms that TensorFlow keeps beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jitgrad as jg
from jitgrad.core.errors import user_error
from jitgrad.interop.tensorflow.array_ops import eye as eye


def matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False, name: str | None = None) -> Any:
    """`jg.matmul`, for matrices and stacks of them."""
    return jg.matmul(a, b, transpose_a, transpose_b)


def matvec(a: Any, b: Any, transpose_a: bool = False, name: str | None = None) -> Any:
    """A matrix times a vector, over the last axes."""
    return jg.squeeze(jg.matmul(a, jg.expand_dims(b, -1), transpose_a), -1)


def matrix_transpose(a: Any, name: str = "matrix_transpose", conjugate: bool = False) -> Any:
    """`jg.matrix_transpose`."""
    return jg.matrix_transpose(a)


def norm(tensor: Any, ord: Any = "euclidean", axis: Any = None, keepdims: bool = False, name: str | None = None) -> Any:
    """The Euclidean (also 2, "fro"), the 1- or the maximum norm of all elements, or along an axis.

    The gradient of the Euclidean norm at 0 is 0.
    """
    x = jg.asarray(tensor)
    if ord in ("euclidean", "fro", 2):
        return _root(jg.sum(jg.square(x), axis, keepdims))
    if ord == 1:
        return jg.sum(jg.abs(x), axis, keepdims)
    if ord == float("inf"):
        return jg.max(jg.abs(x), axis, keepdims)
    raise user_error(ValueError, f"norm: ord must be 'euclidean', 'fro', 1, 2 or inf, got {ord!r}")


def _root(squares: Any) -> Any:
    """A square root whose gradient at 0 is 0."""
    zero = squares == 0
    return jg.where(zero, 0.0, jg.sqrt(jg.where(zero, 1.0, squares)))


def clip_by_norm(t: Any, clip_norm: Any, axes: Any = None, name: str | None = None) -> Any:
    """``t`` scaled down to a Euclidean norm (along ``axes``) of at most ``clip_norm``."""
    t = jg.asarray(t)
    return t * clip_norm / jg.maximum(norm(t, axis=axes, keepdims=True), clip_norm)


def global_norm(t_list: Sequence[Any], name: str | None = None) -> Any:
    """The Euclidean norm of all elements of all Tensors; None counts nothing."""
    squares = [jg.sum(jg.square(t)) for t in t_list if t is not None]
    if not squares:
        raise user_error(ValueError, "global_norm: needs at least one Tensor")
    total = squares[0]
    for s in squares[1:]:
        total = total + s
    return _root(total)


def clip_by_global_norm(t_list: Sequence[Any], clip_norm: Any, use_norm: Any = None,
                        name: str | None = None) -> tuple[list[Any], Any]:
    """All Tensors scaled alike to a `global_norm` of at most ``clip_norm``, and the norm they had."""
    found = global_norm(t_list) if use_norm is None else jg.asarray(use_norm)
    scale = clip_norm / jg.maximum(found, clip_norm)
    return [None if t is None else t * scale for t in t_list], found
