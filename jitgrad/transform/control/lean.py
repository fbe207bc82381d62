"""Scans without what nobody reads: ys, entries of the carry, and the consts and xs that only these need.

A scan that was recorded to be differentiated leaves behind what any derivative could want. For a Program that is about
to run, and of which it is known what is.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from jitgrad.core.form import FORMS, Form, form
from jitgrad.core.primitive import BY_NAME
from jitgrad.core.program import Program
from jitgrad.transform.control.steps import Step
from jitgrad.transform.prune import has_effects, pruned
from jitgrad.transform.rows import Rows


class Lean(NamedTuple):
    """A form in the place of a scan's, on some of its operands, with some of its outputs: positions."""

    form: int
    operands: tuple[int, ...]
    outs: tuple[int, ...]


def lean(program: Program) -> Program:
    """The Program, without calls, with all scans for what is needed of them."""
    if not (program.op == BY_NAME["scan"].code).any():
        return program
    instead = _instead(program)
    if not any(isinstance(found, Lean) for found in instead):
        return program
    rows = Rows()
    known = dict[int, int]()
    for v in program.inputs.tolist():
        known[v] = rows.value(int(program.avals[v]))
    for v, t in program.constants.items():
        known[v] = rows.constant(t)
    lines = program.lines or ("",) * len(program)
    for found, (made, operands, outs), line in zip(instead, program.rows(), lines, strict=True):
        if found is None:
            continue
        if isinstance(found, Lean):
            operands, outs = tuple(operands[k] for k in found.operands), tuple(outs[k] for k in found.outs)
        f = found.form if isinstance(found, Lean) else made.id
        first = rows.row(f, [known[v] for v in operands], line)
        known.update((v, first + k) for k, v in enumerate(outs))
    return rows.program(range(len(program.inputs)), [known[v] if v >= 0 else -1 for v in program.results.tolist()])


def _instead(program: Program) -> list[Form | Lean | None]:
    """For each row its form, or what is to stand in its place; None where nobody needs it."""
    needed = {*program.results.tolist()}
    out: list[Form | Lean | None] = []
    for made, operands, outs in reversed(program.rows()):
        if needed.isdisjoint(outs) and not has_effects(made):
            out.append(None)
            continue
        found = None
        if made.prim is BY_NAME["scan"]:
            first = {v: k for k, v in reversed([*enumerate(operands)])}
            found = _lean(made.id, tuple(v in needed for v in outs), tuple(first[v] for v in operands))
        needed.update(operands if found is None else [operands[k] for k in found.operands])
        out.append(found or made)
    return out[::-1]


@lru_cache(maxsize=1024)
def _lean(f: int, wanted: tuple[bool, ...], first: tuple[int, ...]) -> Lean | None:
    """``wanted``: which outputs are; ``first``: for each operand the position of the first that is the same value."""
    made = FORMS[f]
    if has_effects(made):
        return None
    step = Step(made.params["body"], made.params["consts"], made.params["carry"])
    carry, reads = _live(step, wanted)
    # for each operand the one to be read in its place: what an entry of the carry starts with is its own
    one = [first[k] if k < step.consts or first[k] >= step.first_x else k for k in range(len(first))]
    read = {one[k] for k in reads}
    kept = [k for k in range(step.consts) if k in read]
    consts = len(kept)
    kept += [step.consts + c for c in carry]
    kept += [k for k in range(step.first_x, len(first)) if k in read]
    outs = (*carry, *(r for r in range(step.carry, len(wanted)) if wanted[r]))
    if len(kept) == len(first) and len(outs) == len(wanted):
        return None
    params = {**made.params, "body": _body(step.body, kept, one, outs), "consts": consts, "carry": len(carry)}
    return Lean(form(made.prim, [made.avals[k] for k in kept], params).id, tuple(kept), outs)


def _live(step: Step, wanted: tuple[bool, ...]) -> tuple[list[int], set[int]]:
    """Entries of the carry that are needed, and positions of the inputs that the body reads for what is."""
    results, position = step.body.results.tolist(), {v: k for k, v in enumerate(step.body.inputs.tolist())}
    carry: list[int] = [c for c in range(step.carry) if wanted[c]]
    while True:
        read = _sources(step.body, [results[r] for r in (*carry, *range(step.carry, len(results)))
                                    if r < step.carry or wanted[r]])
        reads = {position[v] for v in read if v in position}
        more = [c for c in range(step.carry) if step.consts + c in reads and c not in carry]
        if not more:
            return sorted(carry), reads
        carry += more


def _sources(program: Program, values: Iterable[int]) -> set[int]:
    needed = {*values}
    for _, operands, outs in reversed(program.rows()):
        if not needed.isdisjoint(outs):
            needed.update(operands)
    return needed


def _body(body: Program, operands: list[int], one: list[int], outs: tuple[int, ...]) -> Program:
    """The body on some of its operands, with some of its results."""
    rows, inputs, results = Rows(), body.inputs.tolist(), body.results.tolist()
    at = {k: rows.value(int(body.avals[inputs[k]])) for k in operands}
    known = {inputs[k]: at.get(first, -1) for k, first in enumerate(one)}
    known.update((v, rows.constant(t)) for v, t in body.constants.items())
    needed = _sources(body, [results[r] for r in outs])
    for made, ids, made_here in body.rows():
        if not needed.isdisjoint(made_here):
            first = rows.row(made.id, [known[v] for v in ids])
            known.update((v, first + k) for k, v in enumerate(made_here))
    return pruned(rows.program(range(len(operands)), [known[results[r]] for r in outs]), keep_inputs=True)
