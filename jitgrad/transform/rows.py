"""A Program under construction: its columns as lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad.core.form import FORMS
from jitgrad.core.program import Program


class Rows:
    """Values are numbered as they come: inputs, constants and outputs of rows in any order."""

    def __init__(self) -> None:
        self.avals: list[int] = []
        self.constants: dict[int, Any] = {}
        self.attr: list[int] = []
        self.first_out: list[int] = []
        self.first_operand = [0]
        self.operands: list[int] = []
        self.lines: list[str] = []
        self._known: dict[int, int] = {}

    def value(self, aval: int) -> int:
        """A new value that no row makes."""
        self.avals.append(aval)
        return len(self.avals) - 1

    def constant(self, t: Any) -> int:
        """The value of a constant; one Tensor is one value."""
        known = self._known.get(id(t))
        if known is None:
            known = self._known[id(t)] = self.value(t._aval)
            self.constants[known] = t
        return known

    def row(self, f: int, ids: Sequence[int], line: str = "") -> int:
        """Append a row of a form; the first of its outputs, which are consecutive."""
        first = len(self.avals)
        self.attr.append(f)
        self.first_out.append(first)
        self.operands += ids
        self.first_operand.append(len(self.operands))
        for a in FORMS[f].outs:
            self.avals.append(a.id)
        if line:
            missing = len(self.attr) - 1 - len(self.lines)
            if missing:
                self.lines += [""] * missing
            self.lines.append(line)
        return first

    def instead(self, f: int, ids: Sequence[int]) -> Program | None:
        """A Program on the same operands, with the same results, whose rows are to stand in the place of a row."""
        return None

    def program(self, inputs: Sequence[int], results: Sequence[int]) -> Program:
        """The Program of the rows so far."""
        lines = self.lines + [""] * (len(self.attr) - len(self.lines)) if self.lines else []
        return Program(attr=np.array(self.attr, np.int32), first_out=np.array(self.first_out, np.int32),
                       first_operand=np.array(self.first_operand, np.int32),
                       operands=np.array(self.operands, np.int32), avals=np.array(self.avals, np.int32),
                       inputs=np.array(inputs, np.int32), constants=self.constants, results=np.array(results, np.int32),
                       lines=lines)
