"""A Program as actions of the GPU: launches, products and copies on places in one arena and a table of pointers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jitgrad.core.form import Form
from jitgrad.core.primitive import BY_NAME
from jitgrad.core.program import Program
from jitgrad.execute.cuda import blas, library, nests, ranges, straight, tensors
from jitgrad.execute.cuda.driver import Driver
from jitgrad.execute.cuda.halves import NotTwo
from jitgrad.execute.cuda.kernel import STATUS, Launch
from jitgrad.execute.cuda.memory import Span
from jitgrad.plan import laid, merge
from jitgrad.plan.fuse import Accumulate, Call, Copy, Nest, Step, Straight, read_later, steps_of
from jitgrad.plan.memory import ALIGN, ENTRY
from jitgrad.transform.higher import inlined

GUARD = BY_NAME["guard"]
MOST_ROUNDS = 4096             # of a loop: each of them is launches of its own
Place = tuple[Any, int]        # base and offset


class Move(NamedTuple):
    """So many bytes from the second slot to the first."""

    nbytes: int


Launches = tuple["Launch | blas.Gemm | Move | Loop", ...]


class Action(NamedTuple):
    """What a step does: launches on slots, each a place (see `plan.memory`) and bytes behind it. ``status`` is the
    number of its word among those for error codes, or -1; ``guard`` the number of the guard that it is, or -1.
    """

    launches: Launches
    slots: tuple[tuple[int, int], ...]
    status: int
    guard: int


class Actions(NamedTuple):
    """A Program as actions: bytes of the arena, how many words for error codes, copies (to, from, bytes) at the end.

    If the integers of the inputs in ``needs``, by position, lie in these spans, all words stay 0; None: they may not.
    """

    actions: list[Action]
    arena: int
    words: int
    copies: list[tuple[int, int, int]]
    needs: dict[int, Span] | None


def actions_of(program: Program) -> Actions:
    """The table of pointers is inputs, results, constants."""
    found, lies = steps_of(program, _adds)
    steps, results, sizes = laid.with_results(program, found, lies)
    kept, free = {*results}, len(sizes)
    steps = merge.merged(steps, kept, nests.structure)
    works: list[tuple[Launches, list[tuple[int, int]]]] = []
    written: list[list[int]] = []
    for step, others in zip(steps, read_later(steps), strict=True):
        outs = [v for m in step.members for v in m.outs if not isinstance(step, Nest | Straight) or v in others
                or v in kept]
        launches, scratch, slots = _work(step, outs)
        for nbytes in scratch:
            slots.append((free, 0))
            outs.append(free)
            sizes[free] = nbytes
            free += 1
        works.append((launches, slots))
        written.append(outs)
    reads = [laid.reads_of(step) for step in steps]
    n_in, n_out = len(program.inputs), len(results)
    found_places = laid.lay_out(program, written, reads, results, sizes, n_in, n_in + n_out)
    actions, words, guards = [], 0, 0
    known = ranges.of_program(program)
    pairs: list[tuple[ranges.Known | None, Span]] = []
    for step, (launches, slots), places in zip(steps, works, found_places.places, strict=True):
        checks = sum(launch.part.words if isinstance(launch, Loop) else 1 for launch in launches if isinstance(
            launch, Loop) or isinstance(launch, Launch) and STATUS in launch.slots)
        guard = isinstance(step, Call) and step.form.prim is GUARD
        actions.append(Action(launches, tuple((places[v], offset) for v, offset in slots),
                              words if checks else -1, guards if guard else -1))
        words += checks
        guards += guard
        if checks:
            pairs += _indices(launches, [known.get(v) for v, _ in slots])
    return Actions(actions, found_places.arena, words, found_places.copies, ranges.needs(pairs))


def _indices(launches: Launches, slots: Sequence[ranges.Known | None]) -> Iterator[tuple[ranges.Known | None, Span]]:
    """In which spans values in slots have to be, lest an error code is left."""
    yield from ranges.indices([launch for launch in launches if isinstance(launch, Launch)], slots)
    for launch in launches:
        if isinstance(launch, Loop):
            yield from launch.indices(slots)


def _adds(f: Form) -> bool:
    """Whether a row's product can be added to what is there."""
    return blas.gemm(f) is not None


def _work(step: Step, written: Sequence[int]) -> tuple[Launches, tuple[int, ...], list[tuple[int, int]]]:
    """Launches of a step, bytes of scratch, and its slots before those as (value, bytes behind it)."""
    operands = [(o.value, o.offset) for m in step.members for o in m.operands]
    if isinstance(step, Nest | Straight):
        work, slots = nests.work(step, {*written}) if isinstance(step, Nest) else straight.work(step, {*written})
        return work.launches, work.scratch, [(slot.value, slot.offset) for slot in slots]
    if isinstance(step, Copy):
        return (Move(step.operands[0].aval.nbytes),), (), [(step.outs[0], 0), *operands]
    if isinstance(step, Accumulate):
        made = blas.gemm(step.form)
        assert made is not None
        return (made._replace(add=True),), (), [operands[2], *operands[:2]]
    assert isinstance(step, Call)
    if step.form.prim.runner and "length" in step.form.params:
        loop = Loop.of(step.form)
        return (loop,), loop.scratch(), [*((v, 0) for v in step.outs), *operands]
    if step.form.prim.host or not library.has_kernel(step.form.prim):
        raise NotTwo(f"it runs {step.form.prim.name}, {step.form.prim.host or 'which the host leads'}")
    product = blas.gemm(step.form)
    if product is not None:
        return (product,), (), [*((v, 0) for v in step.outs), *operands]
    work = library.work_of(step.form)
    return work.launches, work.scratch, [*((v, 0) for v in step.outs), *operands]


# ---- loops -----------------------------------------------------------------------------------------------

@dataclass(eq=False)
class Loop:
    """A scan, round by round. Its slots are its results, its operands, then the arena of the body and two rooms for
    each value that is carried, which rounds read and write by turns.
    """

    body: Program
    part: Actions
    consts: int
    carry: int
    length: int
    reverse: bool
    constants: list[Place] = field(default_factory=list)
    held: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, f: Form) -> Loop:
        """The loop of a form."""
        if f.params["length"] > MOST_ROUNDS:
            raise NotTwo(f"it loops {f.params['length']} times")
        body = inlined(f.params["body"])
        return cls(body, actions_of(body), f.params["consts"], f.params["carry"], f.params["length"],
                   f.params["reverse"])

    def indices(self, slots: Sequence[ranges.Known | None]) -> Iterator[tuple[ranges.Known | None, Span]]:
        """In which spans its operands have to be; of what is carried nothing is known."""
        if self.part.words and self.part.needs is None:
            yield None, (0, 0)
        for i, span in (self.part.needs or {}).items():
            carried = self.consts <= i < self.consts + self.carry
            yield None if carried else slots[len(self.body.results) + i], span

    def scratch(self) -> tuple[int, ...]:
        """Bytes of the arena, and of each carried value twice."""
        sizes = [self.body.aval(v).nbytes for v in self.body.results.tolist()[: self.carry]]
        return (max(self.part.arena, ALIGN), *sizes, *sizes)

    def ready(self) -> None:
        """Its constants are on the GPU."""
        if len(self.held) != len(self.body.constants):
            self.held = [tensors.constant(t) if t._data else t for t in self.body.constants.values()]
            self.constants = [tensors.place(t) for t in self.held]

    def rounds(self, slots: Sequence[Place]) -> Iterator[list[Place]]:
        """The table of each round."""
        n, results, inputs = self.carry, self.body.results.tolist(), self.body.inputs.tolist()
        xs, ys = inputs[self.consts + n:], results[n:]
        outs, given = slots[: len(results)], slots[len(results): len(results) + len(inputs)]
        rooms = slots[len(results) + len(inputs) + 1:]
        common, state = given[: self.consts], list(given[self.consts: self.consts + n])
        for k in range(self.length):
            i = self.length - 1 - k if self.reverse else k
            after = list(outs[:n]) if k == self.length - 1 else list(rooms[n * (k % 2): n * (k % 2 + 1)])
            yield [*common, *state, *self._slices(given[self.consts + n:], xs, i), *after,
                   *self._slices(outs[n:], ys, i), *self.constants]
            state = after

    def _slices(self, places: Sequence[Place], values: Sequence[int], i: int) -> list[Place]:
        """Where the i-th of stacked values are."""
        return [(base, offset + i * self.body.aval(v).nbytes)
                for (base, offset), v in zip(places, values, strict=True)]

    def ends(self, slots: Sequence[Place]) -> Iterator[tuple[Place, Place, int]]:
        """What is carried through no round at all."""
        first = len(self.body.results) + self.consts
        for k, v in enumerate(self.body.results.tolist()[: self.carry if not self.length else 0]):
            yield slots[k], slots[first + k], self.body.aval(v).nbytes


def launches_of(made: Actions) -> Iterator[Launch]:
    """All launches of kernels, those of loops once."""
    for action in made.actions:
        for launch in action.launches:
            if isinstance(launch, Launch):
                yield launch
            elif isinstance(launch, Loop):
                yield from launches_of(launch.part)


# ---- asking for it ---------------------------------------------------------------------------------------

def ask(gpu: Driver, made: Actions, table: Sequence[Place], arena: Place, status: Place) -> None:
    """Ask for all actions; ``status``: where their words for error codes begin."""
    def place(slot: int, more: int = 0) -> Place:
        if slot >= 0:
            return arena[0], arena[1] + slot + more
        entry, behind = (-1 - slot) & ((1 << ENTRY) - 1), (-1 - slot) >> ENTRY
        base, offset = table[entry]
        return base, offset + behind + more
    for action in made.actions:
        slots = [place(slot, more) for slot, more in action.slots]
        code = status[0], status[1] + 4 * action.status
        for launch in action.launches:
            if isinstance(launch, Launch):
                gpu.launch(launch.kernel, [code if s == STATUS else slots[s] for s in launch.slots], launch.words,
                           launch.blocks, launch.threads)
            elif isinstance(launch, Move):
                gpu.copy(*slots[0], *slots[1], launch.nbytes)
            elif isinstance(launch, Loop):
                launch.ready()
                room = slots[len(launch.body.results) + len(launch.body.inputs)]
                for round_table in launch.rounds(slots):
                    ask(gpu, launch.part, round_table, room, code)
                for after, before, size in launch.ends(slots):
                    gpu.copy(*after, *before, size)
            else:
                gpu.multiply(launch, [slots[s] for s in launch.slots])
    for to, source, nbytes in made.copies:
        gpu.copy(*place(to), *place(source), nbytes)


def said(launch: Launch | blas.Gemm | Move | Loop) -> str:
    """An action in words."""
    if isinstance(launch, Launch):
        return f"{launch.kernel.name}, {launch.blocks} blocks of {launch.threads} threads"
    if isinstance(launch, Move):
        return f"copy, {launch.nbytes} bytes"
    if isinstance(launch, Loop):
        inner = sum(len(action.launches) for action in launch.part.actions) + len(launch.part.copies)
        return f"a loop of {launch.length} rounds of {inner}"
    return f"cuBLAS, {launch.batch} x ({launch.m}, {launch.k}) @ ({launch.k}, {launch.n})"
