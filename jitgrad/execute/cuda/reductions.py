"""Reductions: a tile of threads for each result or for a piece of it, columns beside each other, and trees.

A tile is ``width`` columns by ``lanes`` threads that share the elements of a column; blocks hold several tiles where
results are of few elements. Few results of many elements are folded in pieces into scratch, and those once more.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from jitgrad.core.form import Form
from jitgrad.core.primitive import Primitive
from jitgrad.execute.cuda.kernel import THREADS, Kernel, Launch, Work, blocks_for, kernel
from jitgrad.execute.cuda.trees import RUN, TILES, Tree, power, shared, shared_arrays
from jitgrad.execute.source import loaded, stored

COLUMNS = 32                   # of a tile at most: what a warp reads together
FULL = 1 << 18                 # threads that keep a large GPU busy
LEAST, MOST = 16, 1024         # elements of a thread that a piece is worth; pieces of a result
_AHEAD = 4                     # accumulators of a thread, so that loads do not wait for one another


def work(f: Form) -> Work:
    """The launches of a reduction; none for an empty result."""
    (x,), axes = f.avals, f.params["axes"]
    if not f.outs[0].size:
        return Work(())
    first = axes[0] if axes else x.ndim
    last = first + len(axes)
    launches, scratch = folded(f.prim, x.dtype, math.prod(x.shape[:first]), math.prod(x.shape[first:last]),
                               math.prod(x.shape[last:]), 0, 1, 2)
    return Work(tuple(launches), (scratch,) if scratch else ())


def folded(prim: Primitive, dtype: np.dtype[Any], outer: int, red: int, inner: int, out: int, x: int,
           scratch: int) -> tuple[list[Launch], int]:
    """Launches that fold the middle axis of the array in a slot into another, and the bytes of scratch."""
    made = _kernel(prim, dtype)
    width = min(COLUMNS, power(inner))
    lanes = min(THREADS // width, power(-(-red // _AHEAD)))
    pieces = pieces_of(outer * -(-inner // width) * width * lanes, red, lanes)
    if pieces == 1:
        return [_launch(made, out, x, outer, red, inner, 1)], 0
    launches = [_launch(made, scratch, x, outer, red, inner, pieces),
                _launch(made, out, scratch, outer, pieces, inner, 1)]
    return launches, outer * pieces * inner * dtype.itemsize


def met(prim: Primitive, dtype: np.dtype[Any], rows: int, length: int, out: int, x: int) -> Launch:
    """The launch that folds short rows."""
    return _launch(_kernel(prim, dtype), out, x, rows, length, 1, 1)


def pieces_of(threads: int, length: int, lanes: int) -> int:
    """Into how many pieces lines are cut that so many lanes of all the threads share."""
    wanted = min(FULL // threads, length // (LEAST * lanes), MOST)
    if wanted < 2:
        return 1
    return -(-length // -(-length // wanted))


def _launch(made: Kernel, out: int, x: int, outer: int, red: int, inner: int, pieces: int) -> Launch:
    width = min(COLUMNS, power(inner))
    chunk = max(-(-red // pieces), 1)
    lanes = min(THREADS // width, power(-(-chunk // _AHEAD)))
    groups = -(-inner // width)
    tiles = outer * pieces * groups
    threads = min(THREADS, width * lanes * power(tiles))
    words = (tiles, groups, pieces, red, chunk, inner, width, lanes)
    return Launch(made, (out, x), words, blocks_for(tiles, threads // (width * lanes)), threads)


@functools.lru_cache(maxsize=1024)
def _kernel(prim: Primitive, dtype: np.dtype[Any]) -> Kernel:
    tables: dict[str, Any] = {}
    tree = Tree(prim, dtype, tables)
    accs = range(_AHEAD)
    several = [f"x{k} = {loaded('x', f'base + (i + {k} * lanes) * inner', dtype)}" for k in accs]
    several += [line for k in accs for line in tree.fold(f"a{k}", f"x{k}", "")]
    single = [f"x0 = {loaded('x', 'base + i * inner', dtype)}", *tree.fold("a0", "x0", "")]
    run = [f"until = min(i + {RUN} * lanes, stop)", *(f"a{k} = {tree.init}" for k in accs),
           f"while i + {_AHEAD - 1} * lanes < until:", *(f"    {line}" for line in several),
           f"    i += {_AHEAD} * lanes", "while i < until:", *(f"    {line}" for line in single), "    i += lanes",
           *tree.fold("a0", "a2", ""), *tree.fold("a1", "a3", ""), *tree.fold("a0", "a1", ""),
           *tree.fold("total", "a0", "")]
    lines = [
        *shared_arrays([dtype]),
        *TILES,
        "    if not here:", "        stop = i8(0)",
        "    i = begin + y", "    base = o * n * inner + c", f"    total = {tree.init}",
        "    while i < stop:", *(f"        {line}" for line in run),
        *tree.meet("total", shared(dtype), "y", "lanes", "width", "    "),
        "    if here and y == 0:", f"        out[line * inner + c] = {stored('total', dtype)}",
        "    first += i8(cuda.gridDim.x) * per"]
    return kernel(f"{prim.name}_{dtype.name}", lines, (dtype, dtype),
                  ["out", "x", "tiles", "groups", "pieces", "n", "chunk", "inner", "width", "lanes"], tables)
