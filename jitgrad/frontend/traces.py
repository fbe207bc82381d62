"""One recorded way through a function: making it from a call, keeping it, comparing it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np

from jitgrad.core import nest
from jitgrad.core.aval import AVALS
from jitgrad.core.collector import no_collection
from jitgrad.core.device import LOOSE
from jitgrad.core.dtypes import BOOL, FLOAT32, is_float
from jitgrad.core.form import FORMS, Form, form
from jitgrad.core.number import number
from jitgrad.core.primitive import BY_NAME
from jitgrad.core.program import Program
from jitgrad.core.record import dispatch, replay, tensor
from jitgrad.core.recorder import carried, has_numbers
from jitgrad.core.versions import ANY, DEFAULTS, VERSIONS
from jitgrad.execute.cpu.functions import Trace, views
from jitgrad.execute.cpu.lifetime import immortal
from jitgrad.execute.cpu.plans import Plan
from jitgrad.frontend.answers import Answer, NotRebuilt
from jitgrad.frontend.arguments import Arguments, fits, held_weakly
from jitgrad.frontend.checks import Checks
from jitgrad.frontend.facts import Global, describe, holds
from jitgrad.frontend.log import aside
from jitgrad.frontend.tracing import Traced, Tracing
from jitgrad.frontend.unseen import objects_of, unseen
from jitgrad.frontend.watching import TooManyFacts, Watch
from jitgrad.transform.prune import pruned
from jitgrad.transform.residuals import with_residuals, with_results
from jitgrad.transform.simplify import simplify

immortal(VERSIONS)             # traces compare them by address


class NotReplayable(Exception):
    """A call that ran, but that no replay can stand in for; says why."""

    def __init__(self, why: str, call: Call) -> None:
        super().__init__(why)
        self.call = call


class NotPlaced(Exception):
    """A Program that another device than the CPU cannot run; says why."""


class Call:
    """A call of a function, recorded as it runs."""

    def __init__(self, f: Callable[..., Any], arguments: Arguments, tracing: Tracing, device: str = "") -> None:
        """In a block of a ``device`` arrays are there."""
        self.arguments = arguments
        self.tracing = tracing
        self._made: list[Entry | None] = []
        for t in arguments.inputs:
            self.tracing.source(t, None)
        watch = Watch(f)
        with self.tracing, watch:
            if device:
                arguments.place(lambda t: self._placed(t, device))
            self.answer = f(*arguments.args, **arguments.kwargs)
        try:
            self.facts = watch.facts()
        except TooManyFacts as error:
            raise NotReplayable(str(error), self) from None
        self.versioned = watch.versioned
        self.tracing.outside(x for x, _ in watch.held.values())
        self._arrays = [pair for pair in watch.held.values() if isinstance(pair[0], np.ndarray)]
        self._check()

    def _placed(self, t: Any, device: str) -> Any:
        """What code in a block of the device would make of an array."""
        if not has_numbers(t):
            self.tracing.elsewhere()
            return t
        made = carried(t, device)
        made._tracked |= LOOSE
        return made

    def _check(self) -> None:
        """Raises NotReplayable for what replays could not tell, or do."""
        if self.tracing.not_replayable:
            raise NotReplayable(self.tracing.not_replayable, self)
        changed = self.arguments.changed()
        if changed:
            raise NotReplayable(f"it changes a {type(changed[0][0]).__name__} that it is given", self)
        found = next((x for x in (*self.arguments.objects, *objects_of(self.facts)) if unseen(x)), None)
        if found is not None:
            raise NotReplayable(f"it uses a {type(found).__name__}, whose state no replay can see", self)

    @property
    def entry(self) -> Entry | None:
        """The trace, made once; None where only this first call could do what it did: it made Variables that stay."""
        if not self._made:       # a cached_property of Python 3.11 has a lock for all, which a fork may leave behind
            with no_collection():
                self._made.append(self._entry())
        return self._made[0]

    def undone(self) -> Entry | None:
        """The same, after which Variables hold what they held before the call."""
        try:
            return self.entry
        finally:
            self.tracing.roll_back()

    def _entry(self) -> Entry | None:
        known = {id(x) for x in (*self.arguments.objects, *self.versioned)}
        try:
            answer = Answer(self.answer, self.arguments.registers, known)
        except NotRebuilt as error:
            raise NotReplayable(f"it returns a {error}, which a replay cannot make again; return Tensors in tuples, "
                                "lists and dicts", self) from None
        for t in answer.leaves:
            t._tracked &= ~LOOSE                     # as what replays return
        traced = self.tracing.traced(self.arguments.inputs, answer.leaves, self._arrays)
        if traced is None:
            return None
        if not all(map(fits, traced.arrays)):
            raise NotReplayable("it reads a NumPy array that is not contiguous, aligned and of one of the dtypes of "
                                "Tensors", self)
        try:
            return Entry(self, answer, traced)
        except NotPlaced as error:
            raise NotReplayable(str(error), self) from None


class Entry:
    """A trace of a function, ready to run, with what Python knows of it."""

    def __init__(self, call: Call, answer: Answer, traced: Traced) -> None:
        self.arguments = call.arguments
        self.objects = [held for x in call.arguments.objects if (held := held_weakly(x)) is not None]
        self.arguments.forget()
        self.facts = call.facts
        self.versioned = [held_weakly(x) for x in call.versioned]
        self.program = traced.program
        self.answer = answer
        self.traced = traced
        self.flat = simplified(traced.program)
        numbers = [row[2] for row in self.arguments.instructions if row[0] == "float"]
        self._at_once = call.tracing.at_once
        self.placed = call.tracing.placed or bool(traced.placed)         # whether another device takes part
        self._views: Any = {}
        if self.placed:
            self.plan = _elsewhere(traced, with_singles(self.flat, numbers))
        else:
            shared = {row[2] for row in self.arguments.instructions if row[0] == "tensor"}
            first = len(self.arguments.inputs)
            self._views = views(self.flat, shared | set(range(first, first + len(traced.variables))))
            run = with_singles(_without(self.flat, self._views), numbers)
            self.plan = _plan(traced.program, run, call.tracing.at_once)
        self._links: list[tuple[int, Entry]] = []
        self.watches: list[Any] = []                 # weak references that tell when an object dies
        self._guards = guards_of(self.plan.flat)
        self._versions = self._present()
        self._word = VERSIONS.tolist()
        self.trace = self._trace()

    def _trace(self) -> Trace:
        arguments, traced = self.arguments, self.traced
        count = len(arguments.inputs)
        names = ("variable", "placed_variable")
        sources = [(names[count + i in traced.placed], v, count + i) for i, v in enumerate(traced.variables)]
        sources += [("captured", a, count + len(traced.variables) + i) for i, a in enumerate(traced.arrays)]
        checks = Checks(arguments.used, arguments.places)
        checks.add(self.facts)
        words = [("word", VERSIONS.ctypes.data + 8 * ANY, self._word[ANY])]
        return Trace(self.plan, [*arguments.recipe(), *words, *checks.rows, *sources], positional=arguments.count,
                     names=arguments.names, answer=self.answer.instructions, assignments=traced.assigned,
                     views=self._views, elsewhere=self.plan if self.placed else None)

    @property
    def variables(self) -> list[Any]:
        """The Variables that it reads or assigns."""
        return list({id(v): v for v in (*self.traced.variables, *(v for v, _ in self.traced.assigned))}.values())

    def inputs(self, numbers: Arguments, call: Arguments, at_first: Mapping[int, Any]) -> list[Any]:
        """What its plan reads in a call with the Python numbers of another, before Variables were assigned."""
        given = dict(zip(call.paths, call.inputs, strict=True))
        data = [number(numbers.numbers[path]).tensor if path in numbers.numbers else given[path]
                for path in self.arguments.paths]
        return [*data, *(at_first.get(id(v), v._value) for v in self.traced.variables),
                *(tensor(a) for a in self.traced.arrays)]

    def results(self, inputs: Sequence[Any]) -> list[Any]:
        """What its rows make of these inputs, assigned to nothing."""
        if self.placed:
            return replay(self.flat, inputs)
        return _plan(self.program, self.flat, self._at_once).run(inputs)

    # ---- what it goes by ----

    def _present(self) -> list[int]:
        """Versions of the layers and optimizers that the recording met, and of what those hold."""
        return [v for held in self.versioned if (x := held()) is not None for v in x.versions()]

    def refreshed(self) -> bool:
        """Whether the counters have moved on without a change of what this trace met; then it is good again."""
        now = VERSIONS.tolist()
        if now == self._word or now[DEFAULTS] != self._word[DEFAULTS] or self._present() != self._versions:
            return False
        self._word = now
        links, tape_plan = self.trace.links, self.trace.tape_plan
        self.trace = self._trace()
        self.trace.follow_with(links)
        if tape_plan is not None:
            self.trace.record_with(tape_plan)
        return True

    def guard(self, number: int) -> tuple[str, bool]:
        """Where Python read the number that a guard checks, and whether it is a truth value."""
        return self._guards[number] if number < len(self._guards) else ("", False)

    def link(self, guard: int, entries: Sequence[Entry]) -> bool:
        """Go on with any other trace where a guard fails; whether there are some that were not tried yet."""
        known = {id(e) for g, e in self._links if g == guard}
        new = [(guard, e) for e in entries if e is not self and id(e) not in known]
        self._links += new
        self._follow()
        return bool(new)

    def forget(self, gone: Sequence[Entry]) -> None:
        """Go on with none of these."""
        self._links = [(g, e) for g, e in self._links if e not in gone]
        self._follow()

    def _follow(self) -> None:
        self.trace.follow_with([(g, e.trace) for g, e in self._links])

    def recordable(self) -> bool:
        """Let tapes see replays as `call` rows, which keep what their gradient reads; whether that is new."""
        if self.placed or self.traced.reads_assigned or self.trace.tape_plan is not None:
            return False
        program = self.program
        floats = [i for i, v in enumerate(program.inputs.tolist()) if is_float(program.aval(v).code)]
        whole = with_residuals(program, floats)
        self.trace.record_with(_plan(whole, simplified(whole)))
        return True

    # ---- in words ----

    def difference(self, older: Entry, f: Callable[..., Any]) -> str:
        """What made this recording necessary beside an older one, as far as it is the caller's doing."""
        old, new = older.arguments, self.arguments
        for path, x in new.numbers.items():
            if path in old.numbers and (type(x), x) != (type(old.numbers[path]), old.numbers[path]) and not (
                    new.is_data(path, type(x))):
                return (f"the argument {_name(f, path)} is a Python number, {old.numbers[path]!r} and then {x!r}, that "
                        "the function uses as such; pass a Tensor, or mean it to be recorded for each value")
        for path, shape in new.shapes.items():
            if old.shapes.get(path, shape) != shape:
                return (f"the argument {_name(f, path)} was {AVALS[old.shapes[path]]!r} and then {AVALS[shape]!r}")
        for fact in older.facts:
            if not holds(fact):
                return f"{describe(fact)} has changed"
        for i, (a, b) in enumerate(zip(new.instructions, old.instructions, strict=False)):
            if a[0] != b[0] or a[0] in ("is", "same", "equal") and a[2] is not b[2]:
                return f"instruction {i} of its arguments differs: {_brief(b)} and then {_brief(a)}"
        return ""


def guards_of(program: Program) -> list[tuple[str, bool]]:
    """Where Python read the number that each guard checks, and whether it is a truth value."""
    rows = np.flatnonzero(program.op == BY_NAME["guard"].code).tolist()
    checked = [program.row(r)[0].avals[0] for r in rows]
    return [(program.lines[r] if program.lines else "", a.code == BOOL and a.size == 1)
            for r, a in zip(rows, checked, strict=True)]


def agrees(a: Arguments, b: Arguments, but: Sequence[Any]) -> bool:
    """Whether calls differ in nothing but Python numbers in some places."""
    if (a.count, a.names, a.shapes) != (b.count, b.names, b.shapes) or len(a.instructions) != len(b.instructions):
        return False
    return all(p in but or (type(x), x) == (type(b.numbers.get(p)), b.numbers.get(p)) for p, x in a.numbers.items()
               if not a.is_data(p, type(x)))


def same_for_old_numbers(call: Call, old: Entry, before: Sequence[tuple[Any, Any]]) -> bool | None:
    """Whether a call that took numbers as data does, for the numbers of an old trace, what that trace does.

    None where that trace is of another branch, or of something that has changed since.
    """
    new = call.entry
    if any(isinstance(fact.root, Global) and fact.root.name == "type" for fact in call.facts):
        return False                     # a number that is data has another exact type
    at_first = {id(v): value for v, value in (*before, *call.tracing.first())}
    with aside():
        try:
            known = old.results(old.inputs(old.arguments, call.arguments, at_first))
        except (RuntimeError, IndexError):           # a guard, of the whole or of a row by itself
            return None
    if not all(map(holds, old.facts)):
        return None
    if new is None or [r[0] for r in new.answer.instructions] != [r[0] for r in old.answer.instructions]:
        return False
    with aside():
        tried = new.results(new.inputs(old.arguments, call.arguments, at_first))
    if [v for v, _ in new.traced.assigned] != [v for v, _ in old.traced.assigned]:
        return False
    return not differs(tried, known)


def differs(a: Any, b: Any) -> str:
    """The first leaf in which two nests are not the same, bit for bit; '' if they are."""
    gots, wants = nest.named(a, "result"), nest.named(b, "result")
    if [name for name, _ in gots] != [name for name, _ in wants]:
        return "the structure of the result"
    for (name, x), (_, y) in zip(gots, wants, strict=True):
        if type(x) is not type(y):
            return name
        if hasattr(x, "_aval") or hasattr(x, "_value") or isinstance(x, np.ndarray):
            p, q = np.asarray(x), np.asarray(y)
            if p.dtype != q.dtype or p.shape != q.shape or p.tobytes() != q.tobytes():
                return name
        elif x is not y and x != y and not (x != x and y != y):
            return name
    return ""


def simplified(program: Program) -> Program:
    with aside():
        return simplify(program, dispatch)


def _plan(program: Program, flat: Program, at_once: bool = False) -> Plan:
    return Plan(program, range(len(program.inputs)), flat=flat, at_once=at_once)


def _elsewhere(traced: Traced, flat: Program) -> Any:
    """The plan of a Program that ran on another device."""
    plans = importlib.import_module("jitgrad.execute.cuda.plans")          # not before there is a device
    halves = importlib.import_module("jitgrad.execute.cuda.halves")
    try:
        return plans.OnDevice(traced.program, traced.placed, flat, {k for _, k in traced.assigned}, traced.here)
    except halves.NotTwo as error:
        raise NotPlaced(str(error)) from None


def with_singles(program: Program, numbers: Sequence[int]) -> Program:
    """The Program with inputs in float32, of those at these positions that are read in float32 only."""
    avals, operands, results = program.avals.copy(), program.operands.copy(), program.results.copy()
    first = program.first_operand[:-1]
    for v in program.inputs[list(numbers)].tolist():
        readers = np.searchsorted(first, np.flatnonzero(program.operands == v), "right") - 1
        if v in results or not all(FORMS[program.attr[r]] is _single_of(v, program) for r in readers):
            continue
        outs = program.first_out[readers]
        operands[np.isin(operands, outs)] = v
        results[np.isin(results, outs)] = v
        avals[v] = FLOAT32
    made = Program(attr=program.attr, first_out=program.first_out, first_operand=program.first_operand,
                   operands=operands, avals=avals, inputs=program.inputs, constants=program.constants,
                   results=results, lines=program.lines)
    return pruned(made, keep_inputs=True, keep_effects=True)


def _single_of(value: int, program: Program) -> Form:
    """The form of the cast of a value to float32."""
    return form(BY_NAME["cast"], [program.aval(value)], {"dtype": "float32"})


def _without(program: Program, some: Container[int]) -> Program:
    """The Program without some of its results."""
    left = [-1 if k in some else v for k, v in enumerate(program.results.tolist())]
    return pruned(with_results(program, left), keep_inputs=True, keep_effects=True)


def _name(f: Callable[..., Any], path: Sequence[Any]) -> str:
    """An argument by the name of the parameter that takes it."""
    first, *rest = path
    if isinstance(first, int):
        try:
            names = list(inspect.signature(f).parameters)
        except (TypeError, ValueError):
            names = []
        first = names[first] if first < len(names) else f"number {first}"
    return "`" + str(first) + "".join(f"[{key!r}]" for key in rest) + "`"


def _brief(instruction: Sequence[Any]) -> str:
    return " ".join(str(x)[:40] for x in (instruction[0], *instruction[2:]))
