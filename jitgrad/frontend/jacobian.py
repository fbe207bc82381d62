"""Jacobians: the backward Plan run once per target element in a compiled loop, or vmapped where that is recorded."""

from __future__ import annotations

import functools
import math
from typing import Any

from jitgrad import ops
from jitgrad.core import nest
from jitgrad.core.aval import AVALS, aval
from jitgrad.core.device import along
from jitgrad.core.dtypes import is_float
from jitgrad.core.errors import user_error
from jitgrad.core.recorder import active
from jitgrad.execute.cpu import types as machine
from jitgrad.execute.cpu.layout import ALONE, HAS_CUT, IN_TRACE, ON_TAPE
from jitgrad.execute.cpu.plans import plan_for
from jitgrad.execute.cpu.types import Tensor, Variable
from jitgrad.frontend import nans
from jitgrad.frontend.bodies import Recorded
from jitgrad.ops import composite, creation
from jitgrad.transform.higher import called
from jitgrad.transform.vmap import vmap


def jacobian(tape: Any, target: Any, sources: list[Any], per_example: bool) -> list[Any]:
    """One Jacobian (or None) per source; ``per_example``: the first axis of target and source is the batch."""
    if type(target) is Variable:
        sources = [target._value if s is target else s for s in sources]
        target = target._value
    if type(target) is not Tensor or not all(type(s) in (Tensor, Variable) for s in sources):
        raise user_error(ValueError, f"jacobian: the target must be one Tensor and the sources Tensors or Variables, "
                                     f"got {type(target).__name__}")
    shape = AVALS[target._aval].shape
    repeats = shape[0] if per_example else 1
    n = math.prod(shape[1:] if per_example else shape)
    seed = creation.zeros(shape, AVALS[target._aval].dtype) if is_float(AVALS[target._aval].code) else None
    if seed is None:
        return [None] * len(sources)
    status, words, _, values, hashed = machine.connect(tape, (target,), sources, (seed,))
    if status == HAS_CUT or nans.checking():
        return _row_by_row(tape, target, sources, shape, per_example, n)
    if status == ALONE or _matters(values) or any(v._data == 0 for v in values):
        return _vmapped(tape, target, sources, shape, per_example, n)
    plan = plan_for(words, values, hashed, 1, True, len(sources))
    inputs = tuple(values[i] for i in plan.inputs)
    outs: list[Any] = []
    for s, v in zip(sources, plan.program.results.tolist(), strict=True):
        if v < 0:
            outs.append(None)
            continue
        made = aval(AVALS[_value(s)._aval].code, (n, *s.shape))
        outs.append(machine.tensor_make(made.id, made.nbytes, made.size, made.code))
    machine.fill_rows(plan.address, inputs, seed._data, n, repeats, seed.dtype.itemsize, tuple(outs))
    return [None if o is None else _shaped(o, shape, s.shape, per_example)
            for o, s in zip(outs, sources, strict=True)]


def _value(source: Any) -> Any:
    return source._value if type(source) is Variable else source


def _matters(values: tuple[Any, ...]) -> bool:
    """A recording, or an outer tape, may want to know of this Jacobian."""
    return active() is not None or bool(machine.open_tapes(machine.thread_log())) and any(
        v._tracked & (ON_TAPE | IN_TRACE) for v in values)


def _shaped(stacked: Any, target: tuple[int, ...], source: tuple[int, ...], per_example: bool) -> Any:
    """From (elements, *source) to target.shape + source.shape, the batch axis in front."""
    order, shape = _layout(target, source, per_example)
    return ops.reshape(ops.permute_dims(stacked, order) if per_example else stacked, shape)


@functools.lru_cache(maxsize=4096)
def _layout(target: tuple[int, ...], source: tuple[int, ...],
            per_example: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The same objects at every call, so that the ops' inline caches know them."""
    return (1, 0, *range(2, len(source) + 1)), (*target, *source[1 if per_example else 0:])


def _vmapped(tape: Any, target: Any, sources: list[Any], shape: tuple[int, ...], per_example: bool,
             n: int) -> list[Any]:
    """The gradient recorded for one seed, then for all of them: one row that anybody can differentiate."""
    seed = AVALS[target._aval]
    body = Recorded(lambda g: tape._results([target], sources, [g]), nest.flatten((0,))[1], [seed])
    body.close(body.results)
    program = body.program([*body.inputs, *body.captured])
    inner, flags = vmap(program, [True] + [False] * len(body.captured), n)
    outs = iter([t if flag else ops.broadcast_to(t, (n, *t.shape)) for t, flag in
                 zip(called(inner, [_seeds(target, per_example, n), *body.captured]), flags, strict=True)])
    return [None if g is None else _shaped(next(outs), shape, s.shape, per_example)
            for g, s in zip(body.leaves, sources, strict=True)]


def _seeds(target: Any, per_example: bool, n: int) -> Any:
    """A seed for each element, stacked; of each example where that is asked for."""
    shape = AVALS[target._aval].shape
    unit = along(creation.eye(n, dtype=AVALS[target._aval].dtype), target)
    if per_example:
        unit = ops.broadcast_to(ops.reshape(unit, (n, 1, n)), (n, shape[0], n))
    return along(ops.reshape(unit, (n, *shape)), target)


def _row_by_row(tape: Any, target: Any, sources: list[Any], shape: tuple[int, ...], per_example: bool,
                n: int) -> list[Any]:
    """A gradient for each element, where a rule of the user's own, or a check of every row, is to see numbers."""
    seeds = _seeds(target, per_example, n)
    rows = [tape._results([target], sources, [seeds[e]]) for e in range(n)]
    out: list[Any] = []
    for row, s in zip(zip(*rows, strict=True), sources, strict=True):
        known = [g for g in row if g is not None]
        out.append(_shaped(composite.stack(known), shape, s.shape, per_example) if known else None)
    return out
