"""Folds, scans and maps of functions, with TensorFlow's arguments: each is one `jg.scan`, or one `jg.vmap`.

``parallel_iterations`` and ``swap_memory`` are ignored: a scan runs its rounds one after the other.
``back_prop=False`` stops gradients at the results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import jitgrad as jg
from jitgrad.core import nest
from jitgrad.core.errors import user_error
from jitgrad.interop.tensorflow.functions import TensorSpec


def foldl(fn: Callable[[Any, Any], Any], elems: Any, initializer: Any = None, parallel_iterations: int = 10,
          back_prop: bool = True, swap_memory: bool = False, name: str | None = None) -> Any:
    """``fn(... fn(fn(initializer, e0), e1) ..., en)`` over the first axis of a nest of arrays.

    Without ``initializer`` it starts from the first element; ValueError if there is none.

    >>> import jitgrad.interop.tensorflow as tf
    >>> float(tf.foldl(lambda a, x: a - x, [1.0, 2.0, 3.0]))
    -4.0
    """
    return _fold("foldl", fn, elems, initializer, back_prop, False)


def foldr(fn: Callable[[Any, Any], Any], elems: Any, initializer: Any = None, parallel_iterations: int = 10,
          back_prop: bool = True, swap_memory: bool = False, name: str | None = None) -> Any:
    """`foldl` from the last element to the first.

    >>> import jitgrad.interop.tensorflow as tf
    >>> float(tf.foldr(lambda a, x: a - x, [1.0, 2.0, 3.0]))
    0.0
    """
    return _fold("foldr", fn, elems, initializer, back_prop, True)


def _fold(name: str, fn: Callable[[Any, Any], Any], elems: Any, initializer: Any, back_prop: bool,
          reverse: bool) -> Any:
    start, rest = _begun(name, _arrays(name, elems), initializer, reverse)
    last = jg.scan(lambda carry, x: (fn(carry, x), None), start, rest, reverse=reverse)[0]
    return last if back_prop else jg.stop_gradient(last)


def scan(fn: Callable[[Any, Any], Any], elems: Any, initializer: Any = None, parallel_iterations: int = 10,
         back_prop: bool = True, swap_memory: bool = False, infer_shape: bool = True, reverse: bool = False,
         name: str | None = None) -> Any:
    """Every value of `foldl` (of `foldr` with ``reverse``), stacked along a first axis.

    Without ``initializer`` the first of them is the first element itself. Shapes stay as they are (``infer_shape``).

    >>> import jitgrad.interop.tensorflow as tf
    >>> tf.scan(lambda a, x: a + x, tf.constant([1.0, 2.0, 3.0])).numpy()
    array([1., 3., 6.], dtype=float32)
    """
    start, rest = _begun("scan", _arrays("scan", elems), initializer, reverse)

    def step(carry: Any, x: Any) -> tuple[Any, Any]:
        after = fn(carry, x)
        return after, after

    found = jg.scan(step, start, rest, reverse=reverse)[1]
    if initializer is None:
        found = _each(lambda one, more: jg.concat([more, one[None]] if reverse else [one[None], more], axis=0),
                      start, found)
    return found if back_prop else jg.stop_gradient(found)


def map_fn(fn: Callable[[Any], Any], elems: Any, dtype: Any = None, parallel_iterations: int | None = None,
           back_prop: bool = True, swap_memory: bool = False, infer_shape: bool = True, name: str | None = None,
           fn_output_signature: Any = None) -> Any:
    """``fn`` of each element along the first axis of a nest of arrays, one after the other, stacked.

    ``fn_output_signature`` (or ``dtype``) is only checked where it is given: TypeError for results of other dtypes.

    >>> import jitgrad.interop.tensorflow as tf
    >>> tf.map_fn(lambda x: x * x, tf.constant([1.0, 2.0])).numpy()
    array([1., 4.], dtype=float32)
    """
    found = jg.scan(lambda carry, x: (carry, fn(x)), (), _arrays("map_fn", elems))[1]
    signature = dtype if fn_output_signature is None else fn_output_signature
    if signature is not None:
        wanted = [np.dtype(s.dtype if isinstance(s, TensorSpec) else s) for s in nest.flatten(signature)[0]]
        given = [t.dtype for t in nest.flatten(found)[0]]
        if wanted != given:
            raise user_error(TypeError, f"map_fn: the function returns {', '.join(d.name for d in given)} where "
                                        f"fn_output_signature says {', '.join(d.name for d in wanted)}")
    return found if back_prop else jg.stop_gradient(found)


def vectorized_map(fn: Callable[[Any], Any], elems: Any, fallback_to_while_loop: bool = True, warn: bool = True) -> Any:
    """`jg.vmap` of ``fn`` over a nest of arrays; a first axis of length 1 serves every example.

    Every operation can be batched, so there is no falling back.

    >>> import jitgrad.interop.tensorflow as tf
    >>> tf.vectorized_map(tf.reduce_sum, tf.constant([[1.0, 2.0], [3.0, 4.0]])).numpy()
    array([3., 7.], dtype=float32)
    """
    arrays = _arrays("vectorized_map", elems)
    leaves, structure = nest.flatten(arrays)
    longest = max(t.shape[0] for t in leaves)
    shared = [t.shape[0] == 1 < longest for t in leaves]
    given = nest.rebuild(structure, [t[0] if one else t for t, one in zip(leaves, shared, strict=True)])
    return jg.vmap(fn, in_axes=(nest.rebuild(structure, [None if one else 0 for one in shared]),))(given)


# ---- nests of arrays -----------------------------------------------------------------------------

def _arrays(name: str, elems: Any) -> Any:
    """A nest of Tensors to go along; a list of numbers alone is one array."""
    leaves, structure = nest.flatten(elems)
    if leaves and all(type(x) in (bool, int, float) for x in leaves) and isinstance(elems, list):
        return jg.asarray(elems)
    if not leaves:
        raise user_error(ValueError, f"{name}: elems must be a Tensor or (possibly nested) sequence of Tensors. Got "
                                     f"{elems!r}, which does not contain any Tensors.")
    made = [jg.asarray(x) for x in leaves]
    if any(t.ndim == 0 for t in made):
        raise user_error(ValueError, f"{name}: Elements in elems must be 1+ dimensional Tensors, not scalars")
    return nest.rebuild(structure, made)


def _begun(name: str, elems: Any, initializer: Any, reverse: bool) -> tuple[Any, Any]:
    """What a fold carries at first, and the elements that it then goes along."""
    if initializer is not None:
        return initializer, elems
    if nest.flatten(elems)[0][0].shape[0] == 0:
        raise user_error(ValueError, f"{name}: without an initializer there must be at least one element")
    return (_each(lambda t: t[-1], elems), _each(lambda t: t[:-1], elems)) if reverse else (
        _each(lambda t: t[0], elems), _each(lambda t: t[1:], elems))


def _each(f: Callable[..., Any], *nests: Any) -> Any:
    """A nest of what a function says of the leaves of nests of one structure."""
    leaves, structure = nest.flatten(nests[0])
    others = [nest.flatten(n)[0] for n in nests[1:]]
    return nest.rebuild(structure, [f(*items) for items in zip(leaves, *others, strict=True)])
