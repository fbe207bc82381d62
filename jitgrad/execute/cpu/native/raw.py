"""What compiled code may do beyond arithmetic: touch memory, call C, call a kernel. Addresses are int64.

Each operation is data, which `translate` turns into LLVM text and `by_numba` into an intrinsic.
"""

from __future__ import annotations

import platform
from typing import NamedTuple

i64, i32, i8, f32, f64 = "i64", "i32", "i8", "f32", "f64"


class Raw(NamedTuple):
    """One operation. Narrow integers that it gives are widened at once."""

    how: str            # load, store, atomic, stack, state, c (a function by its symbol), call (of an address)
    name: str
    arguments: tuple[str, ...] = ()
    result: str | None = None
    words: int = 0               # of a stack frame


load, load_i32, load_i8, load_f32, load_f64 = (Raw("load", "load", (i64,), kind) for kind in (i64, i32, i8, f32, f64))
store, store_i32, store_i8, store_f32, store_f64 = (
    Raw("store", "store", (i64, kind)) for kind in (i64, i32, i8, f32, f64))
# whole words that several threads touch, in one order for all; the last three give what was there, and whether it was
atomic_load = Raw("atomic", "load", (i64,), i64)
atomic_swap = Raw("atomic", "xchg", (i64, i64), i64)
atomic_add = Raw("atomic", "add", (i64, i64), i64)
atomic_replace = Raw("atomic", "cmpxchg", (i64, i64, i64), i64)        # address, old, new: 1 if the old was there
state = Raw("state", "jitgrad_state", (), i64)      # address of the process's state table, bound by the linker
call_kernel = Raw("call", "kernel", (i64, i64, i64), i64)      # address, params, slots
call_task = Raw("call", "task", (i64, i64, i64), i64)          # address, context, index
call_posix = tuple(Raw("call", "posix", (i64,) * (1 + n), i32) for n in range(5))      # address, n arguments
call_visit = Raw("call", "visit", (i64, i64, i64), i32)        # a visitor of the garbage collector, object, argument
_gemm = (i64, i32, i32, i32, i64, i64, i64)         # function, order, transpose x and y, m, n, k


def _cblas(real: str) -> Raw:
    """alpha, a, lda, b, ldb, beta, c, ldc follow."""
    return Raw("call", "gemm", (*_gemm, real, i64, i64, i64, i64, real, i64, i64))


sgemm, dgemm = _cblas(f32), _cblas(f64)


def stack(words: int) -> Raw:
    """Gives so many 64-bit words of the caller's stack frame."""
    return Raw("stack", "frame", (), i64, words)


def c_function(symbol: str, *arguments: str, result: str | None = i64) -> Raw:
    """A function of CPython's C API or of the C library."""
    return Raw("c", symbol, arguments, result)


incref = c_function("Py_IncRef", i64, result=None)
decref = c_function("Py_DecRef", i64, result=None)
object_init_var = c_function("PyObject_InitVar", i64, i64, i64)
object_malloc = c_function("PyObject_Malloc", i64)
object_free = c_function("PyObject_Free", i64, result=None)
gc_new = c_function("_PyObject_GC_New", i64)
gc_track = c_function("PyObject_GC_Track", i64, result=None)
gc_untrack = c_function("PyObject_GC_UnTrack", i64, result=None)
gc_free = c_function("PyObject_GC_Del", i64, result=None)
clear_weak = c_function("PyObject_ClearWeakRefs", i64, result=None)
float_new = c_function("PyFloat_FromDouble", f64)
float_value = c_function("PyFloat_AsDouble", i64, result=f64)
long_new = c_function("PyLong_FromLongLong", i64)
long_value = c_function("PyLong_AsLongLong", i64)
bool_new = c_function("PyBool_FromLong", i64)
vectorcall = c_function("PyObject_Vectorcall", i64, i64, i64, i64)
object_hash = c_function("PyObject_Hash", i64)
object_equal = c_function("PyObject_RichCompareBool", i64, i64, i32, result=i32)
object_call = c_function("PyObject_Call", i64, i64, i64)
error_occurred = c_function("PyErr_Occurred")
no_memory = c_function("PyErr_NoMemory")        # sets MemoryError; 0
error_clear = c_function("PyErr_Clear", result=None)
gil_ensure = c_function("PyGILState_Ensure", result=i32)
gil_release = c_function("PyGILState_Release", i32, result=None)
gil_thread = c_function("PyGILState_GetThisThreadState")
check_signals = c_function("PyErr_CheckSignals", result=i32)
thread_state = c_function("PyThreadState_Get")
interpreter = c_function("PyInterpreterState_Get")
first_thread = c_function("PyInterpreterState_ThreadHead", i64)
next_thread = c_function("PyThreadState_Next", i64)
save_thread = c_function("PyEval_SaveThread")
restore_thread = c_function("PyEval_RestoreThread", i64, result=None)
error_matches = c_function("PyErr_ExceptionMatches", i64, result=i32)
tuple_new = c_function("PyTuple_New", i64)
tuple_set = c_function("PyTuple_SetItem", i64, i64, i64, result=i32)
tuple_get = c_function("PyTuple_GetItem", i64, i64)
tuple_size = c_function("PyTuple_Size", i64)
dict_new = c_function("PyDict_New")
dict_get = c_function("PyDict_GetItemWithError", i64, i64)      # borrowed
dict_next = c_function("PyDict_Next", i64, i64, i64, i64, result=i32)    # object, position, key, value; both borrowed
dict_set = c_function("PyDict_SetItem", i64, i64, i64, result=i32)
cell_get = c_function("PyCell_Get", i64)
attribute = c_function("PyObject_GetAttr", i64, i64)
get_item = c_function("PyObject_GetItem", i64, i64)
method_new = c_function("PyMethod_New", i64, i64)
list_new = c_function("PyList_New", i64)
list_append = c_function("PyList_Append", i64, i64, result=i32)
list_set = c_function("PyList_SetItem", i64, i64, i64, result=i32)
list_get = c_function("PyList_GetItem", i64, i64)
list_size = c_function("PyList_Size", i64)
bytes_new = c_function("PyBytes_FromStringAndSize", i64, i64)
buffer_fill = c_function("PyBuffer_FillInfo", i64, i64, i64, i64, i32, i32, result=i32)
starts_with = c_function("PyUnicode_Tailmatch", i64, i64, i64, i64, i32)
current_frame = c_function("PyEval_GetFrame")
frame_back = c_function("PyFrame_GetBack", i64)
frame_code = c_function("PyFrame_GetCode", i64)
frame_position = c_function("PyFrame_GetLasti", i64, result=i32)
resize = c_function("PyMem_RawRealloc", i64, i64)
release = c_function("PyMem_RawFree", i64, result=None)
copy = c_function("memcpy", i64, i64, i64)
advise = c_function("madvise", i64, i64, i32, result=i32)
move_bytes = c_function("memmove", i64, i64, i64)
compare = c_function("memcmp", i64, i64, i64, result=i32)
zero = c_function("memset", i64, i32, i64)
_x86 = platform.machine() in ("x86_64", "AMD64")
pause = c_function("llvm.x86.sse2.pause" if _x86 else "llvm.donothing", result=None)    # this thread waits for another
