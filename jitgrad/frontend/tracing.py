"""Recording a function as it runs: every row of the thread, what the rows depend on, and which numbers Python read.

The result is a Program whose inputs are arguments, Variables and NumPy arrays; whose results are those of the function,
then what it left in Variables; and whose `guard` rows check the numbers that Python went by.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from types import CodeType
from typing import Any, NamedTuple

import numpy as np

from jitgrad import ops
from jitgrad.core.aval import AVALS
from jitgrad.core.dtypes import is_float
from jitgrad.core.errors import in_package
from jitgrad.core.form import COLUMNS, form
from jitgrad.core.primitive import BY_NAME
from jitgrad.core.program import Program
from jitgrad.core.record import tensor
from jitgrad.core.recorder import Recording, active, is_elsewhere
from jitgrad.execute.cpu import layout
from jitgrad.execute.cpu import types as machine
from jitgrad.frontend import lines
from jitgrad.frontend.arguments import fits
from jitgrad.transform.rows import Rows

Frame = tuple[CodeType, int]


class Traced(NamedTuple):
    """What a recording found."""

    program: Program
    arguments: list[int]          # for each argument Tensor its position among the inputs
    variables: list[Any]          # the inputs after those
    arrays: list[Any]             # and after those
    assigned: list[tuple[Any, int]]        # Variable, and which result it holds in the end
    placed: frozenset[int] = frozenset()   # positions of inputs on another device
    here: frozenset[int] = frozenset()     # results that were on the CPU
    reads_assigned: bool = False  # a Variable that was assigned before: tapes see two sources in one


class Tracing(Recording):
    """See the module. Enter it, run the function on the Tensors of `argument`, leave it, ask for `traced`."""

    at_once = False                # whether the plan is to be machine code from the start
    placed = False                 # whether rows ran on another device than the CPU

    def __init__(self) -> None:
        self._tape = machine.Tape()
        self._tape._flags |= layout.K_WHOLE
        self._frames: list[Any] = []                            # code and position where each row was made
        self._start = 0                                         # items of that list which are from before
        self._reads: list[tuple[int, Any, Frame]] = []          # after so many rows a number was read
        self._read_ids: set[int] = set()
        self._sources: dict[int, tuple[Any, Any]] = {}          # id of a Tensor -> the Tensor, what it stands for
        self._first: dict[int, tuple[Any, Any]] = {}            # id of a Variable -> it, what it held at first
        self._assigned: dict[int, Any] = {}
        self._again: dict[int, Any] = {}                        # those that tapes may watch, read after that
        self._created: list[Any] = []                           # weak references to Variables made on the way
        self.not_replayable = ""                                # why no trace can be made of this

    # ---- while it runs ----

    def __enter__(self) -> Any:
        around = next(tracings(), None)
        super().__enter__()
        if around is not None:                       # the same thread notes the same rows
            self._frames, self._start = around._frames, len(around._frames)
        else:
            machine.note_frames(self._frames)
        lines.listen(layout.S_WAS_READ, self._was_read, True)
        machine.tape_start(self._tape)
        return self

    def __exit__(self, *error: object) -> None:
        machine.tape_stop(self._tape)
        lines.listen(layout.S_WAS_READ, self._was_read, False)
        super().__exit__(*error)
        if next(tracings(), None) is None:
            machine.note_frames(None)
        if error[0] is not None:
            self.release()

    def release(self) -> None:
        """Let go of the rows."""
        machine.tape_release(self._tape)

    def source(self, t: Any, what: Any) -> Any:
        """A Tensor that stands for something which a replay reads afresh."""
        t._tracked |= layout.IN_TRACE
        self._sources[id(t)] = (t, what)
        return t

    def read(self, variable: Any) -> Any:
        value = super().read(variable)
        if id(variable) not in self._first:
            self._first[id(variable)] = (variable, value)
            self.source(value, variable)
        elif id(variable) in self._assigned and variable._flags & (layout.V_TRAINABLE | layout.V_WATCHED):
            self._again[id(variable)] = variable
        return value

    def assign(self, variable: Any, value: Any) -> None:
        if id(variable) not in self._first:
            value_before = super().present(variable)
            self._first[id(variable)] = (variable, value_before)
            self.source(value_before, variable)
        self._assigned[id(variable)] = variable
        super().assign(variable, value)

    def created(self, variable: Any) -> None:
        self._created.append(weakref.ref(variable))
        super().created(variable)

    def made_of(self, array: Any, made: Any) -> None:
        self.source(made, array)

    def elsewhere(self) -> None:
        self.placed = True
        super().elsewhere()

    def truth(self, t: Any) -> bool | None:
        if t._tracked & layout.IN_TRACE and AVALS[t._aval].code:
            return bool(ops.not_equal(t, 0))
        return None

    def _was_read(self, t: Any) -> None:
        if t._tracked & layout.IN_TRACE and id(t) not in self._read_ids and self in tracings():
            self._read_ids.add(id(t))
            self._reads.append(((len(self._frames) - self._start) // 2, t, _frame()))

    def outside(self, held: Iterable[Any]) -> None:
        """Tensors that were there before are inputs where they can have gradients, as if Variables held them."""
        for t in held:
            if type(t) is machine.Tensor and is_float(AVALS[t._aval].code) and id(t) not in self._sources:
                variable = object.__new__(machine.Variable)
                variable._value, variable.name = t, "a Tensor from outside"
                self._sources[id(t)] = (t, variable)

    def first(self) -> list[tuple[Any, Any]]:
        """The Variables that were read or assigned, and what they held before."""
        return list(self._first.values())

    def roll_back(self) -> None:
        """Let the Variables hold what they held before."""
        for variable, value in self._first.values():
            super().put_back(variable, value)

    # ---- afterwards ----

    def traced(self, arguments: Sequence[Any], results: Sequence[Any],
               seen: Sequence[tuple[np.ndarray, np.ndarray]] = (), for_once: bool = False) -> Traced | None:
        """The Program of the rows from these argument Tensors to these results; NumPy may have computed with arrays
        that were ``seen``, with copies, so that their content is guarded, but for those that became Tensors.

        None if Variables were made that stay: the next call will find them and make none. With ``for_once`` they are
        inputs like those from before.
        """
        rows = machine.log_rows(self._tape)
        self.release()
        local = set() if for_once else {id(r()) for r in self._created}
        held = [(v, self.present(v)) for v in self._assigned.values() if id(v) not in local]
        self._assigned.clear()
        self._first = {key: pair for key, pair in self._first.items() if key not in local}
        self._sources = {key: (t, what) for key, (t, what) in self._sources.items() if id(what) not in local}
        if not for_once and any(r() is not None for r in self._created):
            return None
        builder = _Builder(self._sources, arguments)
        met = {id(a) for _, what in self._sources.values() if isinstance(what, np.ndarray) for a in _bases(what)}
        again = [self._first[key][1] for key in self._again if key in self._first]
        for t in again:
            builder.number(t)
        builder.guard_arrays([pair for pair in seen if not any(id(b) in met for b in _bases(pair[0]))])
        return builder.built(rows, self._frames[self._start:], self._reads, results, held)._replace(
            reads_assigned=bool(again))


def tracings() -> Iterator[Tracing]:
    """The recordings of functions that this thread is in."""
    found = active()
    while found is not None:
        if isinstance(found, Tracing):
            yield found
        found = found.outer


def _frame() -> Frame:
    """Code and position of the innermost frame outside this package."""
    frame: Any = sys._getframe(2)
    while in_package(frame.f_code.co_filename) and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


@functools.lru_cache(maxsize=65536)
def place(code: CodeType, position: int) -> str:
    """FILE:LINE of a frame that was noted."""
    found = next((line for start, end, line in code.co_lines() if start <= position < end), None)
    return f"{code.co_filename}:{found or code.co_firstlineno}"


def _bases(array: Any) -> Iterator[Any]:
    """An array, and those that it is a view of."""
    while isinstance(array, np.ndarray):
        yield array
        array = array.base


class _Builder:
    """Numbers the values of recorded rows: what stands for something is an input, what no row made is a constant."""

    def __init__(self, sources: dict[int, tuple[Any, Any]], arguments: Sequence[Any]) -> None:
        self._sources = sources
        self._number: dict[int, int] = {}
        self._rows = Rows()
        self._variables: list[tuple[Any, int]] = []
        self._arrays: list[tuple[Any, int]] = []
        self._arguments = list(arguments)
        self._elsewhere: set[int] = set()            # values on another device
        for t in arguments:
            if id(t) not in self._number:
                self._new(t)

    def _new(self, t: Any) -> int:
        value = self._number[id(t)] = self._rows.value(t._aval)
        if is_elsewhere(t):
            self._elsewhere.add(value)
        return value

    def number(self, t: Any) -> int:
        """The value id of a Tensor; a new one is an input or a constant."""
        known = self._number.get(id(t))
        if known is None:
            source = self._sources.get(id(t))
            known = self._new(t)
            if source is None:
                self._rows.constants[known] = t
            elif isinstance(source[1], np.ndarray):
                self._arrays.append((source[1], known))
            else:
                self._variables.append((source[1], known))
        return known

    def guard_arrays(self, arrays: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Guard that these hold what their copies do."""
        for array, copy in arrays:
            t = tensor(copy if fits(array) else 0)             # of what does not fit, the caller makes no trace
            self._arrays.append((array, self._new(t)))
            self._guard(t, self._number[id(t)], f"<an array of shape {array.shape} that NumPy computes with>")

    def _guard(self, t: Any, value: int, where: str) -> None:
        expected = self._rows.value(t._aval)             # not the value itself: the number that Python read
        self._rows.constants[expected] = t
        self._rows.row(form(BY_NAME["guard"], [AVALS[t._aval]] * 2, {}).id, (value, expected), where)

    def built(self, rows: Sequence[Any], frames: Sequence[Any], reads: Sequence[Any], results: Sequence[Any],
              assigned: Sequence[tuple[Any, Any]]) -> Traced:
        number, append, start = self._number, self._rows.row, 0
        inputs_of, outputs_of = COLUMNS.inputs.tolist(), COLUMNS.outputs.tolist()
        for upto, t, frame in [*reads, (len(rows), None, None)]:
            for r in range(start, upto):
                row = rows[r]
                made = row[0]
                n = inputs_of[made] + 1
                ids = [number[id(x)] if id(x) in number else self.number(x) for x in row[1:n]]
                out = append(made, ids, place(frames[2 * r], frames[2 * r + 1]))
                for x in row[n: n + outputs_of[made]]:
                    number[id(x)] = out
                    out += 1
            start = upto
            if t is not None:
                self._guard(t, self.number(t), place(*frame))
        numbers = list(map(self.number, results))
        places = {v: k for k, v in reversed([*enumerate(numbers)])}
        ends = [*numbers]                            # what is returned and held is one result
        held, here = [], {k for k, t in enumerate(results) if not is_elsewhere(t)}
        for variable, value in assigned:
            k = places.setdefault(self.number(value), len(ends))
            ends += [self.number(value)] if k == len(ends) else []
            held.append((variable, k))
            here |= {k} if not is_elsewhere(value) else set()
        inputs = [*dict.fromkeys(self._number[id(t)] for t in self._arguments), *(i for _, i in self._variables),
                  *(i for _, i in self._arrays)]
        place_of = {v: i for i, v in enumerate(inputs)}
        program = self._rows.program(inputs, ends)
        return Traced(program, [place_of[self._number[id(t)]] for t in self._arguments],
                      [v for v, _ in self._variables], [a for a, _ in self._arrays], held,
                      frozenset(i for i, v in enumerate(inputs) if v in self._elsewhere), frozenset(here))
