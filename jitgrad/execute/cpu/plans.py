"""Plans: a Program laid out for the sweep, and the process's table of them by tape signature."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from jitgrad import config
from jitgrad.core import backend
from jitgrad.core.aval import nbytes_of
from jitgrad.core.errors import user_error
from jitgrad.core.form import COLUMNS, FORMS, Form, form, grown
from jitgrad.core.lock import TABLES
from jitgrad.core.primitive import BY_NAME
from jitgrad.core.program import Program
from jitgrad.core.record import dispatch
from jitgrad.core.recorder import is_elsewhere
from jitgrad.execute.cpu import layout, library, types
from jitgrad.execute.cpu.lifetime import immortal
from jitgrad.execute.cpu.types import NATIVE, peek, poke
from jitgrad.plan import memory
from jitgrad.transform.higher import CALL, inlined
from jitgrad.transform.residuals import with_results
from jitgrad.transform.signature import backward_of

_int = np.int64
COLD, COLD_LONG = 12, 2        # runs after which a plan is worth machine code, and one of long runs
MOST_ROWS = 20_000             # of one that is: the time to compile grows with them
MAX_PLANS = 2048               # least recently used ones go; a plan is a few hundred bytes a row


class _FormTable:
    """Kernel address, params address and view offset of forms, for `lay_out`."""

    def __init__(self) -> None:
        self.kernels = np.zeros(0, _int)
        self.params = np.zeros(0, _int)
        self.views = np.zeros(0, _int)
        self.known = np.zeros(0, _int)

    def learn(self, ids: np.ndarray) -> None:
        """Fill the columns for these forms, compiling kernels where needed."""
        if len(self.known) < len(FORMS):
            for name in ("kernels", "params", "views", "known"):
                setattr(self, name, grown(getattr(self, name), len(FORMS)))
        for i in sorted({*ids[self.known[ids] == 0].tolist()}):      # np.unique would import numpy.ma
            made = FORMS[i]
            struct = library.realise(made)
            self.kernels[i] = peek(struct + layout.F_KERNEL)
            self.params[i] = peek(struct + layout.F_PARAMS)
            if peek(struct + layout.F_FLAGS) & layout.VIEW:
                self.views[i] = 1 + peek(int(self.params[i]))
                self.params[i] += layout.WORD
            self.known[i] = 1


_forms = _FormTable()


@cache
def _lay_out() -> Any:
    return backend.current().compiled(memory.lay_out)


@cache
def _copy_params(nbytes: int) -> int:
    return library.keep([1, 1, 0, nbytes, 1])


AT: WeakValueDictionary[int, Plan] = WeakValueDictionary()      # plans by the address of their struct


class Plan:
    """A Program ready to run: instructions, arena size, constants, and the struct that the machine reads."""

    def __init__(self, program: Program, inputs: Sequence[int], words: bytes = b"", hashed: int = 0,
                 row: Form | None = None, flat: Program | None = None, at_once: bool = False) -> None:
        """``inputs[i]``: which of the caller's values is the Program's i-th input; ``row``: what a run of it is on
        tapes, a `call` by default; ``flat``: a Program of the same inputs and results to run in its place;
        ``at_once``: be machine code from the start, and on the sweep only if that cannot be.
        """
        self.program = program
        self.words = words
        self._row = row
        self.inputs = list(inputs)
        self.flat = flat = inlined(program) if flat is None else flat
        self.constants = list(flat.constants.values())
        self._words = np.frombuffer(words, _int).copy()
        self._inputs = np.array([*inputs, 0], _int)
        results = flat.results.tolist()
        outs = [word for v in results for word in (
            (-1, 0, 0, 0) if v < 0 else (flat.avals[v], flat.aval(v).nbytes, flat.aval(v).size, flat.aval(v).code))]
        self._outs = np.array([*outs, 0], _int)
        self._avals = np.append(flat.avals[flat.inputs], 0).astype(_int)
        self._pointers = np.array([*(t._data for t in self.constants), 0], _int)
        self.machine: Any = None                 # its machine code, once that runs
        struct = np.zeros(layout.P_BYTES // 8, _int)
        self.struct = struct
        self.address = int(struct.ctypes.data)
        AT[self.address] = self
        for word, value in (
                (layout.P_HASH, hashed), (layout.P_WORDS, self._words.ctypes.data),
                (layout.P_WORD_COUNT, len(self._words)), (layout.P_INPUTS, self._inputs.ctypes.data),
                (layout.P_INPUT_COUNT, len(inputs)), (layout.P_OUTPUTS, self._outs.ctypes.data),
                (layout.P_OUTPUT_COUNT, len(results)), (layout.P_CONSTANTS, self._pointers.ctypes.data),
                (layout.P_CONSTANT_COUNT, len(self.constants)), (layout.P_AVALS, self._avals.ctypes.data),
                (layout.P_FLAGS, layout.LONG if self._work() >= library.LONG_ELEMENTS else 0)):
            poke(self.address + word, int(value))
        self._guarded(range(int((flat.op == BY_NAME["guard"].code).sum())))
        self.prepare(at_once)

    def prepare(self, at_once: bool) -> None:
        """Be machine code, or instructions of the sweep that may become that."""
        if any(t._data == 0 for t in self.constants):
            raise user_error(TypeError, "a recorded program holds a Tensor on a GPU as a constant: give it as an "
                                        "argument, or keep it on the CPU")
        wanted, flat = config.machine_code(), self.flat
        if not (at_once and wanted != "0" and _compiling().compiled(self)):
            self._sweep()
            if wanted == "1":
                if not self.words:               # who enters it in the table has the lock
                    _compiling().compiled(self)
            elif wanted == "hot" and 0 < len(flat) <= MOST_ROWS:
                long = peek(self.address + layout.P_FLAGS) & layout.LONG
                poke(self.address + layout.P_COLD, COLD_LONG if long else COLD)

    def _work(self) -> int:
        """A rough count of elements touched."""
        counts = np.bincount(self.flat.attr)
        return sum(library.work(FORMS[f]) * int(counts[f]) for f in np.flatnonzero(counts).tolist())

    def _sweep(self) -> None:
        """Run as instructions of the sweep."""
        self._code, count, arena, guards = instructions(self.flat)
        self._guarded(guards)
        poke(self.address + layout.P_ARENA, arena)
        at = layout.P_CODE // layout.WORD
        self.struct[at: at + 2] = self._code.ctypes.data, count

    def _guarded(self, guards: Iterable[int]) -> None:
        """What the status of a run calls each of the guards, in order."""
        self.guards = [*guards]
        self._guards = np.array([*self.guards, 0], _int)
        poke(self.address + layout.P_GUARDS, int(self._guards.ctypes.data))
        poke(self.address + layout.P_GUARD_COUNT, len(self.guards))

    def swap(self, machine: Any) -> None:
        """Run machine code from now on (see `engine`). The sweep reads both words of it while the lock is held."""
        self.machine = machine
        poke(self.address + layout.P_ARENA, max(machine.arena, peek(self.address + layout.P_ARENA)))
        at = layout.P_CODE // layout.WORD
        self.struct[at: at + 2] = machine.address, -1
        self._places = np.array(machine.places, _int)            # what follows counts on machine code
        poke(self.address + layout.P_PLACES, int(self._places.ctypes.data))
        poke(self.address + layout.P_COLD, 0)

    def compile(self) -> None:
        """Have machine code now, unless there is to be none or it cannot be made."""
        if config.machine_code() != "0":
            _compiling().compiled(self)

    def show(self) -> str:
        """Its steps as a table."""
        words: str = library.cpu_module("shown").shown(self)
        return words

    def ir(self) -> str:
        """The LLVM text of its machine code."""
        text: str = library.cpu_module("shown").ir(self)
        return text

    def recordable(self) -> Form:
        """Let runs of this plan appear on outer tapes; the form of such a row."""
        if self._row is None:
            self._row = _call_of(self.program)
        if not peek(self.address + layout.P_CALL):
            poke(self.address + layout.P_CALL, library.realise(self._row))
        return self._row

    def run(self, values: Sequence[Any]) -> list[Any]:
        """Results for input Tensors (None where there is none): one `call` row where something records."""
        made = self.recordable()
        if all(getattr(t, "_data", True) for t in values):
            results: list[Any] = types.plan_run(self.address, tuple(values))
            return results
        return _called(made, self.program, values)


def run_rows(program: Program, values: Sequence[Any]) -> list[Any]:
    """Results of a Program as one `call` row, without a plan of it: where some of its inputs are on another device."""
    return _called(_call_of(program), program, values)


@lru_cache(maxsize=1024)
def _call_of(program: Program) -> Form:
    """The row that stands for a run of a Program."""
    live = [v for v in program.results.tolist() if v >= 0]
    return form(CALL, [program.aval(v) for v in program.inputs.tolist()], {"program": with_results(program, live)})


def _called(made: Form, program: Program, values: Sequence[Any]) -> list[Any]:
    """What a recorded row leaves, in the places of the Program's results."""
    return _given_back(made, program, dispatch(made, values) if made.outs else ())


def _given_back(made: Form, program: Program, outs: Any) -> list[Any]:
    live = iter(outs if isinstance(outs, tuple) else (outs,))
    return [next(live) if v >= 0 else None for v in program.results.tolist()]


def instructions(flat: Program, first_result: int = -1, first_const: int = -1,
                 ) -> tuple[np.ndarray, int, int, list[int]]:
    """Code words, instructions, arena bytes, and which instructions are guards.

    The table of pointers begins with the inputs; by default the results follow, then the constants.
    """
    with TABLES:
        n_rows, n_values = len(flat), len(flat.avals)
        attr = flat.attr.astype(_int)
        _forms.learn(attr)
        slot = np.full(n_values + 1, memory.NOWHERE, _int)
        slot[flat.inputs] = -1 - np.arange(len(flat.inputs))
        results = flat.results.astype(_int)
        first_result = len(flat.inputs) if first_result < 0 else first_result
        first_const = first_result + len(results) if first_const < 0 else first_const
        for c, v in enumerate(flat.constants):
            slot[v] = -1 - (first_const + c)
        pairs = np.zeros(2 * len(results) + 1, _int)
        pairs[0:-1:2] = results
        pairs[1::2] = -1 - (first_result + np.arange(len(results)))
        sizes = nbytes_of(flat.avals)
        copies = np.zeros(n_values + 1, _int)
        for v in results[results >= 0].tolist():
            copies[v] = _copy_params(int(sizes[v]))
        room = 3 * n_rows + len(flat.operands) + int(COLUMNS.outputs[attr].sum()) + 5 * len(results) + 1
        code, ordinals, made = np.zeros(room, _int), np.zeros(n_rows + 1, _int), np.zeros(3, _int)
        status = _lay_out()(
            np.array([n_rows, n_values, len(results)], _int), attr, flat.first_operand.astype(_int),
            np.append(flat.operands, 0).astype(_int), flat.first_out.astype(_int), pairs, slot, sizes, _forms.kernels,
            _forms.params, _forms.views, COLUMNS.inputs, COLUMNS.outputs, np.array([NATIVE["move"]], _int), copies,
            *np.zeros((3, n_values + 1), _int), *np.zeros((2, n_values + 2), _int), code, ordinals, made)
        assert status == memory.DONE
        guards = ordinals[:-1][flat.op == BY_NAME["guard"].code].tolist()
        return code, int(made[memory.M_COUNT]), int(made[memory.M_ARENA]), guards


# ---- the table of plans by signature ---------------------------------------------------------------

class _Table:
    """Open addressing, as `find_plan` probes it."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.by_words: dict[bytes, Plan] = {}
        self.slots = np.zeros(4 * MAX_PLANS, _int)
        self.publish()

    def publish(self) -> None:
        types.set_state(layout.S_PLANS, int(self.slots.ctypes.data))
        types.set_state(layout.S_PLAN_MASK, len(self.slots) - 1)

    def add(self, plan: Plan) -> None:
        """Enter a plan whose words no other has: `find_plan` and `find` must agree on which it is."""
        with TABLES:
            assert plan.words not in self.by_words
            if len(self.plans) >= MAX_PLANS:
                self._evict()
            self.plans.append(plan)
            self.by_words[plan.words] = plan
            self._insert(self.slots, plan)

    @staticmethod
    def _insert(slots: np.ndarray, plan: Plan) -> None:
        mask = len(slots) - 1
        at = peek(plan.address + layout.P_HASH) & mask
        while slots[at]:
            at = (at + 1) & mask
        slots[at] = plan.address

    def _evict(self) -> None:
        """Half of the plans stay: those in use, then the most recently used."""
        ranked = sorted(self.plans, key=lambda p: (peek(p.address + layout.P_BUSY) > 0,
                                                   peek(p.address + layout.P_USED)), reverse=True)
        self.plans = ranked[: MAX_PLANS // 2]
        self.by_words = {plan.words: plan for plan in self.plans}
        slots = np.zeros_like(self.slots)
        for plan in self.plans:
            self._insert(slots, plan)
        self.slots[:] = slots

    def find(self, words: bytes) -> Plan | None:
        return self.by_words.get(words)


TABLE = immortal(_Table())


def _misfit(address: int, values: Any) -> None:
    if any(is_elsewhere(t) for t in values if type(t) is types.Tensor):
        raise user_error(ValueError, "some of these Tensors and Variables are on a GPU and some on the CPU: an "
                                     "optimizer and a recorded program need all on one device")
    raise TypeError(f"a plan was run on {len(values)} values that are not concrete Tensors of its inputs' avals")


def _compiling() -> Any:
    """Not before it is needed: an import takes no compiler along."""
    return library.cpu_module("compiling")


def _hot(address: int) -> None:
    _compiling().request(address)


types.callback(layout.S_MISFIT, _misfit)
types.callback(layout.S_HOT, _hot)


@lru_cache(maxsize=1024)
def plan_of(program: Program) -> Plan:
    """The plan that runs a Program on its inputs in their order."""
    return Plan(program, range(len(program.inputs)))


@lru_cache(maxsize=1024)
def plan_of_row(made: Form) -> Plan:
    """The plan that runs the Program of a row, and appears on tapes as that row."""
    return Plan(made.params["program"], range(len(made.avals)), row=made)


_rows_for: dict[bytes, tuple[Form, Program, list[int]]] = {}     # signature of a walk -> its gradients' row


def recorded_gradient(words: bytes, values: Sequence[Any], n_targets: int, with_seeds: bool,
                      n_sources: int) -> list[Any]:
    """A walk's gradients where some of these values are dry or on another device: a row, for which nothing is planned.
    """
    with TABLES:
        found = _rows_for.get(words)
        if found is None:
            back, saved = backward_of(np.frombuffer(words, np.int64), list(values), n_targets, with_seeds, n_sources)
            if len(_rows_for) >= MAX_PLANS:
                _rows_for.clear()
            found = _rows_for[words] = _call_of(back), back, [*saved]
    made, back, saved = found
    given = [values[i] for i in saved]
    owner = next((v._owner for v in values if is_elsewhere(v)), None)
    if owner is None or any(t._data == 0 for t in given):
        return _called(made, back, given)
    return _given_back(made, back, owner.append(made, given) if made.outs else ())      # it reads none of them there


def plan_for(words: bytes, values: Sequence[Any], hashed: int, n_targets: int, with_seeds: bool,
             n_sources: int) -> Plan:
    """The plan of a walk's backward Program, made and entered in the table at its first sight."""
    with TABLES:
        plan = TABLE.find(words)
        if plan is None:
            back, saved = backward_of(np.frombuffer(words, np.int64), list(values), n_targets, with_seeds, n_sources)
            plan = Plan(back, saved, words, hashed)
            TABLE.add(plan)
    if config.machine_code() == "1":
        plan.compile()
    return plan
