"""A Program as a row of another: `call`, its derivatives, and its inlining.

An entry of kind HIGHER whose first parameter is ``program`` runs that Program once, on the row's operands.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad.core.aval import Aval
from jitgrad.core.form import FORMS
from jitgrad.core.primitive import BY_NAME, Kind, Primitive, define
from jitgrad.core.program import Program
from jitgrad.core.record import bind
from jitgrad.ops.batching import Batch
from jitgrad.transform.jvp import pushforward
from jitgrad.transform.residuals import completed, results_of, with_results
from jitgrad.transform.rows import Rows
from jitgrad.transform.vjp import pullback
from jitgrad.transform.vmap import draws, vmap


def runs_program(prim: Primitive) -> bool:
    """Whether rows of an entry run the Program in their params; see the module."""
    return prim.kind is Kind.HIGHER and prim.params[:1] == ("program",)


def shapes(*operands: Aval, program: Program) -> tuple[Aval, ...]:
    """The shape rule of an entry that runs a Program, all of whose results are there."""
    return results_of(program)


def no_reference(*arrays: Any, **params: Any) -> Any:
    """The reference of an entry that runs a Program: there is none, the oracle runs the rows."""
    raise TypeError("the oracle runs the rows of a call, not the call")


def called(program: Program, operands: Sequence[Any]) -> tuple[Any, ...]:
    """Results of a Program, all of which are there, as one `call` row; operands of many dtypes stay what they are."""
    return bind("call", operands, program=program) if len(program.results) else ()


def _vjp(g: Any, ans: Any, *operands: Any, program: Program, want: Sequence[int]) -> list[Any]:
    gs, answers = (g, ans) if isinstance(g, tuple) else ((g,), (ans,))
    live = tuple(i for i, t in enumerate(gs) if t is not None)
    back, reads, kept = _pulled(program, tuple(want), live)
    return _derived(back, reads, kept, (*operands, *answers, *(gs[i] for i in live)), len(operands))


def _jvp(ts: Sequence[Any], ans: Any, *operands: Any, program: Program) -> Any:
    answers = ans if isinstance(ans, tuple) else (ans,)
    given = tuple(k for k, t in enumerate(ts) if t is not None)
    tangents, reads, kept = _pushed(program, given)
    out = _derived(tangents, reads, kept, (*operands, *answers, *(ts[k] for k in given)), len(answers))
    return tuple(out) if isinstance(ans, tuple) else out[0]


def _derived(program: Program, reads: list[int], kept: list[int], known: Sequence[Any], count: int) -> list[Any]:
    """Derivatives of ``count`` values, of which those in ``kept`` have one."""
    out: list[Any] = [None] * count
    if kept:
        for k, t in zip(kept, called(program, [known[i] for i in reads]), strict=True):
            out[k] = t
    return out


@functools.lru_cache(maxsize=512)
def _pulled(program: Program, want: tuple[int, ...], live: tuple[int, ...]) -> tuple[Program, list[int], list[int]]:
    """The vjp for cotangents of some results: a Program of what `completed` says, and which operands have one."""
    targets = [int(program.results[i]) for i in live]
    seeds = [len(program.avals) + i for i in range(len(live))]
    back, saved = pullback(program, targets, seeds, [int(program.inputs[k]) for k in want],
                           [program.aval(t) for t in targets])
    return _complete(program, back, saved, want)


@functools.lru_cache(maxsize=512)
def _pushed(program: Program, given: tuple[int, ...]) -> tuple[Program, list[int], list[int]]:
    """The same for tangents of some operands, and which results have one."""
    results = program.results.tolist()
    tangents, saved = pushforward(program, results, [int(program.inputs[k]) for k in given])
    return _complete(program, tangents, saved, range(len(results)))


def _complete(program: Program, derived: Program, saved: Sequence[int], places: Sequence[int],
              ) -> tuple[Program, list[int], list[int]]:
    kept = [i for i, v in enumerate(derived.results.tolist()) if v >= 0]
    derived = with_results(derived, [int(derived.results[i]) for i in kept])
    return *completed(program, derived, saved), [places[i] for i in kept]


def _batch(batched: Sequence[bool], size: int, *operands: Any, program: Program) -> Batch:
    inner, flags = vmap(program, batched, size)
    return bind("call", operands, program=inner), flags


@functools.lru_cache(maxsize=512)
def _draws(program: Program) -> bool:
    return any(draws(made) for made, _, _ in program.rows())


def _call() -> None:
    """Run a Program: the row that an inner gradient, or a replayed function, leaves on an outer tape."""


define(_call, name="call", kind=Kind.HIGHER, vjp=_vjp, jvp=_jvp, aval=shapes, ref=no_reference, samples=None,
       operands=("*xs",), params=("program",), domains=("any",), partial=True, batch=_batch, draws=_draws)
CALL = BY_NAME["call"]


def inlined(program: Program) -> Program:
    """The Program with every row that runs a Program replaced by that Program's rows, to the last level."""
    held = any(runs_program(FORMS[f].prim) for f in np.unique(program.attr).tolist())
    return rewritten(program, Rows()) if held else program


def rewritten(program: Program, rows: Rows) -> Program:
    """All rows given anew to ``rows``, in the place of a row that runs a Program its rows; inputs are the first values.
    """
    known = [-1] * len(program.avals)
    for v in program.inputs.tolist():
        known[v] = rows.value(int(program.avals[v]))
    _walk(program, known, rows, "")
    return rows.program(range(len(program.inputs)), [known[v] if v >= 0 else -1 for v in program.results.tolist()])


def _walk(program: Program, known: list[int], rows: Rows, line: str) -> None:
    """``known``: from the Program's values to those of ``rows``."""
    for v, t in program.constants.items():
        known[v] = rows.constant(t)
    first, operands, outs = program.first_operand.tolist(), program.operands.tolist(), program.first_out.tolist()
    for r, f in enumerate(program.attr.tolist()):
        ids = tuple([known[v] for v in operands[first[r]: first[r + 1]]])
        if program.lines:
            line = program.lines[r]
        made = FORMS[f]
        out = outs[r]
        called = made.params["program"] if runs_program(made.prim) else rows.instead(f, ids)
        if called is not None:
            deeper = [-1] * len(called.avals)
            for v, i in zip(called.inputs.tolist(), ids, strict=True):
                deeper[v] = i
            _walk(called, deeper, rows, line)
            for k, v in enumerate(called.results.tolist()):
                known[out + k] = deeper[v]
        else:
            new = rows.row(f, ids, line)
            for k in range(len(made.outs)):
                known[out + k] = new + k
