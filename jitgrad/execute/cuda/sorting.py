"""Sorting: by words of which no two are equal, an element's key above its index, so that any network sorts stably.

The network is Batcher's bitonic one with every comparison in the same direction: a merge first compares mirrored
places, then places a stride apart. So rows of any length n are sorted as if they went on with greatest words, which
never move: a pair beyond n is left out, and nothing beyond n is there.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from jitgrad.core.form import Form
from jitgrad.execute.cuda.kernel import BLOCKS, THREADS, Launch, Work, digits, kernel, launch, turns, width_of

CHUNK = 1024                   # words that a block sorts in shared memory
_WORD = np.dtype(np.int64)
_START = ("o = sdiv(row, inner)", "start = o * length * inner + row - o * inner")      # of the row k, in x


def work(f: Form) -> Work:
    """Words of all elements into scratch, in order, and out again as indices or as the elements there.

    Where the key has no room above an index it is a word of its own, and the index another.
    """
    assert f.prim.words is not None
    outer, length, inner, *order, width, descending = f.prim.words(*f.avals, **f.params)
    size = f.avals[0].size
    if not size:
        return Work(())
    wide = width == 64 or length >= 2**32
    words = (2, 3) if wide else (2,)
    made = (_keyed(f, words, (size, length, inner, *order, descending)), *ordered(outer * inner, length, words),
            _placed(f, words, (size, length, inner)))
    return Work(made, (8 * size,) * len(words))


def _keyed(f: Form, words: Sequence[int], given: Sequence[int]) -> Launch:
    """Elements as integers in the same order: NaN greatest, both zeros equal; see ops/sort.py."""
    width = width_of(f.avals[0].dtype)
    lines = [*digits("i", ("k", "length"), ("row", "")), *_START, "b = i8(x[start + k * inner])",
             "key = (b ^ ((b >> 63) & magnitude)) ^ -descending", "if b == zero:", "    key = i8(0) ^ -descending",
             "if (b & magnitude) > infinity:", "    key = i8(magnitude)",
             *(["words[i] = key", "order[i] = k"] if words[1:] else ["words[i] = shl(key, 32) | k"])]
    names = ("words", "order")[: len(words)]
    made = kernel(f"keys_{width.name}_{len(words)}", turns(lines), (*[_WORD] * len(words), width),
                  (*names, "x", "n", "length", "inner", "magnitude", "infinity", "zero", "descending"))
    return launch(made, (*words, 1), given, given[0])


def _placed(f: Form, words: Sequence[int], given: Sequence[int]) -> Launch:
    """Indices from the words, or the elements that they lead to: zeros keep their signs."""
    at = "words[i]" if words[1:] else "(words[i] & 0xFFFFFFFF)"
    picks = f.prim.name == "sort"
    operands = ((0, "out"), (1, "x"), (words[-1], "words")) if picks else ((0, "out"), (words[-1], "words"))
    width = width_of(f.outs[0].dtype)
    lines = [*digits("i", ("k", "length"), ("row", "")), *_START,
             f"out[start + k * inner] = {f'x[start + {at} * inner]' if picks else at}"]
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
    """A block for each chunk of a row: merges of sizes from a first to a last one, mirrored at first or not."""
    arrays, shared = ("words", "order")[: len(words)], ("w", "v")[: len(words)]
    chunks = -(-length // CHUNK)
    copies = list(zip(shared, arrays, strict=True))
    lines = [*(f"{w} = cuda.shared.array({CHUNK}, i8)" for w in shared), *textwrap.dedent(f"""
        t = i8(cuda.threadIdx.x)
        many = i8(cuda.blockDim.x)
        block = i8(cuda.blockIdx.x)
        while block < rows * chunks:
            row = sdiv(block, chunks)
            begin = (block - row * chunks) * {CHUNK}
            here = min(length - begin, {CHUNK})
            base = row * length + begin
            k = t
            while k < here:
                {"; ".join(f"{w}[k] = {array}[base + k]" for w, array in copies)}
                k += many
            cuda.syncthreads()
            size = smallest
            while size <= largest:
                stride = size >> 1
                mirrored = whole
                while stride > 0:
                    p = t
                    while 2 * p < largest:
                        STEP
                        p += many
                    cuda.syncthreads()
                    mirrored = 0
                    stride = stride >> 1
                size *= 2
            k = t
            while k < here:
                {"; ".join(f"{array}[base + k] = {w}[k]" for w, array in copies)}
                k += many
            cuda.syncthreads()
            block += cuda.gridDim.x
        """).strip().splitlines()]
    at = next(i for i, line in enumerate(lines) if line.strip() == "STEP")
    lines[at: at + 1] = [lines[at].replace("STEP", line) for line in _step("", shared)]
    made = kernel(f"sort_chunks_{len(words)}", lines, [_WORD] * len(words),
                  (*arrays, "length", "rows", "chunks", "smallest", "largest", "whole"))
    threads = min(max(step[1] >> 1, 1), THREADS)
    return Launch(made, tuple(words), (length, rows, chunks, *step), min(rows * chunks, BLOCKS), threads)
