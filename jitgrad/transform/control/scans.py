"""`scan`: a Program run a known number of times, over slices of what goes by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jitgrad.core.aval import Aval, aval
from jitgrad.core.dtypes import is_float
from jitgrad.core.errors import user_error
from jitgrad.core.primitive import Kind, define
from jitgrad.core.program import Program
from jitgrad.core.record import bind
from jitgrad.core.recorder import recorder_for
from jitgrad.ops.batching import Batch, moved
from jitgrad.transform.control.steps import (
    Adjoint,
    Step,
    adjoint,
    any_draws,
    batched,
    dual,
    keeping,
    widened,
)
from jitgrad.transform.residuals import results_of
from jitgrad.transform.tangent import zeros


def scan(operands: Sequence[Any], body: Program, consts: int, carry: int, length: int,
         reverse: bool = False) -> tuple[Any, ...]:
    """``body`` (consts, carry, x slices) -> (carry, y slices) run ``length`` times on (consts, carry, xs): the last
    carry, then the ys stacked. With ``reverse`` from the last slice to the first."""
    return bind("scan", operands, body=body, consts=consts, carry=carry, length=length, reverse=reverse)


def with_residuals(body: Program, consts: int, carry: int, wanted: Sequence[int]) -> Program:
    """A scan's body with more ys: what its derivative by the operands ``wanted`` will read, so that it does not run
    forward again."""
    step = Step(body, consts, carry)
    back = adjoint(step, tuple(wanted), _floats(step))
    return body if back is None else keeping(step, back.kept)[0].body


def _floats(step: Step) -> tuple[int, ...]:
    return tuple(r for r, a in enumerate(results_of(step.body)) if is_float(a.code))


def _aval(*operands: Aval, body: Program, consts: int, carry: int, length: int, reverse: bool) -> tuple[Aval, ...]:
    step = Step(body, consts, carry)
    for k, (given, taken) in enumerate(zip(operands, (body.aval(v) for v in body.inputs.tolist()), strict=True)):
        if given != (taken if k < step.first_x else aval(taken.code, (length, *taken.shape))):
            raise user_error(TypeError, f"scan: operand {k} is {given!r}, the body takes {taken!r}")
    outs = results_of(body)
    for r in range(carry):
        if outs[r] != step.input(consts + r):
            raise user_error(TypeError, f"scan: entry {r} of the carry is {step.input(consts + r)!r}, the body gives "
                                        f"{outs[r]!r}")
    return (*outs[:carry], *(aval(a.code, (length, *a.shape)) for a in outs[carry:]))


def _ref(run: Callable[..., Any], *arrays: np.ndarray, body: Program, consts: int, carry: int, length: int,
         reverse: bool) -> Any:
    step = Step(body, consts, carry)
    state = list(arrays[consts: step.first_x])
    ys = [np.zeros((length, *a.shape), a.dtype) for a in results_of(body)[carry:]]
    for i in reversed(range(length)) if reverse else range(length):
        out = run(body, [*arrays[:consts], *state, *(x[i] for x in arrays[step.first_x:])])
        state = out[:carry]
        for y, made in zip(ys, out[carry:], strict=True):
            y[i] = made
    return (*state, *ys)


def _vjp(g: Any, ans: Any, *operands: Any, body: Program, consts: int, carry: int, length: int, reverse: bool,
         want: Sequence[int]) -> list[Any]:
    gs, answers = (x if isinstance(x, tuple) else (x,) for x in (g, ans))
    step = Step(body, consts, carry)
    out: list[Any] = [None] * len(operands)
    back = adjoint(step, tuple(want), tuple(r for r, t in enumerate(gs) if t is not None))
    if back is None:
        return out
    recorder = recorder_for(next(t for t in gs if t is not None))
    given = [*operands[:consts], *(zeros(recorder, step.result(r)) if gs[r] is None else gs[r] for r in back.carry),
             *(zeros(recorder, step.input(k)) for k in back.consts),
             *_kept(step, back, answers, operands, length, reverse), *(operands[step.first_x + k] for k in back.xs),
             *(gs[carry + r] for r in back.live)]
    pulled = scan(given, back.step.body, consts, back.step.carry, length, not reverse)
    places = [*(consts + r for r in back.carry), *back.consts, *(step.first_x + k for k in back.slices)]
    for k, ct in zip(places, pulled, strict=True):
        out[k] = ct
    return out


def _kept(step: Step, back: Adjoint, answers: Sequence[Any], operands: Sequence[Any], length: int,
          reverse: bool) -> list[Any]:
    """The stacked values that the backward loop reads: among the answers, else from running forward again."""
    extended, at = keeping(step, back.kept)
    if extended is not step:
        answers = scan(operands, extended.body, step.consts, step.carry, length, reverse)
    return [answers[step.carry + k] for k in at]


def _jvp(ts: Sequence[Any], ans: Any, *operands: Any, body: Program, consts: int, carry: int, length: int,
         reverse: bool) -> Any:
    step = Step(body, consts, carry)
    made = dual(step, tuple(k for k, t in enumerate(ts) if t is not None))
    recorder = recorder_for(next(t for t in ts if t is not None))
    moving = [zeros(recorder, step.result(r)) if ts[consts + r] is None else ts[consts + r] for r in made.carry]
    given = [*operands[:consts], *(t for t in ts[:consts] if t is not None), *operands[consts: step.first_x], *moving,
             *operands[step.first_x:], *(t for t in ts[step.first_x:] if t is not None)]
    pushed = scan(given, made.step.body, made.step.consts, made.step.carry, length, reverse)
    out: list[Any] = [None] * len(body.results)
    for i, r in enumerate(made.carry):
        out[r] = pushed[carry + i]
    for i, y in enumerate(made.ys):
        out[carry + y] = pushed[made.step.carry + step.ys + i]
    return tuple(out) if isinstance(ans, tuple) else out[0]


def _batch(flags: Sequence[bool], size: int, *operands: Any, body: Program, consts: int, carry: int, length: int,
           reverse: bool) -> Batch:
    step = Step(body, consts, carry)
    made, moving, left = batched(step, tuple(flags), size)
    given = list(operands)
    for r, has in enumerate(moving):
        if has and not flags[consts + r]:
            given[consts + r] = widened(given[consts + r], size)
    for k in range(step.first_x, len(given)):
        if flags[k]:
            given[k] = moved(given[k], 0, 1)             # the axis that is gone along stands in front
    out = list(scan(given, made, consts, carry, length, reverse))
    for y, has in enumerate(left):
        if has:
            out[carry + y] = moved(out[carry + y], 1, 0)
    return tuple(out), (*moving, *left)


def _draws(body: Program, **params: Any) -> bool:
    return any_draws(body)


def _scan() -> None:
    """Run a Program a number of times, each on what the run before it left."""


define(_scan, name="scan", kind=Kind.HIGHER, vjp=_vjp, aval=_aval, ref=_ref, samples=None,
       operands=("*xs",), params=("body", "consts", "carry", "length", "reverse"), domains=("any",), partial=True,
       jvp=_jvp, batch=_batch, draws=_draws, runner="control")
