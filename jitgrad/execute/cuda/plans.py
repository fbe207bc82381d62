"""A Plan on the GPU: steps as launches on places, one arena, and the whole as one graph where its memory recurs.

The machine matches a call and hands the inputs to `OnDevice.__call__`, which returns the results or the number of the
guard that failed. Nothing that a caller holds is written, so a run that fails has changed nothing. What was computed on
the CPU when it was recorded is computed there again, before (see `halves`).
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.aval import Aval
from jitgrad.core.program import Program
from jitgrad.execute.cpu import types
from jitgrad.execute.cpu.plans import Plan
from jitgrad.execute.cuda import memory, ranges, stream, tensors, toolkit
from jitgrad.execute.cuda.actions import Actions, Place, actions_of, ask, launches_of, said
from jitgrad.execute.cuda.driver import Driver
from jitgrad.execute.cuda.halves import BACK, DEVICE, HOST, halves
from jitgrad.plan.memory import ALIGN
from jitgrad.transform.prune import pruned
from jitgrad.transform.residuals import with_results

MOST_GRAPHS = 16               # of one plan: the memory of its inputs and results, which a graph is made for, recurs
MOST_PLACES = 4                # of an input or result in these graphs; it is copied where there are more
MOST_COPIED = 64 << 20         # bytes of it
SMALL = 64 << 10               # bytes of results that lie together, if all of them are assigned to Variables
TRIES = 3                      # to make a graph, of a plan
_logger = logging.getLogger("jitgrad")
_MET: Any = object()           # memory that was met once


# ---- the plan --------------------------------------------------------------------------------------------

class OnDevice(Plan):
    """Runs where its inputs are: see the module. Raises `NotTwo` where it cannot."""

    def __init__(self, program: Program, placed: Container[int], flat: Program, assigned: Container[int] = (),
                 here: Container[int] = ()) -> None:
        """``placed``: inputs that are on the GPU; ``assigned``: results that Variables hold until the next call;
        ``here``: results that are on the CPU."""
        self._halves = halves(flat, placed, here)
        self._actions = actions_of(self._halves.device)
        self._lock = threading.Lock()
        self._memory: _Memory | None = None
        self._graphs: dict[tuple[int, ...], Any] = {}
        self._tries = TRIES
        self._checks: dict[int, Plan] = {}           # guards on the host, each by itself
        self._host = Plan(self._halves.host, range(len(self._halves.host.inputs)))
        self._alone = not len(self._halves.host.results)
        self._whole = self._halves.device_inputs == [*range(len(program.inputs))]
        held = {k for i, (half, k) in enumerate(self._halves.result_of) if half == DEVICE and i in assigned}
        self._blocks, self._kinds = _blocks_of(_avals(self._halves.device, self._halves.device.results), held)
        self._in_order = self._halves.result_of == [(DEVICE, k) for k in range(len(self._kinds))]
        self._spans = self._known()
        super().__init__(program, range(len(program.inputs)), flat=flat)

    def _known(self) -> list[tuple[int, ranges.Known]]:
        """What is known of results that are integers and have a block of their own, by its number."""
        known, alone = ranges.of_program(self._halves.device), Counter(b for *_, b, _ in self._kinds)
        return [(b, known[v]) for v, (*_, b, _) in zip(self._halves.device.results.tolist(), self._kinds, strict=True)
                if alone[b] == 1 and v in known and self._halves.device.aval(v).dtype.kind == "i"]

    def prepare(self, at_once: bool) -> None:
        """There is nothing of it for the CPU's machine."""

    def compile(self) -> None:
        """Have every kernel."""
        arch = stream.driver().facts().arch
        for launch in launches_of(self._actions) if not toolkit.simulated() else ():
            launch.kernel.cubin(arch)

    def __call__(self, *given: Any) -> tuple[Any, ...] | int | None:
        """Results for inputs as the machine has them: Tensors, arrays, Python numbers. A number: of the guard that
        failed. None where a kernel left an error code: nothing has changed, and plain Python will say what is wrong,
        or take another way before.
        """
        both, of_host = self._halves, list[Any]()
        if not self._alone:
            on_host = [self._tensor(i, given[i]) for i in both.host_inputs]
            try:
                of_host = self._host.run(on_host)
            except (IndexError, RuntimeError):
                return self._stopped(on_host)
            for number, (half, x, expected) in enumerate(both.guards):
                if half == HOST and not _same_bits(of_host[x], of_host[expected]):
                    return number
        blocks = memory.blocks(self._blocks)
        with self._lock:                             # the arena is one, and launches are in the order of calls
            have = self._memory = self._memory or _Memory(self._actions, both.device, len(both.crossing))
            crossing = [of_host[k] for k in both.crossing]
            if crossing:
                have.crossed(crossing)
            inputs = given if self._whole else [given[i] for i in both.device_inputs]
            self._start(have, inputs, blocks)
            read = [*inputs, *crossing] if crossing else inputs
            codes = self._codes(have, read)
            for b, known in self._spans:
                blocks[b].span = ranges.at(known, read)
        if any(codes):
            failed = next(k for k, code in enumerate(codes) if code)
            guard = next((a.guard for a in self._actions.actions if a.status == failed), -1)
            return next((n for n, (half, k, _) in enumerate(both.guards) if half != HOST and k == guard), None)
        tensor = types.tensor_placed
        made = [tensor(aval, size, code, blocks[b], offset) for aval, size, code, b, offset in self._kinds]
        if self._in_order:
            return tuple(made)
        return tuple(None if half < 0 else of_host[k] if half == HOST else tensors.to_host(made[k]) if half == BACK
                     else made[k] for half, k in both.result_of)

    @property
    def launches(self) -> int:
        """How many kernels, products and copies a run asks for."""
        return sum(len(action.launches) for action in self._actions.actions) + len(self._actions.copies)

    def show(self) -> str:
        """What is done, as a table: the CPU's half, then launches, products and copies on the GPU."""
        lines = [] if not len(self._halves.host) else [f"on the CPU, before: {len(self._halves.host)} rows"]
        for k, action in enumerate(self._actions.actions):
            lines += [f"{k:>4}  {said(launch)}" for launch in action.launches]
        lines += [f"   -  copy, {nbytes} bytes" for _, _, nbytes in self._actions.copies]
        return "\n".join(["step  what the GPU does", *lines, f"{self._actions.arena} bytes of working memory, "
                          f"{self._actions.words} checked"])

    def ir(self) -> str:
        """The Python source of its kernels."""
        found = {launch.kernel.name: launch.kernel.source for launch in launches_of(self._actions)}
        return "\n".join(found.values())

    def _tensor(self, i: int, x: Any) -> Any:
        """An input on the CPU as a Tensor."""
        if type(x) is types.Tensor:
            return x
        a = self.flat.aval(int(self.flat.inputs[i]))
        with np.errstate(over="ignore"):             # of a Python number in float32
            return backend.current().tensor(np.ascontiguousarray(x, a.dtype), a)

    def _stopped(self, on_host: Sequence[Any]) -> int | None:
        """The guard on the host before an error there, if one fails: the error is none of the way that Python takes."""
        values, host = self._halves.host.results.tolist(), self._halves.host
        for number, (half, *pair) in enumerate(self._halves.guards):
            if half == HOST:
                if number not in self._checks:
                    self._checks[number] = Plan(pruned(with_results(host, [values[k] for k in pair]), keep_inputs=True),
                                                range(len(host.inputs)))
                try:
                    x, expected = self._checks[number].run(on_host)
                except (IndexError, RuntimeError):
                    return None
                if not _same_bits(x, expected):
                    return number
        return None

    # ---- launches ----

    def _start(self, have: _Memory, inputs: Sequence[Any], blocks: list[memory.Buffer]) -> None:
        """Ask for all of it: by a graph, if this memory has been met before."""
        gpu, rooms = stream.driver(), have.rooms     # `_met` may give the next call others
        places = [t._owner.address + t._number for t in inputs]
        places += [block.address for block in blocks]
        for k, room in rooms.items():
            places[k] = 0
            if k < len(inputs):
                gpu.copy(room.base, 0, *tensors.place(inputs[k]), room.nbytes)
        key = tuple(places)
        graph = self._graphs.get(key)
        if graph is None or graph is _MET:
            self._met(gpu, have, key, [*map(tensors.place, inputs), *((block.base, 0) for block in blocks)])
        else:
            graph.launch()
        for k, room in rooms.items():
            if k >= len(inputs):
                gpu.copy(blocks[k - len(inputs)].base, 0, room.base, 0, room.nbytes)

    def _codes(self, have: _Memory, inputs: Sequence[Any]) -> list[int]:
        """The error codes that were left. They are waited for, but where all indices are known to be in range."""
        if not self._actions.words or self._actions.needs is not None and all(
                ranges.inside(ranges.span_of(inputs[i]), span) for i, span in self._actions.needs.items()):
            return []
        stream.driver().download(have.status.base, 0, have.codes)
        codes: list[int] = have.codes.tolist()
        return codes

    def _met(self, gpu: Driver, have: _Memory, key: tuple[int, ...], own: list[Place]) -> None:
        """The first and second time that memory is met: the second is recorded."""
        for k, room in have.rooms.items():
            own[k] = room.base, 0
        n = len(self._halves.device_inputs)
        outs = [(own[n + b][0], offset) for *_, b, offset in self._kinds]
        table = [*own[:n], *have.crossing, *outs, *have.constants]
        if key in self._graphs:
            graph = self._recorded(gpu, have, table) if self._tries else None
            if graph is None:
                self._ask(gpu, have, table)
            else:
                self._graphs[key] = graph
                graph.launch()
            return
        self._ask(gpu, have, table)
        if len(self._graphs) >= MOST_GRAPHS:
            if self._moved(have):
                return                           # nobody will ask by this key
            del self._graphs[next(iter(self._graphs))]
        self._graphs[key] = _MET

    def _recorded(self, gpu: Driver, have: _Memory, table: Sequence[Place]) -> Any:
        """A graph; None where the driver makes none. It is asked a few times: another library may have waited for the
        whole GPU meanwhile, which ends every recording."""
        try:
            return gpu.record(lambda: self._ask(gpu, have, table))
        except RuntimeError as error:
            self._tries -= 1
            if not self._tries:
                _logger.warning("a recorded function is launched kernel by kernel: %s", error)
            return None

    def _moved(self, have: _Memory) -> bool:
        """Whether there are inputs or results that are elsewhere all the time: batches out of many, say. From now on
        they are copied from or to a place of their own, so that graphs do not go by them.
        """
        inputs = self._halves.device.inputs[:len(self._halves.device_inputs)]
        sizes = [*(a.nbytes for a in _avals(self._halves.device, inputs)), *(nbytes for _, nbytes in self._blocks)]
        found = [k for k, places in enumerate(zip(*self._graphs, strict=True))
                 if len({*places}) > MOST_PLACES and sizes[k] <= MOST_COPIED]
        have.rooms = have.rooms | {k: memory.empty(sizes[k]) for k in found}
        if found:
            self._graphs.clear()
        return bool(found)

    def _ask(self, gpu: Driver, have: _Memory, table: Sequence[Place]) -> None:
        if self._actions.words:
            gpu.fill(have.status.base, 0, have.status.nbytes)
        ask(gpu, self._actions, table, (have.arena.base, 0), (have.status.base, 0))


def _avals(program: Program, values: np.ndarray) -> list[Aval]:
    return [program.aval(v) for v in values.tolist()]


def _blocks_of(results: Sequence[Aval], assigned: Container[int],
               ) -> tuple[list[tuple[int, int]], list[tuple[int, int, int, int, int]]]:
    """Blocks for results, as `memory.blocks` takes them; and aval, elements, dtype, block and place in it of each.

    Small ones that Variables hold are in the first together: they are let go together, too.
    """
    sizes, kinds, end = [0], [], 0
    for k, a in enumerate(results):
        if k in assigned and a.nbytes <= SMALL:
            kinds.append((a.id, a.size, a.code, 0, end))
            end += memory.room_of(a.nbytes)
        else:
            kinds.append((a.id, a.size, a.code, len(sizes), 0))
            sizes.append(a.nbytes)
    sizes[0] = end
    if not end:
        sizes, kinds = sizes[1:], [(aval, size, code, b - 1, 0) for aval, size, code, b, _ in kinds]
    return [(memory.room_of(nbytes), nbytes) for nbytes in sizes], kinds


def _same_bits(x: Any, y: Any) -> bool:
    return x.numpy().tobytes() == y.numpy().tobytes()


class _Memory:
    """What a plan keeps on the GPU: its arena, error codes, constants, room for what comes from the CPU, and for those
    inputs and results, by their places in the table, that are copied.
    """

    def __init__(self, actions: Actions, program: Program, crossing: int) -> None:
        self.rooms: dict[int, memory.Buffer] = {}
        self.arena = memory.empty(actions.arena)
        self.status, self.codes = memory.empty(4 * actions.words), np.zeros(actions.words, np.int32)
        self._held = [tensors.constant(t) if t._data else t for t in program.constants.values()]
        self.constants = [tensors.place(t) for t in self._held]
        avals = _avals(program, program.inputs[len(program.inputs) - crossing:])
        ends = np.cumsum([-(-a.nbytes // ALIGN) * ALIGN for a in avals], dtype=np.int64).tolist()
        self._starts = [0, *ends[:-1]] if ends else []
        self._room = memory.empty(ends[-1] if ends else 0)
        self._staged = np.zeros(self._room.nbytes, np.uint8)
        self.crossing: list[Place] = [(self._room.base, start) for start in self._starts]

    def crossed(self, values: Sequence[Any]) -> None:
        """Send Tensors on the CPU there, as one piece."""
        for start, t in zip(self._starts, values, strict=True):
            array = t.numpy()
            self._staged[start: start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        stream.driver().upload(self._room.base, 0, self._staged)
