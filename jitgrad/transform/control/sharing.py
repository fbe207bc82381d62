"""Equal Programs as one object, so that rows recorded again and again are of one form, with one kernel."""

from __future__ import annotations

from typing import Any

from jitgrad.core.aval import AVALS
from jitgrad.core.lock import TABLES
from jitgrad.core.program import Program

SMALL = 64                     # elements of constants that are compared by content; others are themselves only
_met: dict[tuple[Any, ...], Program] = {}


def shared(program: Program) -> Program:
    """The first Program met here that has the same rows, values and constants.

    It stays for good, as forms do, with its constants. Source lines do not count.
    """
    columns = (program.attr, program.first_out, program.operands, program.avals, program.inputs, program.results)
    constants = ((v, *_content(t)) for v, t in program.constants.items())
    key = (*(column.tobytes() for column in columns), *constants)
    with TABLES:
        return _met.setdefault(key, program)


def _content(t: Any) -> tuple[Any, ...]:
    aval = AVALS[t._aval]
    return ("", t.numpy().tobytes()) if aval.size <= SMALL else ("is", id(t))
