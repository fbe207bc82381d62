"""Scans: a thread for each line where there are many, else tiles of threads that fold their line by doubling distances.

Few long lines are cut in pieces: what each piece folds to is scanned, and is where the scan of the next piece begins.
All that wants a body that is associative; lines of any other are walked from end to end by one thread of a tile, and
the others read and write for it. Accumulators are those of the table: float64 for float32.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from jitgrad.core.form import Form
from jitgrad.core.primitive import Primitive
from jitgrad.execute.cpu.reductions import reduction_init
from jitgrad.execute.cpu.scans import widened
from jitgrad.execute.cuda.kernel import THREADS, Kernel, Launch, Work, blocks_for, kernel
from jitgrad.execute.cuda.names import CALLS
from jitgrad.execute.cuda.reductions import pieces_of
from jitgrad.execute.cuda.trees import TILES, power, shared, shared_arrays
from jitgrad.execute.source import WORDS, lines_of, literal, loaded

COLUMNS = 32                   # of a tile at most: what a warp reads together
SHORT = 8                      # elements of lines that threads walk alone
MANY = 1 << 16                 # lines beside each other of which each has a thread
_AHEAD = 4                     # elements that a thread loads before it stores one
_PLACES = THREADS              # of a shared array


def work(f: Form) -> Work:
    """The launches of a scan; none for an empty result."""
    x, axis = f.avals[0], f.params["axis"]
    if not x.size:
        return Work(())
    outer, n, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1:])
    start, step = (n - 1, -1) if f.params["reverse"] else (0, 1)
    kept = int(f.params["exclusive"])
    wide = widened(f.prim, x.dtype).arguments[0]
    if n <= SHORT or (inner >= COLUMNS and outer * inner >= MANY):
        made = _sequential(f.prim, x.dtype)
        words = (outer * inner, n, inner, start, step, kept)
        threads = min(THREADS, power(outer * inner))
        return Work((Launch(made, tuple(range(1 + len(f.avals))), words, blocks_for(outer * inner, threads), threads),))
    if not f.prim.associative:
        slots = tuple(range(1 + len(f.avals)))
        return Work((_launch(_walked(f.prim, x.dtype), slots, outer, n, inner, 1, start, step, kept),))
    width = min(COLUMNS, power(inner))
    lanes = min(THREADS // width, power(n))
    pieces = pieces_of(outer * -(-inner // width) * width * lanes, n, lanes)
    if pieces == 1:
        made = _tiles(f.prim, x.dtype, x.dtype, False, False)
        return Work((_launch(made, (0, 1), outer, n, inner, 1, start, step, kept),))
    totals = _launch(_tiles(f.prim, x.dtype, wide, True, False), (2, 1), outer, n, inner, pieces, start, step, 0)
    before = _launch(_tiles(f.prim, wide, wide, False, False), (3, 2), outer, pieces, inner, 1, 0, 1, 1)
    scan = _launch(_tiles(f.prim, x.dtype, x.dtype, False, True), (0, 1, 3), outer, n, inner, pieces, start, step, kept)
    return Work((totals, before, scan), (outer * pieces * inner * wide.itemsize,) * 2)


def _launch(made: Kernel, slots: tuple[int, ...], outer: int, n: int, inner: int, pieces: int, *words: int) -> Launch:
    width = min(COLUMNS, power(inner))
    chunk = -(-n // pieces)
    lanes = min(THREADS // width, power(chunk))
    groups = -(-inner // width)
    tiles = outer * pieces * groups
    threads = min(THREADS, width * lanes * power(tiles))
    return Launch(made, slots, (tiles, groups, pieces, n, chunk, inner, width, lanes, *words),
                  blocks_for(tiles, threads // (width * lanes)), threads)


class _Scan:
    """The body of an entry in a dtype, and its accumulator's."""

    def __init__(self, prim: Primitive, dtype: np.dtype[Any]) -> None:
        self.tables: dict[str, Any] = {}
        self.trace = widened(prim, dtype)
        self.wide = self.trace.arguments[0]
        self.init = literal(self.wide.type(reduction_init(prim.init, self.wide)).item(), self.wide)

    def body(self, result: str, given: list[str], indent: str) -> list[str]:
        lines, (found,) = lines_of(self.trace, given, indent, self.tables, "f_", calls=CALLS)
        return [*lines, f"{indent}{result} = {found}"]

    def load(self, pointer: str, at: str, dtype: np.dtype[Any]) -> str:
        value = loaded(pointer, at, dtype)
        return value if dtype == self.wide else f"{WORDS[self.wide.name]}({value})"

    def store(self, pointer: str, at: str, value: str, dtype: np.dtype[Any]) -> str:
        return f"{pointer}[{at}] = {value if dtype == self.wide else f'{WORDS[dtype.name]}({value})'}"


@functools.lru_cache(maxsize=1024)
def _sequential(prim: Primitive, dtype: np.dtype[Any]) -> Kernel:
    scan = _Scan(prim, dtype)
    pointers = [f"p{k}" for k in range(len(prim.operands))]

    def steps(count: int) -> list[str]:
        lines = [f"        {p}_{k} = {scan.load(p, f'at + {k} * hop', dtype)}" for k in range(count) for p in pointers]
        for k in range(count):
            lines += scan.body("new", ["acc", *(f"{p}_{k}" for p in pointers)], "        ")
            lines += ["        " + scan.store("out", f"at + {k} * hop", "select(kept != 0, acc, new)", dtype),
                      "        acc = new"]
        return [*lines, f"        at += {count} * hop", f"        k += {count}"]

    lines = ["i = cuda.grid(1)", "hop = step * inner", "while i < lines:", "    o = sdiv(i8(i), inner)",
             "    at = (o * n + start) * inner + i - o * inner", f"    acc = {scan.init}", "    k = i8(0)",
             f"    while k + {_AHEAD - 1} < n:", *steps(_AHEAD), "    while k < n:", *steps(1),
             "    i += cuda.gridsize(1)"]
    return kernel(f"{prim.name}_{dtype.name}", lines, (dtype,) * (1 + len(pointers)),
                  ["out", *pointers, "lines", "n", "inner", "start", "step", "kept"], scan.tables)


_WORDS = ["tiles", "groups", "pieces", "n", "chunk", "inner", "width", "lanes", "start", "step", "kept"]


@functools.lru_cache(maxsize=1024)
def _walked(prim: Primitive, dtype: np.dtype[Any]) -> Kernel:
    """Tiles whose first threads walk their lines through shared memory."""
    scan = _Scan(prim, dtype)
    pointers = [f"p{k}" for k in range(len(prim.operands))]
    deep = "            "
    lines = [
        *(f"shared{k} = cuda.shared.array({_PLACES}, {WORDS[scan.wide.name]})" for k in range(len(pointers))),
        *TILES,
        "    if not here:", "        stop = i8(0)",
        f"    acc = {scan.init}", "    k = i8(0)",
        "    while k < chunk:                             # as often in every tile: all threads meet",
        "        e = begin + k + y", "        inside = e < stop",
        "        at = (o * n + start + e * step) * inner + c",
        "        if inside:",
        *(f"{deep}shared{k}[t] = {scan.load(p, 'at', dtype)}" for k, p in enumerate(pointers)),
        "        cuda.syncthreads()",
        "        if y == 0:", f"{deep}count = min(stop - begin - k, lanes)", f"{deep}h = i8(0)",
        f"{deep}while h < count:", f"{deep}    place = t + h * width",
        *scan.body("new", ["acc", *(f"shared{k}[place]" for k in range(len(pointers)))], deep + "    "),
        f"{deep}    shared0[place] = select(kept != 0, acc, new)", f"{deep}    acc = new", f"{deep}    h += 1",
        "        cuda.syncthreads()",
        "        if inside:", deep + scan.store("out", "at", "shared0[t]", dtype),
        "        cuda.syncthreads()", "        k += lanes",
        "    first += i8(cuda.gridDim.x) * per"]
    return kernel(f"{prim.name}_{dtype.name}_walked", lines, (dtype,) * (1 + len(pointers)),
                  ["out", *pointers, *_WORDS], scan.tables)


@functools.lru_cache(maxsize=1024)
def _tiles(prim: Primitive, dtype: np.dtype[Any], result: np.dtype[Any], totals: bool, carried: bool) -> Kernel:
    """``totals``: what pieces fold to is all that is written. ``carried``: pieces begin with what is before them."""
    scan = _Scan(prim, dtype)
    wide, sh = scan.wide, shared(scan.wide)
    deep = "            "
    doubling = [f"        {sh}[t] = v", "        cuda.syncthreads()", "        h = i8(1)", "        while h < lanes:",
                f"{deep}left = v", f"{deep}if y >= h:", f"{deep}    left = {sh}[t - h * width]",
                f"{deep}cuda.syncthreads()", f"{deep}if y >= h:", *scan.body("v", ["left", "v"], deep + "    "),
                f"{deep}    {sh}[t] = v", f"{deep}cuda.syncthreads()", f"{deep}h = h * 2"]
    kept = ["        if kept == 0:", *scan.body("v", ["carry", "v"], deep), "        else:", f"{deep}v = carry",
            f"{deep}if y > 0:", f"{deep}    left = {sh}[t - width]", *scan.body("v", ["carry", "left"], deep + "    "),
            "        if inside:", deep + scan.store("out", "at", "v", result)]
    total = ["    if here and y == 0:", "        " + scan.store("out", "line * inner + c", "carry", result)]
    lines = [
        *shared_arrays([wide]),
        *TILES,
        f"    carry = {scan.init}",
        "    if not here:", "        stop = i8(0)",
        *(["    else:", "        carry = carries[line * inner + c]"] if carried else []),
        "    k = i8(0)",
        "    while k < chunk:                             # as often in every tile: all threads meet",
        "        e = begin + k + y", "        inside = e < stop",
        "        at = (o * n + start + e * step) * inner + c", f"        v = {scan.init}",
        "        if inside:", f"{deep}v = {scan.load('x', 'at', dtype)}",
        *doubling, *([] if totals else kept),
        "        last = min(stop - begin - k, lanes) - 1",
        "        if last >= 0:", f"{deep}right = {sh}[t + (last - y) * width]",
        *scan.body("carry", ["carry", "right"], deep), "        cuda.syncthreads()", "        k += lanes",
        *(total if totals else []),
        "    first += i8(cuda.gridDim.x) * per"]
    stem = f"{prim.name}_{dtype.name}_{'totals' if totals else 'rest' if carried else 'tiles'}"
    pointers = [("out", result), ("x", dtype), *([("carries", wide)] if carried else [])]
    return kernel(stem, lines, [d for _, d in pointers], [*(name for name, _ in pointers), *_WORDS], scan.tables)
