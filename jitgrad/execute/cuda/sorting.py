"""Sorting: by words of which no two are equal, an element's key above its index, so that any network sorts stably.

The network is Batcher's bitonic one with every comparison in the same direction: a merge first compares mirrored
places, then places a stride apart. So rows of any length n are sorted as if they went on with greatest words, which
never move: a pair beyond n is left out, and nothing beyond n is there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jitgrad.core.form import Form
from jitgrad.execute.cuda.kernel import BLOCKS, THREADS, Kernel, Launch, Work, digits, kernel, launch, turns, width_of

CHUNK = 1024                   # words that a block sorts in shared memory
_WORD = np.dtype(np.int64)


def work(f: Form) -> Work:
    """Rows that a block can hold are sorted by one launch. Words of longer ones go to scratch, are put in order there,
    and come out as indices or as the elements that they lead to.

    Where a key has no room above an index it is a word of its own, and the index another.
    """
    assert f.prim.words is not None
    outer, length, inner, *order, width, descending = f.prim.words(*f.avals, **f.params)
    size = f.avals[0].size
    if not size:
        return Work(())
    wide = width == 64 or length >= 2**32
    rows = outer * inner
    if length <= CHUNK:
        return Work((_held(f, rows, length, wide, (inner, *order, descending)),))
    words = (2, 3) if wide else (2,)
    made = (_keyed(f, words, (size, length, inner, *order, descending)), *ordered(rows, length, words),
            _placed(f, words, (size, length, inner)))
    return Work(made, (8 * size,) * len(words))


_START = ("o = sdiv(row, inner)", "start = o * length * inner + row - o * inner")      # of a row in x
_ORDER = ("inner", "magnitude", "infinity", "zero", "descending")                       # see ops/sort.py


def _key(words: str, order: str) -> list[str]:
    """Lines that make words of element k of a row: integers in its order, NaN greatest, both zeros equal."""
    return ["b = i8(x[start + k * inner])", "key = (b ^ ((b >> 63) & magnitude)) ^ -descending", "if b == zero:",
            "    key = i8(0) ^ -descending", "if (b & magnitude) > infinity:", "    key = i8(magnitude)",
            *([f"{words} = key", f"{order} = k"] if order else [f"{words} = shl(key, 32) | k"])]


def _place(f: Form, words: str, order: str) -> str:
    """A line that puts what belongs to place k there: zeros keep their signs."""
    at = order or f"({words} & 0xFFFFFFFF)"
    return f"out[start + k * inner] = {f'x[start + {at} * inner]' if f.prim.name == 'sort' else at}"


def _held(f: Form, rows: int, length: int, wide: bool, given: Sequence[int]) -> Launch:
    shared = ("w", "v") if wide else ("w",)
    words, order = "w[k]", "v[k]" if wide else ""
    lines = _chunk(shared, _START, _key(words, order), [_place(f, words, order)])
    widths = width_of(f.outs[0].dtype), width_of(f.avals[0].dtype)
    made = kernel(f"{f.prim.name}_rows_{widths[1].name}_{len(shared)}", lines, widths,
                  ("out", "x", *_CHUNKS, *_ORDER))
    return _chunks(made, (0, 1), rows, length, (2, 1 << (length - 1).bit_length(), 1), given)


def _keyed(f: Form, words: Sequence[int], given: Sequence[int]) -> Launch:
    width = width_of(f.avals[0].dtype)
    lines = [*digits("i", ("k", "length"), ("row", "")), *_START, *_key("words[i]", "order[i]" if words[1:] else "")]
    made = kernel(f"keys_{width.name}_{len(words)}", turns(lines), (*[_WORD] * len(words), width),
                  (*("words", "order")[: len(words)], "x", "n", "length", *_ORDER))
    return launch(made, (*words, 1), given, given[0])


def _placed(f: Form, words: Sequence[int], given: Sequence[int]) -> Launch:
    picks = f.prim.name == "sort"
    operands = ((0, "out"), (1, "x"), (words[-1], "words")) if picks else ((0, "out"), (words[-1], "words"))
    width = width_of(f.outs[0].dtype)
    lines = [*digits("i", ("k", "length"), ("row", "")), *_START,
             _place(f, "words[i]", "words[i]" if words[1:] else "")]
    made = kernel(f"{f.prim.name}_{width.name}_{len(words)}", turns(lines), (*[width] * (1 + picks), _WORD),
                  (*(name for _, name in operands), "n", "length", "inner"))
    return launch(made, [slot for slot, _ in operands], given, given[0])


# ---- the network ------------------------------------------------------------------------------------------

def ordered(rows: int, length: int, words: Sequence[int]) -> list[Launch]:
    """Rows of words at a slot into rising order; with a second slot its words decide between equal ones, and move
    with them. No two are equal in all.
    """
    whole = 1 << max(length - 1, 0).bit_length()
    top = min(whole, CHUNK)
    made = [_in_chunks(rows, length, words, (2, top, 1))]
    size = 2 * top
    while size <= whole:
        stride = size >> 1
        while stride >= CHUNK:
            made.append(_across(rows, length, words, (whole >> 1, stride, int(2 * stride == size))))
            stride >>= 1
        made.append(_in_chunks(rows, length, words, (CHUNK, CHUNK, 0)))
        size *= 2
    return made if whole > 1 else []


def _step(at: str, arrays: Sequence[str]) -> list[str]:
    """Lines that bring the pair p of ``here`` words into order, a stride apart or mirrored, behind a place."""
    low, high = f"{at}low", f"{at}high"
    less = f"second < first or (second == first and {arrays[1]}[{high}] < {arrays[1]}[{low}])" if arrays[1:] else \
        "second < first"
    moves = [line for w in arrays[1:] for line in (
        f"held = {w}[{low}]", f"{w}[{low}] = {w}[{high}]", f"{w}[{high}] = held")]
    lines = [f"first = {arrays[0]}[{low}]", f"second = {arrays[0]}[{high}]", f"if {less}:",
             *(f"    {line}" for line in (f"{arrays[0]}[{low}] = second", f"{arrays[0]}[{high}] = first", *moves))]
    return ["off = p & (stride - 1)", "low = 2 * p - off", "high = low + stride", "if mirrored != 0:",
            "    high += stride - 2 * off - 1", "if high < here:", *(f"    {line}" for line in lines)]


def _across(rows: int, length: int, words: Sequence[int], step: Sequence[int]) -> Launch:
    """A comparison of each pair of all rows."""
    arrays = ("words", "order")[: len(words)]
    lines = [*digits("i", ("p", "pairs"), ("row", "")), "base = row * here", *_step("base + ", arrays)]
    made = kernel(f"sort_across_{len(words)}", turns(lines), [_WORD] * len(words),
                  (*arrays, "n", "here", "pairs", "stride", "mirrored"))
    return launch(made, words, (rows * step[0], length, *step), rows * step[0])


def _in_chunks(rows: int, length: int, words: Sequence[int], step: Sequence[int]) -> Launch:
    """Merges within each chunk of each row."""
    arrays, shared = ("words", "order")[: len(words)], ("w", "v")[: len(words)]
    copies = list(zip(shared, arrays, strict=True))
    lines = _chunk(shared, ["base = row * length + begin"], [f"{w}[k] = {array}[base + k]" for w, array in copies],
                   [f"{array}[base + k] = {w}[k]" for w, array in copies])
    made = kernel(f"sort_chunks_{len(words)}", lines, [_WORD] * len(words), (*arrays, *_CHUNKS))
    return _chunks(made, words, rows, length, step)


_CHUNKS = ("length", "rows", "chunks", "smallest", "largest", "whole")


def _chunks(made: Kernel, slots: Sequence[int], rows: int, length: int, step: Sequence[int],
            more: Sequence[int] = ()) -> Launch:
    """A block for each chunk: merges from a size to another, and whether the first step of each is mirrored."""
    chunks = -(-length // CHUNK)
    threads = min(max(step[1] >> 1, 1), THREADS)
    return Launch(made, tuple(slots), (length, rows, chunks, *step, *more), min(rows * chunks, BLOCKS), threads)


def _chunk(shared: Sequence[str], head: Sequence[str], load: Sequence[str], store: Sequence[str]) -> list[str]:
    """Lines that load words ``here`` of a chunk, sort or merge them in shared memory, and store them."""
    def indented(lines: Sequence[str], depth: int) -> str:
        return "\n".join("    " * depth + line for line in lines).lstrip()
    return f"""
{indented([f"{w} = cuda.shared.array({CHUNK}, i8)" for w in shared], 0)}
t = i8(cuda.threadIdx.x)
many = i8(cuda.blockDim.x)
block = i8(cuda.blockIdx.x)
while block < rows * chunks:
    row = sdiv(block, chunks)
    begin = (block - row * chunks) * {CHUNK}
    here = min(length - begin, {CHUNK})
    {indented(head, 1)}
    k = t
    while k < here:
        {indented(load, 2)}
        k += many
    cuda.syncthreads()
    size = smallest
    while size <= largest:
        stride = size >> 1
        mirrored = whole
        while stride > 0:
            p = t
            while 2 * p < largest:
                {indented(_step("", shared), 4)}
                p += many
            cuda.syncthreads()
            mirrored = 0
            stride = stride >> 1
        size *= 2
    k = t
    while k < here:
        {indented(store, 2)}
        k += many
    cuda.syncthreads()
    block += cuda.gridDim.x
""".strip().splitlines()
