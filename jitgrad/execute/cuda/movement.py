"""Rows that move elements: a thread for each of them; nothing is computed but where it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jitgrad.core.aval import Aval
from jitgrad.core.form import Form
from jitgrad.core.primitive import Index, Kind
from jitgrad.execute.cuda.kernel import Kernel, Launch, Work, digits, kernel, launch, turns, width_of


def work(f: Form) -> Work:
    """A MOVE reads by strides; a PLACE writes by them, into zeros."""
    index: Index = f.prim.body(*f.avals, **f.params)
    if f.prim.kind is Kind.PLACE:
        return Work((*zeroed(f.outs[0]), *_walk("place", index, f.outs[0].dtype)))
    return Work(_walk("move", index, f.outs[0].dtype))


def zeroed(out: Aval) -> tuple[Launch, ...]:
    """Zeros in all of the first slot."""
    width = width_of(out.dtype)
    made = kernel(f"zeros_{width.name}", turns(["out[i] = 0"]), (width,), ("out", "n"))
    return (launch(made, (0,), (out.size,), out.size),) if out.size else ()


def _walk(name: str, index: Index, dtype: np.dtype[Any]) -> tuple[Launch, ...]:
    dims, strides = merged(index)
    count = math.prod(dims)
    if not count:
        return ()
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
