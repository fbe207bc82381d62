"""Rows whose derivative is a Python callable, as `custom_vjp` rows: the callable is recorded dry as a Program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.form import FORMS, Form
from jitgrad.core.program import Program
from jitgrad.core.recorder import Body
from jitgrad.execute.cpu import types as machine
from jitgrad.transform.control import shared
from jitgrad.transform.custom_vjp import custom_form
from jitgrad.transform.signature import leaves_of

Rule = Callable[..., Sequence[Any]]


def cut_row(operands: Sequence[Any], count: int, rule: Rule) -> tuple[Form, list[Any]]:
    """The form of the `custom_vjp` row that stands for a cut of ``count`` values, and its operands.

    The rule says of cotangents of the values those of all ``operands``, which begin with the values themselves.
    """
    with Body() as body:
        results = rule(*(body.input(AVALS[t._aval]) for t in operands[:count]))
        program = shared(body.program(results[count:]))
    given = [*operands, *body.captured]
    return custom_form([AVALS[t._aval] for t in given], count, len(operands) - count, program), given


def without_cuts(tape: Any, words: bytes, rows: bytes, values: Sequence[Any], n_targets: int, n_sources: int,
                 ) -> tuple[Program, list[Any], list[int], list[list[int]]]:
    """A walk's rows as a Program without cuts; a Tensor for each value, the targets and, per source, the leaves."""
    tensors: list[Any] = []
    avals: list[Aval] = []
    number: dict[int, int] = {}
    inputs: list[int] = []
    made: list[tuple[Form, tuple[int, ...], int]] = []

    def new(t: Any) -> int:
        number[id(t)] = len(tensors)
        tensors.append(t)
        avals.append(AVALS[t._aval])
        return number[id(t)]

    def known(t: Any) -> int:
        if id(t) not in number:
            inputs.append(new(t))
        return number[id(t)]

    for r in np.frombuffer(rows, np.int64).tolist():
        form_id, *refs = machine.log_row(tape, r)
        row = FORMS[form_id]
        n = len(row.avals)
        operands, outs = refs[:n], refs[n: n + len(row.outs)]
        if len(refs) > n + len(row.outs):
            row, operands = cut_row(operands, len(outs), refs[-1])
        ids = tuple(map(known, operands))
        first = len(tensors)
        for t in outs:
            new(t)
        made.append((row, ids, first))
    ends, groups = leaves_of(np.frombuffer(words, np.int64), values, n_targets, False, n_sources)
    targets = [known(values[end]) if end >= 0 else -1 for end, _ in ends]
    leaves = [[known(values[v]) for v in group] for group in groups]
    return Program.build(made, avals, inputs, {}, []), tensors, targets, leaves
