"""Source lines of recorded rows and of numbers that left the tape, kept only while `debug_lines` is on."""

from __future__ import annotations

import weakref
from typing import Any

from jitgrad.core.errors import user_line
from jitgrad.execute.cpu import types as machine
from jitgrad.execute.cpu.layout import S_ROW_MADE, S_WAS_READ

_made: dict[int, tuple[Any, str]] = {}       # id of an output -> (weak reference, line)
_read: dict[int, tuple[Any, str]] = {}


def _noter(table: dict[int, tuple[Any, str]]) -> Any:
    def note(t: Any) -> None:
        key = id(t)
        table[key] = (weakref.ref(t, lambda _: table.pop(key, None)), user_line())
    return note


_notes = {S_ROW_MADE: _noter(_made), S_WAS_READ: _noter(_read)}


def debug_lines(on: bool = True) -> None:
    """Note the source line of every recorded operation, and of every number read from a recorded Tensor, for
    `GradientTape.show` and `GradientTape.explain`. It costs microseconds an operation, so it is off at first.

    >>> import jitgrad as jg
    >>> jg.debug_lines()
    >>> jg.debug_lines(False)
    """
    for word, note in _notes.items():
        machine.set_state(word, id(note) if on else 0)


def noting() -> bool:
    """Whether `debug_lines` is on."""
    return machine.get_state(S_ROW_MADE) != 0


def made_at(t: Any) -> str:
    """Where the row that made a Tensor was recorded, or ''."""
    return _made.get(id(t), (None, ""))[1]


def read_at(t: Any) -> str:
    """Where a number was last read from a Tensor, or ''."""
    return _read.get(id(t), (None, ""))[1]
