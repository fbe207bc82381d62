"""The heap types: Tensor, Variable, Op and a tape's machine half, made through CPython's stable spec interface."""

from __future__ import annotations

import ctypes as C
import functools
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jitgrad import config
from jitgrad.core.errors import PACKAGE
from jitgrad.execute.cpu import cache, fingerprint, layout, llvm
from jitgrad.execute.cpu.lifetime import immortal
from jitgrad.execute.cpu.native import exports

_API = C.pythonapi


class _Slot(C.Structure):
    _fields_ = [("slot", C.c_int), ("pointer", C.c_void_p)]


class _Spec(C.Structure):
    _fields_ = [("name", C.c_char_p), ("basicsize", C.c_int), ("itemsize", C.c_int), ("flags", C.c_uint),
                ("slots", C.POINTER(_Slot))]


class _Member(C.Structure):
    _fields_ = [("name", C.c_char_p), ("type", C.c_int), ("offset", C.c_ssize_t), ("flags", C.c_int),
                ("doc", C.c_char_p)]


class _Method(C.Structure):
    _fields_ = [("name", C.c_char_p), ("function", C.c_void_p), ("flags", C.c_int), ("doc", C.c_char_p)]


_KEYWORDS, _NOARGS, _O, _FASTCALL = 0x0002, 0x0004, 0x0008, 0x0080
_DISALLOW_INSTANTIATION, _HAVE_VECTORCALL, _HAVE_GC, _METHOD = 1 << 7, 1 << 11, 1 << 14, 1 << 17
_T_OBJECT_EX, _T_LONGLONG, _T_SSIZE, _READONLY = 16, 17, 19, 1
# slot numbers of CPython's typeslots.h (stable interface)
_GET_BUFFER, _CALL, _CLEAR, _DEALLOC, _GET, _HASH, _METHODS, _NEW = 1, 50, 51, 52, 54, 59, 64, 65
_RICHCOMPARE, _TRAVERSE, _MEMBERS, _GETTERS, _MATMUL = 67, 71, 72, 73, 75
_NUMBER = {"abs": 6, "+": 7, "&": 8, "bool": 9, "float": 11, "//": 12, "index": 13, "int": 26, "~": 27,
           "*": 29, "neg": 30, "|": 31, "**": 33, "%": 34, "-": 36, "/": 37, "^": 38, "@": _MATMUL}
_UNARY = {"neg", "abs", "~"}

class _Getter(C.Structure):
    _fields_ = [("name", C.c_char_p), ("get", C.c_void_p), ("set", C.c_void_p), ("doc", C.c_char_p),
                ("closure", C.c_void_p)]



_kept: list[Any] = immortal([])        # specs, member tables and method tables live as long as the types


def peek(address: int) -> int:
    return C.c_int64.from_address(address).value


def poke(address: int, value: int) -> None:
    C.c_int64.from_address(address).value = value


def _as_expected() -> bool:
    """Objects of CPython and of NumPy are where the generated code looks for them."""
    a, b = object(), object()
    pair, several, named, x = (a, b), [a, b, a], {"a": a, "b": b}, np.zeros((2, 3), np.float32)
    items, at, descr = peek(id(several) + layout.LIST_ITEMS), id(x), id(x.dtype)
    letters = C.string_at(descr + layout.DESCR_KIND, 3), C.c_int32.from_address(descr + layout.DESCR_KIND + 4).value
    return (peek(id(1.5) + layout.TYPE) == id(float)
            and C.c_double.from_address(id(1.5) + layout.FLOAT_VALUE).value == 1.5
            and [peek(id(v) + layout.SIZE) for v in (pair, several, named)] == [2, 3, 2]
            and [peek(id(pair) + layout.TUPLE_ITEMS + 8 * i) for i in range(2)] == [id(a), id(b)]
            and [peek(items + 8 * i) for i in range(3)] == [id(a), id(b), id(a)]
            and peek(at + layout.A_DATA) == x.ctypes.data and peek(at + layout.A_DESCR) == descr
            and C.c_int32.from_address(at + layout.A_NDIM).value == 2
            and [peek(peek(at + layout.A_DIMS) + 8 * i) for i in range(2)] == [2, 3]
            and all(C.c_int32.from_address(id(v) + layout.A_FLAGS).value & layout.A_WANTED == wanted
                    for v, wanted in ((x, 0x101), (x.T, 0x100)))
            and letters == (b"ff=", x.dtype.num))


def _check_interpreter() -> None:
    """The generated code reads CPython objects; refuse an interpreter whose objects look different."""
    problem = None
    if sys.implementation.name != "cpython" or not (3, 11) <= sys.version_info[:2] <= (3, 14):
        problem = f"it is {sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
    elif sysconfig.get_config_var("Py_GIL_DISABLED"):
        problem = "it is a free-threaded build"
    elif C.sizeof(C.c_void_p) != 8 or sys.byteorder != "little":
        problem = "it is not 64-bit little-endian"
    elif not _as_expected():
        problem = "its objects, or NumPy's, are laid out differently"
    if problem:
        raise ImportError(f"jitgrad needs CPython 3.11 to 3.14 with the GIL, 64-bit; {problem}")


_check_interpreter()
STATE = immortal(np.zeros(layout.S_BYTES // 8, np.int64))
_state = STATE.ctypes.data
_scratch = immortal(np.zeros(layout.SCRATCH_BYTES + layout.LINE, np.uint8))
_pool = immortal(np.zeros(2 * layout.POOL_BLOCKS, np.int64))
_waiting = immortal(np.zeros(2 * (layout.POOLED // layout.LINE), np.int64))
MAX_THREADS = 4096              # thread states that may hold a log at one time
_recorders = immortal(np.zeros(2 * MAX_THREADS, np.int64))
_threads = immortal(np.zeros(2 * MAX_THREADS, np.int64))
_recordings = immortal(np.zeros(layout.MOST_RECORDINGS, np.int64))


def set_state(word: int, value: int) -> None:
    poke(_state + word, value)


def get_state(word: int) -> int:
    return peek(_state + word)


def callback(word: int, function: Callable[..., Any]) -> None:
    """Let the machine call a Python function that the state table names at ``word``."""
    _kept.append(function)
    set_state(word, id(function))


# ---- the native object file ----------------------------------------------------------------------

def _slots_of(arity: int) -> list[tuple[int, str]]:
    """Place among the operators and symbol of each number slot."""
    return [(i, f"slot_{arity}_{i}") for i, s in enumerate(layout.SYMBOLS)
            if (s in _UNARY) == (arity == 1) and s in _NUMBER]


def _build() -> bytes:
    from jitgrad.execute.cpu.native import build
    announce("compiling the machine code of Tensors and tapes, once for this machine")
    texts = build.natives(later=False)
    texts += [build.trampolines(_slots_of(2), "slot_binary", 2), build.trampolines(_slots_of(1), "slot_unary", 1)]
    return llvm.emit(texts, optimise="loops" if config.numba_kernels() else "branches")


def announce(what: str) -> None:
    """One line on stderr when something slow happens once."""
    print(f"jitgrad: {what}", file=sys.stderr)


def _load() -> dict[str, int]:
    obj = cache.fetch("native", fingerprint.natives(), _build)
    slots = [name for n in (1, 2) for _, name in _slots_of(n)]
    return llvm.link(obj, [*exports.names(later=False), *slots], {"jitgrad_state": _state})


NATIVE = _load()


def _build_later() -> bytes:
    from jitgrad.execute.cpu.native import build
    return llvm.emit(build.natives(later=True), optimise="loops" if config.numba_kernels() else "branches")


@functools.cache
def later() -> dict[str, int]:
    """The natives of recorded functions and loops, which no eager program needs."""
    obj = cache.fetch("native_functions", fingerprint.natives(), _build_later)
    return llvm.link(obj, exports.names(later=True), {"jitgrad_state": _state})


# ---- types ---------------------------------------------------------------------------------------

def _address(symbol: str) -> int:
    return C.cast(getattr(_API, symbol), C.c_void_p).value or 0


def _make(name: str, size: int, itemsize: int, flags: int, slots: Mapping[int, int],
          members: Iterable[tuple[str, int, int, int]]) -> type:
    rows = [*members]
    table = (_Member * (len(rows) + 1))(*[_Member(n.encode(), kind, at, how, None) for n, kind, at, how in rows])
    given = {_MEMBERS: C.addressof(table), **slots}
    array = (_Slot * (len(given) + 1))(*[_Slot(number, pointer) for number, pointer in given.items()])
    encoded = name.encode()
    spec = _Spec(encoded, size, itemsize, flags, array)
    _kept.extend((table, array, spec, encoded))
    make = C.PYFUNCTYPE(C.py_object, C.c_void_p)(("PyType_FromSpec", _API))
    made: type = make(C.addressof(spec))
    return made


def _operators() -> dict[int, int]:
    slots = {_NUMBER[s]: NATIVE[f"slot_{1 if s in _UNARY else 2}_{i}"] for i, s in enumerate(layout.SYMBOLS)
             if s in _NUMBER}
    slots |= {_NUMBER[name]: NATIVE[f"to_{name}"] for name in ("bool", "float", "index", "int")}
    slots[_RICHCOMPARE] = NATIVE["compare_slot"]
    slots[_HASH] = _address("PyObject_HashNotImplemented")
    return slots


def _weak(at: int) -> tuple[str, int, int, int]:
    return ("__weaklistoffset__", _T_SSIZE, at, _READONLY)


def _word(name: str, at: int, how: int = _READONLY) -> tuple[str, int, int, int]:
    return (name, _T_LONGLONG, at, how)


def _methods(*rows: tuple[str, str, int, str]) -> int:
    """Address of a method table: Python's name, the function, the calling convention, the docstring."""
    table = (_Method * (len(rows) + 1))(*[_Method(name.encode(), NATIVE[function], how, doc.encode())
                                          for name, function, how, doc in rows])
    _kept.append(table)
    return C.addressof(table)


Tensor: Any = _make(
    "jitgrad.Tensor", layout.T_PAYLOAD, 1, _DISALLOW_INSTANTIATION,
    {**_operators(), _GET_BUFFER: NATIVE["get_buffer"], _DEALLOC: NATIVE["tensor_dealloc"]},
    [_weak(layout.T_WEAK), _word("_aval", layout.T_AVAL), _word("_size", layout.T_SIZE),
     _word("_data", layout.T_DATA), _word("_tracked", layout.T_TRACKED, 0), _word("_number", layout.T_PAYLOAD),
     ("_owner", 6, layout.T_OWNER, _READONLY)])

Variable: Any = _make(
    "jitgrad.Variable", layout.V_SIZE, 0, 0,
    {**_operators(), _DEALLOC: NATIVE["variable_dealloc"], _METHODS: _methods(
        ("assign_add", "variable_assign_add", _O, "Add to the value; returns the variable. Errors as of `assign`."),
        ("assign_sub", "variable_assign_sub", _O,
         "Subtract from the value; returns the variable. Errors as of `assign`."))},
    [_weak(layout.V_WEAK), _word("_flags", layout.V_FLAGS, 0), _word("_epoch", layout.V_EPOCH, 0),
     _word("_serial", layout.V_SERIAL, 0),
     ("_value", _T_OBJECT_EX, layout.V_VALUE, 0), ("name", _T_OBJECT_EX, layout.V_NAME, 0)])

OpType = _make(
    "jitgrad.Op", layout.O_SIZE, 0, _HAVE_VECTORCALL, {_CALL: _address("PyVectorcall_Call")},
    [("__vectorcalloffset__", _T_SSIZE, layout.O_VECTORCALL, _READONLY),
     ("__dictoffset__", _T_SSIZE, layout.O_DICT, _READONLY), _weak(layout.O_WEAK)])

_GRADIENT = """gradient(target, sources, output_gradients=None, unconnected_gradients=UnconnectedGradients.NONE)

The gradient of ``target`` (summed over its elements, and over a nest of targets) in each source.

``sources``: a nest of Tensors and Variables; the result has its structure, each leaf with the source's shape
and dtype, or None where the target does not depend on it. ``output_gradients``: a nest like ``target`` of
cotangents to start from (None for ones). ``unconnected_gradients``: None or zeros for unconnected sources.

Raises RuntimeError at the second call unless the tape is persistent, ValueError for an unknown
``unconnected_gradients``, LookupError where an operation on the way has no derivative rule.
"""
Tape = _make(
    "jitgrad.GradientTape", layout.K_SIZE, 0, _HAVE_GC,
    {_TRAVERSE: NATIVE["tape_traverse"], _CLEAR: NATIVE["tape_clear"], _DEALLOC: NATIVE["tape_dealloc"],
     _NEW: NATIVE["tape_new"], _METHODS: _methods(
        ("__enter__", "tape_enter", _NOARGS, "Record from here."),
        ("__exit__", "tape_exit", _FASTCALL, "Record no more."),
        ("gradient", "tape_gradient", _FASTCALL | _KEYWORDS, _GRADIENT))},
    [_weak(layout.K_WEAK), _word("_flags", layout.K_FLAGS, 0)])


def builtin(name: str, address: int) -> Callable[..., Any]:
    """A function of Python that runs a native one: (self, args, count) -> object."""
    table = _Method(name.encode(), address, _FASTCALL, None)
    _kept.append(table)
    make = C.PYFUNCTYPE(C.py_object, C.c_void_p, C.c_void_p, C.c_void_p)(("PyCFunction_NewEx", _API))
    made: Callable[..., Any] = make(C.addressof(table), None, None)
    return made


_builtins = {name: builtin(name, NATIVE[name]) for place, names in exports.BUILTINS.items() for name in names
             if place not in exports.LATER}


def __getattr__(name: str) -> Callable[..., Any]:
    """The builtins of the object file are attributes of this module."""
    if name not in _builtins:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = _builtins[name]
    return _builtins[name]


key_set = C.CFUNCTYPE(C.c_int64, C.c_int64, C.c_int64)(NATIVE["key_set"])

for _at, _value in ((layout.S_TENSOR, Tensor), (layout.S_VARIABLE, Variable), (layout.S_FLOAT, float),
                    (layout.S_LONG, int),
                    (layout.S_NONE, None), (layout.S_TUPLE, tuple), (layout.S_LIST, list), (layout.S_TAPE, Tape),
                    (layout.S_EXCEPTION, Exception), (layout.S_NDARRAY, np.ndarray), (layout.S_DICT, dict)):
    set_state(_at, id(_value))
set_state(layout.S_RECORDER_TABLE, _recorders.ctypes.data)
set_state(layout.S_THREADS, _threads.ctypes.data)
_kept.extend((sys.intern("co_filename"), PACKAGE))
set_state(layout.S_FILENAME, id(sys.intern("co_filename")))
set_state(layout.S_PACKAGE, id(PACKAGE))
set_state(layout.S_RECORDING_TABLE, _recordings.ctypes.data)
set_state(layout.S_POOL, _pool.ctypes.data)
set_state(layout.S_WAITING, _waiting.ctypes.data)
set_state(layout.S_POOL_LIMIT, config.pool_bytes())
_kept.extend((_scratch, _pool, _waiting, _recorders, _threads, _recordings, *_builtins.values()))
set_state(layout.S_SCRATCH, (_scratch.ctypes.data + layout.LINE - 1) & -layout.LINE)
