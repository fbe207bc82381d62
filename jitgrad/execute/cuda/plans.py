"""A Plan on the GPU: steps as launches on places, one arena, and the whole as one graph where its memory recurs.

The machine matches a call and hands the inputs to `OnDevice.__call__`, which returns the results or the number of the
guard that failed. Nothing that a caller holds is written, so a run that fails has changed nothing. What was computed on
the CPU when it was recorded is computed there again, before (see `halves`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Container, Sequence
from typing import Any, NamedTuple

import numpy as np

from jitgrad.core import backend
from jitgrad.core.form import Form
from jitgrad.core.primitive import BY_NAME
from jitgrad.core.program import Program
from jitgrad.execute.cpu import types
from jitgrad.execute.cpu.plans import Plan, plan_of
from jitgrad.execute.cuda import blas, library, memory, nests, straight, stream, tensors, toolkit
from jitgrad.execute.cuda.halves import HOST, NotTwo, halves
from jitgrad.execute.cuda.kernel import STATUS, Launch
from jitgrad.plan import laid, merge
from jitgrad.plan.fuse import Accumulate, Call, Copy, Nest, Step, Straight, read_later, steps_of
from jitgrad.plan.memory import ALIGN, ENTRY

GUARD = BY_NAME["guard"]
MOST_GRAPHS = 16               # of one plan: the memory of its inputs and results, which a graph is made for, recurs
_MET: Any = object()           # memory that was met once


class Move(NamedTuple):
    """So many bytes from the second slot to the first."""

    nbytes: int


Launches = tuple[Launch | blas.Gemm | Move, ...]


class Action(NamedTuple):
    """What a step does: launches on slots, each a place (see `plan.memory`) and bytes behind it. ``status`` is the
    number of its word among those for error codes, or -1; ``guard`` the number of the guard that it is, or -1.
    """

    launches: Launches
    slots: tuple[tuple[int, int], ...]
    status: int
    guard: int


class Actions(NamedTuple):
    """A Program as actions: bytes of the arena, how many words for error codes, copies (to, from, bytes) at the end."""

    actions: list[Action]
    arena: int
    words: int
    copies: list[tuple[int, int, int]]


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
    for step, (launches, slots), places in zip(steps, works, found_places.places, strict=True):
        checks = any(isinstance(launch, Launch) and STATUS in launch.slots for launch in launches)
        guard = isinstance(step, Call) and step.form.prim is GUARD
        actions.append(Action(launches, tuple((places[v], offset) for v, offset in slots),
                              words if checks else -1, guards if guard else -1))
        words += checks
        guards += guard
    return Actions(actions, found_places.arena, words, found_places.copies)


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
    if step.form.prim.host or not library.has_kernel(step.form.prim):
        raise NotTwo(f"it runs {step.form.prim.name}, {step.form.prim.host or 'which the host leads'}")
    product = blas.gemm(step.form)
    if product is not None:
        return (product,), (), [*((v, 0) for v in step.outs), *operands]
    work = library.work_of(step.form)
    return work.launches, work.scratch, [*((v, 0) for v in step.outs), *operands]


# ---- the plan --------------------------------------------------------------------------------------------

class OnDevice(Plan):
    """Runs where its inputs are: see the module. Raises `NotTwo` where it cannot."""

    def __init__(self, program: Program, placed: Container[int], flat: Program) -> None:
        self._halves = halves(flat, placed)
        self._actions = actions_of(self._halves.device)
        self._lock = threading.Lock()
        self._memory: _Memory | None = None
        self._graphs: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._host = plan_of(self._halves.host)
        super().__init__(program, range(len(program.inputs)), flat=flat)

    def prepare(self, at_once: bool) -> None:
        """There is nothing of it for the CPU's machine."""

    def compile(self) -> None:
        """Have every kernel."""
        arch = stream.driver().facts().arch
        for action in self._actions.actions if not toolkit.simulated() else ():
            for launch in action.launches:
                if isinstance(launch, Launch):
                    launch.kernel.cubin(arch)

    def __call__(self, *given: Any) -> tuple[Any, ...] | int | None:
        """Results for inputs as the machine has them: Tensors, arrays, Python numbers. A number: of the guard that
        failed. None where a kernel left an error code: nothing has changed, and plain Python will say what is wrong.
        """
        both, program = self._halves, self._halves.device
        of_host = self._host.run([self._tensor(i, given[i]) for i in both.host_inputs])
        for number, (half, x, expected) in enumerate(both.guards):
            if half == HOST and not _same_bits(of_host[x], of_host[expected]):
                return number
        gpu = stream.driver()
        outs = [memory.empty(program.aval(v).nbytes) for v in program.results.tolist()]
        with self._lock:                             # the arena is one, and launches are in the order of calls
            have = self._memory = self._memory or _Memory(self._actions, program, len(both.crossing))
            table = [tensors.place(given[i]) for i in both.device_inputs]
            table += have.crossed([of_host[k] for k in both.crossing])
            self._start(gpu, have, [*table, *((out.base, 0) for out in outs), *have.constants])
            codes = have.codes.tolist() if self._actions.words else ()
        failed = next((a for a in self._actions.actions if a.status >= 0 and codes[a.status]), None)
        if failed is not None:
            return next((n for n, (half, k, _) in enumerate(both.guards) if half != HOST and k == failed.guard), None)
        made = [tensors.tensor(program.aval(v), out) for v, out in zip(program.results.tolist(), outs, strict=True)]
        return tuple(None if half < 0 else of_host[k] if half == HOST else made[k] for half, k in both.result_of)

    def show(self) -> str:
        """What is done, as a table: the CPU's half, then launches, products and copies on the GPU."""
        lines = [] if not len(self._halves.host) else [f"on the CPU, before: {len(self._halves.host)} rows"]
        for k, action in enumerate(self._actions.actions):
            lines += [f"{k:>4}  {_said(launch)}" for launch in action.launches]
        lines += [f"   -  copy, {nbytes} bytes" for _, _, nbytes in self._actions.copies]
        return "\n".join(["step  what the GPU does", *lines, f"{self._actions.arena} bytes of working memory, "
                          f"{self._actions.words} checked"])

    def ir(self) -> str:
        """The Python source of its kernels."""
        found = {launch.kernel.name: launch.kernel.source for action in self._actions.actions
                 for launch in action.launches if isinstance(launch, Launch)}
        return "\n".join(found.values())

    def _tensor(self, i: int, x: Any) -> Any:
        """An input on the CPU as a Tensor."""
        if type(x) is types.Tensor:
            return x
        a = self.flat.aval(int(self.flat.inputs[i]))
        return backend.current().tensor(np.ascontiguousarray(x, a.dtype), a)

    # ---- launches ----

    def _start(self, gpu: stream.Driver, have: _Memory, table: Sequence[tuple[Any, int]]) -> None:
        """Ask for all of it: by a graph, if this memory has been met before."""
        key = tuple((id(base) if isinstance(base, np.ndarray) else base, offset) for base, offset in table)
        graph = self._graphs.pop(key, None)
        if graph is None:
            self._ask(gpu, have, table)
            graph = _MET
        else:
            if graph is _MET:
                graph = gpu.record(lambda: self._ask(gpu, have, table))
            graph.launch()
        self._graphs[key] = graph
        if len(self._graphs) > MOST_GRAPHS:
            self._graphs.popitem(last=False)
        if self._actions.words:
            gpu.download(have.status.base, 0, have.codes)

    def _ask(self, gpu: stream.Driver, have: _Memory, table: Sequence[tuple[Any, int]]) -> None:
        if self._actions.words:
            gpu.fill(have.status.base, 0, have.status.nbytes)

        def place(slot: int, more: int = 0) -> tuple[Any, int]:
            if slot >= 0:
                return have.arena.base, slot + more
            entry, behind = (-1 - slot) & ((1 << ENTRY) - 1), (-1 - slot) >> ENTRY
            base, offset = table[entry]
            return base, offset + behind + more
        for action in self._actions.actions:
            slots = [place(slot, more) for slot, more in action.slots]
            for launch in action.launches:
                if isinstance(launch, Launch):
                    pointers = [(have.status.base, 4 * action.status) if s == STATUS else slots[s]
                                for s in launch.slots]
                    gpu.launch(launch.kernel, pointers, launch.words, launch.blocks, launch.threads)
                elif isinstance(launch, Move):
                    gpu.copy(*slots[0], *slots[1], launch.nbytes)
                else:
                    gpu.multiply(launch, [slots[s] for s in launch.slots])
        for to, source, nbytes in self._actions.copies:
            gpu.copy(*place(to), *place(source), nbytes)


def _said(launch: Launch | blas.Gemm | Move) -> str:
    if isinstance(launch, Launch):
        return f"{launch.kernel.name}, {launch.blocks} blocks of {launch.threads} threads"
    if isinstance(launch, Move):
        return f"copy, {launch.nbytes} bytes"
    return f"cuBLAS, {launch.batch} x ({launch.m}, {launch.k}) @ ({launch.k}, {launch.n})"


def _same_bits(x: Any, y: Any) -> bool:
    return x.numpy().tobytes() == y.numpy().tobytes()


class _Memory:
    """What a plan keeps on the GPU: its arena, error codes, constants, and room for what comes from the CPU."""

    def __init__(self, actions: Actions, program: Program, crossing: int) -> None:
        self.arena = memory.empty(actions.arena)
        self.status, self.codes = memory.empty(4 * actions.words), np.zeros(actions.words, np.int32)
        self._held = [tensors.constant(t) if t._data else t for t in program.constants.values()]
        self.constants = [tensors.place(t) for t in self._held]
        avals = [program.aval(v) for v in program.inputs.tolist()[len(program.inputs) - crossing:]]
        self._ends = np.cumsum([-(-a.nbytes // ALIGN) * ALIGN for a in avals], dtype=np.int64).tolist()
        self._room = memory.empty(self._ends[-1] if avals else 0)
        self._staged = np.zeros(self._room.nbytes, np.uint8)

    def crossed(self, values: Sequence[Any]) -> list[tuple[Any, int]]:
        """Copies of Tensors on the CPU, sent as one piece, and where they are then."""
        starts = [0, *self._ends[:-1]]
        for start, t in zip(starts, values, strict=False):
            array = t.numpy()
            self._staged[start: start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if values:
            stream.driver().upload(self._room.base, 0, self._staged)
        return [(self._room.base, start) for start in starts[: len(values)]]
