"""Recording a call that is given much data: nothing is computed before the code asks for a number, or is done.

The code gets dry Tensors, as in `ahead`, but there are numbers to be had. Who asks a Tensor for its elements gets them,
computed by what was recorded so far, and the code goes on; what somebody still holds in the end is computed in one go,
by machine code. So a first call needs the memory of a replay, not that of every intermediate value, and the code runs
once. What may fail, or acts on something outside, runs at once, in its place among the others.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from jitgrad.core import backend
from jitgrad.core.aval import AVALS
from jitgrad.core.device import LOOSE
from jitgrad.core.errors import user_error
from jitgrad.core.form import COLUMNS, FORMS, Form
from jitgrad.core.program import Program, programs_in
from jitgrad.core.record import dispatch
from jitgrad.core.recorder import NO_NUMBER, is_dry, is_elsewhere, nobody
from jitgrad.execute.cpu import layout
from jitgrad.execute.cpu import types as machine
from jitgrad.execute.cpu.plans import Plan
from jitgrad.execute.cpu.types import Tensor
from jitgrad.frontend.ahead import Ahead, DryRows
from jitgrad.frontend.log import aside
from jitgrad.frontend.traces import simplified
from jitgrad.frontend.tracing import Tracing, tracings
from jitgrad.transform.prune import has_effects
from jitgrad.transform.rows import Rows

LARGE = 1 << 25                # bytes of arguments from which on a first call is recorded so
WORTH_CODE = 1 << 20           # bytes that a row makes, on the average, from which on rows are compiled before they run
MOST_STOPS = 8                 # for numbers on the way; after more the call goes on as a plain one


@cache
def runs_now(made: Form) -> bool:
    """Whether a row of this form is to run where it stands: it may raise, or does more than make its outputs."""
    inner = (FORMS[f] for _, program in programs_in(made.params) for f in {*program.attr.tolist()})
    return bool(made.prim.errors) or "device" in made.params or has_effects(made) or any(map(runs_now, inner))


class _Rows(DryRows):
    """Where operations on the dry Tensors of a call go. Their Tensors hold this one, and this one no Tensor."""

    def __init__(self, lazy: Lazy) -> None:
        super().__init__()
        self._lazy = weakref.ref(lazy)

    def append(self, made: Form, operands: Sequence[Any]) -> Any:
        lazy = self._lazy()
        if lazy is None or lazy.done:
            raise user_error(RuntimeError, "a Tensor of a recorded call, which failed, was used after the call")
        if lazy.awake or runs_now(made) or lazy.thread != threading.get_ident() or any(map(is_elsewhere, operands)):
            lazy.compute(operands)
            return dispatch(made, operands)
        dry = backend.current().dry
        outs = tuple(dry(a, 0, self) for a in made.outs)
        backend.current().noted(made, operands, outs)
        return outs[0] if len(outs) == 1 else outs

    def compute(self, t: Any) -> bool:
        lazy = self._lazy()
        if lazy is not None and not lazy.done:
            lazy.compute([t])
        return not is_dry(t)


class Lazy(Ahead):
    """See the module. `compute` gives Tensors their elements."""

    def __init__(self) -> None:
        super().__init__()
        self._rows = _Rows(self)
        self.input = self._rows.input
        self._real: dict[int, Any] = {}        # id of a Tensor that stands for something -> the one with the numbers
        self.thread = threading.get_ident()
        self._turn = threading.RLock()         # one thread at a time computes
        self.at_once = self.awake = self.done = False
        self._stops = 0

    def __enter__(self) -> Any:
        self._rows.__enter__()                 # below: the innermost recording is one of numbers
        return Tracing.__enter__(self)

    def __exit__(self, *error: object) -> None:
        raised = error[1]
        try:
            self._finish()
        except Exception as failed:              # of memory or a kernel: whichever it is, the user's own comes first
            if not isinstance(raised, BaseException):
                raise
            raised.add_note(f"jitgrad: the Variables that this call assigned before hold what they held, for their "
                            f"values could not be computed: {failed}")
        finally:
            self.done = True
            Tracing.__exit__(self, *error)
            self._rows.__exit__(*error)

    def twin(self, own: Any) -> Any:
        if is_elsewhere(own):
            return own
        dry = self.input(AVALS[own._aval])
        dry._tracked |= own._tracked & LOOSE
        self._real[id(dry)] = own
        if self.awake:
            backend.current().give(dry, own)
        return dry

    def no_number(self) -> None:
        """There are some, but not where something inside is recorded without."""

    def roll_back(self) -> None:
        for variable, dry in self._first.values():
            first = self._real.get(id(dry), dry)
            if variable._value is not first:
                backend.current().assign_now(variable, first)

    def _finish(self) -> None:
        """Numbers for all that anybody holds, and Variables that hold what the code left in them."""
        with self._turn:
            self.at_once = _worth_code(self._all())
        for key, variable in self._assigned.items():
            backend.current().assign_now(variable, self._held[key])

    def _all(self) -> list[Any]:
        """Give all Tensors that anybody holds their elements; all rows so far. The caller has the turn."""
        rows: list[Any] = machine.log_rows(self._tape)
        taped = {id(t): t for tape in machine.sharing_tapes(self._tape) for row in machine.log_rows(tape)
                 for t in row[1:_ends(row)] if is_dry(t)}                # what a tape that lives on will read
        self._give(rows, list({**taped, **{id(t): t for t in _held_elsewhere(rows)}}.values()))
        for t, _ in self._sources.values():
            self._stand_in(t)
        return rows

    def _stand_in(self, t: Any) -> None:
        """What stands for something has its elements."""
        if is_dry(t) and id(t) in self._real:
            backend.current().give(t, self._real[id(t)])

    def compute(self, tensors: Sequence[Any]) -> None:
        """Give Tensors their elements, and those on the way to them that somebody holds."""
        with self._turn:
            self._compute(tensors)

    def _compute(self, tensors: Sequence[Any]) -> None:
        for t in tensors:
            self._stand_in(t)
        wanted = [t for t in tensors if is_dry(t)]
        if not wanted:
            return
        self._stops += 1
        if self._stops > MOST_STOPS and not self.awake:
            self.awake = True
            self._all()
        if any(map(is_dry, wanted)):
            rows = _rows_to(wanted, machine.log_rows(self._tape))
            known = {id(t) for t in wanted}
            self._give(rows, [*wanted, *(t for t in _held_elsewhere(rows) if id(t) not in known)])

    def _give(self, rows: Sequence[Any], wanted: Sequence[Any]) -> None:
        rows = _rows_to(wanted, rows)
        for t in {id(x): x for row in rows for x in row[1:]}.values():
            self._stand_in(t)
        wanted = [t for t in wanted if is_dry(t)]
        if not wanted:
            return
        with _unseen():
            program, values = self._program(rows, wanted)
            plan = Plan(program, range(len(values)), flat=simplified(program), at_once=_worth_code(rows))
            found = machine.plan_run(plan.address, tuple(values))
        for t, made in zip(wanted, found, strict=True):
            backend.current().give(t, made)

    def _program(self, rows: Sequence[Any], wanted: Sequence[Any]) -> tuple[Program, list[Any]]:
        """What these rows make of what has numbers, and that."""
        made, number, inputs, values = Rows(), dict[int, int](), list[int](), list[Any]()
        for row in rows:
            n = _first_out(row)
            for x in row[1:n]:
                if id(x) in number:
                    continue
                if is_dry(x):
                    raise user_error(TypeError, NO_NUMBER)
                number[id(x)] = made.value(x._aval)
                if x._tracked & layout.IN_TRACE:
                    inputs.append(number[id(x)])
                    values.append(x)
                else:
                    made.constants[number[id(x)]] = x
            first = made.row(row[0], [number[id(x)] for x in row[1:n]])
            number.update((id(x), first + k) for k, x in enumerate(row[n:]))
        missing = next((t for t in wanted if id(t) not in number), None)
        if missing is not None:
            raise user_error(TypeError, NO_NUMBER)
        return made.program(inputs, [number[id(t)] for t in wanted]), values


def _first_out(row: Sequence[Any]) -> int:
    return 1 + int(COLUMNS.inputs[row[0]])


def _ends(row: Sequence[Any]) -> int:
    return _first_out(row) + int(COLUMNS.outputs[row[0]])


def _worth_code(rows: Sequence[Any]) -> bool:
    """Whether to compile is little beside what rows write, of which code fuses the most."""
    made = sum(a.nbytes for row in rows for a in FORMS[row[0]].outs)
    return 0 < len(rows) * WORTH_CODE <= made


def _rows_to(wanted: Sequence[Any], rows: Sequence[Any]) -> list[Any]:
    """The rows that make these Tensors from what has elements, or stands for what has."""
    needed = {id(t) for t in wanted if is_dry(t)}
    found = []
    for row in reversed(rows):
        n = _first_out(row)
        if any(id(x) in needed for x in row[n:]):
            needed.update(id(x) for x in row[1:n] if is_dry(x))
            found.append(row)
    return found[::-1]


def _held_elsewhere(rows: Sequence[Any]) -> list[Any]:
    """The dry Tensors that rows made and that more refers to than these rows and the log."""
    count: Counter[int] = Counter()
    made = {}
    for row in rows:
        for x in row[1:]:
            count[id(x)] += 1
        for x in row[_first_out(row):]:
            if type(x) is Tensor and is_dry(x):
                made[id(x)] = x
    x = row = None
    alone = _references({0: object()})[0]
    return [t for t, n in zip(made.values(), _references(made), strict=True) if n > alone + 2 * count[id(t)]]


def _references(held: Mapping[int, Any]) -> list[int]:
    """How many references there are to each of these."""
    return [sys.getrefcount(x) for x in held.values()]


@contextmanager
def _unseen() -> Iterator[None]:
    """Run a block in the midst of a call that is recorded, of which nothing takes note."""
    watching = sys.getprofile()
    open_ones = [recording._tape for recording in tracings()]
    if callable(watching):
        sys.setprofile(None)
    for tape in open_ones:
        machine.tape_stop(tape)
    try:
        with aside(), nobody():
            yield
    finally:
        for tape in reversed(open_ones):
            machine.tape_start(tape)
        if callable(watching):
            sys.setprofile(watching)
