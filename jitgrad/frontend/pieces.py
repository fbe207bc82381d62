"""Gradients through rows whose rule is a Python callable (`custom_gradient`): the walk, row by row, in ops.

Rules run eagerly and recorded, so outer tapes see them and higher orders work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad.core.form import FORMS
from jitgrad.execute.cpu import types as machine
from jitgrad.execute.cpu.types import Variable
from jitgrad.ops import creation
from jitgrad.transform.fragment import cotangents_of


def gradient(core: Any, rows: bytes, targets: Sequence[Any], sources: Sequence[Any],
             seeds: Sequence[Any] | None) -> list[Any]:
    """Cotangents of the sources, given the log rows that connect them (in order, as the walk listed them)."""
    recorded = [machine.log_row(core, int(r)) for r in np.frombuffer(rows, np.int64)]
    cotangents: dict[int, Any] = {}
    for i, t in enumerate(targets):
        seed = seeds[i] if seeds is not None and seeds[i] is not None else creation.ones_like(t)
        _accumulate(cotangents, t, seed)
    for form_id, *refs in reversed(recorded):
        made = FORMS[form_id]
        n = len(made.avals)
        operands, outs = refs[:n], refs[n: n + len(made.outs)]
        gs = [cotangents.get(id(o)) for o in outs]
        if all(g is None for g in gs):
            continue
        if len(refs) > n + len(made.outs):
            pulled = refs[-1](*(g if g is not None else creation.zeros_like(o) for g, o in zip(gs, outs, strict=True)))
        else:
            many = len(outs) > 1
            pulled = cotangents_of(made, tuple(gs) if many else gs[0], tuple(outs) if many else outs[0], operands,
                                   [k for k, t in enumerate(operands) if t._tracked])
        for t, ct in zip(operands, pulled, strict=True):
            if ct is not None:
                _accumulate(cotangents, t, ct)
    return [_of_source(core, cotangents, s) for s in sources]


def _accumulate(cotangents: dict[int, Any], t: Any, ct: Any) -> None:
    have = cotangents.get(id(t))
    cotangents[id(t)] = ct if have is None else have + ct


def _of_source(core: Any, cotangents: dict[int, Any], source: Any) -> Any:
    """A source's cotangent; of a Variable, the sum over the Tensors that were read from it."""
    if type(source) is not Variable:
        return cotangents.get(id(source))
    total = None
    for t in machine.tape_reads(core, source):
        ct = cotangents.get(id(t))
        if ct is not None:
            total = ct if total is None else total + ct
    return total
