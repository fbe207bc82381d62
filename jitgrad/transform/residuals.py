"""What a row that runs a Program leaves for its derivatives: nothing is computed again that is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jitgrad.core.aval import Aval
from jitgrad.core.dtypes import is_float
from jitgrad.core.program import Program
from jitgrad.transform.prune import pruned
from jitgrad.transform.vjp import joined, pullback


def with_results(program: Program, results: Sequence[int]) -> Program:
    """The same rows with other results."""
    return Program(attr=program.attr, first_out=program.first_out, first_operand=program.first_operand,
                   operands=program.operands, avals=program.avals, inputs=program.inputs,
                   constants=program.constants, results=np.array(results, np.int32), lines=program.lines)


def results_of(program: Program) -> tuple[Aval, ...]:
    """Avals of the results, all of which are there."""
    return tuple(program.aval(v) for v in program.results.tolist())


def completed(program: Program, derived: Program, saved: Sequence[int]) -> tuple[Program, list[int]]:
    """``derived`` as a Program of what a row that ran ``program`` knows: its operands and its results.

    ``derived`` reads the primal values ``saved`` and inputs of its own. Rows of ``program`` come before it only for
    values that are neither inputs, constants nor results. Also returned: which of (inputs of ``program``..., results
    of ``program``..., own inputs of ``derived``...) are its inputs.
    """
    n, results = len(program.avals), program.results.tolist()
    known = {*program.inputs.tolist(), *program.constants}
    read = np.arange(n + len(results))           # which value is read in a value's place
    for i in reversed(range(len(results))):
        if results[i] not in known:
            read[results[i]] = n + i
    cut = Program(attr=program.attr, first_out=program.first_out, first_operand=program.first_operand,
                  operands=read[program.operands], avals=np.concatenate([program.avals, program.avals[results]]),
                  inputs=np.concatenate([program.inputs, n + np.arange(len(results))]), constants=program.constants,
                  results=program.results[:0])
    whole = joined(cut, derived, read[list(saved)].tolist())
    return pruned(whole), _read(whole)


def _read(program: Program) -> list[int]:
    """Positions of the inputs that rows read, or that are results."""
    used = np.isin(program.inputs, np.concatenate([program.operands, program.results]))
    return np.flatnonzero(used).tolist()


def with_residuals(program: Program, wanted: Sequence[int]) -> Program:
    """The Program with further results: the primal values that its pullback to the inputs ``wanted`` (positions) reads.

    The gradient of a `call` row of it computes no primal value again, if the further results have no cotangent.
    """
    results = program.results.tolist()
    targets = [v for v in dict.fromkeys(results) if v >= 0 and is_float(program.aval(v).code)]
    seeds = [len(program.avals) + i for i in range(len(targets))]
    back, saved = pullback(program, targets, seeds, [int(program.inputs[k]) for k in wanted],
                        [program.aval(t) for t in targets])
    read = [saved[i] for i in _read(pruned(back, keep_inputs=True)) if i < len(saved)]
    known = {*program.inputs.tolist(), *program.constants, *results}
    return with_results(program, [*results, *(v for v in read if v not in known)])
