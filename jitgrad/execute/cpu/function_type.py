"""The heap type of recorded functions: made when the first is, with the machine code that only they need."""

from __future__ import annotations

import ctypes
from typing import Any

from jitgrad.execute.cpu import layout, types
from jitgrad.execute.cpu.lifetime import immortal

_NATIVE = types.later()
_dict = immortal((types._Getter * 2)(types._Getter(
    b"__dict__", types._address("PyObject_GenericGetDict"), types._address("PyObject_GenericSetDict"))))
_SLOTS = {types._CALL: types._address("PyVectorcall_Call"), types._GETTERS: ctypes.addressof(_dict)}
_SLOTS |= {slot: _NATIVE[f"function_{name}"] for slot, name in (
    (types._NEW, "new"), (types._GET, "get"), (types._TRAVERSE, "traverse"), (types._CLEAR, "clear"),
    (types._DEALLOC, "dealloc"))}
Function: Any = types._make(
    "jitgrad.Function", layout.N_SIZE, 0, types._HAVE_GC | types._HAVE_VECTORCALL | types._METHOD, _SLOTS,
    [("__vectorcalloffset__", types._T_SSIZE, layout.N_VECTORCALL, types._READONLY),
     ("__dictoffset__", types._T_SSIZE, layout.N_DICT, types._READONLY), types._weak(layout.N_WEAK),
     ("_slow", types._T_OBJECT_EX, layout.N_SLOW, 0), ("_failed", types._T_OBJECT_EX, layout.N_FAILED, 0),
     ("_held", types._T_OBJECT_EX, layout.N_HELD, types._READONLY), types._word("_hits", layout.N_HITS, 0)])
types.set_state(layout.S_FUNCTION_CALL, _NATIVE["function_vectorcall"])
set_traces = immortal(types.builtin("set_traces", _NATIVE["set_traces"]))
