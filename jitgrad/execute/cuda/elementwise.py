"""Elementwise rows: a thread for each element of the result, in turns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from jitgrad.core.form import Form
from jitgrad.execute.cpu import library
from jitgrad.execute.cuda.kernel import Kernel, Work, kernel, launch
from jitgrad.execute.cuda.names import CALLS
from jitgrad.execute.source import lines_of, loaded, stored
from jitgrad.ops.scalar import Trace


def work(f: Form) -> Work:
    """The launch of an elementwise form; none for an empty result."""
    out = f.outs[0]
    if not out.size:
        return Work(())
    trace = library.elementwise_trace(f.prim, [a.dtype for a in f.avals], f.params)
    dims, steps = library.lines(out.shape, [a.shape for a in f.avals]) if out.size > 1 else ([1], [[1]] * 9)
    strides = steps[1: 1 + len(f.avals)]
    walks = tuple("01"[s[0]] if len(dims) == 1 and s[0] in (0, 1) else "s" for s in strides)
    made = _kernel(f"{f.prim.name}_{'_'.join(a.dtype.name for a in f.avals)}_{''.join(walks)}{len(dims)}", trace,
                   len(dims), walks)
    words = [math.prod(dims), *dims[1:], *(n for s, walk in zip(strides, walks, strict=True) if walk == "s" for n in s)]
    return Work((launch(made, range(1 + len(f.avals)), words, out.size),))


def _kernel(name: str, trace: Trace, ndim: int, walks: Sequence[str]) -> Kernel:
    """``walks``: for each operand 1 element by element, 0 one element, s by strides of every dim."""
    count = len(trace.arguments)
    tables: dict[str, Any] = {}
    arguments = ["out", *(f"p{k}" for k in range(count)), "n", *(f"d{j}" for j in range(1, ndim))]
    arguments += [f"s{k}_{j}" for k, walk in enumerate(walks) if walk == "s" for j in range(ndim)]
    lines = [f"x{k} = {loaded(f'p{k}', '0', dtype)}"
             for k, dtype in enumerate(trace.arguments) if walks[k] == "0"]
    lines += ["i = cuda.grid(1)", "step = cuda.gridsize(1)", "while i < n:"]
    if "s" in walks:
        lines.append("    r = i")
        for j in range(ndim - 1, 0, -1):
            lines += [f"    q = sdiv(r, d{j})", f"    k{j} = r - q * d{j}", "    r = q"]
        lines.append("    k0 = r")
    for k, dtype in enumerate(trace.arguments):
        if walks[k] != "0":
            place = "i" if walks[k] == "1" else " + ".join(f"k{j} * s{k}_{j}" for j in range(ndim))
            lines.append(f"    x{k} = {loaded(f'p{k}', place, dtype)}")
    body, (result,) = lines_of(trace, [f"x{k}" for k in range(count)], "    ", tables, calls=CALLS)
    lines += [*body, f"    out[i] = {stored(result, trace.dtypes[0])}", "    i += step"]
    return kernel(name, lines, (*trace.dtypes, *trace.arguments), arguments, tables)
