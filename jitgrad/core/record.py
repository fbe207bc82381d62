"""Recording is running: the one path that every operation takes when its inline cache has not seen it.

A concrete operand runs at once (and the machine appends the row where a tape records); an operand of a dry
recording appends a row to that recording and runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad.core import backend, dtypes
from jitgrad.core.aval import AVALS, aval
from jitgrad.core.device import LOOSE
from jitgrad.core.errors import user_call, user_error
from jitgrad.core.form import Form, form
from jitgrad.core.number import Number
from jitgrad.core.primitive import BY_NAME, FIXED, Primitive
from jitgrad.core.program import Program
from jitgrad.core.recorder import FOLLOWED, active, is_dry, is_elsewhere, recorder_for

_HASHED = (int, bool, str, type(None), float, np.dtype)
_PYTHON = (bool, int, float, list, tuple)
_INT32 = range(-2**31, 2**31)
MAX_LITERAL = 64               # integer exponents up to here are parameters; their kernels multiply


# ---- Tensors from anything -----------------------------------------------------------------------

def tensor(value: Any, dtype: int | None = None, what: str = "") -> Any:
    """A Tensor from a Tensor, Variable, Python number, (nested) sequence or NumPy array; arrays are copied.

    ``what`` asked for it, for errors: by default the function that the user called.
    """
    kind = type(value)
    if kind is backend.Current.Tensor and dtype is None:
        return value
    machine = backend.current()
    if kind is machine.Variable:
        value = machine.read(value)
        kind = machine.Tensor
    if kind is machine.Tensor:
        return value if dtype is None or AVALS[value._aval].code == dtype else cast(value, dtype)
    if kind is Number:
        if value.kind is float or dtype is not None and dtypes.is_float(dtype):
            return cast(value.tensor, dtypes.default_float() if dtype is None else dtype)
        return tensor(value.read(), dtype, what)
    if kind not in _PYTHON and not isinstance(value, np.ndarray | np.generic) and hasattr(
            value, "__cuda_array_interface__"):
        made = machine.taken(value)
        return made if dtype is None else tensor(made, dtype)
    array = _array(value, dtype, what)
    made = machine.tensor(array, aval(dtypes.CODES[array.dtype], array.shape))
    if recording := active():
        if isinstance(value, np.ndarray):
            recording.made_of(value, made)
        made = recording.place(made)
    made._tracked |= LOOSE
    return made if dtype is None or dtypes.CODES[array.dtype] == dtype else cast(made, dtype)


def loose(array: np.ndarray) -> Any:
    """A Tensor that is where the operands are that it meets."""
    made = backend.current().tensor(np.ascontiguousarray(array), aval(dtypes.CODES[array.dtype], array.shape))
    made._tracked |= LOOSE
    return made


def _array(value: Any, dtype: int | None, what: str) -> np.ndarray:
    """A C-contiguous array of one of the five dtypes, by content where Python values have none.

    It has the dtype asked for, except that floats of NumPy stay floats where integers are asked for.
    """
    is_numpy = isinstance(value, np.ndarray | np.generic)
    if not is_numpy and hasattr(value, "__array__"):
        value = np.asarray(value)
        is_numpy = True
    if not is_numpy and isinstance(value, list | tuple) and _holds_tensors(value):
        value = _plain(value)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise user_error(ValueError, f"{what or user_call()}: cannot make a Tensor of {type(value).__name__}: {error}"
                         ) from None
    if array.dtype.kind not in "biuf":
        if type(value) is int:
            raise user_error(OverflowError, f"{what or user_call()}: {_number(value)} does not fit int64")
        raise user_error(TypeError, f"{what or user_call()}: cannot make a Tensor of {_described(value, array)}; "
                                    f"the dtypes are {', '.join(dtypes.NAMES)}")
    if dtype is None:
        dtype = _code_for(array, is_numpy, what)
    target = dtypes.DTYPES[dtype]
    if array.dtype.kind == "f" and dtype < dtypes.FLOAT32 and not is_numpy:
        raise user_error(TypeError, f"{what or user_call()}: cannot make {target.name} of Python floats")
    if target.kind == "i" and array.dtype.kind == "f":
        target = dtypes.DTYPES[_code_for(array, is_numpy, what)]
    elif target.kind == "i" and not is_numpy and not _fits(array, target):
        raise user_error(OverflowError, f"{what or user_call()}: {array.min()} to {array.max()} do not fit "
                                        f"{target.name}")
    with np.errstate(over="ignore"):        # a float beyond float32 is inf
        return np.ascontiguousarray(array, dtype=target).reshape(array.shape)


def _fits(array: np.ndarray, target: np.dtype[Any]) -> bool:
    bound = np.iinfo(target)
    return array.size == 0 or (bool(array.min() >= bound.min) and bool(array.max() <= bound.max))


def _number(x: float) -> str:
    """A number in an error: one of thousands of digits by its size."""
    return str(x) if not isinstance(x, int) or x.bit_length() <= 128 else f"an integer of {x.bit_length()} bits"


def _code_for(array: np.ndarray, is_numpy: bool, what: str) -> int:
    if not is_numpy:
        if array.dtype.kind == "f":
            return dtypes.default_float()
        if array.dtype.kind == "b":
            return dtypes.BOOL
        return dtypes.INT32 if _fits(array, dtypes.int32) else dtypes.INT64
    native = array.dtype.newbyteorder("=")
    if native not in dtypes.CODES:
        if native.kind in "iu" and native.itemsize < 4 or native == np.uint16:
            return dtypes.INT32
        if native == np.uint32:
            return dtypes.INT64
        if native == np.float16:
            return dtypes.FLOAT32
        raise user_error(TypeError, f"{what or user_call()}: NumPy dtype {array.dtype} has no counterpart; "
                                    f"the dtypes are {', '.join(dtypes.NAMES)}")
    return dtypes.CODES[native]


def _described(value: Any, array: np.ndarray) -> str:
    if isinstance(value, np.ndarray):
        return f"a NumPy array of dtype {array.dtype}"
    try:
        return f"{type(value).__name__} {value!r}".replace("\n", " ")[:80]
    except Exception:                       # a repr of the user's own, or of an integer of thousands of digits
        return type(value).__name__


def _holds_tensors(value: Sequence[Any]) -> bool:
    machine = backend.current()
    return any(type(v) in (machine.Tensor, machine.Variable) or isinstance(v, list | tuple) and _holds_tensors(v)
               for v in value)


def _plain(value: Any) -> Any:
    machine = backend.current()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value.numpy() if type(value) in (machine.Tensor, machine.Variable) else value


def cast(x: Any, code: int) -> Any:
    """``x`` in another dtype, as a recorded row."""
    return apply(BY_NAME["cast"], (x,), {"dtype": dtypes.NAMES[code]})


# ---- an operation --------------------------------------------------------------------------------

def call(prim: Primitive, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], operator: bool) -> Any:
    """What an op does when its inline cache has no answer: normalise, run or record, remember."""
    machine = backend.current()
    if any(name.startswith("*") for name in prim.operands):
        operands, params = args, kwargs
    else:
        bound = dict(zip((*prim.operands, *prim.params), args, strict=False))
        if len(args) > len(prim.operands) + len(prim.params) or bound.keys() & kwargs.keys():
            raise user_error(TypeError, f"{prim.name}: takes {_signature(prim)}, got {len(args)} positional")
        bound = {**(prim.defaults or {}), **bound, **kwargs}
        absent = [name for name in (*prim.operands, *prim.params) if name not in bound]
        if absent or len(bound) > len(prim.operands) + len(prim.params):
            raise user_error(TypeError, f"{prim.name}: takes {_signature(prim)}, got {', '.join(bound)}")
        operands = tuple(bound[name] for name in prim.operands)
        params = {name: bound[name] for name in prim.params}
    if operator and not all(_is_operand(machine, x) for x in operands):
        return NotImplemented
    if prim.literal and _is_literal(operands):
        prim, params, operands = BY_NAME[prim.literal], {"n": operands[-1]}, operands[:-1]
    prepared = prepare(prim, operands)
    if prim.general is not None:
        answer = prim.general(*prepared, **params)
        if answer is not None:
            return answer
    made = form(prim, [AVALS[t._aval] for t in prepared], params)
    result = dispatch(made, prepared)
    data = not prim.literal or type(operands[-1]) is not int      # the machine takes an int there for a parameter
    if data and not kwargs and _cacheable(machine, operands, prepared, args):
        machine.remember(op, args, made)
    return result


def _is_literal(operands: tuple[Any, ...]) -> bool:
    """The last operand is an exponent to multiply out; integers have no negative powers among themselves."""
    n = operands[-1]
    return type(n) is int and abs(n) <= MAX_LITERAL and (
        n >= 0 or dtypes.is_float(AVALS[tensor(operands[0])._aval].code))


def _signature(prim: Primitive) -> str:
    return ", ".join((*prim.operands, *(f"{name}=" for name in prim.params)))


def _is_operand(machine: backend.Backend, x: Any) -> bool:
    return type(x) in (machine.Tensor, machine.Variable, Number) or isinstance(
        x, int | float | list | tuple | np.ndarray | np.generic)


def _cacheable(machine: backend.Backend, operands: Sequence[Any], prepared: Sequence[Any],
               args: tuple[Any, ...]) -> bool:
    """The machine can answer the like of this call alone: no cast was needed, params are fixed objects."""
    for x, t in zip(operands, prepared, strict=True):
        if type(x) is machine.Variable:
            x = x._value
        if type(x) is machine.Tensor:
            if x is not t or x._data == 0:
                return False
        elif type(x) not in (int, float):
            return False
    return all(map(_is_fixed, args[len(operands):]))


def _is_fixed(param: Any) -> bool:
    """A param that cannot change, so that the same object means the same call."""
    return type(param) in _HASHED or type(param) is tuple and all(map(_is_fixed, param))


def apply(prim: Primitive, operands: Sequence[Any], params: dict[str, Any]) -> Any:
    """Run or record a primitive on anything that can be an operand."""
    prepared = prepare(prim, operands)
    return dispatch(form(prim, [AVALS[t._aval] for t in prepared], params), prepared)


def dispatch(made: Form, operands: Sequence[Any]) -> Any:
    """Run a row or record it: where an operand is dry, in its recording; else where the operands' numbers are."""
    for t in operands:
        if t._data == 0:
            owner = next((recorder_for(x) for x in operands if is_dry(x)), t._owner)
            return owner.append(made, operands)
    return backend.current().run(made, operands)


def bind(name: str, operands: Sequence[Any], **params: Any) -> tuple[Any, ...]:
    """The outputs of a row of an entry on Tensors, whose dtypes stay; always a tuple."""
    made = form(BY_NAME[name], [AVALS[t._aval] for t in operands], params)
    outs = dispatch(made, operands)
    return outs if isinstance(outs, tuple) else (outs,)


def prepare(prim: Primitive, operands: Sequence[Any]) -> list[Any]:
    """Operands as Tensors of the dtypes that the entry's domains ask for; Python numbers give way."""
    machine = backend.current()
    domains = prim.domains if len(prim.domains) == len(operands) else prim.domains * len(operands)
    out: list[Any] = []
    strong: list[int] = []
    weak: list[type] = []
    for x, domain in zip(operands, domains, strict=True):
        kind = type(x)
        if isinstance(x, int | float) and kind not in (int, float, bool, Number) and not isinstance(x, np.generic):
            kind = float if isinstance(x, float) else int        # a number of the user's own type is a number
            x = kind(x)
        if kind is int or kind is float or kind is Number:
            if domain not in FIXED:
                weak.append(x.kind if kind is Number else kind)
            out.append(x)
            continue
        t = tensor(x, what=prim.name)
        out.append(t)
        if domain not in FIXED:
            strong.append(AVALS[t._aval].code)
    code = dtypes.promote(strong, weak)
    if not strong and code == dtypes.INT32 and any(type(x) is int and x not in _INT32 for x in out):
        code = dtypes.INT64
    for domain in domains:
        if domain == "float" and code < dtypes.FLOAT32:
            code = dtypes.default_float()
        elif domain in ("number", "integer") and code == dtypes.BOOL:
            code = dtypes.INT32
        elif domain in ("logical", "integer") and code >= dtypes.FLOAT32:
            raise user_error(TypeError, f"{prim.name}: takes integers or booleans, got {dtypes.NAMES[code]}")
    for i, (x, domain) in enumerate(zip(out, domains, strict=True)):
        out[i] = _in_domain(prim, x, domain, code, machine)
    given = [type(x) in (machine.Tensor, machine.Variable) for x in operands]
    for x, is_given in zip(out, given, strict=True):
        if not is_given:
            x._tracked |= LOOSE
    if not any(given) and (recording := active()):
        out = [recording.place(x) for x in out]
    return out


def _device(tensors: Sequence[Any]) -> str:
    device: str = next(t._owner.device for t in tensors if is_elsewhere(t))
    return device


def _in_domain(prim: Primitive, x: Any, domain: str, code: int, machine: backend.Backend) -> Any:
    if domain == "bool":
        want = dtypes.BOOL
    elif domain == "index":
        have = dtypes.INT32 if type(x) is int else dtypes.FLOAT32 if type(x) is float else AVALS[x._aval].code
        if have not in (dtypes.INT32, dtypes.INT64):
            raise user_error(TypeError, f"{prim.name}: indices must be integers, got {dtypes.NAMES[have]}")
        want = have
    else:
        want = code
    if type(x) is machine.Tensor:
        return x if AVALS[x._aval].code == want else cast(x, want)
    if type(x) is Number:
        if dtypes.is_float(want):
            return x.tensor if want == dtypes.FLOAT64 and x.kind is float else cast(x.tensor, want)
        x = x.read()
    try:
        with np.errstate(over="ignore"):
            return machine.tensor(np.array(x, dtypes.DTYPES[want]), aval(want, ()))
    except OverflowError:
        raise user_error(OverflowError, f"{prim.name}: {_number(x)} does not fit {dtypes.NAMES[want]}") from None


def replay(program: Program, inputs: Sequence[Any]) -> list[Any]:
    """A Program's results for Tensors in the place of its inputs: each row is run, or recorded where they are dry.

    An input that no row reads may be None; so are results that the Program has not. Constants go where inputs are.
    """
    values = {**dict(zip(program.inputs.tolist(), inputs, strict=True)), **program.constants}
    given = [t for t in inputs if t is not None and is_elsewhere(t)]
    if given:
        return _replay_on(_device(given), program, values)
    for made, operands, outs in program.rows():
        answer = dispatch(made, [values[v] for v in operands])
        values.update(zip(outs, answer if isinstance(answer, tuple) else (answer,), strict=bool(outs)))
    return [values[v] if v >= 0 else None for v in program.results.tolist()]


def replay_on(device: str, program: Program, inputs: Sequence[Any]) -> list[Any]:
    """What `replay` does where inputs are on the device, also if none is."""
    return _replay_on(device, program, {**dict(zip(program.inputs.tolist(), inputs, strict=True)),
                                        **program.constants})


def _replay_on(device: str, program: Program, values: dict[int, Any]) -> list[Any]:
    """The results of a Program some of whose inputs are on a device, or are to be.

    A row of numbers that came from the CPU stays there. Constants are bound to no device, nor is what rows make of
    them alone: they are made where rows want them that read something else, and on the device where they are results.
    So are inputs on the CPU that follow other operands.
    """
    loose = _Loose(program, values)
    for made, operands, outs in program.rows():
        bound = [values[v] for v in operands if not loose.has(v)]
        if not bound and outs:
            loose.add(made, operands, outs)
            continue
        where = made.params.get("source") or (device if any(map(is_elsewhere, bound)) else "cpu")
        answer = dispatch(made, [loose.at(v, where) if loose.has(v) else values[v] for v in operands])
        values.update(zip(outs, answer if isinstance(answer, tuple) else (answer,), strict=bool(outs)))
    return [None if v < 0 else loose.at(v, device) if loose.has(v) else values[v] for v in program.results.tolist()]


class _Loose:
    """Constants of a Program, and values that rows make of them alone, on whichever device."""

    def __init__(self, program: Program, values: dict[int, Any]) -> None:
        self._constants = dict(program.constants)
        for v in program.inputs.tolist():
            t = values[v]
            if t is not None and t._data != 0 and t._tracked & (LOOSE | FOLLOWED) == LOOSE:
                self._constants[v] = t
        self.rows: dict[int, tuple[Form, tuple[int, ...], int]] = {}     # value -> row that makes it, number there
        self._rank: dict[int, int] = {}          # in the order of the rows
        self._made: dict[tuple[int, str], Any] = {}

    def has(self, v: int) -> bool:
        return v in self._constants or v in self.rows

    def add(self, made: Form, operands: tuple[int, ...], outs: tuple[int, ...]) -> None:
        """A row that reads such values alone."""
        for k, v in enumerate(outs):
            self.rows[v], self._rank[v] = (made, operands, k), len(self._rank)

    def at(self, v: int, device: str) -> Any:
        """A value on a device."""
        todo, wanted = [(v, device)], set[tuple[int, str]]()
        while todo:                              # not by recursion: chains can be long
            u, where = todo.pop()
            if (u, where) not in wanted and (u, where) not in self._made:
                wanted.add((u, where))
                if u in self.rows:
                    made, operands, _ = self.rows[u]
                    todo += [(o, made.params.get("source", where)) for o in operands]
        for u, where in sorted(wanted, key=lambda key: self._rank.get(key[0], -1)):
            if (u, where) not in self._made:
                self._make(u, where)
        return self._made[v, device]

    def _make(self, v: int, device: str) -> None:
        if v in self._constants:
            self._made[v, device] = backend.current().moved_constant(self._constants[v], device)
            return
        made, operands, k = self.rows[v]
        answer = dispatch(made, [self._made[o, made.params.get("source", device)] for o in operands])
        for j, t in enumerate(answer if isinstance(answer, tuple) else (answer,)):
            self._made[v - k + j, device] = t
