"""A Program as a row of another: `call`, its derivative, and its inlining."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.form import Form, form
from jitgrad.core.primitive import BY_NAME, Kind, define
from jitgrad.core.program import Program
from jitgrad.core.record import dispatch
from jitgrad.transform.vjp import vjp


def _aval(*operands: Aval, program: Program) -> tuple[Aval, ...]:
    return tuple(program.aval(v) for v in program.results.tolist())


def _ref(*arrays: Any, program: Program) -> Any:
    raise TypeError("the oracle runs the rows of a call, not the call")


def _vjp(g: Any, ans: Any, *operands: Any, program: Program, want: Sequence[int]) -> list[Any]:
    gs = g if isinstance(g, tuple) else (g,)
    live = tuple(i for i, t in enumerate(gs) if t is not None)
    back, kept = _pulled(program, tuple(want), live)
    out: list[Any] = [None] * len(operands)
    if kept:
        given = [*operands, *(gs[i] for i in live)]        # of many dtypes, which stay: no promotion
        pulled = dispatch(form(CALL, [AVALS[t._aval] for t in given], {"program": back}), given)
        for k, ct in zip(kept, pulled if isinstance(pulled, tuple) else (pulled,), strict=True):
            out[k] = ct
    return out


@functools.lru_cache(maxsize=512)
def _pulled(program: Program, want: tuple[int, ...], live: tuple[int, ...]) -> tuple[Program, list[int]]:
    """The vjp for cotangents of some results, with the results that are None left out; which operands are left."""
    back = vjp(with_results(program, [int(program.results[i]) for i in live]), want)
    kept = [i for i, v in enumerate(back.results.tolist()) if v >= 0]
    return with_results(back, [int(back.results[i]) for i in kept]), [want[i] for i in kept]


def with_results(program: Program, results: Sequence[int]) -> Program:
    """The same rows with other results."""
    return Program.build([(made, operands, outs[0]) for made, operands, outs in program.rows()],
                         [AVALS[a] for a in program.avals.tolist()], program.inputs.tolist(), program.constants,
                         list(results))


def _call() -> None:
    """Run a Program: the row that an inner gradient, or a replayed function, leaves on an outer tape."""


define(_call, name="call", kind=Kind.HIGHER, vjp=_vjp, aval=_aval, ref=_ref, samples=None, operands=("*xs",),
       params=("program",), domains=("any",), partial=True)
CALL = BY_NAME["call"]


def inlined(program: Program) -> Program:
    """The Program with every call replaced by the rows it calls, to the last level."""
    if not (program.op == CALL.code).any():
        return program
    avals: list[Aval] = []
    rows: list[tuple[Form, tuple[int, ...], int]] = []
    constants: dict[int, Any] = {}
    number: dict[int, int] = {}

    def new(value: Aval) -> int:
        avals.append(value)
        return len(avals) - 1

    def copy(inner: Program, known: dict[int, int]) -> None:
        for v, t in inner.constants.items():
            known[v] = new(inner.aval(v))
            constants[known[v]] = t
        for made, operands, outs in inner.rows():
            given = tuple(known[v] for v in operands)
            if made.prim is CALL:
                called = made.params["program"]
                deeper = dict(zip(called.inputs.tolist(), given, strict=True))
                copy(called, deeper)
                known.update(zip(outs, (deeper[v] for v in called.results.tolist()), strict=True))
            else:
                known.update(zip(outs, [new(a) for a in made.outs], strict=True))
                rows.append((made, given, known[outs[0]]))

    for v in program.inputs.tolist():
        number[v] = new(program.aval(v))
    inputs = list(number.values())
    copy(program, number)
    return Program.build(rows, avals, inputs, constants,
                         [number[v] if v >= 0 else -1 for v in program.results.tolist()])
