"""Batching as Program -> Program: the rows for one example become rows for all of them, batch axes in front."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from jitgrad import ops
from jitgrad.core import backend
from jitgrad.core.aval import AVALS, MAX_DIMENSIONS, Aval, aval
from jitgrad.core.errors import user_error
from jitgrad.core.form import Form, form
from jitgrad.core.primitive import Kind, Primitive
from jitgrad.core.program import Program
from jitgrad.core.record import dispatch, replay
from jitgrad.core.recorder import Recorder
from jitgrad.ops.batching import Batch, behind, spread


def vmap(program: Program, batched: Sequence[bool], size: int) -> tuple[Program, tuple[bool, ...]]:
    """The Program for ``size`` examples, and which of its results have a batch axis.

    Inputs that are ``batched`` get an axis of length ``size`` in front, results that depend on them (or on random
    numbers, of which each example draws its own) have one. Rows that are the same for all examples stay as they are.
    Raises LookupError for a row without a rule, ValueError where more dimensions than a Tensor has would be needed,
    TypeError where a row with an effect would depend on the example.
    """
    if len(batched) != len(program.inputs):
        raise ValueError(f"vmap: {len(batched)} flags for {len(program.inputs)} inputs")
    return _vmapped(program, tuple(map(bool, batched)), size)


@functools.lru_cache(maxsize=512)
def _vmapped(program: Program, batched: tuple[bool, ...], size: int) -> tuple[Program, tuple[bool, ...]]:
    with Recorder() as recorder:
        values: dict[int, Any] = {}                  # of the Program, as dry Tensors of the new one
        has: set[int] = set()                        # those with a batch axis
        for v, flag in zip(program.inputs.tolist(), batched, strict=True):
            have = program.aval(v)
            values[v] = recorder.input(_wider("an input", have, size) if flag else have)
            if flag:
                has.add(v)
        for v, t in program.constants.items():       # dry as well, so that rules compute nothing with them
            values[v] = backend.current().dry(program.aval(v), recorder.number(t), recorder)
        for made, operands, outs in program.rows():
            flags = tuple(v in has for v in operands)
            given = [values[v] for v in operands]
            if any(flags) or draws(made):
                answers, batches = batched_row(made, flags, size, given)
            else:
                answer = recorder.append(made, given)
                answers, batches = (answer,) if len(outs) == 1 else answer, (False,) * len(outs)
            values.update(zip(outs, answers, strict=True))
            has.update(v for v, flag in zip(outs, batches, strict=True) if flag)
        results = program.results.tolist()
        return recorder.program([values.get(v) for v in results]), tuple(v in has for v in results)


@functools.lru_cache(maxsize=512)
def whole(program: Program, size: int) -> Program:
    """The Program for ``size`` examples, all of whose inputs and results have a batch axis."""
    inner, flags = vmap(program, [True] * len(program.inputs), size)
    if all(flag or v < 0 for flag, v in zip(flags, program.results.tolist(), strict=True)):
        return inner
    with Recorder() as recorder:
        found = replay(inner, [recorder.input(inner.aval(v)) for v in inner.inputs.tolist()])
        return recorder.program([t if flag or t is None else ops.broadcast_to(t, (size, *t.shape))
                                 for t, flag in zip(found, flags, strict=True)])


def draws(made: Form) -> bool:
    """Whether a row draws random numbers, so that it differs from example to example in any case."""
    return made.prim.draws is not None and made.prim.draws(**made.params)


def _wider(what: str, have: Aval, size: int) -> Aval:
    if have.ndim >= MAX_DIMENSIONS:
        raise user_error(ValueError, f"vmap: {what} has shape {have.shape} for one example; with the batch axis it "
                                     f"would have more than {MAX_DIMENSIONS} dimensions")
    return aval(have.code, (size, *have.shape))


def batchable(prim: Primitive) -> bool:
    """Whether an entry, or its kind, has a batching rule."""
    return prim.batch is not None or prim.kind in _RULES


def batched_row(made: Form, batched: tuple[bool, ...], size: int, operands: Sequence[Any]) -> Batch:
    """The outputs of a row for all examples, by the rule of its entry or of its kind."""
    prim = made.prim
    for out in made.outs:
        _wider(f"a result of {prim.name}", out, size)
    if prim.batch is not None:
        return prim.batch(batched, size, *operands, **made.params)
    rule = _RULES.get(prim.kind)
    if rule is None and prim.kind is Kind.EFFECT:
        raise user_error(TypeError, f"vmap: {prim.name} would have to do something else for each example: a number was "
                                    "read from a batched value, or one was assigned; use where or cond, and return "
                                    "what is to be kept")
    if rule is None:
        raise user_error(LookupError, f"{prim.name}: has no batching rule (operands "
                                      f"{' and '.join(map(repr, made.avals))})")
    return (rule(made, batched, size, operands),), (True,)


# ---- by kind -------------------------------------------------------------------------------------

def _again(made: Form, operands: Sequence[Any], **params: Any) -> Any:
    """The same entry on other operands, with some other params."""
    return dispatch(form(made.prim, [AVALS[t._aval] for t in operands], {**made.params, **params}), operands)


def _elementwise(made: Form, batched: Sequence[bool], size: int, operands: Sequence[Any]) -> Any:
    """Operands broadcast from behind: a batched one gets the axes that it lacks behind its batch axis."""
    ndim = made.outs[0].ndim
    return _again(made, [behind(x, ndim) if has else x for x, has in zip(operands, batched, strict=True)])


def _reduction(made: Form, batched: Sequence[bool], size: int, operands: Sequence[Any]) -> Any:
    return _again(made, operands, axes=tuple(a + 1 for a in made.params["axes"]))


def _scan(made: Form, batched: Sequence[bool], size: int, operands: Sequence[Any]) -> Any:
    return _again(made, spread(batched, size, *operands), axis=made.params["axis"] + 1)


_RULES = {Kind.ELEMENTWISE: _elementwise, Kind.REDUCE: _reduction, Kind.SCAN: _scan}
