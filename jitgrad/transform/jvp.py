"""Forward mode as Program -> Program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jitgrad.core.dtypes import is_float
from jitgrad.core.form import FORMS, Form, form
from jitgrad.core.lock import TABLES
from jitgrad.core.primitive import BY_NAME
from jitgrad.core.program import Program
from jitgrad.transform.fragment import POOL
from jitgrad.transform.tangent import piece_of
from jitgrad.transform.vjp import joined


def pushforward(program: Program, targets: Sequence[int], sources: Sequence[int]) -> tuple[Program, list[int]]:
    """The tangent rows alone: a Program of the primal values that they read, and which those are.

    Its further inputs are one tangent per source, of the source's aval (that of an integer is not read). It has one
    result per target: its tangent, -1 where it is zero.
    """
    with TABLES:
        return _Push(program, sources).program(targets)


class _Push:
    """The walk: values from ``len(program.avals)`` on are new."""

    def __init__(self, program: Program, sources: Sequence[int]) -> None:
        self.primal = program
        self.count = len(program.avals)
        self.avals = [program.aval(s) for s in sources]                      # of the new values
        self.inputs = [self.count + i for i in range(len(sources))]
        self.rows: list[tuple[Form, tuple[int, ...], int]] = []
        self.constants: dict[int, int] = {}                                  # number in the pool -> value
        self.tangent: dict[int, int] = {}
        for s, t in zip(sources, self.inputs, strict=True):
            if is_float(program.aval(s).code):
                self._arrive(s, t)
        self._walk()

    def _new(self, made: Form, operands: tuple[int, ...]) -> int:
        first = self.count + len(self.avals)
        self.rows.append((made, operands, first))
        self.avals.extend(made.outs)
        return first

    def _constant(self, number: int) -> int:
        if number not in self.constants:
            self.constants[number] = self.count + len(self.avals)
            self.avals.append(POOL.aval(number))
        return self.constants[number]

    def _arrive(self, value: int, t: int) -> None:
        """A tangent of a value; a source that others lead to has one of its own beside."""
        have = self.tangent.get(value)
        if have is not None:
            a = self.primal.aval(value)
            t = self._new(form(BY_NAME["add"], [a, a], {}), (have, t))
        self.tangent[value] = t

    def _walk(self) -> None:
        first, operands = self.primal.first_operand.tolist(), self.primal.operands.tolist()
        for r, (f, out) in enumerate(zip(self.primal.attr.tolist(), self.primal.first_out.tolist(), strict=True)):
            ids = operands[first[r]: first[r + 1]]
            mask = sum(1 << k for k, v in enumerate(ids) if v in self.tangent)
            if mask:
                self._paste(FORMS[f], mask, ids, out)

    def _paste(self, made: Form, mask: int, operands: list[int], out: int) -> None:
        piece = piece_of(made, mask)
        local = [self.tangent[v] for v in operands if v in self.tangent]
        local += operands
        local += range(out, out + len(made.outs))
        local += map(self._constant, piece.constants)
        for form_, ids in piece.rows:
            new = self._new(form_, tuple([local[i] for i in ids]))
            local += range(new, new + len(form_.outs))
        for o, i in enumerate(piece.results):
            if i >= 0:
                self._arrive(out + o, local[i])

    def program(self, targets: Sequence[int]) -> tuple[Program, list[int]]:
        """The rows that the targets' tangents need, with values numbered anew."""
        results = [self.tangent.get(t, -1) for t in targets]
        needed = {v for v in results if v >= 0}
        kept = []
        for made, operands, first in reversed(self.rows):
            if not needed.isdisjoint(range(first, first + len(made.outs))):
                needed.update(operands)
                kept.append((made, operands, first))
        kept.reverse()
        saved = sorted(v for v in needed if v < self.count)
        constants = {v: POOL.constants[c] for c, v in self.constants.items() if v in needed}
        order = [*saved, *self.inputs, *constants]
        for made, _, first in kept:
            order += range(first, first + len(made.outs))
        number = {v: i for i, v in enumerate(order)}
        avals = [self.primal.aval(v) if v < self.count else self.avals[v - self.count] for v in order]
        made_program = Program.build(
            [(made, tuple([number[v] for v in operands]), number[first]) for made, operands, first in kept], avals,
            range(len(saved) + len(self.inputs)), {number[v]: t for v, t in constants.items()},
            [number[v] if v >= 0 else -1 for v in results])
        return made_program, saved


def jvp(program: Program, sources: Sequence[int]) -> Program:
    """The Program (inputs..., tangents of the inputs at positions ``sources``) -> results, then their tangents.

    A result has the tangent -1 where that is zero: an integer, or no source leads to it.
    """
    results: list[Any] = program.results.tolist()
    tangents, saved = pushforward(program, results, [int(program.inputs[s]) for s in sources])
    return joined(program, tangents, saved, keep_results=True, keep_effects=True)
