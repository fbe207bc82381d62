"""Source lines of recorded rows and of numbers that left the tape, kept only while `debug_lines` is on.

Recorded functions listen to the same two events of the machine.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from jitgrad.core.errors import user_line
from jitgrad.core.lock import TABLES
from jitgrad.execute.cpu import types as machine
from jitgrad.execute.cpu.layout import S_ROW_MADE, S_WAS_READ

Listener = Callable[[Any], None]

_made: dict[int, tuple[Any, str]] = {}       # id of an output -> (weak reference, line)
_read: dict[int, tuple[Any, str]] = {}


def _noter(table: dict[int, tuple[Any, str]]) -> Listener:
    def note(t: Any) -> None:
        key = id(t)
        table[key] = (weakref.ref(t, lambda _: table.pop(key, None)), user_line())
    return note


_notes = {S_ROW_MADE: _noter(_made), S_WAS_READ: _noter(_read)}
_listeners: dict[int, list[Listener]] = {S_ROW_MADE: [], S_WAS_READ: []}


def _row_made(t: Any) -> None:
    for listener in _listeners[S_ROW_MADE]:
        listener(t)


def _was_read(t: Any) -> None:
    for listener in _listeners[S_WAS_READ]:
        listener(t)


_events = {S_ROW_MADE: _row_made, S_WAS_READ: _was_read}


def listen(word: int, listener: Listener, on: bool) -> None:
    """Let the machine tell a listener of every row that is made, or of every number read; or no longer."""
    with TABLES:
        now = [x for x in _listeners[word] if x != listener]      # a bound method is a new object each time
        _listeners[word] = [*now, listener] if on else now
        machine.set_state(word, id(_events[word]) if _listeners[word] else 0)


def debug_lines(on: bool = True) -> None:
    """Note the source line of every recorded operation, and of every number read from a recorded Tensor, for
    `GradientTape.show` and `GradientTape.explain`. It costs microseconds an operation, so it is off at first.

    >>> import jitgrad as jg
    >>> jg.debug_lines()
    >>> jg.debug_lines(False)
    """
    for word, note in _notes.items():
        listen(word, note, on)


def noting() -> bool:
    """Whether `debug_lines` is on."""
    return _notes[S_ROW_MADE] in _listeners[S_ROW_MADE]


def made_at(t: Any) -> str:
    """Where the row that made a Tensor was recorded, or ''."""
    return _made.get(id(t), (None, ""))[1]


def read_at(t: Any) -> str:
    """Where a number was last read from a Tensor, or ''."""
    return _read.get(id(t), (None, ""))[1]
