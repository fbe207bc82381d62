"""custom_gradient and stop_gradient."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core import backend, nest
from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.errors import user_error
from jitgrad.core.form import Form, form
from jitgrad.core.primitive import BY_NAME, Kind, define
from jitgrad.core.record import dispatch, tensor
from jitgrad.core.recorder import active, has_numbers, is_dry
from jitgrad.execute.cpu import layout, library
from jitgrad.execute.cpu import types as machine
from jitgrad.execute.cpu.types import Tensor, Variable
from jitgrad.frontend.cuts import cut_row
from jitgrad.frontend.log import aside
from jitgrad.frontend.tracing import tracings
from jitgrad.ops import composite
from jitgrad.ops.batching import Batch

_NUMBERS = (bool, int, float, np.ndarray, np.generic)


def _ref(*arrays: Any, outs: tuple[int, ...]) -> Any:
    raise TypeError("a row with a Python rule cannot be run again: its function is not recorded")


def _jvp(ts: Any, ans: Any, *operands: Any, outs: tuple[int, ...]) -> Any:
    raise user_error(TypeError, "custom_gradient: its function has a rule for reverse mode only; forward mode needs "
                                "custom_jvp")


def _outs(*operands: Aval, outs: tuple[int, ...]) -> tuple[Aval, ...]:
    return tuple(AVALS[i] for i in outs)


def _batch(batched: Sequence[bool], size: int, *operands: Any, outs: tuple[int, ...]) -> Batch:
    raise user_error(TypeError, "vmap: a function with a gradient of its own (custom_gradient) cannot be batched: how "
                                "it computes is not recorded")


def _body() -> None:
    """A function whose gradient is a Python callable, kept in the row itself."""


define(_body, name="custom", kind=Kind.HIGHER, vjp=None, jvp=_jvp, aval=_outs, ref=_ref, samples=None,
       operands=("*xs",), params=("outs",), domains=("any",), batch=_batch,
       host="its function is Python, which computes by operations of its own")


@functools.cache
def _cut_form(avals: tuple[Aval, ...], outs: tuple[Aval, ...]) -> Form:
    made = form(BY_NAME["custom"], avals, {"outs": tuple(a.id for a in outs)})
    address = library.realise(made)
    machine.poke(address + layout.F_FLAGS, machine.peek(address + layout.F_FLAGS) | layout.CUT)
    return made


def custom_gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``f`` a gradient of its own: ``f(*x) -> (y, grad_fn)``, where ``grad_fn(*dy)`` returns one gradient per
    Tensor in ``x`` (a single one may stand alone). Variables, numbers and arrays among the arguments become Tensors;
    what is passed by keyword has no gradient.

    If ``f`` reads Variables, ``grad_fn(*dy, variables=...)`` returns ``(gradients, variable_gradients)``. Exceptions
    inside propagate unchanged; a wrong number of gradients raises ValueError when the gradient is asked for.

    >>> import jitgrad as jg
    >>> @jg.custom_gradient
    ... def log1pexp(x):
    ...     e = jg.exp(x)
    ...     return jg.log(1 + e), lambda upstream: upstream * (1 - 1 / (1 + e))
    >>> x = jg.constant(100.)
    >>> with jg.GradientTape() as tape:
    ...     tape.watch(x)
    ...     y = log1pexp(x)
    >>> float(tape.gradient(y, x))
    1.0
    """
    @functools.wraps(f)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = nest.flatten(args)
        leaves = [tensor(x) if type(x) is Variable or isinstance(x, _NUMBERS) else x for x in leaves]
        operands = [x for x in leaves if type(x) is Tensor]
        with _variables_read() as read:
            answer = f(*nest.rebuild(structure, leaves), **kwargs)
            if not (isinstance(answer, tuple) and len(answer) == 2 and callable(answer[1])):
                raise user_error(TypeError, f"custom_gradient: {f.__name__} must return (y, grad_fn)")
            results, out_structure = nest.flatten(answer[0])
            values = [tensor(y) for y in results]
            given = kwargs.values()
            variables = [v for v in read() if not any(v is x for x in given)]
        if variables and not _takes_variables(answer[1]):
            raise user_error(TypeError, f"custom_gradient: the gradient function of {f.__name__} must accept the "
                                        f"keyword argument 'variables', since the function uses variables: "
                                        f"{', '.join(v.name for v in variables)}")
        operands += [backend.current().read(v) for v in variables]
        rule = _rule(f.__name__, answer[1], len(values), len(operands) - len(variables), variables)
        return nest.rebuild(out_structure, cut([*values, *operands], len(values), rule))
    return decorated


def cut(operands: list[Any], count: int, rule: Callable[..., list[Any]]) -> list[Any]:
    """The first ``count`` operands again, as Tensors of their own whose gradient the rule says."""
    row = _row(operands, count, rule)
    if row is not None:
        outs = dispatch(*row)
        return list(outs) if isinstance(outs, tuple) else [outs]
    if not machine.get_state(layout.S_RECORDERS):
        return operands[:count]
    with aside():
        copies = [composite.identity(t) for t in operands[:count]]
    made = _cut_form(tuple(AVALS[t._aval] for t in operands), tuple(AVALS[t._aval] for t in copies))
    machine.append_cut(made.address, tuple(operands), tuple(copies), rule)
    return copies


def _row(operands: list[Any], count: int, rule: Callable[..., list[Any]]) -> tuple[Form, list[Any]] | None:
    """The cut as a row, where something records that; its rule is recorded now, with what it takes from around."""
    recordings = list(tracings())
    try:
        return cut_row(operands, count, rule) if recordings or any(map(is_dry, operands)) else None
    except Exception as error:                       # of a rule that has to see numbers, or is never to be asked
        if not all(map(has_numbers, operands)):
            raise
        for recording in recordings:
            recording.not_replayable = f"the rule of a custom_gradient cannot be recorded ({error})"
        return None


def _takes_variables(grad_fn: Callable[..., Any]) -> bool:
    try:
        taken = inspect.signature(grad_fn).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.name == "variables" or p.kind is p.VAR_KEYWORD for p in taken)


def _rule(name: str, grad_fn: Callable[..., Any], values: int, count: int,
          variables: Sequence[Any]) -> Callable[..., list[Any]]:
    def rule(*dy: Any) -> list[Any]:
        if variables:
            given, for_variables = grad_fn(*dy, variables=list(variables))
        else:
            given, for_variables = grad_fn(*dy), []
        leaves = nest.flatten(given)[0]
        if len(leaves) != count:
            raise user_error(ValueError, f"custom_gradient: the gradient function of {name} is expected to return "
                                         f"{count} gradients, but returned {len(leaves)}: too few gradients or too "
                                         f"many")
        if len(for_variables) != len(variables):
            raise user_error(ValueError, f"custom_gradient: the gradient function of {name} must return a gradient for "
                                         f"each of {len(variables)} variables, but returned {len(for_variables)}")
        return [None] * values + [None if g is None else tensor(g) for g in (*leaves, *for_variables)]
    return rule


@contextmanager
def _variables_read() -> Iterator[Callable[[], list[Any]]]:
    """What is yielded tells which trainable Variables the block has read, if anything records it."""
    tape = machine.Tape()
    watching = bool(machine.get_state(layout.S_RECORDERS) or active())
    if watching:
        machine.tape_start(tape)
    try:
        yield lambda: machine.tape_variables(tape) if watching else []
    finally:
        machine.tape_release(tape)
        machine.tape_stop(tape)


def stop_gradient(x: Any) -> Any:
    """``x`` as a constant: no gradient passes, and what is upstream is not even visited."""
    leaves, structure = nest.flatten(x)
    return nest.rebuild(structure, [ops.stop_gradient(tensor(t)) for t in leaves])
