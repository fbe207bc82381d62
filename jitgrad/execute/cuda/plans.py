"""A Plan on the GPU: steps as launches on places, one arena, and the whole as one graph where its memory recurs.

The machine matches a call and hands the inputs to `OnDevice.__call__`, which returns the results or the number of the
guard that failed. Nothing that a caller holds is written, so a run that fails has changed nothing. What was computed on
the CPU when it was recorded is computed there again, before (see `halves`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.program import Program
from jitgrad.execute.cpu import types
from jitgrad.execute.cpu.plans import Plan, plan_of
from jitgrad.execute.cuda import memory, stream, tensors, toolkit
from jitgrad.execute.cuda.actions import Actions, actions_of, ask, launches_of, said
from jitgrad.execute.cuda.halves import HOST, halves
from jitgrad.plan.memory import ALIGN

MOST_GRAPHS = 16               # of one plan: the memory of its inputs and results, which a graph is made for, recurs
_MET: Any = object()           # memory that was met once


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
        for launch in launches_of(self._actions) if not toolkit.simulated() else ():
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
        failed = next((k for k, code in enumerate(codes) if code), -1)
        if failed >= 0:
            guard = next((a.guard for a in self._actions.actions if a.status == failed), -1)
            return next((n for n, (half, k, _) in enumerate(both.guards) if half != HOST and k == guard), None)
        made = [tensors.tensor(program.aval(v), out) for v, out in zip(program.results.tolist(), outs, strict=True)]
        return tuple(None if half < 0 else of_host[k] if half == HOST else made[k] for half, k in both.result_of)

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
        ask(gpu, self._actions, table, (have.arena.base, 0), (have.status.base, 0))


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
