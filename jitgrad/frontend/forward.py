"""Forward mode: tangents pushed along the rows that a tape recorded. `jvp`, `linearize`, `ForwardAccumulator`."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from jitgrad.core import nest
from jitgrad.core.aval import AVALS
from jitgrad.core.device import beside
from jitgrad.core.dtypes import is_float
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.execute.cpu import types as machine
from jitgrad.execute.cpu.layout import HAS_CUT, K_USED
from jitgrad.execute.cpu.plans import Plan
from jitgrad.execute.cpu.types import Tensor, Variable
from jitgrad.frontend.cuts import without_cuts
from jitgrad.frontend.log import aside
from jitgrad.frontend.tape import GradientTape, UnconnectedGradients
from jitgrad.frontend.transforms import grad, matching, taped, with_zeros
from jitgrad.ops import creation
from jitgrad.transform.jvp import pushforward
from jitgrad.transform.residuals import with_results
from jitgrad.transform.signature import ends_of, recorded


def jvp(f: Callable[..., Any], primals: Any, tangents: Any, has_aux: bool = False) -> Any:
    """``(f(*primals), tangent of it)`` for a tangent of each primal: the derivative along ``tangents``.

    ``primals`` and ``tangents`` are tuples or lists of equal structure, with floats, Tensors, Variables or arrays as
    leaves. With ``has_aux`` ``f`` returns ``(result, anything)`` and the answer is ``(result, tangent, anything)``.
    Raises TypeError if a primal is not float, ValueError for a tangent of another shape or structure.

    >>> import jitgrad as jg
    >>> y, t = jg.jvp(lambda x: x ** 3, (2.0,), (1.0,))
    >>> float(y), float(t)
    (8.0, 12.0)
    """
    if not all(isinstance(given, tuple | list) for given in (primals, tangents)):
        raise user_error(TypeError, f"jvp: primals and tangents are tuples or lists, one for each argument; got "
                                    f"{type(primals).__name__} and {type(tangents).__name__}")
    y, push, aux = _linear("jvp", f, primals, has_aux)
    return (y, push(*tangents), aux) if has_aux else (y, push(*tangents))


def linearize(f: Callable[..., Any], *primals: Any) -> Any:
    """``(f(*primals), push)``: ``push(*tangents)`` is the derivative there along tangents, any number of times.

    Arguments and errors as of `jvp`; what ``f`` computed is kept, so a push runs the tangents' rows alone.

    >>> import jitgrad as jg
    >>> y, push = jg.linearize(lambda x: x * x, 3.0)
    >>> float(push(1.0)), float(push(10.0))
    (6.0, 60.0)
    """
    return _linear("linearize", f, primals, False)[:2]


def hvp(f: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """The Hessian of ``f``, a function of the tuple ``primals`` with one float as its result, times ``tangents``.

    Forward over reverse, as JAX's ``jvp(grad(f), primals, tangents)[1]``; a nest like that of the gradient in the
    first argument, or for several primals a tuple of them.

    >>> import jitgrad as jg
    >>> float(jg.hvp(lambda x: x ** 3, (2.0,), (1.0,)))
    12.0
    """
    argnums = 0 if len(primals) == 1 else tuple(range(len(primals)))
    return jvp(grad(f, argnums), primals, tangents)[1]


def _linear(name: str, f: Callable[..., Any], primals: Sequence[Any], has_aux: bool) -> tuple[Any, Any, Any]:
    call = taped(name, f, tuple(primals), tuple(range(len(primals))), has_aux)

    def push(*tangents: Any) -> Any:
        ts = matching(f"{name}: tangents", tangents, "primals", tuple(primals))
        ts = [fitted(name, t, x) for t, x in zip(ts, call.leaves, strict=True)]
        return call.like(with_zeros(tangents_of(call.tape, call.outs, call.leaves, ts), call.outs))
    return call.like(call.outs), push, call.aux


def fitted(name: str, t: Any, like: Any) -> Any:
    """A tangent as a Tensor of the primal's dtype; its shape has to be the primal's."""
    made = beside(creation.asarray(t, like.dtype), like._value if type(like) is Variable else like)
    if made.shape != like.shape:
        raise user_error(ValueError, f"{name}: a tangent of shape {made.shape} does not fit a primal of shape "
                                     f"{like.shape}")
    return made


# ---- the rows of a tape --------------------------------------------------------------------------

def tangents_of(tape: Any, targets: Sequence[Any], sources: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """Tangents of Tensors for those of Tensors and Variables that the tape watches; None where there is none."""
    kinds = [t for t in targets if is_float(AVALS[t._aval].code)]
    found = iter(_pushed(tape, kinds, sources, tangents) if kinds else ())
    out = [next(found) if is_float(AVALS[t._aval].code) else None for t in targets]
    for s, t in zip(sources, tangents, strict=True):
        out = [t if y is s and g is None else g for y, g in zip(targets, out, strict=True)]
    return out


def _pushed(tape: Any, targets: Sequence[Any], sources: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    status, words, rows, values, _ = machine.connect(tape, list(targets), list(sources), None)
    if status == HAS_CUT:
        program, values, ends, groups = without_cuts(tape, words, rows, values, len(targets), len(sources))
        plan, saved, used = _plan(program, ends, groups)
    else:
        plan, saved, used = _known(words, tuple(t._aval for t in values), len(targets), len(sources))
    return plan.run([*(values[i] for i in saved), *(tangents[s] for s in used)])


@functools.lru_cache(maxsize=1024)
def _known(words: bytes, avals: tuple[int, ...], n_targets: int, n_sources: int) -> tuple[Plan, list[int], list[int]]:
    program, rest = recorded(np.frombuffer(words, np.int64), avals)
    ends, groups = ends_of(rest, n_targets, False, n_sources)
    return _plan(program, [end for end, _ in ends], groups)


def _plan(program: Any, ends: Sequence[int], groups: Sequence[Sequence[int]]) -> tuple[Plan, list[int], list[int]]:
    """The plan of a push, the values it reads, and for each of its tangents which source that is of."""
    entering = [(v, s) for s, group in enumerate(groups) for v in group]
    live = [end for end in ends if end >= 0]
    pushed, saved = pushforward(program, live, [v for v, _ in entering])
    found = dict(zip(live, pushed.results.tolist(), strict=True))
    pushed = with_results(pushed, [found.get(end, -1) for end in ends])
    return Plan(pushed, range(len(pushed.inputs))), saved, [s for _, s in entering]


# ---- TensorFlow's face ---------------------------------------------------------------------------

class ForwardAccumulator:
    """Computes Jacobian-vector products of what runs in its ``with`` block, as TensorFlow's class of that name.

    ``primals`` are Tensors and Variables in a nest, ``tangents`` a nest like it. `jvp` gives the tangent of anything
    computed from them inside. Tapes and accumulators around it see tangents as computed along with the operations, so
    that they give higher derivatives. Raises ValueError if a primal occurs twice, or a tangent has another shape.

    >>> import jitgrad as jg
    >>> x = jg.constant([2.0, 3.0])
    >>> with jg.ForwardAccumulator(primals=x, tangents=jg.constant([1.0, 0.0])) as acc:
    ...     y = jg.sum(x ** 3)
    >>> float(acc.jvp(y))
    12.0
    """

    def __init__(self, primals: Any, tangents: Any) -> None:
        self._primals = nest.flatten(primals)[0]
        given = nest.flatten(tangents)[0]
        if len(given) != len(self._primals):
            raise user_error(ValueError, f"ForwardAccumulator: {len(given)} tangents for {len(self._primals)} primals")
        for x in self._primals:
            if type(x) is not Tensor and type(x) is not Variable:
                raise user_error(ValueError, f"ForwardAccumulator: primals are Tensors and Variables, got {type(x)}")
        if len({id(x) for x in self._primals}) < len(self._primals):
            raise user_error(ValueError, "ForwardAccumulator: a primal was given multiple times; add up its tangents")
        self._tangents = [fitted("ForwardAccumulator", t, x) for t, x in zip(given, self._primals, strict=True)]
        self._tape = GradientTape(persistent=True, watch_accessed_variables=False)
        self._tape.watch(self._primals)
        self._around: list[weakref.ref[Any]] = []         # tapes that recorded when it was entered

    def __enter__(self) -> ForwardAccumulator:
        if self._tape._recording:
            raise user_error(ValueError, "Accumulator is already recording.")
        self._around = [weakref.ref(t) for t in machine.open_tapes(machine.thread_log())]
        self._tape.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._tape.__exit__(*error)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Lets those tapes record which would have, had the tangents been computed along with the operations: the ones
        around the accumulator, though they may be closed by now, and not those within it.
        """
        around = [t for t in (ref() for ref in self._around) if t is not None and not t._flags & K_USED]
        with aside():
            for t in reversed(around):
                machine.tape_start(t)
            try:
                yield
            finally:
                for t in around:
                    machine.tape_stop(t)

    def jvp(self, primals: Any, unconnected_gradients: Any = UnconnectedGradients.NONE) -> Any:
        """Tangents of a nest of Tensors (or Variables among the primals), None where unconnected, or zeros with
        ``unconnected_gradients="zero"``. Raises ValueError for another word there.
        """
        try:
            unconnected = UnconnectedGradients(unconnected_gradients)
        except ValueError:
            raise user_error(ValueError, f"Unknown value for unconnected_gradients: {unconnected_gradients!r}"
                             ) from None
        leaves, structure = nest.flatten(primals)
        known = [i for i, x in enumerate(leaves) if type(x) is Tensor]
        found: list[Any] = [None] * len(leaves)
        with self._inside():
            tangents = tangents_of(self._tape, [leaves[i] for i in known], self._primals, self._tangents)
        for i, t in zip(known, tangents, strict=True):
            found[i] = t
        for x, t in zip(self._primals, self._tangents, strict=True):
            found = [t if leaf is x else g for leaf, g in zip(leaves, found, strict=True)]
        if unconnected is UnconnectedGradients.ZERO:
            found = [creation.zeros_like(tensor(x)) if g is None else g for x, g in zip(leaves, found, strict=True)]
        return nest.rebuild(structure, found)
