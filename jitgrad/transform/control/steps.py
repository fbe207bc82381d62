"""One iteration of a loop as a Program, and what each transform makes of it.

A step's Program takes (consts, carry, xs) and gives (carry, ys): what all iterations read, what each hands to the
next, and its slice of what goes by. Loops of every sort are transformed step by step.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jitgrad import ops
from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.dtypes import is_float
from jitgrad.core.form import form
from jitgrad.core.primitive import BY_NAME
from jitgrad.core.program import Program
from jitgrad.core.recorder import Recorder
from jitgrad.ops.batching import behind
from jitgrad.transform.jvp import jvp
from jitgrad.transform.prune import pruned
from jitgrad.transform.residuals import with_results
from jitgrad.transform.tangent import zeros
from jitgrad.transform.vjp import pullback
from jitgrad.transform.vmap import draws, vmap


class Step(NamedTuple):
    """See the module; ``consts`` and ``carry`` are counts."""

    body: Program
    consts: int
    carry: int

    @property
    def first_x(self) -> int:
        """Position of the first x among the body's inputs."""
        return self.consts + self.carry

    @property
    def xs(self) -> int:
        return len(self.body.inputs) - self.first_x

    @property
    def ys(self) -> int:
        return len(self.body.results) - self.carry

    def input(self, position: int) -> Aval:
        return self.body.aval(int(self.body.inputs[position]))

    def result(self, position: int) -> Aval:
        return self.body.aval(int(self.body.results[position]))


def emit(recorder: Recorder, program: Program, operands: Sequence[Any]) -> list[Any]:
    """Append a Program's rows to a recording: its results for these operands, None where it has none."""
    assert [t._aval for t in operands] == program.avals[program.inputs].tolist(), "a Program on operands of others"
    known: dict[int, Any] = dict(zip(program.inputs.tolist(), operands, strict=True))
    known.update(program.constants)
    for made, ids, outs in program.rows():
        out = recorder.append(made, [known[v] for v in ids])
        known.update(zip(outs, out if isinstance(out, tuple) else (out,), strict=True))
    return [known[v] if v >= 0 else None for v in program.results.tolist()]


def added(recorder: Recorder, x: Any, y: Any) -> Any:
    """The sum of two Tensors of one aval, in a recording."""
    return recorder.append(form(BY_NAME["add"], [AVALS[x._aval]] * 2, {}), [x, y])


def needed_for(program: Program, results: Sequence[int]) -> Program:
    """The Program with other results, and without the rows that these do not need; those with an effect stay."""
    return pruned(with_results(program, results), keep_inputs=True, keep_effects=True)


def reached(program: Program, sources: Iterable[int]) -> set[int]:
    """The float values that depend on these."""
    found = set(sources)
    for made, operands, outs in program.rows():
        if made.differentiable and not found.isdisjoint(operands):
            found.update(v for v, a in zip(outs, made.outs, strict=True) if is_float(a.code))
    return found


def active(step: Step, wanted: Sequence[int]) -> tuple[list[int], list[int]]:
    """Positions of the body's inputs and results through which a loop's results depend on ``wanted`` inputs."""
    inputs, results = step.body.inputs.tolist(), step.body.results.tolist()
    sources = [k for k in wanted if is_float(step.input(k).code)]
    while True:
        depends = reached(step.body, [inputs[k] for k in sources])
        hit = [r for r, v in enumerate(results) if v in depends]
        more = [step.consts + r for r in hit if r < step.carry and step.consts + r not in sources]
        if not more:
            return sorted(sources), hit
        sources += more


# ---- reverse mode ----------------------------------------------------------------------------------

class Adjoint(NamedTuple):
    """The step of the backward loop.

    Its consts are the step's. Its carry: cotangents of the carry entries ``carry``, sums for the consts ``consts``.
    Its xs: the step's ``kept`` values, its xs ``xs``, cotangents of the ys ``live``. Its ys: cotangents of the xs
    ``slices``. Positions count from 0 within their group.
    """

    step: Step
    carry: tuple[int, ...]
    consts: tuple[int, ...]
    kept: tuple[int, ...]                # value ids of the forward body
    xs: tuple[int, ...]
    live: tuple[int, ...]
    slices: tuple[int, ...]


@functools.lru_cache(maxsize=512)
def adjoint(step: Step, wanted: tuple[int, ...], live: tuple[int, ...]) -> Adjoint | None:
    """The backward step for cotangents of the results ``live``, towards the inputs ``wanted`` (positions); None where
    there is nothing to pull back."""
    body = step.body
    sources, hit = active(step, wanted)
    # without iterations a carry entry is what it was, though an iteration may make it anew
    seeded = [r for r in live if r in hit or r < step.carry and step.consts + r in sources]
    while True:
        targets = [int(body.results[r]) for r in seeded]
        extra = [body.aval(v) for v in targets]
        back, saved = pullback(body, targets, [len(body.avals) + i for i in range(len(targets))],
                               [int(body.inputs[k]) for k in sources], extra)
        found = {k for k, v in zip(sources, back.results.tolist(), strict=True) if v >= 0}
        more = [k - step.consts for k in sorted(found) if step.consts <= k < step.first_x
                and k - step.consts not in seeded]
        if not more:
            break
        seeded = sorted(seeded + more)
    if not found and not any(step.consts + r in sources for r in seeded):
        return None
    return _backward(step, back, saved, sources, seeded)


def _backward(step: Step, back: Program, saved: Sequence[int], sources: Sequence[int],
              seeded: Sequence[int]) -> Adjoint:
    body = step.body
    place = {int(v): k for k, v in enumerate(body.inputs.tolist())}
    carry = tuple(r for r in seeded if r < step.carry)
    live = tuple(r - step.carry for r in seeded if r >= step.carry)
    kept = tuple(v for v in saved if v not in body.constants and (
        v not in place or step.consts <= place[v] < step.first_x))
    xs = tuple(place[v] - step.first_x for v in saved if place.get(v, -1) >= step.first_x)
    pulled = {k: int(v) for k, v in zip(sources, back.results.tolist(), strict=True) if v >= 0}
    consts = tuple(k for k in pulled if k < step.consts)
    slices = tuple(k - step.first_x for k in pulled if k >= step.first_x)

    recorder = Recorder()
    given: dict[int, Any] = dict(body.constants)
    for k in range(step.consts):
        given[int(body.inputs[k])] = recorder.input(step.input(k))
    seeds = {r: recorder.input(step.result(r)) for r in carry}
    sums = {k: recorder.input(step.input(k)) for k in consts}
    given.update((v, recorder.input(body.aval(v))) for v in kept)
    given.update((int(body.inputs[step.first_x + k]), recorder.input(step.input(step.first_x + k))) for k in xs)
    seeds.update((step.carry + r, recorder.input(step.result(step.carry + r))) for r in live)
    cotangents = dict(zip(sources, emit(recorder, back, [*(given[v] for v in saved), *(seeds[r] for r in seeded)]),
                          strict=True))
    out = [cotangents.get(step.consts + r) for r in carry]
    out = [zeros(recorder, step.result(r)) if t is None else t for r, t in zip(carry, out, strict=True)]
    out += [added(recorder, sums[k], cotangents[k]) for k in consts]
    out += [cotangents[step.first_x + k] for k in slices]
    made = pruned(recorder.program(out), keep_inputs=True)
    return Adjoint(Step(made, step.consts, len(carry) + len(consts)), carry, consts, kept, xs, live, slices)


def keeping(step: Step, kept: Sequence[int]) -> tuple[Step, list[int]]:
    """The step with more ys, so that they hold all the values ``kept``; and which of its ys each of them is."""
    results = step.body.results.tolist()
    ys = results[step.carry:]
    for v in kept:
        if v not in ys:
            ys.append(v)
    if len(ys) > step.ys:
        step = _with_ys(step, tuple(ys))
    return step, [ys.index(v) for v in kept]


@functools.lru_cache(maxsize=512)
def _with_ys(step: Step, ys: tuple[int, ...]) -> Step:
    return Step(needed_for(step.body, [*step.body.results.tolist()[: step.carry], *ys]), step.consts, step.carry)


# ---- forward mode ----------------------------------------------------------------------------------

class Dual(NamedTuple):
    """A step on values and tangents: each group (consts, carry, xs, ys) is followed by the tangents of some of it."""

    step: Step
    carry: tuple[int, ...]
    ys: tuple[int, ...]


@functools.lru_cache(maxsize=512)
def dual(step: Step, given: tuple[int, ...]) -> Dual:
    """The step where the inputs ``given`` (positions) have tangents, and what of the carry has some in the end."""
    given = tuple(k for k in given if is_float(step.input(k).code))
    n = len(step.body.results)
    while True:
        both = jvp(step.body, given)
        live = [r for r in range(n) if both.results[n + r] >= 0]
        more = [step.consts + r for r in live if r < step.carry and step.consts + r not in given]
        if not more:
            break
        given = tuple(sorted([*given, *more]))
    recorder = Recorder()
    values: dict[int, Any] = {}
    tangents: dict[int, Any] = {}
    for first, last in ((0, step.consts), (step.consts, step.first_x), (step.first_x, len(step.body.inputs))):
        values.update((k, recorder.input(step.input(k))) for k in range(first, last))
        tangents.update((k, recorder.input(step.input(k))) for k in given if first <= k < last)
    out = emit(recorder, both, [*(values[k] for k in range(len(values))), *(tangents[k] for k in given)])
    carry = tuple(k - step.consts for k in given if step.consts <= k < step.first_x)
    ys = tuple(r - step.carry for r in live if r >= step.carry)
    moved = [zeros(recorder, step.result(r)) if out[n + r] is None else out[n + r] for r in carry]
    results = [*out[: step.carry], *moved, *out[step.carry: n], *(out[n + step.carry + y] for y in ys)]
    consts = step.consts + sum(k < step.consts for k in given)
    return Dual(Step(recorder.program(results), consts, step.carry + len(carry)), carry, ys)


# ---- batches ---------------------------------------------------------------------------------------

@functools.lru_cache(maxsize=512)
def batched(step: Step, flags: tuple[bool, ...], size: int) -> tuple[Program, tuple[bool, ...], tuple[bool, ...]]:
    """The step's body for ``size`` examples where these inputs have a batch axis; which of the carry and which ys have
    one in the end."""
    moving = list(flags)
    while True:
        body, out = vmap(step.body, moving, size)
        more = [step.consts + r for r in range(step.carry) if out[r] and not moving[step.consts + r]]
        if not more:
            break
        for k in more:
            moving[k] = True
    carry = tuple(moving[step.consts: step.first_x])
    with Recorder() as recorder:
        given = [recorder.input(body.aval(v)) for v in body.inputs.tolist()]
        made = emit(recorder, body, given)
        for r in range(step.carry):
            if carry[r] and not out[r]:
                made[r] = widened(made[r], size)
        return recorder.program(made), carry, tuple(out[step.carry:])


def widened(x: Any, size: int) -> Any:
    """A Tensor once for each example."""
    return ops.broadcast_to(x, (size, *x.shape))


def chosen(pred: Any, x: Any, y: Any) -> Any:
    """For each example ``x`` or ``y``, as its ``pred`` says."""
    return ops.where(behind(pred, len(x.shape) - 1), x, y)


@functools.lru_cache(maxsize=512)
def any_draws(*programs: Program) -> bool:
    """Whether rows of these draw random numbers."""
    return any(draws(made) for program in programs for made, _, _ in program.rows())
