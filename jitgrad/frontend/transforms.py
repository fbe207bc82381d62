"""Function transforms by JAX's names, over nests: reverse mode, by the tape."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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
        value, aux = with_aux("grad", answer, has_aux)
        y = tensor(value, what="grad: the result of the function")
        if AVALS[y._aval].size != 1 or AVALS[y._aval].ndim or not is_float(AVALS[y._aval].code):
            raise user_error(TypeError, f"grad: the function must return one float number, got a Tensor of shape "
                                        f"{y.shape} and dtype {y.dtype}")
        found = with_zeros(tape.gradient(y, leaves), leaves)
        return (y, aux) if has_aux else y, rebuilt(found)
    return both


def vjp(f: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """``(f(*primals), pull)``: ``pull(cotangents)``, a nest like the result, gives a tuple of cotangents of the
    primals. With ``has_aux`` ``f`` returns ``(result, anything)`` and the answer is ``(result, pull, anything)``.

    Raises TypeError if a primal is not float; ``pull`` raises ValueError for cotangents of another structure or shape,
    and takes None for zeros.

    >>> import jitgrad as jg
    >>> y, pull = jg.vjp(lambda x: x * x, jg.constant([1.0, 2.0]))
    >>> pull(jg.constant([1.0, 10.0]))[0].numpy()
    array([ 2., 40.], dtype=float32)
    """
    call = taped("vjp", f, primals, tuple(range(len(primals))), has_aux)

    def pull(cotangents: Any) -> Any:
        seeds = matching("vjp: cotangents", cotangents, "results", call.result)
        live = [(y, s) for y, s in zip(call.outs, seeds, strict=True) if s is not None]
        found = call.tape.gradient([y for y, _ in live], call.leaves, output_gradients=[s for _, s in live])
        return call.rebuilt(with_zeros(found, call.leaves))

    result = call.like(call.outs)
    return (result, pull, call.aux) if has_aux else (result, pull)


# ---- arguments -----------------------------------------------------------------------------------

def chosen(name: str, args: Sequence[Any], argnums: Argnums) -> tuple[list[Any], list[Any], Callable[[Any], Any]]:
    """Arguments with Tensors of their own at ``argnums``, the leaves there, and how to rebuild a nest of the like."""
    single = not isinstance(argnums, Sequence)
    try:
        wanted = list(argnums) if isinstance(argnums, Sequence) else [argnums]
        places = [range(len(args))[operator.index(p)] for p in wanted]
    except TypeError:
        raise user_error(TypeError, f"{name}: argnums are positions of arguments, got {argnums!r}") from None
    except IndexError:
        raise user_error(ValueError, f"{name}: argnums {argnums} for {len(args)} positional arguments") from None
    if len(set(places)) != len(places):
        raise user_error(ValueError, f"{name}: argnums {argnums} name an argument twice")
    given = list(args)
    everything: list[Any] = []
    parts: list[tuple[int, Callable[[Sequence[Any]], Any]]] = []
    for p in places:
        leaves, like = flat(args[p])
        leaves = [own(name, x) for x in leaves]
        given[p] = like(leaves)
        everything += leaves
        parts.append((len(leaves), like))

    def rebuilt(values: Sequence[Any]) -> Any:
        out, at = [], 0
        for count, like in parts:
            out.append(like(values[at: at + count]))
            at += count
        return out[0] if single else tuple(out)
    return given, everything, rebuilt


def flat(given: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """The leaves of a nest, and how to rebuild it with others; None among them stays None and is no leaf."""
    leaves, structure = nest.flatten(given)

    def rebuilt(values: Sequence[Any]) -> Any:
        left = iter(values)
        return nest.rebuild(structure, [None if x is None else next(left) for x in leaves])
    return [x for x in leaves if x is not None], rebuilt


def matching(what: str, given: Any, of: str, like: Any) -> list[Any]:
    """The leaves of a nest where a nest of the same structure has leaves that are not None."""
    (leaves, structure), (wanted, needed) = nest.flatten((given,)), nest.flatten((like,))
    if structure != needed:
        has, needs = (", ".join(name for name, _ in nest.named(x, "it")) for x in (given, like))
        raise user_error(ValueError, f"{what} must be a nest like the {of}: its leaves are {has or 'none'}, theirs are "
                                     f"{needs or 'none'} ({structure} and {needed})")
    return [x for x, y in zip(leaves, wanted, strict=True) if y is not None]


def with_aux(name: str, answer: Any, has_aux: bool) -> tuple[Any, Any]:
    """What a function returned, and what it returned beside that."""
    if not has_aux:
        return answer, None
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise user_error(TypeError, f"{name}: with has_aux the function must return a pair (result, anything), got "
                                    f"{type(answer).__name__}")
    return answer[0], answer[1]


class Taped(NamedTuple):
    """A call that a persistent tape recorded."""

    tape: Any
    leaves: list[Any]                                # of the arguments that it watches
    rebuilt: Callable[[Any], Any]                    # a nest like those arguments
    result: Any
    outs: list[Any]                                  # Tensors in the result
    like: Callable[[Any], Any]                       # a nest like the result
    aux: Any


def taped(name: str, f: Callable[..., Any], args: Sequence[Any], argnums: Argnums, has_aux: bool,
          kwargs: Mapping[str, Any] | None = None) -> Taped:
    """``f(*args, **kwargs)``, to be differentiated in the arguments at ``argnums`` any number of times."""
    given, leaves, rebuilt = chosen(name, args, argnums)
    tape = recording(leaves, K_PERSISTENT)
    with tape:
        answer = f(*given, **(kwargs or {}))
    result, aux = with_aux(name, answer, has_aux)
    outs, like = flat(result)
    return Taped(tape, leaves, rebuilt, result, [tensor(y) for y in outs], like, aux)


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
