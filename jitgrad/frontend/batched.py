"""`vmap`, and the derivatives that are made of it: Jacobians and Hessians."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from jitgrad import ops
from jitgrad.core import nest
from jitgrad.core.aval import AVALS, aval
from jitgrad.core.device import along
from jitgrad.core.dtypes import is_float
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.frontend.bodies import Recorded, hold
from jitgrad.frontend.forward import tangents_of
from jitgrad.frontend.transforms import Argnums, taped, with_zeros
from jitgrad.ops import creation
from jitgrad.ops.axes import axis_index
from jitgrad.ops.batching import moved
from jitgrad.transform import vmap as batching
from jitgrad.transform.higher import called


def vmap(f: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0) -> Callable[..., Any]:
    """A function that maps ``f`` over an axis of its arguments, without a loop.

    ``in_axes``: an int or None (the same for every example) for all arguments, or a tuple with one for each, which may
    be a nest like the argument. ``out_axes``: where the results have the axis, an int or a nest like the result; None
    for a result that is the same for all. ``f`` is recorded on one example, so Python cannot read numbers that differ
    between examples: TypeError then names `where` and `cond`. Each example draws its own random numbers. Raises
    ValueError if lengths differ or nothing is mapped over, TypeError if a Variable would be assigned a value for each.

    >>> import jitgrad as jg
    >>> jg.vmap(jg.sum)(jg.constant([[1.0, 2.0], [3.0, 4.0]])).numpy()
    array([3., 7.], dtype=float32)
    """
    of_arguments = tuple(in_axes) if isinstance(in_axes, list) else in_axes

    @functools.wraps(f)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = nest.flatten((args, kwargs))
        axes = nest.spread((of_arguments, 0), (args, kwargs), "vmap: in_axes")
        given = [tensor(x) for x in leaves]
        places = [None if a is None else axis_index("vmap: in_axes", a, t.ndim)
                  for t, a in zip(given, axes, strict=True)]
        size = _size(given, places)
        operands = [t if a is None else moved(t, a, 0) for t, a in zip(given, places, strict=True)]
        avals = [AVALS[t._aval] if a is None else _example(t) for t, a in zip(operands, places, strict=True)]
        body = Recorded(lambda args, kwargs: f(*args, **kwargs), structure, avals)
        variables = list(body.assigned.values())
        body.close([*body.results, *map(body.value, variables)])
        program = body.program([*body.inputs, *body.captured])
        flags = [a is not None for a in places] + [False] * len(body.captured)
        inner, out_flags = batching.vmap(program, flags, size)
        outs = called(inner, [*operands, *body.captured])
        count = len(outs) - len(variables)
        if any(out_flags[count:]):
            v = next(v for v, flag in zip(variables, out_flags[count:], strict=True) if flag)
            raise user_error(TypeError, f"vmap: the Variable {v.name!r} would be assigned another value by each "
                                        "example; return the values instead")
        hold(variables, outs[count:])
        targets = nest.spread(out_axes, body.rebuilt(outs[:count]), "vmap: out_axes")
        present = [a for a, x in zip(targets, body.leaves, strict=True) if x is not None]
        return body.rebuilt([_placed(t, flag, a, size) for t, flag, a in
                             zip(outs[:count], out_flags, present, strict=False)])
    return mapped


def _size(given: Sequence[Any], places: Sequence[int | None]) -> int:
    sizes = {t.shape[a] for t, a in zip(given, places, strict=True) if a is not None}
    if len(sizes) != 1:
        raise user_error(ValueError, f"vmap: the mapped axes have different lengths, {sorted(sizes)}" if sizes else
                         "vmap: no argument has an axis to map over (in_axes are all None)")
    return int(sizes.pop())


def _example(t: Any) -> Any:
    have = AVALS[t._aval]
    return aval(have.code, have.shape[1:])


def _placed(t: Any, batched: bool, axis: int | None, size: int) -> Any:
    """A result with its batch axis where it is asked for."""
    if axis is None:
        if batched:
            raise user_error(ValueError, "vmap: a result differs between examples, but its out_axes is None")
        return t
    if not batched:
        t = ops.broadcast_to(t, (size, *t.shape))
    return moved(t, 0, axis_index("vmap: out_axes", axis, t.ndim))


# ---- Jacobians -----------------------------------------------------------------------------------

def jacrev(f: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the Jacobian of ``f``, by reverse mode: best for few results.

    For each float result and each leaf of the arguments at ``argnums`` (see `grad`) an array of shape
    ``result.shape + argument.shape``: a nest like the result of nests like the arguments. TypeError for results that
    are not float.

    >>> import jitgrad as jg
    >>> jg.jacrev(lambda x: x ** 2)(jg.constant([1.0, 2.0])).numpy()
    array([[2., 0.],
           [0., 4.]], dtype=float32)
    """
    def rows(tape: Any, outs: Sequence[Any], leaves: Sequence[Any]) -> list[list[Any]]:
        def pull(j: int, seed: Any) -> tuple[Any, ...]:
            return tuple(with_zeros(tape.gradient([outs[j]], list(leaves), output_gradients=[seed]), leaves))
        found = []
        for j, y in enumerate(outs):
            pulled = vmap(functools.partial(pull, j))(_basis(y))
            found.append([ops.reshape(g, (*y.shape, *x.shape)) for g, x in zip(pulled, leaves, strict=True)])
        return found
    return _jacobian("jacrev", f, argnums, has_aux, rows)


def jacfwd(f: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the Jacobian of ``f``, by forward mode: best for few arguments; otherwise as `jacrev`.

    >>> import jitgrad as jg
    >>> jg.jacfwd(lambda x: x ** 2)(jg.constant([1.0, 2.0])).numpy()
    array([[2., 0.],
           [0., 4.]], dtype=float32)
    """
    def columns(tape: Any, outs: Sequence[Any], leaves: Sequence[Any]) -> list[list[Any]]:
        def push(k: int, t: Any) -> tuple[Any, ...]:
            return tuple(with_zeros(tangents_of(tape, outs, [leaves[k]], [t]), outs))
        found: list[list[Any]] = [[] for _ in outs]
        for k, x in enumerate(leaves):
            for row, y, t in zip(found, outs, vmap(functools.partial(push, k))(_basis(x)), strict=True):
                row.append(ops.reshape(moved(t, 0, y.ndim), (*y.shape, *x.shape)))
        return found
    return _jacobian("jacfwd", f, argnums, has_aux, columns)


def jacobian(f: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """`jacrev` by another name."""
    return jacrev(f, argnums, has_aux)


def hessian(f: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the Hessian of ``f``: the `jacfwd` of its `jacrev`, a nest of nests for each argument.

    >>> import jitgrad as jg
    >>> jg.hessian(lambda x: jg.sum(x ** 3))(jg.constant([1.0, 2.0])).numpy()
    array([[ 6.,  0.],
           [ 0., 12.]], dtype=float32)
    """
    return jacfwd(jacrev(f, argnums, has_aux), argnums, has_aux)


def _basis(x: Any) -> Any:
    """Every unit vector of a shape, stacked."""
    return along(ops.reshape(creation.eye(x.size, dtype=x.dtype), (x.size, *x.shape)), x)


def _jacobian(name: str, f: Callable[..., Any], argnums: Argnums, has_aux: bool,
              blocks: Callable[[Any, Sequence[Any], Sequence[Any]], list[list[Any]]]) -> Callable[..., Any]:
    @functools.wraps(f)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        call = taped(name, f, args, argnums, has_aux, kwargs)
        for y in call.outs:
            if not is_float(AVALS[y._aval].code):
                raise user_error(TypeError, f"{name}: results must be floats, got {y.dtype} of shape {y.shape}")
        found = call.like([call.rebuilt(row) for row in blocks(call.tape, call.outs, call.leaves)])
        return (found, call.aux) if has_aux else found
    return jacobian
