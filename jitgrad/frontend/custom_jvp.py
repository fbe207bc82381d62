"""`custom_jvp`: a function whose derivative a user says, as tangents; gradients are the transpose of that."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jitgrad.core import nest
from jitgrad.core.aval import AVALS
from jitgrad.core.dtypes import is_float
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.core.recorder import active
from jitgrad.execute.cpu import layout
from jitgrad.execute.cpu import types as machine
from jitgrad.frontend.bodies import Recorded, avals_of, union
from jitgrad.ops import creation
from jitgrad.transform import custom_jvp as rows

_DEEPEST = 2                   # rules within rules, which often call the function itself; below that it is plain


class _Depth(threading.local):
    value = 0


_depth = _Depth()


class CustomJvp:
    """What `custom_jvp` makes of a function: call it; give it its derivative by `defjvp`."""

    def __init__(self, f: Callable[..., Any], nondiff_argnums: Sequence[int]) -> None:
        self._f = f
        self._fixed = frozenset(nondiff_argnums)
        self._rule: Callable[..., Any] | None = None
        functools.update_wrapper(self, f)

    def defjvp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Use ``rule(primals, tangents) -> (result, tangent of the result)``; a decorator, returns the rule.

        ``primals`` and ``tangents`` are tuples of the arguments, after those at ``nondiff_argnums``. The tangent is
        linear in ``tangents`` (ValueError otherwise, when a gradient is asked for).
        """
        self._rule = rule
        return rule

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._rule is None:
            raise user_error(TypeError, f"custom_jvp: {self._f.__name__} has no derivative yet; give it one by defjvp")
        if kwargs:
            args = self._positional(args, kwargs)
        if _depth.value >= _DEEPEST or active() is None and not machine.get_state(layout.S_RECORDERS):
            return self._f(*args)
        fixed = [x for i, x in enumerate(args) if i in self._fixed]
        moving = tuple(x for i, x in enumerate(args) if i not in self._fixed)
        leaves, structure = nest.flatten(moving)
        operands = [tensor(x) for x in leaves]
        body = Recorded(lambda *xs: self._f(*self._merged(fixed, xs)), structure, avals_of(operands))
        if body.assigned:
            raise user_error(TypeError, f"custom_jvp: {self._f.__name__} must not assign Variables")
        floats = [i for i, t in enumerate(operands) if is_float(AVALS[t._aval].code)]
        rule = self._recorded(fixed, structure, operands, floats, body)
        body.close(body.results)
        around = union(body.captured, rule.captured)
        given = [*operands, *around]
        extra = [t for t in around if is_float(AVALS[t._aval].code)]
        n = len(operands)
        program = body.program([*body.inputs, *around])
        outs = rows.custom_jvp(program, rule.program([*rule.inputs[:n], *around, *rule.inputs[n:],
                                                      *map(creation.zeros_like, extra)]), given)
        return body.rebuilt(outs)

    def _positional(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """All arguments by their positions, which rules know them by."""
        given = inspect.signature(self._f).bind(*args, **kwargs)
        if given.kwargs:
            raise user_error(TypeError, f"custom_jvp: {self._f.__name__} was given {', '.join(given.kwargs)}, which it "
                                        "takes by keyword alone; rules know arguments by their positions")
        given.apply_defaults()
        return given.args

    def _merged(self, fixed: Sequence[Any], moving: Sequence[Any]) -> list[Any]:
        """All arguments in their places."""
        a, b = iter(fixed), iter(moving)
        return [next(a) if i in self._fixed else next(b) for i in range(len(fixed) + len(moving))]

    def _recorded(self, fixed: Sequence[Any], structure: Any, operands: Sequence[Any], floats: Sequence[int],
                  body: Recorded) -> Recorded:
        """The rule as a body: primals, then tangents of the floats; its results are the tangents."""
        count = len(operands)

        def flat(*given: Any) -> Any:
            tangents: list[Any] = [creation.zeros_like(t) for t in operands]
            for i, t in zip(floats, given[count:], strict=True):
                tangents[i] = t
            assert self._rule is not None
            answer = self._rule(*fixed, nest.rebuild(structure, list(given[:count])), nest.rebuild(structure, tangents))
            if not (isinstance(answer, tuple) and len(answer) == 2):
                raise user_error(TypeError, f"custom_jvp: the rule of {self._f.__name__} must return (result, tangent)")
            return answer[1]
        _, places = nest.flatten(tuple(range(count + len(floats))))
        _depth.value += 1
        try:
            made = Recorded(flat, places, avals_of([*operands, *(operands[i] for i in floats)]), body.avals)
        finally:
            _depth.value -= 1
        if made.structure != body.structure:
            raise user_error(TypeError, f"custom_jvp: the rule of {self._f.__name__} returns a tangent of another "
                                        "structure than the result")
        made.close([t if is_float(a.code) else None for t, a in zip(made.results, body.avals, strict=True)])
        return made


def custom_jvp(f: Callable[..., Any] | None = None, nondiff_argnums: Sequence[int] = ()) -> Any:
    """A function with a derivative of its own, as JAX has it: decorate it, then give the rule by ``defjvp``.

    Both are recorded dry where something differentiates or records, so that they use `where` and `cond` in place of
    Python on numbers. A rule that calls the function again gets its rule for second derivatives, and derivatives of
    its body from the third on. Arguments at ``nondiff_argnums`` are passed as they are; keywords count by
    their positions. TypeError without a rule, and for arguments that have none.

    >>> import jitgrad as jg
    >>> @jg.custom_jvp
    ... def f(x):
    ...     return jg.sin(x)
    >>> @f.defjvp
    ... def rule(primals, tangents):
    ...     return f(*primals), 10.0 * tangents[0]
    >>> float(jg.grad(f)(1.0)), float(jg.jvp(f, (1.0,), (2.0,))[1])
    (10.0, 20.0)
    """
    if f is None:
        return functools.partial(custom_jvp, nondiff_argnums=nondiff_argnums)
    return CustomJvp(f, nondiff_argnums)
