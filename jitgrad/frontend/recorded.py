"""What is behind a `jitgrad.function`: record a call once, replay it ever after.

The machine matches calls against traces and runs them (see `execute.cpu.functions`). It asks what is here for the rest:
to record, and to find or record another way on where a guard has failed.
"""

from __future__ import annotations

import functools
import logging
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jitgrad.core import backend, nest
from jitgrad.core.device import Device
from jitgrad.core.errors import user_error
from jitgrad.core.program import Program
from jitgrad.core.recorder import active, placed_on, unplaced
from jitgrad.execute.cpu import layout
from jitgrad.execute.cpu import types as machine
from jitgrad.execute.cpu.function_type import Function
from jitgrad.execute.cpu.functions import install
from jitgrad.frontend import lazy, nans
from jitgrad.frontend.ahead import Ahead, like_tensors
from jitgrad.frontend.arguments import Arguments, Exotic, bytes_in, normal
from jitgrad.frontend.eagerly import functions_run_eagerly
from jitgrad.frontend.lost import Lock
from jitgrad.frontend.numbers import Numbers
from jitgrad.frontend.traces import Call, Entry, NotReplayable, agrees, differs, same_for_old_numbers
from jitgrad.frontend.tracing import Tracing

_logger = logging.getLogger("jitgrad")
MOST_TRACES = 64               # of one function; the least recently used ones go
MOST_FAILURES = 8              # of one guard on a number
MOST_WASTED = 48               # recordings that were replayed less than once each, before it is given up


class CacheInfo(NamedTuple):
    """How a function is doing: calls answered by replays, recordings made, traces kept and dropped."""

    hits: int
    recordings: int
    traces: int
    dropped: int
    python_bound: bool


_trying = threading.local()    # its `of` is the function that this thread asks for a replay only
_MISS = object()


class Recorded:
    """What a Function calls for all that its traces do not answer. It refers to the Function weakly."""

    def __init__(self, f: Callable[..., Any], on_branch_change: str, check_every: int, eager_compile: bool) -> None:
        self.f = f
        self.eager_compile = eager_compile
        self.name: str = getattr(f, "__qualname__", "") or getattr(getattr(f, "func", f), "__qualname__", repr(f))
        self.device = ""                             # in whose blocks it runs
        self.raises = on_branch_change == "raise"
        self.check_every = check_every
        self.entries: list[Entry] = []
        self.numbers = Numbers()
        self.by_structure: dict[Any, Any] = {}
        self.lock = Lock(weakref.ref(self))
        self.recordings = self.dropped = self.old_hits = self.calls = 0
        self.failures: Counter[str] = Counter()
        self.bound = self.noted = False
        self._reason = ""
        self.function: Any = None                    # weak reference to the Function

    # ---- what the machine calls ----

    def slow(self, *args: Any, **kwargs: Any) -> Any:
        """No trace answers this call."""
        if getattr(_trying, "of", None) is self:
            return _MISS
        if (place := placed_on()) and not self.bound:
            inner = self._placed(place)
            with unplaced():
                return inner(*args, **kwargs)
        if self.bound or active() is not None or nans.checking() or functions_run_eagerly():
            return self.f(*args, **kwargs)
        given, keywords = tuple(map(normal, args)), {k: normal(v) for k, v in kwargs.items()}
        if any(a is not b for a, b in zip((*args, *kwargs.values()), (*given, *keywords.values()), strict=True)):
            return self.function()(*given, **keywords)
        if self.check_every:
            return self._checked(args, kwargs)
        if machine.get_state(layout.S_RECORDERS):
            if sum(e.recordable() for e in self.entries):
                return self.function()(*args, **kwargs)
            if any(e.placed or e.traced.reads_assigned for e in self.entries):
                return self.f(*args, **kwargs)           # one row cannot be what those tapes would see
        found = self._other(args, kwargs)
        if found is _MISS and self.eager_compile and not machine.get_state(layout.S_RECORDERS):
            made = self.ahead(args, kwargs)
            found = _MISS if made is None else self._replay([made], args, kwargs)
            self._installed()
        return self._record(args, kwargs) if found is _MISS else found

    def failed(self, address: int, guard: int, *args: Any, **kwargs: Any) -> Any:
        """A guard of a trace stopped this call, and none of the traces linked to it goes on."""
        if getattr(_trying, "of", None) is self:
            return _MISS
        entry = next((e for e in self.entries if e.trace.address == address), None)
        if entry is None:                            # dropped meanwhile
            return self.slow(*args, **kwargs)
        if entry.link(guard, self.entries):
            return self.function()(*args, **kwargs)
        return self._branch(entry, guard, args, kwargs)

    # ---- finding and recording ----

    def _replay(self, entries: Sequence[Entry], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The answer of one of these, or _MISS."""
        function = self.function()
        before, _trying.of = getattr(_trying, "of", None), self
        try:
            for i in range(0, len(entries), layout.MAX_TRACES):
                install(function, [e.trace for e in entries[i: i + layout.MAX_TRACES]])
                found = function(*args, **kwargs)
                if found is not _MISS:
                    return found
        finally:
            _trying.of = before
        return _MISS

    def _other(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """An answer by traces that the machine does not have at hand, or whose layers changed to no effect."""
        with self.lock:
            fresh = [e for e in self.entries if e.refreshed()]
            if not fresh and len(self.entries) <= layout.MAX_TRACES:
                return _MISS
            order = sorted(self.entries, key=lambda e: e.trace.used)
            found = self._replay([*fresh, *(e for e in reversed(order) if e not in fresh)], args, kwargs)
            self._installed()
        return found

    def _installed(self, first: Entry | None = None) -> None:
        """The machine tries the most recently used traces, after one that is new."""
        order = sorted(self.entries, key=lambda e: (e is first, e.trace.used), reverse=True)
        install(self.function(), [e.trace for e in order])

    def _branch(self, entry: Entry, guard: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        line, truth = entry.guard(guard)
        if self.raises:
            raise user_error(RuntimeError, f"function {self.name}: Python took another way than when it was recorded, "
                                           f"after a number that it read at {line}")
        if not truth:
            self.failures[line] += 1
            if self.failures[line] >= MOST_FAILURES:
                self._give_up(f"the number read at {line} is another one at every call; return the Tensor, or use "
                              f"jg.where or jg.cond in place of Python on its value")
                return self.f(*args, **kwargs)
        return self._record(args, kwargs)

    def _give_up(self, why: str) -> None:
        with self.lock:
            self.bound = True
            self._drop(list(self.entries))
            install(self.function(), [])
        self._note(f"function {self.name} runs as plain Python from now on: {why}")

    def _note(self, sentence: str) -> None:
        if not self.noted:
            self.noted = True
            _logger.warning("%s", sentence)

    def _drop(self, entries: Sequence[Entry]) -> None:
        self.old_hits += sum(e.trace.hits for e in entries)
        self.dropped += len(entries)
        self.entries = [e for e in self.entries if e not in entries]
        for e in self.entries:
            e.forget(entries)

    def lost(self, entry: Entry) -> None:
        """Drop a trace that refers to what is no more."""
        if self.function() is not None:
            self._drop([entry])
            self._installed()

    def _record(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        try:
            call = self._called(args, kwargs)
            answer, entry = call.answer, call.entry
        except Exotic:
            inner, leaves = self._flat(args, kwargs)
            return inner(*leaves)
        except NotReplayable as error:
            self._give_up(str(error))
            error.call.tracing.release()
            error.call.arguments.hand_back()
            return error.call.answer
        self._ready(entry)
        with self.lock:
            self.recordings += 1
            if entry is not None:
                self._keep(entry)
            wasted = self.recordings >= MOST_WASTED and self.hits() < self.recordings
        if wasted:
            self._give_up("nearly every call has to be recorded again" + self._reason)
        return answer

    def _called(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """The call, recorded; with Python numbers as data where that gives what Python gives."""
        tracing, twin = self._tracing(args, kwargs)
        arguments = Arguments(args, kwargs, self.numbers.is_data, twin=twin)
        tried = self.numbers.met(arguments.numbers)
        olds = [e for e in self.entries if agrees(e.arguments, arguments, [path for path, _ in tried])] if tried else []
        trial = self._trial(args, kwargs, tried, olds) if olds else None
        if trial:
            return trial
        try:
            return self._call(arguments, tracing)
        except BaseException:
            arguments.hand_back()
            raise

    def _call(self, arguments: Arguments, tracing: Tracing) -> Call:
        return Call(self.f, arguments, tracing, self.device)

    def _tracing(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tracing, Any]:
        """How the call is recorded, and what makes the Tensors of it that the code gets."""
        if backend.current().tapes() or bytes_in((args, dict(kwargs))) < lazy.LARGE:       # open tapes want numbers
            return Tracing(), None
        made = lazy.Lazy()
        return made, made.twin

    def _trial(self, args: Sequence[Any], kwargs: Mapping[str, Any], tried: list[tuple[Any, type]],
               olds: Sequence[Entry]) -> Call | None:
        """The call with more numbers as data, if its replay for the old numbers does what their own trace does."""
        tracing, twin = self._tracing(args, kwargs)
        data = Arguments(args, kwargs, lambda path, kind: (path, kind) in tried or self.numbers.is_data(path, kind),
                         twin=twin)
        before = [(v, v._value) for e in olds for v in e.variables]
        same = list[bool | None]()
        try:
            call = self._call(data, tracing)
            same = [same_for_old_numbers(call, old, before) for old in olds]
        except Exception:                            # of what only a Python number can do, or of the user's
            same = [False]
        if True in same or False in same:
            self.numbers.settle(tried, True in same)
        if True in same:
            return call
        tracing.roll_back()
        return None

    def ahead(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Entry | None:
        """A trace for such calls, made without numbers and compiled; None where the code goes by numbers."""
        entry = None
        for _ in range(2):                           # the first time may make Variables that stay
            tracing = Ahead()
            try:
                arguments = Arguments(args, kwargs, self.numbers.is_data, tracing.input)
                if self.numbers.met(arguments.numbers) and self.entries:
                    return None                      # a second number in a place, to be tried as data
                if any(row[0] == "placed" for row in arguments.instructions):
                    return None                      # dry Tensors do not say where their numbers will be
                call = self._call(arguments, tracing)
                entry = None if tracing.refused else call.entry
            except Exception:                        # with numbers, where it is recorded next, it may do without
                tracing.refused = True
            if entry is not None or tracing.refused:
                break
        if entry is None:
            tracing.release()
            return None
        self._ready(entry)
        with self.lock:
            self.recordings += 1
            self._keep(entry)
        return entry

    def _ready(self, entry: Entry | None) -> None:
        """Without the lock: who has the compiler may collect garbage, and so drop a trace of this function."""
        if self.eager_compile and entry is not None:
            entry.plan.compile()

    def _keep(self, entry: Entry) -> None:
        self._explain(entry)
        self.entries.append(entry)
        impl, kept = weakref.ref(self), weakref.ref(entry)
        entry.watches = [weakref.ref(x, lambda _: _gone(impl, kept)) for held in entry.objects
                         if (x := held()) is not None]
        if len(self.entries) > MOST_TRACES:
            self._drop(sorted(self.entries[:-1], key=lambda e: e.trace.used)[: MOST_TRACES // 4])
        self._installed(entry)

    def _explain(self, entry: Entry) -> None:
        """Says once what keeps a function recording."""
        if len(self.entries) >= 4 and self.hits() < self.recordings:
            why = entry.difference(self.entries[-1], self.f)
            if why:
                self._reason = f": {why}"
                self._note(f"function {self.name} was recorded {self.recordings} times: {why}")

    def _flat(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, list[Any]]:
        """Containers that only optree knows: a function of the leaves for each structure, and the leaves."""
        leaves, structure = nest.flatten((args, dict(kwargs)))
        if structure not in self.by_structure:
            self.by_structure[structure] = self._like(functools.partial(_of_leaves, structure, self.f))
        return self.by_structure[structure], leaves

    def _placed(self, device: str) -> Any:
        """The function in blocks of a device, where what it makes is made."""
        if device not in self.by_structure:
            inner: Any = functools.partial(_in_block, device, self.f)
            inner.__wrapped__ = self.f               # has the names of the parameters
            self.by_structure[device] = self._like(inner)
            self.by_structure[device]._impl.device = device
        return self.by_structure[device]

    def _like(self, inner: Any) -> Any:
        """A function that does some of this one's calls, under its name."""
        inner.__qualname__ = self.name
        made = make(inner, "raise" if self.raises else "retrace", self.check_every, self.eager_compile)
        made._impl.device = self.device
        return made

    def _checked(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Under ``check_every``: the machine has no traces at hand; every n-th replay is compared with plain Python."""
        self.calls += 1
        compare = self.calls % self.check_every == 0
        before = {id(v): (v, v._value) for e in self.entries for v in e.variables}
        found = self._replay(self.entries, args, kwargs)
        install(self.function(), [])
        if found is _MISS:
            answer = self._record(args, kwargs)
            install(self.function(), [])
            return answer
        if not compare:
            return found
        after = {key: v._value for key, (v, _) in before.items()}
        for v, value in before.values():
            machine.variable_hold(v, value)
        answer = self.f(*args, **kwargs)
        wrong = differs(found, answer) or next((f"the Variable {v.name!r}" for key, (v, _) in before.items()
                                                if differs(after[key], v._value)), "")
        if wrong:
            with self.lock:
                self._drop(list(self.entries))
            raise user_error(RuntimeError, f"function {self.name}: a replay and plain Python differ in {wrong}: "
                                           "something has changed that no replay can see (a clock, Python's random "
                                           "numbers, a file, an attribute set through setattr)")
        return answer

    def program(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Program:
        """The Program of a call; Variables hold afterwards what they held before."""
        given, keywords = tuple(map(normal, args)), {k: normal(v) for k, v in kwargs.items()}
        try:
            arguments = Arguments(given, keywords, self.numbers.is_data)
        except Exotic:
            inner, leaves = self._flat(given, keywords)
            return inner.program(*leaves)
        call = self._call(arguments, Tracing())
        entry = call.undone()
        if entry is None:
            raise user_error(RuntimeError, f"function {self.name}: the first call makes Variables; call it once first")
        return entry.flat

    def warmup(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """A compiled trace for calls like this one, which is not made."""
        shapes: list[Any] = []
        given = tuple(normal(like_tensors(x, shapes)) for x in args)
        keywords = {k: normal(like_tensors(x, shapes)) for k, x in kwargs.items()}
        arguments = Arguments(given, keywords, self.numbers.is_data, Ahead().input)
        known = [e for e in self.entries if agrees(e.arguments, arguments, ())]
        made = self.ahead(given, keywords) if not known else None
        for entry in known if made is None else [made]:
            entry.plan.compile()
        if known or made is not None:
            return
        if shapes:
            raise user_error(TypeError, f"warmup: {self.name} goes by the numbers of its arguments, or cannot be "
                                        "recorded; give arrays in place of shapes")
        call = self._call(Arguments(given, keywords, self.numbers.is_data), Tracing())
        made = call.undone()
        if made is not None:
            made.plan.compile()
            with self.lock:
                self.recordings += 1
                self._keep(made)

    def by_arguments(self) -> list[Recorded]:
        """This one, and those that do the calls with containers of some structure."""
        return [self, *(impl for inner in self.by_structure.values() for impl in inner._impl.by_arguments())]

    def hits(self) -> int:
        """Calls that were answered by replays."""
        return self.old_hits + sum(e.trace.hits for e in self.entries)


def _of_leaves(structure: Any, f: Callable[..., Any], *given: Any) -> Any:
    args, kwargs = nest.rebuild(structure, list(given))
    return f(*args, **kwargs)


def _in_block(device: str, f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with Device(device):
        return f(*args, **kwargs)


def _gone(impl: Any, entry: Any) -> None:
    """An object that a trace was recorded with, a method's instance say, is no more: nor is the trace."""
    function, e = impl(), entry()
    if function is not None and e is not None and function.function() is not None:
        function.lock.lost(e)


def make(f: Callable[..., Any], on_branch_change: str, check_every: int, eager_compile: bool) -> Any:
    """A Function over a Python callable."""
    impl = Recorded(f, on_branch_change, check_every, eager_compile)
    made: Any = Function()
    made._slow, made._failed, made._impl = impl.slow, impl.failed, impl
    impl.function = weakref.ref(made)
    return functools.update_wrapper(made, f)
