"""The CPU backend: Tensors from arrays, ops with inline caches, forms run by the machine."""

from __future__ import annotations

import ctypes as C
import functools
import importlib
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jitgrad.core import record
from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.errors import user_error
from jitgrad.core.form import FORMS, Form
from jitgrad.core.lock import TABLES
from jitgrad.core.primitive import KERNEL_RAISED, Kind, Primitive, contiguous_strides
from jitgrad.core.program import programs_in
from jitgrad.core.recorder import NO_NUMBER, active, has_numbers, is_dry, no_number
from jitgrad.execute.cpu import layout, library, types
from jitgrad.execute.cpu.lifetime import immortal
from jitgrad.execute.cpu.types import Tensor, Variable, peek, poke

_kept: list[Any] = immortal([])  # ops and their inline caches
_fixed: dict[int, list[tuple[int, Any]]] = immortal({})


class Machine:
    """See `jitgrad.core.backend.Backend`."""

    Tensor = Tensor
    Variable = Variable

    def op(self, prim: Primitive) -> Callable[..., Any]:
        """The op object of an entry, its inline cache empty."""
        op = types.OpType()
        table = np.zeros(layout.CACHE_SETS * layout.CACHE_WAYS * layout.C_BYTES, np.uint8)
        variadic = prim.operands[0].startswith("*")
        slow = _slow(prim, op, operator=False)
        operator = _slow(prim, op, operator=True)
        _kept.extend((op, table, slow, operator))
        at = id(op)
        poke(at + layout.O_CACHE, table.ctypes.data)
        poke(at + layout.O_OPERANDS, 0 if variadic else len(prim.operands))
        poke(at + layout.O_LITERAL, 1 << len(prim.operands) - 1 if prim.literal else 0)
        poke(at + layout.O_SLOW, id(slow))
        poke(at + layout.O_OPERATOR, id(operator))
        poke(at + layout.O_LAST, 0)
        poke(at + layout.O_VECTORCALL, types.NATIVE["op_vectorcall"])
        op.__name__ = op.__qualname__ = prim.name
        op.__doc__ = prim.doc
        op.prim = prim
        if prim.symbol is not None:
            types.set_state(layout.S_OPS + layout.WORD * layout.SYMBOLS.index(prim.symbol), at)
        return op

    def remember(self, op: Any, args: tuple[Any, ...], form: Form) -> None:
        if not 0 < len(args) <= layout.MAX_ARGS:
            return
        n_operands = peek(id(op) + layout.O_OPERANDS)
        literal = peek(id(op) + layout.O_LITERAL)
        words = [len(args)]
        fixed = []
        for i, a in enumerate(args):
            if type(a) is Variable:
                a = a._value
            if type(a) is Tensor:
                words.append(2 * a._aval + 1)
            elif i < n_operands and type(a) is float:
                words.append(layout.WEAK_FLOAT)
            elif i < n_operands and type(a) is int and not literal >> i & 1:
                words.append(layout.WEAK_INT)
            else:
                words.append(hash(a) if type(a) is tuple else id(a))
                fixed.append((i, a))
        words.append(0)
        key = np.array(words, np.int64)
        struct = library.realise(form)
        with TABLES:             # or the key of one thread would meet the form of another
            at = _entry(op, key)
            poke(at + layout.C_FORM, 0)
            _fixed[at] = fixed     # what the key points to lives as long as the entry
            C.memmove(at, key.ctypes.data, key.nbytes)
            for i, a in fixed:
                poke(at + layout.C_ARGS + layout.WORD * i, id(a))
            poke(at + layout.C_POSITION, sum(k << 8 * k for k in range(len(form.avals))))
            poke(at + layout.C_FORM, struct)

    def tensor(self, array: np.ndarray, value: Aval) -> Any:
        try:
            t = types.tensor_make(value.id, value.nbytes, value.size, value.code)
        except MemoryError:
            raise user_error(MemoryError, f"no memory for a Tensor of shape {value.shape} and dtype {value.dtype} "
                                          f"({value.nbytes / 2**30:.1f} GiB)") from None
        C.memmove(t._data, array.ctypes.data, value.nbytes)
        return t

    def dry(self, value: Aval, number: int, recorder: Any) -> Any:
        return types.tensor_placed(value.id, value.size, value.code, recorder, number)

    def moved(self, t: Any, device: str) -> Any:
        if t._owner.device == device if t._data == 0 else device == "cpu":
            return t
        if (recording := active()) is not None:
            recording.elsewhere()
        return _gpu().to_host(t) if device == "cpu" else _gpu().from_host(t)

    def numbers(self, t: Any) -> Any:
        self.was_read(t)
        return self.moved(t, "cpu")

    @staticmethod
    def was_read(t: Any) -> None:
        """Somebody outside gets to know the numbers of a Tensor on another device: recordings want to know."""
        note = types.get_state(layout.S_WAS_READ)
        if note and t._tracked:
            C.cast(note, C.py_object).value(t)

    def moved_constant(self, t: Any, device: str) -> Any:
        return self.moved(t, device) if device == "cpu" or t._data == 0 else _gpu().constant(t)

    def missing(self, device: str) -> str:
        return "" if device == "cpu" else importlib.import_module("jitgrad.execute.cuda.stream").problem()

    def taken(self, array: Any) -> Any:
        return importlib.import_module("jitgrad.execute.cuda.exchange").taken(array)

    def give(self, t: Any, value: Any) -> None:
        assert t._data == 0 and value._data and t._aval == value._aval
        owner, before, at = value if value._owner is None else value._owner, t._owner, id(t)
        C.pythonapi.Py_IncRef(C.py_object(owner))
        poke(at + layout.T_OWNER, id(owner))
        poke(at + layout.T_DATA, value._data)
        C.pythonapi.Py_DecRef(C.py_object(before))

    def run(self, form: Form, operands: Sequence[Any]) -> Any:
        if form.params.get("device", "cpu") != "cpu":
            made = self.moved(operands[0], form.params["device"])
            self.noted(form, operands, (made,))
            return made
        if form.prim.kind is Kind.HIGHER and not form.prim.runner:
            from jitgrad.execute.cpu import plans  # the plans need the table, and the table needs this module
            results = plans.plan_of_row(form).run(operands)
            return tuple(results) if len(results) > 1 else results[0]
        return types.run_form(form.address or library.realise(form), *operands)

    def compiled(self, function: Callable[..., int]) -> Callable[..., int]:
        from jitgrad.execute.cpu import compiled
        return compiled.compiled(function)

    @staticmethod
    def complete(methods: type) -> None:
        """Tell the machine which Python methods do the assignments that it does not."""
        types.callback(layout.S_ASSIGN_ADD, methods._assign_add)  # type: ignore[attr-defined]
        types.callback(layout.S_ASSIGN_SUB, methods._assign_sub)  # type: ignore[attr-defined]

    def read(self, variable: Any) -> Any:
        recording = active() if types.get_state(layout.S_RECORDINGS) else None
        return types.read_note(variable, recording.read(variable)) if recording else types.variable_read(variable)

    def read_now(self, variable: Any) -> Any:
        return types.variable_read(variable)

    def assign_now(self, variable: Any, value: Any) -> None:
        if not has_numbers(value):
            raise no_number(f"assign: a Tensor of a dry recording has no numbers for {variable.name!r}")
        types.variable_hold(variable, value)

    def recordings(self, change: int) -> None:
        (types.recording_enter if change > 0 else types.recording_leave)()

    def tapes(self) -> int:
        return len(types.open_tapes(types.thread_log())) if types.get_state(layout.S_RECORDERS) else 0

    def suspend(self) -> Sequence[Any]:
        if not types.get_state(layout.S_RECORDERS):
            return ()
        tapes = types.open_tapes(types.thread_log())
        for tape in tapes:
            types.tape_stop(tape)
        return tapes

    def resume(self, tapes: Sequence[Any]) -> None:
        for tape in reversed(tapes):
            types.tape_start(tape)

    def noted(self, form: Form, operands: Sequence[Any], outs: Sequence[Any]) -> None:
        if types.get_state(layout.S_RECORDERS):
            types.row_note(library.noted(form), tuple(operands), tuple(outs))


def _gpu() -> Any:
    """The Tensors on a GPU; not before one is asked for."""
    return importlib.import_module("jitgrad.execute.cuda.tensors")


_turn = itertools.count()


def _entry(op: Any, key: np.ndarray) -> int:
    """The entry to fill: the key's own, an empty one of its set, or each of the set in turn."""
    first = peek(id(op) + layout.O_CACHE) + (
        layout.C_BYTES * layout.CACHE_WAYS * types.key_set(key.ctypes.data, int(key[0])))
    ways = [first + layout.C_BYTES * way for way in range(layout.CACHE_WAYS)]
    for at in ways:
        if not peek(at + layout.C_FORM) or C.string_at(at, key.nbytes) == key.tobytes():
            return at
    return ways[next(_turn) % layout.CACHE_WAYS]


def _slow(prim: Primitive, op: Any, *, operator: bool) -> Callable[..., Any]:
    def slow(*args: Any, **kwargs: Any) -> Any:
        return record.call(prim, op, args, kwargs, operator)
    return slow


# ---- what the machine asks Python to say or do -----------------------------------------------------



def _no_rule(form: int, _: int) -> None:
    made = FORMS[peek(form + layout.F_ID)]
    raise user_error(LookupError, f"{made.prim.name}: has no derivative rule, and a tape watches an operand "
                                  f"(operands {' and '.join(map(repr, made.avals))})")


def _sentence(made: Form, code: int) -> str:
    """What an error code of a form's kernel means; a row that holds Programs fails as a row of theirs does."""
    inner = (_sentence(row, code) for _, program in programs_in(made.params) for row, _, _ in program.rows())
    return (made.prim.errors or {}).get(code) or next((s for s in inner if s != "failed"), "failed")


def _kernel_failed(form: int, code: int) -> None:
    made = FORMS[form] if form >= 0 else None
    operands = f" (operands {' and '.join(map(repr, made.avals))})" if made else ""
    if code == layout.NO_MEMORY:
        raise user_error(MemoryError, f"{made.prim.name}: no memory to work in{operands}" if made else
                         "no memory for the results or intermediate values of a recorded program")
    if (made is None or made.prim.runner) and code & ((1 << layout.ORDINAL) - 1) == layout.GUARD_FAILED:
        raise user_error(RuntimeError, "a guard of the recorded program does not hold: a value is not the one that was "
                                       "expected")
    sentence = _sentence(made, code) if made else "an operation of the recorded program failed"
    kind = RuntimeError if code == KERNEL_RAISED else IndexError
    raise user_error(kind, f"{made.prim.name}: {sentence}{operands}" if made else sentence)


def _too_large(form: int, _: int) -> None:
    made = FORMS[form]
    nbytes = sum(a.nbytes for a in made.outs)
    raise user_error(MemoryError, f"{made.prim.name}: no memory for a result of shape {made.outs[0].shape} and dtype "
                                  f"{made.outs[0].dtype} ({nbytes / 2**30:.1f} GiB)")


_BOOL, _BUFFER = 2, 4


def _slow_read(t: Any, what: int) -> Any:
    if type(t) is Variable:
        if not hasattr(t, "_value"):
            raise user_error(ValueError, "a Variable without a value was read: it was made past its constructor")
        t = Machine().read(t)
        if what != _BOOL:
            return (float, int, bool, operator.index)[what](t)
    aval = AVALS[t._aval]
    if is_dry(t):
        if not has_numbers(t):
            raise no_number(NO_NUMBER)
        return None if what == _BUFFER else (float, int, bool, operator.index)[what](t)
    if t._data == 0:
        if what == _BUFFER:
            raise user_error(BufferError, f"the numbers of a Tensor on {t._owner.device} are not in the memory of the "
                                          "CPU; numpy() copies them")
        if what != _BOOL or active() is None:        # a recording may want to know the truth of the Tensor itself
            return (float, int, bool, operator.index)[what](_gpu().to_host(t))
    name = ("float", "int", "bool", "index")[what]
    if what == _BOOL and aval.size == 1:
        recording = active()
        truth = recording.truth(t) if recording else None
        return bool(t.numpy().reshape(())) if truth is None else truth
    if aval.size != 1:
        if what == _BOOL:
            raise user_error(ValueError, f"bool: the truth of a Tensor of shape {aval.shape} is ambiguous; "
                                         "only one element has a truth value")
        raise user_error(TypeError, f"{name}: only a Tensor with one element converts to a Python number, "
                                    f"got shape {aval.shape}")
    if what == 3:
        raise user_error(TypeError, f"index: only an integer Tensor can be an index, got {aval.dtype}")
    return int(t.numpy().reshape(()))


@functools.cache
def _described(aval_id: int) -> int:
    """Address of the item size, axes, format, shape and strides of an aval's elements, for the buffer protocol."""
    aval = AVALS[aval_id]
    letter = C.create_string_buffer(aval.dtype.char.encode())
    block = np.array([aval.dtype.itemsize, aval.ndim, C.addressof(letter), *aval.shape,
                      *(n * aval.dtype.itemsize for n in contiguous_strides(aval.shape))], np.int64)
    _kept.append((letter, block))
    return int(block.ctypes.data)


_CALLBACKS: dict[int, Callable[..., Any]] = {
    layout.S_DESCRIBE: _described, layout.S_KERNEL_FAILED: _kernel_failed, layout.S_TOO_LARGE: _too_large,
    layout.S_SLOW_READ: _slow_read, layout.S_GUARD: _no_rule}
for _word, _function in _CALLBACKS.items():
    types.callback(_word, _function)
