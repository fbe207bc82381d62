"""Rows that move elements: nothing is computed but where they are.

A thread for each element of the result; where neighbours of the result are no neighbours of the operand, as in a
transpose, blocks read squares by the one order and write them by the other.
"""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np

from jitgrad.core.aval import Aval
from jitgrad.core.form import Form
from jitgrad.core.primitive import Index, Kind, contiguous_strides
from jitgrad.execute.cuda.kernel import BLOCKS, THREADS, Kernel, Launch, Work, digits, kernel, launch, turns, width_of

SIDE = 32                      # of a square that a block turns over in shared memory
TURNED = 8                     # elements along both its axes from which that pays


def work(f: Form) -> Work:
    """A MOVE reads by strides; a PLACE writes by them, into zeros."""
    index: Index = f.prim.body(*f.avals, **f.params)
    if f.prim.kind is Kind.PLACE:
        return Work((*zeroed(f.outs[0]), *walked("place", index, f.outs[0].dtype)))
    return Work(walked("move", index, f.outs[0].dtype))


def zeroed(out: Aval) -> tuple[Launch, ...]:
    """Zeros in all of the first slot."""
    width = width_of(out.dtype)
    made = kernel(f"zeros_{width.name}", turns(["out[i] = 0"]), (width,), ("out", "n"))
    return (launch(made, (0,), (out.size,), out.size),) if out.size else ()


def walked(name: str, index: Index, dtype: np.dtype[Any]) -> tuple[Launch, ...]:
    """A thread for each element of an index map, which it reads (a "move") or writes (a "place")."""
    dims, strides = merged(index)
    count = math.prod(dims)
    if not count:
        return ()
    if name == "move" and abs(strides[-1]) > 1 and 1 in strides:
        axis = strides.index(1)
        if min(dims[axis], dims[-1]) >= TURNED:
            return (_turned(axis, dims, strides, index.offset, width_of(dtype)),)
    made = _kernel(name, len(dims), width_of(dtype))
    return (launch(made, (0, 1), (count, index.offset, *dims[1:], *strides), count),)


def merged(index: Index) -> tuple[list[int], list[int]]:
    """Shape and strides with neighbours merged that are walked as one; there is one axis at least."""
    dims, strides = [1], [1]
    for n, s in zip(index.shape, index.strides, strict=True):
        if dims[-1] == 1:
            dims[-1], strides[-1] = n, s
        elif strides[-1] == n * s:
            dims[-1], strides[-1] = dims[-1] * n, s
        elif n != 1:
            dims.append(n)
            strides.append(s)
    return dims, strides


def _kernel(name: str, ndim: int, width: np.dtype[Any]) -> Kernel:
    axes = range(ndim - 1, -1, -1)
    lines = digits("i", *((f"k{j}", f"d{j}" if j else "") for j in axes))
    there = " + ".join(["offset", *(f"k{j} * s{j}" for j in range(ndim))])
    lines.append(f"out[i] = x[{there}]" if name == "move" else f"out[{there}] = x[i]")
    arguments = ["out", "x", "n", "offset", *(f"d{j}" for j in range(1, ndim)), *(f"s{j}" for j in range(ndim))]
    return kernel(f"{name}_{width.name}_{ndim}", turns(lines), (width, width), arguments)


def _turned(axis: int, dims: list[int], strides: list[int], offset: int, width: np.dtype[Any]) -> Launch:
    """Squares of an axis along which the operand has its neighbours, and of the last one, which is the result's."""
    to = contiguous_strides(tuple(dims))
    others = [j for j in range(len(dims) - 1) if j != axis]
    squares = [-(-dims[j] // SIDE) for j in (axis, -1)]
    count = math.prod([*squares, *(dims[j] for j in others)])
    rest = range(len(others))
    at = digits("square", ("b", "across"), ("a", "down"), *((f"k{j}", f"d{j}" if j else "") for j in reversed(rest)))
    lines = textwrap.dedent(f"""
        held = cuda.shared.array({SIDE * (SIDE + 1)}, {"u1" if width.itemsize == 1 else width.str[1:]})
        square = i8(cuda.blockIdx.x)
        many = i8(cuda.blockDim.x)
        while square < n:
            {"; ".join(at)}
            a = a * {SIDE}
            b = b * {SIDE}
            there = {" + ".join(["offset", *(f"k{j} * s{j}" for j in rest)])}
            here = {" + ".join(["0", *(f"k{j} * t{j}" for j in rest)])}
            e = i8(cuda.threadIdx.x)
            while e < {SIDE ** 2}:
                r = sdiv(e, {SIDE})
                c = e - r * {SIDE}
                if a + c < reads and b + r < writes:
                    held[r * {SIDE + 1} + c] = x[there + a + c + (b + r) * stride]
                e += many
            cuda.syncthreads()
            e = i8(cuda.threadIdx.x)
            while e < {SIDE ** 2}:
                r = sdiv(e, {SIDE})
                c = e - r * {SIDE}
                if a + r < reads and b + c < writes:
                    out[here + (a + r) * pitch + b + c] = held[c * {SIDE + 1} + r]
                e += many
            cuda.syncthreads()
            square += cuda.gridDim.x
        """).strip().splitlines()
    each = [f"{letter}{j}" for letter in "dst" for j in rest]
    made = kernel(f"turn_{width.name}_{len(dims)}", lines, (width, width),
                  ("out", "x", "n", "offset", "down", "across", "reads", "writes", "stride", "pitch", *each))
    words = (count, offset, *squares, dims[axis], dims[-1], strides[-1], to[axis],
             *(given[j] for given in (dims, strides, to) for j in others))
    return Launch(made, (0, 1), words, min(count, BLOCKS), min(THREADS, SIDE ** 2))
