"""Nests that do not fold, together: fewer passes over memory, and fewer launches where a launch has its price.

Steps may change places where nobody can tell: a nest joins an earlier one that stands behind all that it reads, or an
earlier one comes to it where no step between reads what that makes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from jitgrad.plan.fuse import MOST_NODES, Accumulate, Nest, Step, read_later

CHEAP = 1 << 16                # elements up to which nests without a value in common are one pass
LATEST = 8                     # earlier nests that one is tried with
MOST = 32                      # nests beside each other in one launch
MOST_READ = 640                # operands and values of such a launch, of which only some are pointers


@dataclass(eq=False)
class Together(Nest):
    """Nests of one structure, whatever their sizes, none of which reads what another makes."""

    parts: list[Nest] = field(default_factory=list)


def merged(steps: Sequence[Step], results: Container[int],
           structure: Callable[[Nest, set[int]], Hashable]) -> list[Step]:
    """The steps with nests of one size as one nest, and with nests of one ``structure`` beside each other.

    That is asked with the values of the nest that have to be in memory.
    """
    steps = _gathered(steps, lambda nest: nest.size, _one_pass)
    kinds = {id(step): structure(step, later | {v for v in step.values if v in results})
             for step, later in zip(steps, read_later(steps), strict=True) if _is_flat(step) and isinstance(step, Nest)}
    return _gathered(steps, lambda nest: kinds[id(nest.parts[0] if isinstance(nest, Together) else nest)], _beside)


def _is_flat(step: Step) -> bool:
    return isinstance(step, Nest) and not any(m.fold for m in step.members)


def _one_pass(a: Nest, b: Nest) -> Nest | None:
    """Both as one nest, first ``a``, if what they read allows it."""
    related = bool(a.reads & b.reads or b.reads & a.values.keys())
    if not (related or a.size <= CHEAP) or a.nodes + b.nodes > MOST_NODES:
        return None
    if a.shape is not None and b.shape is not None and a.shape != b.shape:
        return None
    if any(o.value in a.values and o.aval.size != a.size for m in b.members for o in m.operands):
        return None                                  # a part of what is being made
    values = {**a.values, **b.values}
    return Nest(a.at, a.size, 1, a.shape or b.shape, [*a.partial, *b.partial], [*a.members, *b.members], values,
                (a.reads | b.reads) - values.keys(), a.nodes + b.nodes)


def _beside(a: Nest, b: Nest) -> Nest | None:
    """Both in one launch, if neither waits for the other."""
    parts = [p for nest in (a, b) for p in (nest.parts if isinstance(nest, Together) else [nest])]
    if len(parts) > MOST or sum(len(p.reads) + len(p.values) for p in parts) > MOST_READ or b.reads & a.values.keys():
        return None
    return Together(a.at, 0, 1, members=[*a.members, *b.members], values={**a.values, **b.values},
                    reads=a.reads | b.reads, nodes=a.nodes + b.nodes, parts=parts)


def _gathered(steps: Sequence[Step], bucket: Callable[[Nest], Hashable],
              join: Callable[[Nest, Nest], Nest | None]) -> list[Step]:
    """The steps, with nests that do not fold joined to others of their bucket."""
    found: list[Step | None] = []
    made: dict[int, int] = {}                        # value -> place of the step that makes it
    read: dict[int, int] = {}                        # value -> place of the last step that reads it
    buckets: defaultdict[Hashable, list[int]] = defaultdict(list)

    def put(step: Step, at: int) -> None:
        made.update(dict.fromkeys(_makes(step), at))
        for m in step.members:
            for o in m.operands:
                read[o.value] = max(read.get(o.value, -1), at)

    for step in steps:
        if not isinstance(step, Nest) or not _is_flat(step):
            found.append(step)
            put(step, len(found) - 1)
            continue
        places = buckets[bucket(step)]
        ready = max((made.get(v, -1) for v in step.reads), default=-1)
        for at in places[:-LATEST - 1:-1]:
            other = found[at]
            assert isinstance(other, Nest)
            stays = max((read.get(v, -1) for v in other.values), default=-1) <= at
            joined = join(other, step) if ready <= at or stays else None
            if joined is None:
                continue
            if ready <= at:
                found[at] = joined
                put(step, at)
            else:
                found[at] = None
                found.append(joined)
                places.remove(at)
                places.append(len(found) - 1)
                put(joined, len(found) - 1)
            break
        else:
            found.append(step)
            places.append(len(found) - 1)
            put(step, len(found) - 1)
    return [step for step in found if step is not None]


def _makes(step: Step) -> Iterable[int]:
    """The values that are new, or have changed, behind a step."""
    if isinstance(step, Accumulate):
        return (step.operands[-1].value,)
    return [v for m in step.members for v in m.outs]
