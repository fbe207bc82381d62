"""Rows that pick elements by indices: a thread for each element, in functions named as the entries are.

An index that is out of range leaves the entry's error code, and its elements alone. Sums at equal indices are atomic:
those of floats come in any order, so their last bits may differ from run to run, and the hardware takes subnormal
float32 that are added so for zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad.core.form import Form
from jitgrad.execute.cuda.kernel import STATUS, Launch, Work, digits, kernel, launch, turns, width_of
from jitgrad.execute.cuda.movement import zeroed

OUT_OF_RANGE = 1               # the error code of all these entries


def work(f: Form) -> Work:
    """The launches of a form, by the entry's name and what its own kernel gets."""
    assert f.prim.words is not None
    made: tuple[Launch, ...] = globals()[f.prim.name](f, *f.prim.words(*f.avals, **f.params))
    return Work(made)


def concat(f: Form, outer: int, m: int, n: int) -> tuple[Launch, ...]:
    """Each element from where it was."""
    count = outer * (m + n)
    lines = [*digits("i", ("k", "(many + more)"), ("o", "")), "if k < many:", "    out[i] = x[o * many + k]", "else:",
             "    out[i] = y[o * more + k - many]"]
    width = width_of(f.outs[0].dtype)
    made = kernel(f"concat_{width.name}", turns(lines), (width,) * 3, ("out", "x", "y", "n", "many", "more"))
    return (launch(made, (0, 1, 2), (count, m, n), count),) if count else ()


def gather(f: Form, rows: int, outer: int, n: int, count: int, inner: int) -> tuple[Launch, ...]:
    """Each element of the result at its index."""
    if not f.outs[0].size:
        return _check(f, n)
    lines = [*digits("i", ("e", "inner"), ("k", "count"), ("o", "")), "row = sdiv(o, outer)",
             *_found("row * count + k", "out[i] = x[(o * length + at) * inner + e]")]
    return _launched(f, f.outs[0].size, lines, length=n, outer=outer, count=count, inner=inner)


def scatter_add(f: Form, rows: int, outer: int, n: int, count: int, inner: int) -> tuple[Launch, ...]:
    """Each element of the operand added at its index."""
    if not f.avals[0].size:
        return (*zeroed(f.outs[0]), *_check(f, n))
    lines = [*digits("i", ("e", "inner"), ("k", "count"), ("o", "")), "row = sdiv(o, outer)",
             *_found("row * count + k", "atomic_add(out, (o * length + at) * inner + e, x[i])")]
    return (*zeroed(f.outs[0]), *_launched(f, f.avals[0].size, lines, True, length=n, outer=outer, count=count,
                                           inner=inner))


def pick(f: Form, rows: int, n: int) -> tuple[Launch, ...]:
    """Each row's element."""
    return _launched(f, rows, _found("i", "out[i] = x[i * length + at]", first="0"), span=(0, n), length=n)


def unpick(f: Form, rows: int, n: int) -> tuple[Launch, ...]:
    """Each element of the result: a zero but at its row's index."""
    if not n:
        return _check(f, n)
    lines = [*digits("i", ("k", "length"), ("row", "")),
             *_found("row", "if at == k:", "    out[i] = x[row]", "else:", "    out[i] = 0", first="0")]
    return _launched(f, f.outs[0].size, lines, span=(0, n), length=n)


def take_along_axis(f: Form, outer: int, n: int, count: int, inner: int) -> tuple[Launch, ...]:
    """Each element of the result at its index."""
    lines = [*digits("i", ("e", "inner"), ("k", "count"), ("o", "")),
             *_found("i", "out[i] = x[(o * length + at) * inner + e]")]
    return _launched(f, f.outs[0].size, lines, length=n, count=count, inner=inner)


def add_along_axis(f: Form, outer: int, n: int, count: int, inner: int) -> tuple[Launch, ...]:
    """Each element of the operand added at its index."""
    lines = [*digits("i", ("e", "inner"), ("k", "count"), ("o", "")),
             *_found("i", "atomic_add(out, (o * length + at) * inner + e, x[i])")]
    return (*zeroed(f.outs[0]), *_launched(f, f.avals[0].size, lines, True, length=n, count=count, inner=inner))


def _check(f: Form, n: int) -> tuple[Launch, ...]:
    """Where no element is there to be moved, indices may still be wrong."""
    return _launched(f, f.avals[1].size, _found("i", "pass"), name="check", length=n)


def _found(index: str, *lines: str, first: str = "-length") -> list[str]:
    """Lines with ``at``, the place that an index from ``first`` on means; none of them where it is out of range."""
    return [f"at = i8(indices[{index}])", f"if at < {first} or at >= length:", f"    status[0] = {OUT_OF_RANGE}",
            "else:", "    if at < 0:", "        at += length", *(f"    {line}" for line in lines)]


def _launched(f: Form, size: int, lines: Sequence[str], adds: bool = False, name: str = "",
              span: tuple[int, int] | None = None, **words: int) -> tuple[Launch, ...]:
    """A thread for each of so many elements; sums want their dtype, what is moved only its width. ``span``: in which
    the indices have to lie, if they do not count from the end as well.
    """
    if not size:
        return ()
    dtype: np.dtype[Any] = f.outs[0].dtype if adds else width_of(f.outs[0].dtype)
    indices = f.avals[1].dtype
    made = kernel(f"{name or f.prim.name}_{dtype.name}_{indices.name}", turns(lines),
                  (dtype, dtype, indices, np.dtype(np.int32)), ("out", "x", "indices", "status", "n", *words))
    asked = launch(made, (0, 1, 2, STATUS), (size, *words.values()), size)
    return (asked._replace(indices=(2, span or (-words["length"], words["length"]))),)
