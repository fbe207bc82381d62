"""Folds by a block: each thread folds what it reads, then the threads' results meet by halves in shared memory.

The order depends on the sizes alone, so that results are the same from run to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad.core.primitive import Primitive
from jitgrad.execute.cpu.reductions import reduction_init
from jitgrad.execute.cuda.kernel import THREADS
from jitgrad.execute.cuda.names import CALLS
from jitgrad.execute.source import WORDS, lines_of, literal, loaded, stored
from jitgrad.ops import scalar


def power(n: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(n - 1, 0).bit_length()


# What tiles of `width` columns by `lanes` threads do first: the number y of a thread in its column c of an array
# (outer, n, inner), and the piece of the column that it has.
TILES = (
    "t = i8(cuda.threadIdx.x)", "tile = width * lanes", "z = sdiv(t, tile)", "y = sdiv(t - z * tile, width)",
    "per = sdiv(i8(cuda.blockDim.x), tile)", "first = i8(cuda.blockIdx.x) * per",
    "while first < tiles:",
    "    u = first + z", "    line = sdiv(u, groups)", "    c = (u - line * groups) * width + t - z * tile - y * width",
    "    o = sdiv(line, pieces)", "    begin = (line - o * pieces) * chunk", "    stop = min(begin + chunk, n)",
    "    here = u < tiles and c < inner")
RUN = 64                       # elements of a thread that meet one after the other: rounding errors grow with them


class Tree:
    """Writes the folds of a reducing entry in a dtype; ``prefix`` keeps names apart."""

    def __init__(self, prim: Primitive, dtype: np.dtype[Any], tables: dict[str, Any], prefix: str = "f_") -> None:
        self.trace = scalar.trace(prim.body, (dtype, dtype))
        self.dtype, self.tables, self.prefix = dtype, tables, prefix
        self.init = literal(dtype.type(reduction_init(prim.init, dtype)).item(), dtype)

    def fold(self, acc: str, x: str, indent: str) -> list[str]:
        """The accumulator meets a value."""
        lines, (result,) = lines_of(self.trace, [acc, x], indent, self.tables, self.prefix, calls=CALLS)
        return [*lines, f"{indent}{acc} = {result}"]

    def meet(self, acc: str, shared: str, y: str, lanes: str, width: str, indent: str) -> list[str]:
        """The accumulators of ``lanes`` threads, a power of two, become what they make together, in each of them.

        Thread t has number y among them; those of the next number stand ``width`` behind. All threads of a block come
        here.
        """
        more = indent + "    "
        left, right = f"{self.prefix}left", f"{self.prefix}right"
        return [f"{indent}if {lanes} > 1:", f"{more}{shared}[t] = {stored(acc, self.dtype)}",
                f"{more}cuda.syncthreads()", f"{more}h = {lanes} >> 1", f"{more}while h > 0:",
                f"{more}    if {y} < h:", f"{more}        {left} = {loaded(shared, 't', self.dtype)}",
                f"{more}        {right} = {loaded(shared, f't + h * {width}', self.dtype)}",
                *self.fold(left, right, more + "        "),
                f"{more}        {shared}[t] = {stored(left, self.dtype)}",
                f"{more}    cuda.syncthreads()", f"{more}    h = h >> 1",
                f"{more}{acc} = {loaded(shared, f't - {y} * {width}', self.dtype)}", f"{more}cuda.syncthreads()"]


def shared_arrays(dtypes: Sequence[np.dtype[Any]]) -> list[str]:
    """Lines that make an array for each dtype, with a place for each thread of a block."""
    return [f"{shared(d)} = cuda.shared.array({THREADS}, {'u1' if d.kind == 'b' else WORDS[d.name]})"
            for d in dict.fromkeys(dtypes)]


def shared(dtype: np.dtype[Any]) -> str:
    """The name of the array for a dtype."""
    return f"shared_{WORDS[dtype.name]}"
