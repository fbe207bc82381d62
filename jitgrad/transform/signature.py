"""From a tape's signature words back to the rows that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.form import COLUMNS, form
from jitgrad.core.primitive import BY_NAME
from jitgrad.core.program import Program
from jitgrad.transform.vjp import pullback

_int = np.int64


def parse(words, inputs, outputs, row_form, first, operands, row_out, leaves, made):  # type: ignore[no-untyped-def]
    """Rows up to the mark -1. made: rows, operands, values, leaves, and where the words go on."""
    at, row, n_operands, fresh, n_leaves = 0, 0, 0, 0, 0
    while words[at] != -1:
        form = words[at]
        row_form[row] = form
        first[row] = n_operands
        for k in range(inputs[form]):
            v = words[at + 1 + k]
            operands[n_operands] = v
            n_operands += 1
            if v == fresh:               # met for the first time, so no row made it
                leaves[n_leaves] = v
                n_leaves += 1
                fresh += 1
        row_out[row] = fresh
        fresh += outputs[form]
        row += 1
        at += 1 + inputs[form]
    first[row] = n_operands
    made[0], made[1], made[2], made[3], made[4] = row, n_operands, fresh, n_leaves, at + 1
    return 0


@cache
def _parse() -> Any:
    return backend.current().compiled(parse)


def recorded(words: np.ndarray, avals: Sequence[int]) -> tuple[Program, list[int]]:
    """The walked rows as a Program over values of these avals, and the words after the rows."""
    n = len(words)
    row_form, first, operands, row_out, leaves = (np.zeros(n + 1, _int) for _ in range(5))
    made = np.zeros(5, _int)
    _parse()(words, COLUMNS.inputs, COLUMNS.outputs, row_form, first, operands, row_out, leaves, made)
    rows, n_operands, fresh, n_leaves, at = made.tolist()
    inputs = np.concatenate([leaves[:n_leaves], np.arange(fresh, len(avals))])
    program = Program(attr=row_form[:rows], first_out=row_out[:rows], first_operand=first[: rows + 1],
                      operands=operands[:n_operands], avals=np.array(avals, _int),
                      inputs=inputs, constants={}, results=np.zeros(0, _int))
    return program, words[at:].tolist()


def leaves_of(words: np.ndarray, values: Sequence[Any], n_targets: int, with_seeds: bool, n_sources: int,
              ) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """Per target its value and its seed's (-1 for none); per source the values at which it enters."""
    return ends_of(recorded(words, [t._aval for t in values])[1], n_targets, with_seeds, n_sources)


def ends_of(rest: list[int], n_targets: int, with_seeds: bool, n_sources: int,
            ) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """What `leaves_of` says, from the words after the rows."""
    at, ends = 0, []
    for _ in range(n_targets):
        ends.append((rest[at], rest[at + 1] - 1 if with_seeds else -1))
        at += 2 if with_seeds else 1
    at += 1
    groups: list[list[int]] = []
    for _ in range(n_sources):
        count = rest[at]
        groups.append(rest[at + 1: at + 1 + count])
        at += 1 + count + (1 if at + 1 + count < len(rest) and rest[at + 1 + count] <= -3 else 0)
    return ends, groups


def backward_of(words: np.ndarray, values: Sequence[Any], n_targets: int, with_seeds: bool, n_sources: int,
                ) -> tuple[Program, list[int]]:
    """The backward Program of a walk: one result per source; and which values are its inputs."""
    program, rest = recorded(words, [t._aval for t in values])
    ends, groups = ends_of(rest, n_targets, with_seeds, n_sources)
    leaves = list(dict.fromkeys(v for group in groups for v in group))
    back, saved = pullback(program, [t for t, _ in ends if t >= 0], [s for t, s in ends if t >= 0], leaves)
    place = {leaf: i for i, leaf in enumerate(leaves)}
    return _gathered(back, [[place[v] for v in group] for group in groups]), saved


def _gathered(back: Program, groups: list[list[int]]) -> Program:
    """Results per source: the sum over its leaves, -1 without any."""
    if all(len(group) <= 1 for group in groups):
        back.results = np.array([back.results[group[0]] if group else -1 for group in groups], np.int32)
        return back
    rows = [(f, ids, outs[0] if outs else 0) for f, ids, outs in back.rows()]
    results: list[int] = []
    avals = [back.aval(v) for v in range(len(back.avals))]
    for group in groups:
        parts = [int(back.results[i]) for i in group if back.results[i] >= 0]
        while len(parts) > 1:
            add = form(BY_NAME["add"], [avals[parts[0]], avals[parts[1]]], {})
            rows.append((add, (parts[0], parts[1]), len(avals)))
            parts[:2] = [len(avals)]
            avals.append(add.outs[0])
        results.append(parts[0] if parts else -1)
    return Program.build(rows, avals, back.inputs.tolist(), back.constants, results)
