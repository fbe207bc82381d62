"""Dropping rows that no result needs."""

from __future__ import annotations

import functools

from jitgrad.core.form import FORMS, Form
from jitgrad.core.primitive import Kind
from jitgrad.core.program import Program


@functools.cache
def has_effects(made: Form) -> bool:
    """Whether a row of this form does more than make its outputs: itself, or in a Program that it holds."""
    held = [p for p in made.params.values() if isinstance(p, Program)]
    return made.prim.kind is Kind.EFFECT or any(has_effects(FORMS[f]) for p in held for f in {*p.attr.tolist()})


def pruned(program: Program, keep_inputs: bool = False, keep_effects: bool = False) -> Program:
    """The Program without rows and constants that its results do not need; unused inputs, and effects, go unless kept.
    """
    needed = {v for v in program.results.tolist() if v >= 0}
    rows = []
    for made, operands, outs in reversed(program.rows()):
        if needed.intersection(outs) or keep_effects and has_effects(made):
            needed.update(operands)
            rows.append((made, operands, outs))
    rows.reverse()
    inputs = [v for v in program.inputs.tolist() if keep_inputs or v in needed]
    constants = {v: t for v, t in program.constants.items() if v in needed}
    if len(rows) == len(program) and len(constants) == len(program.constants) and len(inputs) == len(program.inputs):
        return program
    number: dict[int, int] = {}
    for v in (*inputs, *constants, *(v for _, _, outs in rows for v in outs)):
        number[v] = len(number)
    avals = [program.aval(v) for v in number]
    return Program.build(
        [(made, tuple(number[v] for v in operands), number[outs[0]] if outs else 0) for made, operands, outs in rows],
        avals, [number[v] for v in inputs], {number[v]: t for v, t in constants.items()},
        [number[v] if v >= 0 else -1 for v in program.results.tolist()])
