"""Every entry of the table, eager: its call on its first sample, and on 100,000 elements where any shape will do."""

from __future__ import annotations

from typing import Any

import numpy as np

import jitgrad as jg
from jitgrad.core.primitive import BY_NAME, OPS, Kind, Primitive

LARGE = 100_000
SAMPLED = sorted(name for name, prim in BY_NAME.items() if prim.samples is not None)
ELEMENTWISE = sorted(name for name in SAMPLED if BY_NAME[name].kind is Kind.ELEMENTWISE)
DIFFERENTIABLE = sorted(name for name in SAMPLED if callable(BY_NAME[name].vjp))


def sample(prim: Primitive) -> tuple[list[np.ndarray], dict[str, Any]]:
    """The entry's first sample for tests, floats as float32."""
    assert prim.samples is not None
    arrays, params = prim.samples(np.random.default_rng(0))[0]
    return [np.asarray(a, np.float32) if np.asarray(a).dtype.kind == "f" else np.asarray(a) for a in arrays], params


class _Entry:
    """An entry, its operands and params."""

    param_names = ["entry"]
    size: int | None = None

    def setup(self, name: str) -> None:
        prim = BY_NAME[name]
        arrays, params = sample(prim)
        self.op = OPS[name]
        self.operands = [jg.asarray(a if self.size is None else np.resize(a.ravel(), self.size)) for a in arrays]
        self.floats = [t for t in self.operands if t.dtype.kind == "f"]
        self.given = tuple(params[p] for p in prim.params)


class Small(_Entry):
    """The sample as it is."""

    params = SAMPLED

    def time_call(self, name: str) -> None:
        self.op(*self.operands, *self.given)


class Large(_Entry):
    """The sample's numbers repeated up to 100,000 elements."""

    params = ELEMENTWISE
    size = LARGE

    def time_call(self, name: str) -> None:
        self.op(*self.operands, *self.given)


class Gradient(_Entry):
    """The sample under a tape, with the gradient in every float operand."""

    params = DIFFERENTIABLE

    def time_tape(self, name: str) -> None:
        with jg.GradientTape() as tape:
            tape.watch(self.floats)
            out = self.op(*self.operands, *self.given)
        tape.gradient(out, self.floats)
