"""Choices and loops, with TensorFlow's arguments: one row each, whether a function records or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jitgrad as jg
from jitgrad.core import nest
from jitgrad.core.errors import user_error

Branch = Callable[[], Any]


def cond(pred: Any, true_fn: Branch | None = None, false_fn: Branch | None = None, name: str | None = None) -> Any:
    """`jg.cond` of functions without arguments. Both are recorded, also outside a function, and must agree.

    >>> import jitgrad.interop.tensorflow as tf
    >>> x = tf.constant(3.0)
    >>> float(tf.cond(x > 2.0, lambda: x * x, lambda: x))
    9.0
    """
    if not callable(true_fn) or not callable(false_fn):
        raise user_error(TypeError, f"'{'false_fn' if callable(true_fn) else 'true_fn'}' must be callable.")
    return jg.cond(pred, true_fn, false_fn)


def switch_case(branch_index: Any, branch_fns: Any, default: Branch | None = None, name: str = "switch_case") -> Any:
    """The function of this number in a list, dictionary or list of pairs; ``default``, or the last, for others.

    Raises ValueError where numbers are missing, TypeError where the index is no integer or a branch no function.

    >>> import jitgrad.interop.tensorflow as tf
    >>> float(tf.switch_case(tf.constant(1), [lambda: 10.0, lambda: 20.0]))
    20.0
    """
    index = jg.asarray(branch_index)
    if index.dtype not in (jg.int32, jg.int64):
        raise user_error(TypeError, f"'branch_index' must be an integer Tensor, got {index.dtype.name}")
    branches = _numbered(branch_fns)
    if default is None:
        branches, default = branches[:-1], branches[-1]
    return _chosen([(jg.equal(index, i), branch) for i, branch in enumerate(branches)], default)


def _numbered(branch_fns: Any) -> list[Branch]:
    items = branch_fns.items() if isinstance(branch_fns, Mapping) else branch_fns
    pairs: list[tuple[int, Branch]] = [item if isinstance(item, tuple) else (i, item) for i, item in enumerate(items)]
    if not pairs:
        raise user_error(ValueError, "Must provide at least one item in 'branch_fns'")
    for _, branch in pairs:
        if not callable(branch):
            raise user_error(TypeError, f"switch_case: each of branch_fns must be callable, got {branch!r}")
    numbers = sorted(i for i, _ in pairs)
    if numbers != list(range(len(pairs))):
        raise user_error(ValueError, f"branch indices (keys) must form contiguous range of [0 to {len(pairs)}) but "
                                     f"found {{{','.join(map(str, numbers))}}}")
    by_number: dict[int, Branch] = dict(pairs)
    return [by_number[i] for i in numbers]


def case(pred_fn_pairs: Any, default: Branch | None = None, exclusive: bool = False, strict: bool = False,
         name: str = "case") -> Any:
    """The function of the first predicate that holds, else ``default``; ``exclusive`` and ``strict`` are ignored.

    Without ``default`` one of the predicates has to hold, ValueError else: Python reads them for that.

    >>> import jitgrad.interop.tensorflow as tf
    >>> float(tf.case([(tf.constant(False), lambda: 1.0), (tf.constant(True), lambda: 2.0)]))
    2.0
    """
    pairs = list(pred_fn_pairs.items() if isinstance(pred_fn_pairs, Mapping) else pred_fn_pairs)
    if not all(callable(branch) for _, branch in pairs) or not (default is None or callable(default)):
        raise user_error(TypeError, "case: pairs are of a predicate and a function without arguments")
    if default is None:
        if not any(bool(pred) for pred, _ in pairs):
            raise user_error(ValueError, "None of conditions evaluated as True: case needs a default")
        default = pairs.pop()[1]
    return _chosen(pairs, default)


def _chosen(pairs: Sequence[tuple[Any, Branch]], default: Branch) -> Any:
    if not pairs:
        return nest_of_tensors(default())
    (pred, branch), *others = pairs
    return jg.cond(pred, branch, lambda: _chosen(others, default))


def nest_of_tensors(answer: Any) -> Any:
    """What a function returned, with Tensors for its numbers and arrays."""
    leaves, structure = nest.flatten(answer)
    return nest.rebuild(structure, [x if x is None else jg.asarray(x) for x in leaves])


def while_loop(cond: Callable[..., Any], body: Callable[..., Any], loop_vars: Any, shape_invariants: Any = None,
               parallel_iterations: int = 10, back_prop: bool = True, swap_memory: bool = False,
               maximum_iterations: Any = None, name: str | None = None) -> Any:
    """`jg.while_loop` with each of ``loop_vars``, a list or tuple of nests, an argument of its own.

    Shapes stay as they are: ``shape_invariants`` frees none. ``parallel_iterations`` and ``swap_memory`` are ignored;
    ``back_prop=False`` stops gradients at the results. Raises ValueError without loop variables, or where the body
    returns another number of them.

    >>> import jitgrad.interop.tensorflow as tf
    >>> i, x = tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2.0), [tf.constant(0), tf.constant(1.0)])
    >>> float(x)
    8.0
    """
    if not isinstance(loop_vars, list | tuple) or not loop_vars:
        raise user_error(ValueError, "'loop_vars' must be provided.")
    for word, f in (("cond", cond), ("body", body)):
        if not callable(f):
            raise user_error(TypeError, f"'{word}' must be callable.")

    def step(values: tuple[Any, ...]) -> tuple[Any, ...]:
        after = body(*values)
        after = tuple(after) if isinstance(after, list | tuple) else (after,)
        if len(after) != len(values):
            raise user_error(ValueError, f"while_loop: the body takes {len(values)} loop variables and returns "
                                         f"{len(after)}")
        return after

    if maximum_iterations is None:
        last = jg.while_loop(lambda values: cond(*values), step, tuple(loop_vars))
    else:
        most = jg.asarray(maximum_iterations)
        last = jg.while_loop(lambda both: jg.logical_and(both[0] < most, cond(*both[1])),
                             lambda both: (both[0] + 1, step(both[1])), (jg.zeros_like(most), tuple(loop_vars)))[1]
    last = last if back_prop else jg.stop_gradient(last)
    return type(loop_vars)(*last) if hasattr(loop_vars, "_fields") else type(loop_vars)(last)
