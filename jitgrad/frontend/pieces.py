"""Gradients through rows whose rule is a Python callable (`custom_gradient`): the walk, row by row, in ops.

Rules run eagerly and recorded, so outer tapes see them and higher orders work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jitgrad.core.form import FORMS
from jitgrad.core.recorder import Placement, is_elsewhere
from jitgrad.execute.cpu import types as machine
from jitgrad.frontend import nans
from jitgrad.ops import creation
from jitgrad.transform.fragment import cotangents_of
from jitgrad.transform.signature import leaves_of


def gradient(core: Any, words: bytes, rows: bytes, values: Sequence[Any], targets: Sequence[Any],
             seeds: Sequence[Any] | None, n_sources: int) -> list[Any]:
    """Cotangents of the sources, given a walk's report: the log rows that connect them (in order) and the leaves."""
    elsewhere = next((t for t in values if is_elsewhere(t)), None)
    with contextlib.nullcontext() if elsewhere is None else Placement(elsewhere._owner.device):
        return _gradient(core, words, rows, values, targets, seeds, n_sources)


def _gradient(core: Any, words: bytes, rows: bytes, values: Sequence[Any], targets: Sequence[Any],
              seeds: Sequence[Any] | None, n_sources: int) -> list[Any]:
    recorded = [machine.log_row(core, int(r)) for r in np.frombuffer(rows, np.int64)]
    ends, groups = leaves_of(np.frombuffer(words, np.int64), values, len(targets), seeds is not None, n_sources)
    reached = {id(values[v]) for group in groups for v in group}
    for form_id, *refs in recorded:
        n = len(FORMS[form_id].avals)
        if any(id(t) in reached for t in refs[:n]):
            reached.update(id(t) for t in refs[n: n + len(FORMS[form_id].outs)])
    cotangents: dict[int, Any] = {}
    for i, (t, (end, _)) in enumerate(zip(targets, ends, strict=True)):
        if end >= 0:
            seed = seeds[i] if seeds is not None and seeds[i] is not None else creation.ones_like(t)
            _accumulate(cotangents, t, seed)
    for form_id, *refs in reversed(recorded):
        made = FORMS[form_id]
        n = len(made.avals)
        operands, outs = refs[:n], refs[n: n + len(made.outs)]
        gs = [cotangents.get(id(o)) for o in outs]
        if all(g is None for g in gs):
            continue
        want = [k for k, t in enumerate(operands) if id(t) in reached]
        with nans.rule_of(made, outs) as check:
            if len(refs) > n + len(made.outs):
                full = (g if g is not None else creation.zeros_like(o) for g, o in zip(gs, outs, strict=True))
                pulled = refs[-1](*full)
            else:
                many = len(outs) > 1
                pulled = cotangents_of(made, tuple(gs) if many else gs[0], tuple(outs) if many else outs[0], operands,
                                       want)
            check([pulled[k] for k in want])
        for k in want:
            if pulled[k] is not None:
                _accumulate(cotangents, operands[k], pulled[k])
    return [_total(cotangents.get(id(values[v])) for v in group) for group in groups]


def _accumulate(cotangents: dict[int, Any], t: Any, ct: Any) -> None:
    have = cotangents.get(id(t))
    cotangents[id(t)] = ct if have is None else have + ct


def _total(parts: Iterable[Any]) -> Any:
    """The sum of what is not None: a Variable assigned in between has several leaves."""
    total = None
    for ct in parts:
        if ct is not None:
            total = ct if total is None else total + ct
    return total
