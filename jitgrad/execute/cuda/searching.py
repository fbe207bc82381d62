"""Searching along axes: where the greatest and the least element is, and where elements belong."""

from __future__ import annotations

import textwrap

import numpy as np

from jitgrad.core.form import Form
from jitgrad.execute.cuda.kernel import BLOCKS, THREADS, Launch, Work, kernel, launch, threads_for, turns

SHORT = 64                     # elements along an axis that one thread goes through
SHARE = 16384                  # elements that one block goes through; longer rows are several blocks' work
_PLACE = np.dtype(np.int64)


def work(f: Form) -> Work:
    """The launches of a form, by the entry's name and what its own kernel gets."""
    assert f.prim.words is not None
    made: Work = globals()[f.prim.name](f, *f.prim.words(*f.avals, **f.params))
    return made


def argmax(f: Form, outer: int, n: int, inner: int) -> Work:
    """The first greatest."""
    return _first(f, ">", outer, n, inner)


def argmin(f: Form, outer: int, n: int, inner: int) -> Work:
    """The first least."""
    return _first(f, "<", outer, n, inner)


def _first(f: Form, sign: str, outer: int, n: int, inner: int) -> Work:
    """Short axes have a thread for each result; longer ones blocks, whose places go to scratch where they are many."""
    count = outer * inner
    if not count:
        return Work(())
    if n <= SHORT:
        return Work((_by_threads(f, sign, count, n, inner),))
    chunks = -(-n // SHARE)
    found = _by_blocks(f, sign, count, n, inner, chunks, n, listed=False)
    if chunks == 1:
        return Work((found,))
    return Work((found, _by_blocks(f, sign, count, n, inner, 1, chunks, listed=True)), (8 * count * chunks,))


def _by_threads(f: Form, sign: str, count: int, n: int, inner: int) -> Launch:
    lines = textwrap.dedent(f"""
        o = sdiv(i, inner)
        start = o * length * inner + i - o * inner
        best = i8(0)
        k = i8(1)
        while k < length:
            value = x[start + k * inner]
            champion = x[start + best * inner]
            if value {sign} champion or (value != value and champion == champion):
                best = k
            k += 1
        out[i] = best
        """).strip().splitlines()
    dtype = f.avals[0].dtype
    made = kernel(f"{f.prim.name}_{dtype.name}", turns(lines), (_PLACE, dtype), ("out", "x", "n", "length", "inner"))
    return launch(made, (0, 1), (count, n, inner), count)


def _by_blocks(f: Form, sign: str, count: int, n: int, inner: int, chunks: int, candidates: int,
               listed: bool) -> Launch:
    """A block for each chunk of a row's candidates: all places, or those that are listed in the order of rows.

    Threads take every so many-th of them, so of equals a later thread may have the earlier one.
    """
    dtype = f.avals[0].dtype
    lines = textwrap.dedent(f"""
        places = cuda.shared.array({THREADS}, i8)
        t = i8(cuda.threadIdx.x)
        many = i8(cuda.blockDim.x)
        block = i8(cuda.blockIdx.x)
        while block < n:
            row = sdiv(block, chunks)
            o = sdiv(row, inner)
            start = o * length * inner + row - o * inner
            begin = (block - row * chunks) * share
            end = min(begin + share, candidates)
            c = min(begin + t, end - 1)
            best = CANDIDATE
            while c < end:
                k = CANDIDATE
                value = x[start + k * inner]
                champion = x[start + best * inner]
                if value {sign} champion or (value != value and champion == champion):
                    best = k
                c += many
            places[t] = best
            cuda.syncthreads()
            half = many >> 1
            while half > 0:
                if t < half:
                    k = places[t + half]
                    best = places[t]
                    value = x[start + k * inner]
                    champion = x[start + best * inner]
                    if value {sign} champion or (value != value and champion == champion):
                        places[t] = k
                    elif k < best and (value == champion or (value != value and champion != champion)):
                        places[t] = k
                cuda.syncthreads()
                half = half >> 1
            if t == 0:
                found[block] = places[0]
            cuda.syncthreads()
            block += cuda.gridDim.x
        """.replace("CANDIDATE", "listed[row * candidates + c]" if listed else "c")).strip().splitlines()
    pointers = ("found", "listed", "x") if listed else ("found", "x")
    made = kernel(f"{f.prim.name}_{dtype.name}_{pointers[-2]}", lines, (*[_PLACE] * (1 + listed), dtype),
                  (*pointers, "n", "length", "inner", "chunks", "candidates", "share"))
    slots = (0, 2, 1) if listed else (0 if chunks == 1 else 2, 1)
    share = -(-candidates // chunks)
    return Launch(made, slots, (count * chunks, n, inner, chunks, candidates, share), min(count * chunks, BLOCKS),
                  threads_for(share))


def searchsorted(f: Form, rows: int, n: int, count: int, right: int) -> Work:
    """A binary search for each element."""
    if not f.outs[0].size:
        return Work(())
    dtype = f.avals[0].dtype
    nan = "{0} < {1} or ({1} != {1} and {0} == {0})"
    lines = textwrap.dedent(f"""
        row = sdiv(i, count)
        low = row * length
        high = low + length
        v = wanted[i]
        while low < high:
            middle = (low + high) >> 1
            here = x[middle]
            if right != 0:
                before = not ({nan.format("v", "here")})
            else:
                before = {nan.format("here", "v")}
            if before:
                low = middle + 1
            else:
                high = middle
        out[i] = low - row * length
        """).strip().splitlines()
    made = kernel(f"searchsorted_{dtype.name}", turns(lines), (_PLACE, dtype, dtype),
                  ("out", "x", "wanted", "n", "length", "count", "right"))
    size = f.outs[0].size
    return Work((launch(made, (0, 1, 2), (size, n, count, right), size),))
