"""`while_loop`: a Program run as long as another says so, and what its derivatives are made of.

The number of iterations is data, so what they leave behind for a backward pass has no shape that a Program could
give it. Therefore the row has stages. The first runs as long as the condition holds; each later one runs the same
number of iterations, in the same or in the opposite order. Each has a carry of its own and may leave ys behind, which
stay inside the row, and read those of earlier stages. A plain loop has one stage. The vjp of a row has its stages and
one more for each, going the other way; its jvp has the same stages on pairs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jitgrad import ops
from jitgrad.core.aval import AVALS, Aval, aval
from jitgrad.core.dtypes import BOOL, INT32
from jitgrad.core.errors import user_error
from jitgrad.core.primitive import Kind, define
from jitgrad.core.program import Program
from jitgrad.core.record import bind
from jitgrad.core.recorder import Recorder, recorder_for
from jitgrad.ops.batching import Batch
from jitgrad.transform.control.steps import (
    Dual,
    Step,
    active,
    added,
    adjoint,
    any_draws,
    batched,
    chosen,
    dual,
    emit,
    keeping,
    widened,
)
from jitgrad.transform.residuals import results_of
from jitgrad.transform.tangent import zeros
from jitgrad.transform.vmap import vmap


class Stage(NamedTuple):
    """``body`` takes (consts, carry, xs) and gives (carry, ys); x number i is y number ``reads[i][1]`` of the stage
    ``reads[i][0]``, in the same iteration."""

    body: Program
    carry: int                           # a count
    reads: tuple[tuple[int, int], ...] = ()
    reverse: bool = False


def while_loop(operands: Sequence[Any], condition: Program, body: Program, consts: int) -> tuple[Any, ...]:
    """``body`` (consts, carry) -> carry run on (consts, carry) while ``condition`` (consts, carry) -> bool holds: the
    last carry, and how often it ran."""
    return staged(operands, condition, (Stage(body, len(operands) - consts),), consts)


def staged(operands: Sequence[Any], condition: Program, stages: Sequence[Stage], consts: int) -> tuple[Any, ...]:
    """The row: operands are what all stages read, then the carries of the stages."""
    return bind("while_loop", operands, condition=condition, stages=tuple(stages), consts=consts)


def steps_of(stages: Sequence[Stage], consts: int) -> list[Step]:
    return [Step(stage.body, consts, stage.carry) for stage in stages]


def firsts(stages: Sequence[Stage]) -> list[int]:
    """Position of each stage's carry among the carries of all, and how many there are."""
    out = [0]
    for stage in stages:
        out.append(out[-1] + stage.carry)
    return out


def _aval(*operands: Aval, condition: Program, stages: tuple[Stage, ...], consts: int) -> tuple[Aval, ...]:
    if [a.id for a in results_of(condition)] != [aval(0, ()).id]:
        raise user_error(TypeError, f"while_loop: the condition must give one bool, it gives {results_of(condition)}")
    outs: list[Aval] = []
    for stage, step in zip(stages, steps_of(stages, consts), strict=True):
        given = [*operands[:consts], *operands[consts + len(outs): consts + len(outs) + stage.carry]]
        taken = [step.input(k) for k in range(step.first_x)]
        made = list(results_of(stage.body)[: stage.carry])
        if given != taken or made != taken[consts:]:
            raise user_error(TypeError, f"while_loop: the body takes {taken} and gives {made}, the operands are "
                                        f"{given}")
        outs += made
    return (*outs, aval(INT32, ()))


def _ref(run: Callable[..., Any], *arrays: np.ndarray, condition: Program, stages: tuple[Stage, ...],
         consts: int) -> Any:
    common, first = arrays[:consts], firsts(stages)
    left: list[list[Any]] = []
    out: list[Any] = []
    n = 0
    for s, stage in enumerate(stages):
        state = list(arrays[consts + first[s]: consts + first[s + 1]])
        left.append([])
        if s == 0:
            while run(condition, [*common, *state])[0]:
                made = run(stage.body, [*common, *state])
                state = made[: stage.carry]
                left[0].append(made[stage.carry:])
                n += 1
        else:
            left[s] = [None] * n
            for i in reversed(range(n)) if stage.reverse else range(n):
                made = run(stage.body, [*common, *state, *(left[t][i][y] for t, y in stage.reads)])
                state = made[: stage.carry]
                left[s][i] = made[stage.carry:]
        out += state
    return (*out, np.int32(n))


# ---- reverse mode ----------------------------------------------------------------------------------

class Backward(NamedTuple):
    """The stages of a derivative, the new ones last.

    For each entry of their carries: its aval, and the position of the result whose cotangent it starts from (-1:
    zeros); and the position of the operand that its last value is a cotangent of.
    """

    stages: tuple[Stage, ...]
    starts: tuple[tuple[Aval, int], ...]
    places: tuple[int, ...]


def _vjp(g: Any, ans: Any, *operands: Any, condition: Program, stages: tuple[Stage, ...], consts: int,
         want: Sequence[int]) -> list[Any]:
    gs = g if isinstance(g, tuple) else (g,)
    out: list[Any] = [None] * len(operands)
    back = _backward(stages, consts, tuple(want), tuple(t is not None for t in gs))
    if len(back.stages) == len(stages):
        return out
    recorder = recorder_for(next(t for t in gs if t is not None))
    starts = [zeros(recorder, a) if r < 0 or gs[r] is None else gs[r] for a, r in back.starts]
    made = staged([*operands, *starts], condition, back.stages, consts)
    for k, ct in zip(back.places, made[firsts(stages)[-1]: -1], strict=True):
        out[k] = ct if out[k] is None else ops.add(out[k], ct)
    return out


@functools.lru_cache(maxsize=512)
def _backward(stages: tuple[Stage, ...], consts: int, want: tuple[int, ...], live: tuple[bool, ...]) -> Backward:
    steps, first = steps_of(stages, consts), firsts(stages)
    wanted = _wanted(stages, steps, want)
    made, starts, places = list(stages), [], []
    left: dict[tuple[int, int], list[tuple[int, int]]] = {}          # of a stage's y: the ys that are its cotangents
    for s in reversed(range(len(stages))):
        step, stage = steps[s], stages[s]
        seeds = [r for r in range(stage.carry) if live[first[s] + r]]
        seeds += [stage.carry + y for y in range(step.ys) if (s, y) in left]
        back = adjoint(step, wanted[s], tuple(seeds))
        if back is None:
            continue
        extended, at = keeping(step, back.kept)
        made[s] = stage._replace(body=extended.body)
        streams = [left[s, y] for y in back.live]
        reads = [*((s, y) for y in at), *(stage.reads[x] for x in back.xs), *(r for group in streams for r in group)]
        for y, x in enumerate(back.slices):
            left.setdefault(stage.reads[x], []).append((len(made), y))
        made.append(Stage(_summed(back.step, [len(group) for group in streams]), back.step.carry, tuple(reads),
                          not stage.reverse))
        starts += [(step.result(r), first[s] + r) for r in back.carry] + [(step.input(k), -1) for k in back.consts]
        places += [consts + first[s] + r for r in back.carry] + list(back.consts)
    return Backward(tuple(made), tuple(starts), tuple(places))


def _wanted(stages: Sequence[Stage], steps: Sequence[Step], want: Sequence[int]) -> list[tuple[int, ...]]:
    """Of each stage, the positions of the inputs that depend on the operands ``want``."""
    out: list[tuple[int, ...]] = []
    depends: list[list[int]] = []                    # ys, by stage
    first = firsts(stages)
    for stage, step, start in zip(stages, steps, first[:-1], strict=True):
        mine = [k for k in want if k < step.consts]
        mine += [k - start for k in want if step.consts <= k - start < step.first_x]
        mine += [step.first_x + i for i, (t, y) in enumerate(stage.reads) if y in depends[t]]
        out.append(tuple(mine))
        depends.append([r - stage.carry for r in active(step, mine)[1] if r >= stage.carry])
    return out


def _summed(step: Step, counts: Sequence[int]) -> Program:
    """The body with each of its last xs as the sum of so many."""
    if all(n == 1 for n in counts):
        return step.body
    recorder = Recorder()
    inputs = [step.input(k) for k in range(len(step.body.inputs))]
    plain = len(inputs) - len(counts)
    given = [recorder.input(a) for a in inputs[:plain]]
    for a, n in zip(inputs[plain:], counts, strict=True):
        parts = [recorder.input(a) for _ in range(n)]
        given.append(functools.reduce(functools.partial(added, recorder), parts))
    return recorder.program(emit(recorder, step.body, given))


# ---- forward mode ----------------------------------------------------------------------------------

def _jvp(ts: Sequence[Any], ans: Any, *operands: Any, condition: Program, stages: tuple[Stage, ...],
         consts: int) -> Any:
    given = tuple(k for k, t in enumerate(ts) if t is not None)
    pairs, carries, wider = _pushed(condition, stages, consts, given)
    recorder = recorder_for(next(t for t in ts if t is not None))
    first = firsts(stages)
    known = [*operands[:consts], *(t for t in ts[:consts] if t is not None)]
    common = len(known)
    for s, live in enumerate(carries):
        known += operands[consts + first[s]: consts + first[s + 1]]
        for r in live:
            k = consts + first[s] + r
            known.append(zeros(recorder, AVALS[operands[k]._aval]) if ts[k] is None else ts[k])
    made = staged(known, wider, pairs, common)
    out: list[Any] = [None] * (first[-1] + 1)
    at = 0
    for s, live in enumerate(carries):
        at += stages[s].carry
        for r in live:
            out[first[s] + r] = made[at]
            at += 1
    return tuple(out) if isinstance(ans, tuple) else out[0]


@functools.lru_cache(maxsize=512)
def _pushed(condition: Program, stages: tuple[Stage, ...], consts: int,
            given: tuple[int, ...]) -> tuple[tuple[Stage, ...], list[tuple[int, ...]], Program]:
    """The stages on values and tangents, which of their carries have tangents, and the condition beside those."""
    first, common = firsts(stages), [k for k in given if k < consts]
    made: list[Stage] = []
    duals: list[Dual] = []
    for s, (stage, step) in enumerate(zip(stages, steps_of(stages, consts), strict=True)):
        start = first[s]
        moving = [k - start for k in given if consts <= k - start < step.first_x]
        read = [i for i, (t, y) in enumerate(stage.reads) if y in duals[t].ys]
        pair = dual(step, (*common, *moving, *(step.first_x + i for i in read)))
        tangents = [(t, Step(stages[t].body, consts, stages[t].carry).ys + duals[t].ys.index(y))
                    for t, y in (stage.reads[i] for i in read)]
        made.append(Stage(pair.step.body, pair.step.carry, (*stage.reads, *tangents), stage.reverse))
        duals.append(pair)
    recorder = Recorder()
    step = duals[0].step
    values = [recorder.input(step.input(k)) for k in range(step.first_x)]
    wider = recorder.program(emit(recorder, condition, [
        *values[:consts], *values[step.consts: step.consts + stages[0].carry]]))
    return tuple(made), [pair.carry for pair in duals], wider


# ---- batches ---------------------------------------------------------------------------------------

def _batch(flags: Sequence[bool], size: int, *operands: Any, condition: Program, stages: tuple[Stage, ...],
           consts: int) -> Batch:
    made, moving, wider, masked = _batched(condition, stages, consts, tuple(flags), size)
    given = list(operands)
    for k, has in enumerate(moving, consts):
        if has and not flags[k]:
            given[k] = widened(given[k], size)
    if not masked:
        return staged(given, wider, made, consts), (*moving, False)
    counted = consts + stages[0].carry
    start = zeros(recorder_for(operands[0]), aval(INT32, (size,)))
    out = list(staged([*given[:counted], start, *given[counted:]], wider, made, consts))
    out[-1] = out.pop(stages[0].carry)
    return tuple(out), (*moving, True)


@functools.lru_cache(maxsize=512)
def _batched(condition: Program, stages: tuple[Stage, ...], consts: int, flags: tuple[bool, ...],
             size: int) -> tuple[tuple[Stage, ...], tuple[bool, ...], Program, bool]:
    """The stages for all examples, which entries of their carries have a batch axis, the condition, and whether that
    differs from example to example.

    If so, all go on until the last is done: those that are done stay as they are, and the first stage counts for each.
    """
    steps, first = steps_of(stages, consts), firsts(stages)
    common = flags[:consts]
    _, moving, _ = batched(steps[0], flags[: steps[0].first_x], size)
    each, (masked,) = vmap(condition, (*common, *moving), size)
    if masked:
        each, _ = vmap(condition, (*common, *(True,) * stages[0].carry), size)
    made: list[Stage] = []
    carries: list[bool] = []
    left: list[tuple[bool, ...]] = []
    for s, (stage, step) in enumerate(zip(stages, steps, strict=True)):
        mine = (True,) * stage.carry if masked else flags[consts + first[s]: consts + first[s + 1]]
        body, moving, ys = batched(step, (*common, *mine, *(left[t][y] for t, y in stage.reads)), size)
        if masked:
            whole = Step(body, consts, stage.carry)
            made.append(_masked_first(whole, each, size) if s == 0 else Stage(
                _masked(whole, size), stage.carry, (*stage.reads, (0, steps[0].ys)), stage.reverse))
        else:
            made.append(stage._replace(body=body))
        carries += moving
        left.append(ys)
    return tuple(made), tuple(carries), _whole(each, size) if masked else each, masked


def _whole(each: Program, size: int) -> Program:
    """Whether any example goes on; the last entry of the carry counts its iterations."""
    with Recorder() as recorder:
        given = [recorder.input(each.aval(v)) for v in each.inputs.tolist()]
        recorder.input(aval(INT32, (size,)))
        (goes_on,) = emit(recorder, each, given)
        return recorder.program([ops.reshape(ops.reduce_max(goes_on, axes=(0,)), ())])


def _masked_first(step: Step, each: Program, size: int) -> Stage:
    with Recorder() as recorder:
        given = [recorder.input(step.input(k)) for k in range(step.first_x)]
        count = recorder.input(aval(INT32, (size,)))
        (goes_on,) = emit(recorder, each, given)
        out = emit(recorder, step.body, given)
        carry = [chosen(goes_on, x, y) for x, y in zip(out, given[step.consts:], strict=False)]
        carry.append(count + ops.cast(goes_on, dtype="int32"))
        return Stage(recorder.program([*carry, *out[step.carry:], goes_on]), step.carry + 1)


def _masked(step: Step, size: int) -> Program:
    with Recorder() as recorder:
        given = [recorder.input(step.input(k)) for k in range(len(step.body.inputs))]
        goes_on = recorder.input(aval(BOOL, (size,)))
        out = emit(recorder, step.body, given)
        carry = [chosen(goes_on, x, y) for x, y in
                 zip(out[: step.carry], given[step.consts: step.first_x], strict=True)]
        return recorder.program([*carry, *out[step.carry:]])


def _draws(condition: Program, stages: tuple[Stage, ...], consts: int) -> bool:
    return any_draws(condition, *(stage.body for stage in stages))


def _while_loop() -> None:
    """Run a Program as long as another says so."""


define(_while_loop, name="while_loop", kind=Kind.HIGHER, vjp=_vjp, aval=_aval, ref=_ref, samples=None,
       operands=("*xs",), params=("condition", "stages", "consts"), domains=("any",), partial=True,
       jvp=_jvp, batch=_batch, draws=_draws, runner="control")
