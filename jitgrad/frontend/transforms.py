"""Function transforms by JAX's names, over nests: reverse mode, by the tape."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from jitgrad.core import nest
from jitgrad.core.aval import AVALS
from jitgrad.core.dtypes import is_float
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.execute.cpu import types as machine
from jitgrad.execute.cpu.layout import K_PERSISTENT
from jitgrad.frontend.tape import GradientTape
from jitgrad.ops import composite, creation

Argnums = int | Sequence[int]


def grad(f: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the gradient of ``f``, which returns one float number.

    ``argnums``: the position, or positions, of the arguments to differentiate in; each may be a nest of floats,
    Tensors, Variables and arrays, and its gradient has its structure, shapes and dtypes (Python floats count as the
    default float dtype). Where ``f`` does not depend on an argument the gradient is zero. With ``has_aux`` ``f``
    returns ``(number, anything)`` and the result is ``(gradient, anything)``. Raises TypeError if an argument is not
    float or ``f`` returns anything but one float.

    >>> import jitgrad as jg
    >>> float(jg.grad(lambda x: x ** 3)(2.0))
    12.0
    """
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, g = both(*args, **kwargs)
        return (g, value[1]) if has_aux else g
    return gradient


def value_and_grad(f: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives ``(f(...), gradient)``; arguments and errors as of `grad`.

    >>> import jitgrad as jg
    >>> value, (dx, dy) = jg.value_and_grad(lambda x, y: x * y, argnums=(0, 1))(2.0, 5.0)
    >>> float(value), float(dx), float(dy)
    (10.0, 5.0, 2.0)
    """
    @functools.wraps(f)
    def both(*args: Any, **kwargs: Any) -> Any:
        given, leaves, rebuilt = chosen("grad", args, argnums)
        tape = recording(leaves)
        with tape:
            answer = f(*given, **kwargs)
        value = answer[0] if has_aux else answer
        y = tensor(value)
        if AVALS[y._aval].size != 1 or AVALS[y._aval].ndim or not is_float(AVALS[y._aval].code):
            raise user_error(TypeError, f"grad: the function must return one float number, got a Tensor of shape "
                                        f"{y.shape} and dtype {y.dtype}")
        found = with_zeros(tape.gradient(y, leaves), leaves)
        return (y, answer[1]) if has_aux else y, rebuilt(found)
    return both


def vjp(f: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """``(f(*primals), pull)``: ``pull(cotangents)``, a nest like the result, gives a tuple of cotangents of the
    primals. With ``has_aux`` ``f`` returns ``(result, anything)`` and the answer is ``(result, pull, anything)``.

    Raises TypeError if a primal is not float; ``pull`` raises ValueError for cotangents of another structure or shape.

    >>> import jitgrad as jg
    >>> y, pull = jg.vjp(lambda x: x * x, jg.constant([1.0, 2.0]))
    >>> pull(jg.constant([1.0, 10.0]))[0].numpy()
    array([ 2., 40.], dtype=float32)
    """
    given, leaves, rebuilt = chosen("vjp", primals, tuple(range(len(primals))))
    tape = recording(leaves, K_PERSISTENT)
    with tape:
        answer = f(*given)
    result, aux = answer if has_aux else (answer, None)
    outs, structure = nest.flatten(result)
    outs = [tensor(y) for y in outs]

    def pull(cotangents: Any) -> Any:
        seeds = nest.flatten(cotangents)[0]
        if len(seeds) != len(outs):
            raise user_error(ValueError, f"vjp: {len(seeds)} cotangents for {len(outs)} results")
        return rebuilt(with_zeros(tape.gradient(outs, leaves, output_gradients=seeds), leaves))

    result = nest.rebuild(structure, outs)
    return (result, pull, aux) if has_aux else (result, pull)


def hvp(f: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """The Hessian of ``f``, a function of the tuple ``primals`` with one float as its result, times ``tangents``.

    Forward over reverse, as JAX's ``jvp(grad(f), primals, tangents)[1]``; a nest like that of the gradient in the
    first argument, or for several primals a tuple of them.

    >>> import jitgrad as jg
    >>> float(jg.hvp(lambda x: x ** 3, (2.0,), (1.0,)))
    12.0
    """
    from jitgrad.frontend.forward import jvp

    argnums = 0 if len(primals) == 1 else tuple(range(len(primals)))
    return jvp(grad(f, argnums), primals, tangents)[1]


# ---- arguments -----------------------------------------------------------------------------------

def chosen(name: str, args: Sequence[Any], argnums: Argnums) -> tuple[list[Any], list[Any], Callable[[Any], Any]]:
    """Arguments with Tensors of their own at ``argnums``, the leaves there, and how to rebuild a nest of the like."""
    single = isinstance(argnums, int)
    places = [argnums] if isinstance(argnums, int) else list(argnums)
    try:
        places = [range(len(args))[p] for p in places]
    except IndexError:
        raise user_error(ValueError, f"{name}: argnums {argnums} for {len(args)} positional arguments") from None
    if len(set(places)) != len(places):
        raise user_error(ValueError, f"{name}: argnums {argnums} name an argument twice")
    given = list(args)
    everything: list[Any] = []
    parts: list[tuple[int, Any]] = []
    for p in places:
        leaves, structure = nest.flatten(args[p])
        leaves = [own(name, x) for x in leaves]
        given[p] = nest.rebuild(structure, list(leaves))
        everything += leaves
        parts.append((len(leaves), structure))

    def rebuilt(values: Sequence[Any]) -> Any:
        out, at = [], 0
        for count, structure in parts:
            out.append(nest.rebuild(structure, list(values[at: at + count])))
            at += count
        return out[0] if single else tuple(out)
    return given, everything, rebuilt


def own(name: str, x: Any) -> Any:
    """A float argument as a Tensor of its own, which nothing else is differentiated in."""
    t = tensor(x, what=name)
    if not is_float(AVALS[t._aval].code):
        raise user_error(TypeError, f"{name}: differentiates in floats, got {t.dtype} of shape {t.shape}")
    return composite.identity(t)


def recording(leaves: Sequence[Any], flags: int = 0) -> Any:
    """A tape that watches these Tensors, and no Variables."""
    tape = GradientTape(persistent=bool(flags & K_PERSISTENT), watch_accessed_variables=False)
    for t in leaves:
        machine.tape_watch(tape, t)
    return tape


def with_zeros(found: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
    """Gradients, zeros where there are none."""
    return [creation.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]
