"""Which forms are large enough for several threads, and what a piece of one is; see native/pieces.py."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jitgrad.core.form import Form
from jitgrad.execute.cpu import layout
from jitgrad.execute.cpu.types import NATIVE

# Elements in a piece: 3 to 10 us of cheap maths, of bodies with more than HEAVY operations, of sums
CHEAP, LONG, SUMS = 16384, 4096, 32768
HEAVY = 12
LEAST = 2 * LONG               # elements below which no form is divided
LINE = 1024                    # what a piece should have of a line that is divided
ENOUGH = 16                    # pieces that occupy many threads

TASK, BOTH = 10e3, 30e3        # nanoseconds: of a task, and of what is too little to share
NODE, BYTE = 0.025, 0.03       # nanoseconds of an operation on a float32 in a full vector; of a byte read or written

Kernel = tuple[int, list[int]]


def task_of(extent: int, nodes: float, nbytes: float) -> int:
    """How much of an extent machine code gives to one task of `parallel`, or 0 where the caller had better do it all.

    ``nodes``: operations at each of the extent, those on 8-byte numbers counted twice; ``nbytes``: read and written
    there. Of the size of the work alone, never of the number of threads.
    """
    each = max(1e-3, nodes * NODE + nbytes * BYTE)
    return max(1, min(extent, int(TASK / each))) if extent > 1 and extent * each >= BOTH else 0


def divided(kernel: Kernel, extent: int, size: int, word: int, advances: Sequence[int]) -> Kernel:
    """The kernel in pieces of so much of an extent, which is its word number ``word``; as it is where that is not worth
    it, or where there are more words or slots than a thread has room for."""
    address, words = kernel
    if extent <= size or len(words) > layout.PIECE_WORDS or len(advances) > layout.PIECE_SLOTS:
        return kernel
    head = [NATIVE["piece"], address, extent, word, size, len(advances), *advances]
    return NATIVE["divide"], [*head, len(words), *words]


def line(kernel: Kernel, nodes: int, steps: Sequence[int]) -> Kernel:
    """An elementwise kernel of one line; ``steps``: bytes between neighbours of each slot."""
    size = LONG if nodes > HEAVY else CHEAP
    n = kernel[1][0]
    return divided(kernel, n, size, 0, steps) if n >= 2 * size else kernel


def lines(kernel: Kernel, nodes: int, dims: Sequence[int], steps: Sequence[Sequence[int]]) -> Kernel:
    """The `broadcast` driver around an elementwise kernel: along its first axis, or the line where that is longer.

    ``steps``: bytes between neighbours along each axis, of each slot.
    """
    size = LONG if nodes > HEAVY else CHEAP
    total = math.prod(dims)
    if total < 2 * size:
        return kernel
    if dims[0] >= ENOUGH or dims[0] * LINE >= dims[-1]:
        return divided(kernel, dims[0], max(1, size * dims[0] // total), 3, [s[0] for s in steps])
    most = max(LINE, size * dims[-1] // total)
    return divided(kernel, dims[-1], most, 3 + (len(dims) - 1) * (1 + len(steps)), [s[-1] for s in steps])


def rows(f: Form, kernel: Kernel, width: int) -> Kernel:
    """A reduction or scan (outer, n, inner): the outer extent. ``width``: elements of the result for each of it."""
    outer, n, inner = kernel[1][:3]
    if outer * n * inner < 2 * SUMS:
        return kernel
    advances = [width * f.outs[0].dtype.itemsize, *(n * inner * a.dtype.itemsize for a in f.avals)]
    return divided(kernel, outer, max(1, SUMS // (n * inner)), 0, advances)
