"""Dropping rows that nobody needs: whose outputs no result depends on, and that have no effect."""

from __future__ import annotations

from functools import cache
from itertools import compress

import numpy as np

from jitgrad.core.form import COLUMNS, FORMS, Form
from jitgrad.core.primitive import Kind
from jitgrad.core.program import Program, programs_in


@cache
def has_effects(made: Form) -> bool:
    """Whether a row of this form does more than make its outputs: itself, or in a Program that it holds."""
    held = [program for _, program in programs_in(made.params)]
    return made.prim.kind is Kind.EFFECT or any(has_effects(FORMS[f]) for p in held for f in {*p.attr.tolist()})


def pruned(program: Program, keep_inputs: bool = False, keep_effects: bool = False) -> Program:
    """The Program without rows and constants that its results do not need; unused inputs, and effects, go unless kept.
    """
    kept, needed = _needed(program, keep_effects)
    inputs = program.inputs if keep_inputs else program.inputs[needed[program.inputs]]
    constants = [v for v in program.constants if needed[v]]
    if kept.all() and len(constants) == len(program.constants) and len(inputs) == len(program.inputs):
        return program
    attr = program.attr[kept]
    counts = COLUMNS.outputs[attr]
    ends = np.cumsum(counts)
    outs = np.repeat(program.first_out[kept] - (ends - counts), counts) + np.arange(int(counts.sum()))
    order = np.concatenate([inputs, np.array(constants, np.int64), outs]).astype(np.int64)
    number = np.full(len(program.avals) + 1, -1)          # its last item is for the result -1
    number[order] = np.arange(len(order))
    widths = np.diff(program.first_operand)
    return Program(
        attr=attr, first_out=len(inputs) + len(constants) + ends - counts,
        first_operand=np.concatenate([[0], np.cumsum(widths[kept])]),
        operands=number[program.operands[np.repeat(kept, widths)]], avals=program.avals[order],
        inputs=number[inputs], constants={int(number[v]): program.constants[v] for v in constants},
        results=number[program.results], lines=tuple(compress(program.lines, kept)))


def _needed(program: Program, keep_effects: bool) -> tuple[np.ndarray, np.ndarray]:
    """Which rows stay, and which values are read."""
    attr, outs = program.attr.tolist(), program.first_out.tolist()
    first, operands = program.first_operand.tolist(), program.operands.tolist()
    counts = COLUMNS.outputs[program.attr].tolist()
    effects = {f for f in {*attr} if has_effects(FORMS[f])} if keep_effects else set()
    kept, needed = bytearray(len(attr)), bytearray(len(program.avals))
    for v in program.results.tolist():
        if v >= 0:
            needed[v] = 1
    for r in range(len(attr) - 1, -1, -1):
        out, n = outs[r], counts[r]
        if (needed[out] if n == 1 else 1 in needed[out: out + n]) or effects and attr[r] in effects:
            kept[r] = 1
            for v in operands[first[r]: first[r + 1]]:
                needed[v] = 1
    return np.frombuffer(kept, bool), np.frombuffer(needed, bool)
