"""Which results of machine code may be written over inputs: native/places.py does it where nobody can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jitgrad.core.primitive import Kind
from jitgrad.execute.cpu.followed import may_fail
from jitgrad.execute.cpu.native.places import NOWHERE
from jitgrad.execute.cpu.walks import Walk
from jitgrad.plan.fuse import Call, Followed, Member, Nest, Operand, Step


def over_inputs(steps: Sequence[Step], walks: Mapping[int, Walk], inputs: Sequence[int],
                results: Sequence[int]) -> list[int]:
    """A word for each input and each result: number of a step, and of a member of it, in the upper and lower half.

    Result r, of the dtype and shape of input i, may take its place if the step of both is the same and the member of
    r is not before that of i: a walk in one pass, behind all steps that could fail, that makes r element by element
    and, as the last step, reads i so, from that member on. Others have NOWHERE; so have all where a loop is, in which
    handlers of signals may run and take hold of a value.
    """
    if any(isinstance(step, Call) and step.form.prim.kind is Kind.HIGHER for step in steps):
        return [NOWHERE] * (len(inputs) + len(results))
    first = max((k for k, step in enumerate(steps) if may_fail(step)), default=-1) + 1
    last: dict[int, int] = {}
    for k, step in enumerate(steps):
        for m in step.members:
            last.update((o.value, k) for o in m.operands)
    made, read = dict[int, int](), dict[int, int]()
    for k, step in enumerate(steps):
        if k >= first and isinstance(step, Nest | Followed) and max(walks[k].turn.values()) == 0:
            for at, m in enumerate(step.members):
                if isinstance(m, Member) and m.wide:
                    made.update(dict.fromkeys(m.outs, (k << 32) + at))
            read.update((v, (k << 32) + at) for v, at in _read(step).items() if last[v] == k)
    given, found = {*results}, [NOWHERE if v in results else read.get(v, NOWHERE) for v in inputs]
    for v in results:
        found.append(made.get(v, NOWHERE) if v in given else NOWHERE)
        given.discard(v)                             # a result that stands there twice is copied
    return found


def _read(step: Nest | Followed) -> dict[int, int]:
    """The values from elsewhere that a nest reads element by element only, and the first member that does."""
    nest = step if isinstance(step, Nest) else step.nest
    operands: dict[int, set[Operand]] = {}
    first: dict[int, int] = {}
    for at, m in enumerate(step.members):
        for o in m.operands:
            operands.setdefault(o.value, set()).add(o)
            first.setdefault(o.value, at)
    return {v: at for v, at in first.items() if v not in nest.values and len(operands[v]) == 1 and all(
        isinstance(m, Member) and o.offset == 0 and o.aval.size == nest.size and (m.wide or m.fold)
        for m in step.members for o in m.operands if o.value == v)}
