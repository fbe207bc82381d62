"""Rewrites that keep every bit, for the `exact=` of entries.

A rule looks at a form once and returns None, or a check for its rows: ``check(known, ids)`` says what a row on the
values ``ids`` is equal to: a value's id, another row as (form id, operand ids), or None. What is equal may have a
smaller shape that broadcasts to the row's; ``known.row`` appends rows that it is made of. ``known.bits`` has the bytes
of an element for values all of whose elements are one known number, ``known.made`` per value the row that makes it,
or None.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.aval import AVALS, Aval, aval
from jitgrad.core.form import FORMS, Form, form
from jitgrad.core.primitive import BY_NAME

Row = tuple[int, tuple[int, ...]]
Check = Callable[[Any, tuple[int, ...]], int | Row | None]
Rule = Callable[[Form], Check | None]
Part = tuple[int, int, int]         # from where to where along an axis, and the value that stands there
PARTS = 64                          # pieces of which one value is assembled at most


def element(number: Any, dtype: np.dtype[Any]) -> bytes:
    """The bytes of a number in a dtype: those of 0.0 and -0.0 differ."""
    return np.asarray(number).astype(dtype).tobytes()


def itself(when: Callable[..., bool] = lambda *avals, **params: True) -> Rule:
    """``op(x)`` is x, for the avals and params of which ``when`` holds."""
    def first(known: Any, ids: tuple[int, ...]) -> int:
        return ids[0]
    return lambda made: first if when(*made.avals, **made.params) else None


def neutral(right: Any = None, left: Any = None) -> Rule:
    """``x op right`` and ``left op x`` are x; -0.0 stands for 0 of integers, -1 for True."""
    def rule(made: Form) -> Check:
        dtype = made.avals[0].dtype
        on_right, on_left = (b"" if n is None else element(n, dtype) for n in (right, left))

        def check(known: Any, ids: tuple[int, ...]) -> int | None:
            x, y = ids
            return x if known.bits.get(y) == on_right else y if known.bits.get(x) == on_left else None
        return check
    return rule


def same(made: Form) -> Check:
    """``op(x, x)`` is x."""
    return lambda known, ids: ids[0] if ids[0] == ids[1] else None


def commutes(made: Form) -> Check:
    """``op(x, y)`` is op(y, x), with what is known last. Of two NaNs the first wins: of floats one must be a number."""
    dtype = made.outs[0].dtype

    def check(known: Any, ids: tuple[int, ...]) -> Row | None:
        x, y = ids
        if (x in known.constants, x) <= (y in known.constants, y):
            return None
        if dtype.kind == "f" and (x not in known.bits or np.isnan(np.frombuffer(known.bits[x], dtype)).any()):
            return None
        return form(made.prim, made.avals[::-1], made.params).id, (y, x)
    return check


def chosen(made: Form) -> Check:
    """``where(c, x, y)`` with a known c, or with one answer."""
    def check(known: Any, ids: tuple[int, ...]) -> int | None:
        c, x, y = ids
        return x if x == y else {b"\1": x, b"\0": y}.get(known.bits.get(c))
    return check


def another(name: str, when: Callable[..., bool]) -> Rule:
    """``op(x, x...)`` on one x, for the avals and params of which ``when`` holds, is another entry's ``name(x)``."""
    def rule(made: Form) -> Check | None:
        def check(known: Any, ids: tuple[int, ...]) -> Row | None:
            return (form(BY_NAME[name], made.avals[:1], {}).id, ids[:1]) if len({*ids}) == 1 else None
        return check if when(*made.avals, **made.params) else None
    return rule


def undone(made: Form) -> Check:
    """``op(op(x))`` is x."""
    def check(known: Any, ids: tuple[int, ...]) -> int | None:
        inner = known.made[ids[0]]
        return inner[1][0] if inner and inner[0] == made.id else None
    return check


def returned(made: Form) -> Check:
    """What was moved to a device, back where it was before, is what was moved."""
    def check(known: Any, ids: tuple[int, ...]) -> int | None:
        inner = known.made[ids[0]]
        if not inner or FORMS[inner[0]].prim is not made.prim:
            return None
        return inner[1][0] if FORMS[inner[0]].params["source"] == made.params["device"] else None
    return check


def idempotent(made: Form) -> Check:
    """``op(op(x))`` is op(x)."""
    def check(known: Any, ids: tuple[int, ...]) -> int | None:
        inner = known.made[ids[0]]
        return ids[0] if inner and inner[0] == made.id else None
    return check


def joined(params: Callable[[Aval, dict[str, Any], dict[str, Any]], dict[str, Any] | None]) -> Rule:
    """``op(op(x, **p), **q)`` is ``op(x, **params(aval of x, p, q))``, unless that is None."""
    def rule(made: Form) -> Check:
        def check(known: Any, ids: tuple[int, ...]) -> Row | None:
            inner = known.made[ids[0]]
            if not inner or FORMS[inner[0]].prim is not made.prim:
                return None
            first = FORMS[inner[0]]
            both = params(first.avals[0], first.params, made.params)
            return None if both is None else (form(made.prim, first.avals, both).id, inner[1])
        return check
    return rule


def swaps(made: Form) -> bool:
    """Whether rows of a form exchange the last two axes of a value, and move no other."""
    if made.prim is not BY_NAME["permute_dims"]:
        return False
    axes = made.params["axes"]
    return len(axes) > 1 and axes == (*range(len(axes) - 2), len(axes) - 1, len(axes) - 2)


def untransposed(*flags: str) -> Rule:
    """``op(transpose(x), y)`` is op(x, y) that takes x transposed, by the flag of that operand."""
    def rule(made: Form) -> Check | None:
        def check(known: Any, ids: tuple[int, ...]) -> Row | None:
            inner = [known.made[v] for v in ids]
            swapped = [row is not None and swaps(FORMS[row[0]]) for row in inner]
            if not any(swapped):
                return None
            avals = [FORMS[row[0]].avals[0] if s else a for row, s, a in zip(inner, swapped, made.avals, strict=True)]
            turned = {f: made.params[f] is not s for f, s in zip(flags, swapped, strict=True)}
            return form(made.prim, avals, {**made.params, **turned}).id, tuple(
                row[1][0] if s else v for row, s, v in zip(inner, swapped, ids, strict=True))
        return check if made.outs[0].dtype.kind == "f" else None       # integers' own loop had better walk along
    return rule


def assembled(made: Form) -> Check | None:
    """``x + embed(a) + embed(b) ...`` is ``x + concat(a + 0, b + 0, ...)`` where these fill an axis side by side: the
    gradient of what was cut into pieces. The zeros that met a piece made 0.0 of a -0.0."""
    out = made.outs[0]
    if out.ndim == 0 or out.dtype.kind != "f" or any(a is not out for a in made.avals):
        return None

    def check(known: Any, ids: tuple[int, ...]) -> int | Row | None:
        base, piece = ids
        found = _placed(known, piece)
        if not found:
            return None
        axis, parts, room = found[0], list[Part](), out.shape[found[0]]
        while found and found[0] == axis and len(parts) < PARTS:
            first, end, _ = found[1]
            parts.append(found[1])
            room -= end - first
            if room <= 0 or base < 0:
                break
            inner = known.made[base]             # the first of all has nothing before it
            base, piece = inner[1] if inner and inner[0] == made.id else (-1, base)
            found = _placed(known, piece)
        if room or not _side_by_side(parts):
            return None
        whole = _joined(known, parts, axis)
        return whole if base < 0 else (made.id, (base, whole))
    return check


def _placed(known: Any, value: int) -> tuple[int, Part] | None:
    """The axis of which an `embed` fills a part, and which with what; None for any other value."""
    row = known.made[value]
    if not row or FORMS[row[0]].prim is not BY_NAME["embed"]:
        return None
    params = FORMS[row[0]].params
    part = [k for k, (span, n) in enumerate(zip(params["spans"], params["shape"], strict=True)) if span != (0, n, 1)]
    if len(part) != 1:
        return None
    first, count, step = params["spans"][part[0]]
    return (part[0], (first, first + count, row[1][0])) if step == 1 and count else None


def _side_by_side(parts: list[Part]) -> bool:
    edges = sorted((first, end) for first, end, _ in parts)
    return all(end == first for (_, end), (first, _) in pairwise(edges))


def _joined(known: Any, parts: list[Part], axis: int) -> int:
    """A value of the pieces one after the other; pairs are joined, then pairs of these."""
    values = [_with_zero(known, v) for _, _, v in sorted(parts)]
    while len(values) > 1:
        pairs = [values[k: k + 2] for k in range(0, len(values), 2)]
        values = [known.row(form(BY_NAME["concat"], [AVALS[known.avals[v]] for v in pair], {"axis": axis}).id, pair)
                  if len(pair) == 2 else pair[0] for pair in pairs]
    return values[0]


def _with_zero(known: Any, value: int) -> int:
    like = AVALS[known.avals[value]]
    scalar = aval(like.code, ())
    zero = known.constant(backend.current().tensor(np.zeros((), like.dtype), scalar))
    return known.row(form(BY_NAME["add"], [like, scalar], {}).id, (value, zero))
