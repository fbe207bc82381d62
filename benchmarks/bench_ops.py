"""Every entry of the table: its call on its first sample and on many elements, its gradient, its bytes on a tape.

The loops are within what is timed: asv sets up anew for each call that it times, so one call would be the first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import jitgrad as jg
from jitgrad.core.aval import aval
from jitgrad.core.dtypes import CODES
from jitgrad.core.primitive import BY_NAME, OPS, Kind, Primitive

LARGE = 100_000                # elements of the larger operands, about
CALLS, LARGE_CALLS, TAPES = 1000, 20, 20


def sample(prim: Primitive, dtype: str = "float32") -> tuple[list[np.ndarray], dict[str, Any]]:
    """The entry's first sample for tests, its floats in a dtype."""
    assert prim.samples is not None
    arrays, params = prim.samples(np.random.default_rng(0))[0]
    return [np.asarray(a, dtype) if np.asarray(a).dtype.kind == "f" else np.asarray(a) for a in arrays], params


def large(prim: Primitive, dtype: str = "float32") -> tuple[list[np.ndarray], dict[str, Any]] | None:
    """The sample repeated up to the larger size; None if the entry's parameters do not allow it.

    Elementwise entries take one long axis. Others get more slices along the axis that their parameters name, or the
    first: where the shape rule takes them, and (unless it reduces or adds up) makes more of them.
    """
    arrays, params = sample(prim, dtype)
    if prim.kind is Kind.ELEMENTWISE:
        return [np.resize(a.ravel(), LARGE) for a in arrays], params
    if prim.kind in (Kind.MOVE, Kind.PLACE) or any(a.ndim == 0 for a in arrays):
        return None
    times = -(-LARGE // max(a.size for a in arrays))
    for axis in dict.fromkeys((params["axis"] if type(params.get("axis")) is int else 0, 0)):
        tiled = [np.concatenate([a] * times, axis=axis % a.ndim if domain != "index" else 0)
                 for a, domain in zip(arrays, prim.domains, strict=True)]
        try:
            sizes = [_size(prim, given, params) for given in (arrays, tiled)]
        except Exception:               # the shape rule, or an entry's parameters, in words of its own
            continue
        if sizes[1] == times * sizes[0] or prim.kind in (Kind.REDUCE, Kind.INDEX) and sizes[1] <= 10 * LARGE:
            return tiled, params
    return None


def _size(prim: Primitive, arrays: list[np.ndarray], params: dict[str, Any]) -> int:
    outs = prim.aval(*(aval(CODES[a.dtype], a.shape) for a in arrays), **params)
    return (outs[0] if isinstance(outs, tuple) else outs).size


SAMPLED = sorted(name for name, prim in BY_NAME.items() if prim.samples is not None)
SCALABLE = [name for name in SAMPLED if large(BY_NAME[name]) is not None]
DIFFERENTIABLE = [name for name in SAMPLED if callable(BY_NAME[name].vjp)
                  and any(a.dtype.kind == "f" for a in sample(BY_NAME[name])[0])]


class _Entry:
    """An entry, its operands and params; called once, so that its kernel is there."""

    param_names = ["entry"]

    def prepare(self, name: str, arrays: list[np.ndarray], params: dict[str, Any]) -> None:
        self.op = OPS[name]
        self.operands = [jg.asarray(a) for a in arrays]
        self.floats = [t for t in self.operands if t.dtype.kind == "f"]
        self.given = tuple(params[p] for p in BY_NAME[name].params)
        self.op(*self.operands, *self.given)

    def call(self, times: int) -> None:
        op, arguments = self.op, (*self.operands, *self.given)
        for _ in range(times):
            op(*arguments)


class Small(_Entry):
    """The sample as it is."""

    params = SAMPLED

    def setup(self, name: str) -> None:
        self.prepare(name, *sample(BY_NAME[name]))

    def time_1000_calls(self, name: str) -> None:
        self.call(CALLS)


class Large(_Entry):
    """The sample's numbers repeated up to 100,000 elements, in float32."""

    params = SCALABLE
    dtype = "float32"

    def setup(self, name: str) -> None:
        made = large(BY_NAME[name], self.dtype)
        assert made is not None         # or the entry would not be scalable
        self.prepare(name, *made)

    def time_20_calls(self, name: str) -> None:
        self.call(LARGE_CALLS)


class LargeDouble(Large):
    """The same in float64, of the entries that take floats."""

    params = [name for name in SCALABLE if any(a.dtype.kind == "f" for a in sample(BY_NAME[name])[0])]
    dtype = "float64"


class Tape(_Entry):
    """The sample on a tape, with the gradient in every float operand."""

    params = DIFFERENTIABLE

    def setup(self, name: str) -> None:
        self.prepare(name, *sample(BY_NAME[name]))
        self.gradients(2)

    def gradients(self, times: int) -> None:
        for _ in range(times):
            with jg.GradientTape() as tape:
                tape.watch(self.floats)
                out = self.op(*self.operands, *self.given)
            tape.gradient(out, self.floats)

    def time_20_gradients(self, name: str) -> None:
        self.gradients(TAPES)

    def track_bytes_a_row(self, name: str) -> float:
        """The row, and the result that it keeps."""
        with jg.GradientTape() as tape:
            tape.watch(self.floats)
            self.call(CALLS)
        return tape.nbytes / CALLS

    track_bytes_a_row.unit = "bytes"
