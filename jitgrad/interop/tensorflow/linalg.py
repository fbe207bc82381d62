"""`tf.linalg`: products and norms, and the clipping by norms that TensorFlow keeps beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jitgrad as jg
from jitgrad.core.errors import user_error
from jitgrad.interop.tensorflow.array_ops import eye as eye
from jitgrad.ops.axes import axes_of


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
    """`jg.linalg.vector_norm` of all elements or along an axis; two axes with ord 1, inf or "fro" make a matrix norm.

    "euclidean" is 2. The gradient of the Euclidean norm at 0 is 0.
    """
    if not isinstance(ord, int | float) and ord not in ("euclidean", "fro"):
        raise user_error(ValueError, f"norm: ord must be 'euclidean', 'fro' or a number, got {ord!r}")
    if isinstance(axis, tuple | list) and len(axis) == 2 and ord not in ("euclidean", "fro"):
        x = jg.asarray(tensor)
        first, last = axes_of("norm", axis, x.ndim)
        rest = [i for i in range(x.ndim) if i not in (first, last)]
        found = jg.linalg.matrix_norm(jg.permute_dims(x, (*rest, first, last)), ord=ord)
        return jg.expand_dims(found, sorted((first, last))) if keepdims else found
    return jg.linalg.vector_norm(tensor, axis=axis, keepdims=keepdims, ord=2 if isinstance(ord, str) else ord)


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
    return jg.sqrt(total)


def clip_by_global_norm(t_list: Sequence[Any], clip_norm: Any, use_norm: Any = None,
                        name: str | None = None) -> tuple[list[Any], Any]:
    """All Tensors scaled alike to a `global_norm` of at most ``clip_norm``, and the norm they had."""
    found = global_norm(t_list) if use_norm is None else jg.asarray(use_norm)
    scale = clip_norm / jg.maximum(found, clip_norm)
    return [None if t is None else t * scale for t in t_list], found
