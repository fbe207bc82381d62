"""Who is recording on this thread: dry recordings, which run nothing, and what a `function` records as it runs.

Recordings nest. The innermost one sees what Variables are read and assigned; a dry one also gets every operation on
its own dry Tensors, and takes values from around it as inputs.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jitgrad.core import backend
from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.errors import user_error
from jitgrad.core.form import Form, form
from jitgrad.core.primitive import BY_NAME
from jitgrad.core.program import Program

FOLLOWED = 3                   # marks of a Tensor whose use a tape or a trace wants to see


class _Stack(threading.local):
    def __init__(self) -> None:
        self.items: list[Recording] = []


_stack = _Stack()


def active() -> Recording | None:
    """The innermost recording of this thread."""
    items = _stack.items
    return items[-1] if items else None


def depth() -> int:
    """How many recordings this thread is in."""
    return len(_stack.items)


@contextmanager
def nobody() -> Iterator[None]:
    """A block in which this thread is in no recording."""
    items, _stack.items = _stack.items, []
    try:
        yield
    finally:
        _stack.items = items


def has_numbers(t: Any) -> bool:
    """Whether a Tensor has elements somewhere, after who records it was asked to compute them if it has none yet."""
    return not is_dry(t) or bool(t._owner.compute(t))


def no_number(message: str) -> Exception:
    """A TypeError of somebody who wants numbers of a dry Tensor; recordings that go on without them are told."""
    recording = active()
    if recording is not None:
        recording.no_number()
    return user_error(TypeError, message)


NO_NUMBER = ("a number was read from a Tensor of a dry recording, which has none; use cond, where or scan so that the "
             "choice is recorded")


class Recording:
    """What sees Variables and arrays while its ``with`` block runs."""

    outer: Recording | None = None

    def __enter__(self) -> Any:
        self.outer = active()
        _stack.items.append(self)
        backend.current().recordings(1)
        return self

    def __exit__(self, *error: object) -> None:
        popped = _stack.items.pop()
        assert popped is self
        backend.current().recordings(-1)

    def read(self, variable: Any) -> Any:
        """The Tensor that a Variable holds here."""
        return self.outer.read(variable) if self.outer else backend.current().read_now(variable)

    def assign(self, variable: Any, value: Any) -> None:
        """A Variable holds ``value`` from here on."""
        if self.outer:
            self.outer.assign(variable, value)
        else:
            backend.current().assign_now(variable, value)

    def present(self, variable: Any) -> Any:
        """What a Variable holds here; nobody takes note."""
        return self.outer.present(variable) if self.outer else variable._value

    def put_back(self, variable: Any, value: Any) -> None:
        """A Variable holds again what it held before; nobody takes note."""
        if self.outer:
            self.outer.put_back(variable, value)
        elif variable._value is not value:
            backend.current().assign_now(variable, value)

    def created(self, variable: Any) -> None:
        """A Variable was made."""
        if self.outer:
            self.outer.created(variable)

    def made_of(self, array: Any, made: Any) -> None:
        """A Tensor was made of a NumPy array."""
        if self.outer:
            self.outer.made_of(array, made)

    def no_number(self) -> None:
        """A number was asked for where there are none."""
        if self.outer:
            self.outer.no_number()

    def truth(self, t: Any) -> bool | None:
        """The truth of a number that is not a bool, if this recording wants to say it."""
        return self.outer.truth(t) if self.outer else None

    def place(self, made: Any) -> Any:
        """A new Tensor of numbers from Python, on the device where such are made here."""
        return self.outer.place(made) if self.outer else made

    def elsewhere(self) -> None:
        """An operation ran on another device than the CPU."""
        if self.outer:
            self.outer.elsewhere()


class Placement(Recording):
    """Lets new Tensors be made on a device."""

    def __init__(self, device: str) -> None:
        self.device = device

    def place(self, made: Any) -> Any:
        if has_numbers(made):
            return carried(made, self.device)
        if self.device == "cpu":
            return made
        self.elsewhere()           # a random state in a loop, say: the move is one of the rows that are recorded
        move = form(BY_NAME["to_device"], [AVALS[made._aval]], {"device": self.device, "source": "cpu"})
        return recorder_for(made).append(move, [made])


def placed_on() -> str:
    """The device on which new Tensors are made, where nothing but that is going on in this thread; or ''."""
    found = [item.device if isinstance(item, Placement) else "" for item in _stack.items]
    return found[-1] if all(found) and found else ""


@contextmanager
def unplaced() -> Iterator[None]:
    """New Tensors are made on the CPU, as if no block of a device were around."""
    items, machine = _stack.items, backend.current()
    before = [*items]
    items.clear()
    for _ in before:
        machine.recordings(-1)
    try:
        yield
    finally:
        items[:] = before
        for _ in before:
            machine.recordings(1)


class Recorder(Recording):
    """Collects rows from operations on dry Tensors, which tapes from around do not see.

    Concrete Tensors become constants: enough for derivative rules.
    """

    _aside: Sequence[Any] = ()
    _tapes = sys.maxsize           # that were open before; rows are for those opened inside, of none without a `with`

    def __enter__(self) -> Any:
        self._tapes = 0
        self._aside = backend.current().suspend()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        backend.current().resume(self._aside)

    def __init__(self) -> None:
        self.avals: list[Aval] = []
        self.inputs: list[int] = []
        self.constants: dict[int, Any] = {}
        self.rows: list[tuple[Form, tuple[int, ...], int]] = []
        self._known: dict[int, int] = {}

    def _value(self, value: Aval) -> int:
        self.avals.append(value)
        return len(self.avals) - 1

    def input(self, value: Aval) -> Any:
        """A new input, as a dry Tensor."""
        number = self._value(value)
        self.inputs.append(number)
        return backend.current().dry(value, number, self)

    def number(self, t: Any) -> int:
        """The value id of a Tensor in this recording."""
        if t._data == 0 and t._owner is self:
            return int(t._number)
        known = self._known.get(id(t))
        if known is None:
            known = self._known[id(t)] = self._foreign(t)
        return known

    def _foreign(self, t: Any) -> int:
        """The value id of a Tensor that was not made here, met for the first time."""
        if is_dry(t):
            raise user_error(RuntimeError, "a Tensor of one dry recording was used in another")
        number = self._value(AVALS[t._aval])
        self.constants[number] = t
        return number

    def place(self, made: Any) -> Any:
        return made                # derivative rules are the same for every device

    def append(self, made: Form, operands: Sequence[Any]) -> Any:
        """A row; its outputs as dry Tensors."""
        ids = tuple(map(self.number, operands))
        first = len(self.avals)
        self.rows.append((made, ids, first))
        dry = backend.current().dry
        outs = tuple(dry(a, self._value(a), self) for a in made.outs)
        if backend.current().tapes() > self._tapes:
            backend.current().noted(made, operands, outs)
        return outs[0] if len(outs) == 1 else outs

    def compute(self, t: Any) -> bool:
        """Give a dry Tensor of this recording its elements, if there are numbers to compute with; whether it has some.
        """
        return False

    def program(self, results: Sequence[Any]) -> Program:
        """The Program whose results are these Tensors (None stays None)."""
        ids = [-1 if r is None else self.number(r) for r in results]
        return Program.build(self.rows, self.avals, self.inputs, self.constants, ids)


class Body(Recorder):
    """Records a function that users wrote: everything from around it becomes an input, and Variables change in here
    only, so that the Program is a function of its operands and can run any number of times.

    What it computes from concrete Tensors alone runs at once, and tapes from around record that.
    """

    def __enter__(self) -> Any:
        self._tapes = backend.current().tapes()
        return Recording.__enter__(self)

    def __init__(self) -> None:
        super().__init__()
        self.captured: list[Any] = []                        # Tensors from around, for the inputs after the own ones
        self.variables: dict[int, tuple[Any, Any]] = {}      # id -> Variable, the Tensor it holds in here; while open
        self.assigned: dict[int, Any] = {}                   # id -> Variable, in the order of first assignments

    def __exit__(self, *error: object) -> None:
        Recording.__exit__(self, *error)
        self.variables = {}        # its Tensors know their recording: a cycle that no collector sees

    def _foreign(self, t: Any) -> int:
        if is_dry(t) and t._owner not in _stack.items:
            raise user_error(RuntimeError, "a Tensor of a dry recording was used after the recording had ended")
        self.captured.append(t)
        return self._value(AVALS[t._aval])

    def place(self, made: Any) -> Any:
        return Recording.place(self, made)

    def take(self, t: Any) -> Any:
        """A Tensor from around as a dry Tensor of this recording."""
        return backend.current().dry(AVALS[t._aval], self.number(t), self)

    def read(self, variable: Any) -> Any:
        held = self.variables.get(id(variable))
        if held is None:
            held = self.variables[id(variable)] = (variable, self.take(super().read(variable)))
        return held[1]

    def assign(self, variable: Any, value: Any) -> None:
        self.read(variable)                                  # what it held before is part of what happens
        self.variables[id(variable)] = (variable, value)
        self.assigned[id(variable)] = variable

    def program(self, results: Sequence[Any], inputs: Sequence[Any] | None = None) -> Program:
        """The Program from the own inputs, then the captured Tensors; or from these ``inputs``, all of them in any
        order and maybe others, which nothing reads.
        """
        ids = [-1 if r is None else self.number(r) for r in results]
        order = [*self.inputs, *(self._known[id(t)] for t in self.captured)] if inputs is None else \
            [self.number(t) for t in inputs]
        return Program.build(self.rows, self.avals, order, self.constants, ids)


def is_dry(t: Any) -> bool:
    """Whether a Tensor is a value of a dry recording, without numbers anywhere."""
    return t._data == 0 and isinstance(t._owner, Recorder)


def is_elsewhere(t: Any) -> bool:
    """Whether a Tensor has its numbers on another device than the CPU; their owner runs operations."""
    return t._data == 0 and not isinstance(t._owner, Recorder)


def carried(t: Any, device: str) -> Any:
    """A Tensor with the same numbers on a device, itself if it is there; recorded where somebody follows its use."""
    machine = backend.current()
    made = machine.moved(t, device)
    if made is not t and t._tracked & FOLLOWED:
        source = t._owner.device if t._data == 0 else "cpu"
        machine.noted(form(BY_NAME["to_device"], [AVALS[t._aval]], {"device": device, "source": source}), [t], [made])
    return made


def recorder_for(t: Any) -> Recorder:
    """Where an operation on a dry Tensor goes: the innermost dry recording, which may take it from around."""
    innermost = active()
    while isinstance(innermost, Placement):
        innermost = innermost.outer
    if isinstance(innermost, Recorder):
        return innermost
    owner: Recorder = t._owner
    return owner
