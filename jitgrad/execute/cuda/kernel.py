"""A kernel as Python source, compiled for a GPU or run by the simulator; and how it is launched.

A kernel takes pointers, then int64 words. Machine code of an architecture is kept in the object cache.
"""

from __future__ import annotations

import functools
import linecache
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jitgrad.execute.cpu import cache
from jitgrad.execute.cuda import names, toolkit

THREADS = 256                  # of a block, where nothing else is said
WARP = 32                      # threads that run as one, the least of a block
BLOCKS = 4096                  # at most: what is left, threads take in turns
STATUS = -1                    # the slot of the int32 that kernels leave an error code in
PTX = (8, 0)                   # the oldest architecture that there is text for; later ones take it as well


class Kernel(NamedTuple):
    """``source`` defines a function ``name`` of ``pointers``, then ``words`` integers. ``tables`` are constants."""

    name: str
    source: str
    pointers: tuple[np.dtype[Any], ...]
    words: int
    tables: tuple[tuple[str, tuple[Any, ...], str], ...] = ()       # name, elements, dtype

    def function(self) -> Callable[..., Any]:
        """The source as a Python function, for the compiler or the simulator."""
        filename = f"<jitgrad cuda kernel {self.name}>"
        linecache.cache[filename] = (len(self.source), None, self.source.splitlines(True), filename)
        scope = {**names.names(), "__name__": __name__}
        scope.update((name, np.array(elements, dtype)) for name, elements, dtype in self.tables)
        exec(compile(self.source, filename, "exec"), scope)
        made: Callable[..., Any] = scope[self.name]
        return made

    def ptx(self) -> str:
        """Its PTX."""
        return cache.fetch(f"ptx_{self.name}", _key(self), lambda: self._text().encode()).decode()

    def _text(self) -> str:
        text = toolkit.ptx(self.function(), self.pointers, self.words, PTX)
        (entry,) = re.findall(r"\.visible \.entry (\w+)\(", text)
        return text.replace(entry, self.name)

    def cubin(self, arch: str) -> bytes:
        """Its machine code."""
        return cache.fetch(f"{arch}_{self.name}", _key(self), lambda: toolkit.cubin(self.ptx(), arch))


@functools.lru_cache(maxsize=4096)
def _key(kernel: Kernel) -> str:
    return cache.digest(toolkit.versions(), repr(kernel), repr(PTX), repr(toolkit.FAST_MATH))


class Launch(NamedTuple):
    """A kernel on slots of a row (outputs, operands, scratch, `STATUS`) and words. ``indices`` are a slot and a span:
    if the slot's integers lie in it, nothing is left at `STATUS`.
    """

    kernel: Kernel
    slots: tuple[int, ...]
    words: tuple[int, ...]
    blocks: int
    threads: int = THREADS
    indices: tuple[int, tuple[int, int]] | None = None


class Work(NamedTuple):
    """What a row does: launches one after the other, and the bytes of each piece of scratch, which stand behind the
    operands among the slots.
    """

    launches: tuple[Launch, ...]
    scratch: tuple[int, ...] = ()


def blocks_for(count: int, threads: int = THREADS) -> int:
    """Blocks for so many elements, one a thread and turn."""
    return max(1, min(-(-count // threads), BLOCKS))


def threads_for(count: int, most: int = THREADS) -> int:
    """Threads of a block for so many elements: a power of two, a warp at least."""
    return min(max(WARP, 1 << max(count - 1, 0).bit_length()), most)


def launch(made: Kernel, slots: Sequence[int], words: Sequence[int], count: int) -> Launch:
    """A thread for each of so many elements, in `turns`."""
    threads = threads_for(count)
    return Launch(made, tuple(slots), tuple(words), blocks_for(count, threads), threads)


def turns(lines: Sequence[str]) -> list[str]:
    """The lines for each ``i`` below the word ``n``, one a thread and turn."""
    return ["i = cuda.grid(1)", "step = cuda.gridsize(1)", "while i < n:", *(f"    {line}" for line in lines),
            "    i += step"]


def digits(number: str, *lengths: tuple[str, str]) -> list[str]:
    """Lines that take an index apart, last axis first: each name gets its place along an axis of a length, the last
    name what is left.
    """
    lines: list[str] = []
    for name, length in lengths:
        if not length:
            return [*lines, f"{name} = {number}"]
        lines += [f"{name}_ = sdiv({number}, {length})", f"{name} = {number} - {name}_ * {length}"]
        number = f"{name}_"
    return lines


def width_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The integers that elements are moved as: fewer kernels, and every bit kept."""
    return np.dtype("u1" if dtype.itemsize == 1 else f"i{dtype.itemsize}")


def kernel(name: str, lines: Sequence[str], pointers: Sequence[np.dtype[Any]], arguments: Sequence[str],
           tables: Mapping[str, np.ndarray] | None = None) -> Kernel:
    """A Kernel from the lines of its body and the names of its pointers and words."""
    kept = tuple((table, tuple(array.tolist()), array.dtype.name) for table, array in (tables or {}).items())
    head = [f"    {table} = cuda.const.array_like({table}_)" for table, _, _ in kept]
    source = "\n".join([f"def {name}({', '.join(arguments)}):", *head, *(f"    {line}" for line in lines), ""])
    return Kernel(name, source, tuple(pointers), len(arguments) - len(pointers),
                  tuple((f"{table}_", elements, dtype) for table, elements, dtype in kept))
