"""Functions that users wrote as Programs of their operands, recorded dry: branches, loop bodies, vmapped functions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from jitgrad.core import nest
from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.program import Program
from jitgrad.core.record import tensor
from jitgrad.core.recorder import Body

_programs: dict[tuple[bytes, ...], Program] = {}
_lock = threading.Lock()


def interned(program: Program) -> Program:
    """The one Program of its structure: rows of equal Programs are of one form, so that repetition costs no memory."""
    if program.constants:
        return program
    key = tuple(c.tobytes() for c in (program.attr, program.first_out, program.first_operand, program.operands,
                                      program.avals, program.inputs, program.results))
    with _lock:
        return _programs.setdefault(key, program)


class Recorded:
    """``f(*args)`` recorded dry, for ``args`` a nest of Tensors of some avals.

    ``results`` are the Tensors among the leaves of what it returned (numbers became Tensors; None stays None and has
    no result), then what the Variables hold that it ``assigned``. Inputs of the Program are the arguments, then what
    the function took from around it: ``captured``.
    """

    def __init__(self, f: Callable[..., Any], structure: Any, avals: Sequence[Aval]) -> None:
        with Body() as body:
            inputs = [body.input(a) for a in avals]
            answer = f(*nest.rebuild(structure, list(inputs)))
            leaves, self._structure = nest.flatten(answer)
            self._present = [x is not None for x in leaves]
            results = [tensor(x) for x in leaves if x is not None]
            self.count = len(results)
            results += [body.variables[key][1] for key in body.assigned]
        self.body = body
        self.results = results
        self.assigned = list(body.assigned.values())
        self.captured = body.captured

    @property
    def avals(self) -> list[Aval]:
        """Of the results."""
        return [AVALS[t._aval] for t in self.results]

    def program(self) -> Program:
        """The Program; it decides what is taken from around, so ask for ``captured`` afterwards."""
        return interned(self.body.program(self.results))

    def rebuilt(self, values: Sequence[Any]) -> Any:
        """The nest that the function returned, with these Tensors."""
        given = iter(values)
        return nest.rebuild(self._structure, [next(given) if there else None for there in self._present])

