"""Kernels of groups of rows in the making: pointers and words get names as they are needed.

Names follow from the order of first use, never from numbers of values or sizes, so that groups of one structure are
one kernel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jitgrad.execute.cpu import cache
from jitgrad.execute.cuda.kernel import THREADS, Launch, Work, kernel
from jitgrad.execute.cuda.names import CALLS
from jitgrad.execute.source import lines_of, stored
from jitgrad.ops.scalar import Trace


class Slot(NamedTuple):
    """What a launch reads or writes: a value's memory from a byte on, as elements of a dtype."""

    value: int
    offset: int
    dtype: np.dtype[Any]


class Memory:
    """The slots of the launches of a step, and pieces of scratch, whose slots are the last."""

    def __init__(self) -> None:
        self.slots: dict[Slot, int] = {}
        self.scratch: list[int] = []

    def at(self, value: int, offset: int, dtype: np.dtype[Any]) -> int:
        """The slot of a value."""
        return self.slots.setdefault(Slot(value, offset, dtype), len(self.slots))

    def room(self, nbytes: int) -> int:
        """A stand-in for the slot of a new piece of scratch, see `work`."""
        self.scratch.append(nbytes)
        return -1 - len(self.scratch)                # -1 is STATUS

    def work(self, launches: list[Launch]) -> tuple[Work, list[Slot]]:
        """The launches with all slots known."""
        first = len(self.slots)
        final = [launch._replace(slots=tuple(first - 2 - s if s < -1 else s for s in launch.slots))
                 for launch in launches]
        return Work(tuple(final), tuple(self.scratch)), [*self.slots]


class Body:
    """The lines of one kernel."""

    def __init__(self, memory: Memory, letter: str = "p") -> None:
        """Names of pointers begin with the letter."""
        self.memory, self.letter = memory, letter
        self.pointers: dict[int, tuple[str, np.dtype[Any]]] = {}
        self.words: dict[str, int] = {}
        self.tables: dict[str, Any] = {}
        self.lines: list[str] = []

    def pointer(self, slot: int, dtype: np.dtype[Any]) -> str:
        """The name of the pointer of a slot."""
        return self.pointers.setdefault(slot, (f"{self.letter}{len(self.pointers)}", dtype))[0]

    def value(self, value: int, offset: int, dtype: np.dtype[Any]) -> str:
        """The name of the pointer to a value."""
        return self.pointer(self.memory.at(value, offset, dtype), dtype)

    def word(self, name: str, value: int) -> str:
        """A word of the kernel."""
        self.words[name] = value
        return name

    def store(self, pointer: str, index: str, value: str, dtype: np.dtype[Any]) -> str:
        return f"{pointer}[{index}] = {stored(value, dtype)}"

    def compute(self, trace: Trace, given: list[str], prefix: str) -> tuple[list[str], list[str]]:
        """A body's lines, and the names of its results."""
        return lines_of(trace, given, "", self.tables, prefix, calls=CALLS)

    def launch(self, stem: str, blocks: int, threads: int = THREADS) -> Launch:
        """The kernel, named by what it is, on its slots and words."""
        dtypes = [dtype for _, dtype in self.pointers.values()]
        arguments = [*(name for name, _ in self.pointers.values()), *self.words]
        tables = [(name, table.tolist()) for name, table in self.tables.items()]
        name = f"{stem}_{cache.digest(repr(self.lines), repr(arguments), repr(dtypes), repr(tables))[:20]}"
        made = kernel(name, self.lines, dtypes, arguments, self.tables)
        return Launch(made, tuple(self.pointers), tuple(self.words.values()), blocks, threads)
