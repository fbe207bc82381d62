"""The slow, obvious oracle: any Program by NumPy, one reference call per row. Every backend is tested against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad.core.program import Program
from jitgrad.transform.higher import inlined


def run(program: Program, inputs: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    """Results of a Program for arrays of its inputs' avals."""
    flat = inlined(program)
    values: dict[int, Any] = dict(zip(flat.inputs.tolist(), inputs, strict=True))
    values.update({v: t.numpy() for v, t in flat.constants.items()})
    for made, operands, outs in flat.rows():
        with np.errstate(all="ignore"):
            given = [values[v] for v in operands]
            out = made.prim.ref(*([run] if made.prim.runner else []), *given, **made.params)
        answers = out if isinstance(out, tuple) else (out,)
        for v, answer, aval in zip(outs, answers, made.outs, strict=True):
            values[v] = np.asarray(answer, aval.dtype).reshape(aval.shape)
    return [None if v < 0 else values[v] for v in flat.results.tolist()]
