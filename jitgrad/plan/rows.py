"""How the rows of a nest are walked: the pass of each value, and where rows of operands that broadcast begin."""

from __future__ import annotations

from jitgrad.plan.fuse import Nest, aligned


def turns(nest: Nest) -> dict[int, int]:
    """The pass in which a wide value or a reduction is computed; a narrow value is, before that pass."""
    turn: dict[int, int] = {}
    folds = {v for m in nest.members if m.fold for v in m.outs}
    for m in nest.members:
        at = max((turn[o.value] + (o.value in folds) for o in m.operands if o.value in turn), default=0)
        turn.update(dict.fromkeys(m.outs, at))
    return turn


def outer_of(nest: Nest) -> tuple[list[int], dict[tuple[int, ...], list[int]]]:
    """Axes of rows with neighbours merged, and along them the strides of each shape that broadcasts."""
    if nest.shape is None:
        return [nest.rows or 1], {}
    strides = {p: aligned(p, nest.shape)[: nest.axis] for p in nest.partial}
    dims: list[int] = []
    steps: dict[tuple[int, ...], list[int]] = {p: [] for p in strides}
    for k in reversed(range(nest.axis)):
        n = nest.shape[k]
        if n == 1:
            continue
        if dims and all(strides[p][k] == steps[p][0] * dims[0] for p in strides):
            dims[0] *= n
            continue
        dims.insert(0, n)
        for p in strides:
            steps[p].insert(0, strides[p][k])
    return dims or [1], {p: s or [0] for p, s in steps.items()}
