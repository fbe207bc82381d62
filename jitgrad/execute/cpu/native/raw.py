"""What compiled code may do beyond arithmetic: touch memory, call C, call a kernel. Addresses are int64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

i64, i32, i8, f32, f64 = ir.IntType(64), ir.IntType(32), ir.IntType(8), ir.FloatType(), ir.DoubleType()
_NUMBA = {i64: types.int64, i32: types.int32, i8: types.int8, f32: types.float32, f64: types.float64}


def _loader(kind: ir.Type) -> Callable[..., Any]:
    @intrinsic
    def load(context, address):  # type: ignore[no-untyped-def]
        def emit(ctx, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.load(builder.inttoptr(args[0], kind.as_pointer()))
        return _NUMBA[kind](types.int64), emit
    return load


def _storer(kind: ir.Type) -> Callable[..., Any]:
    @intrinsic
    def store(context, address, value):  # type: ignore[no-untyped-def]
        def emit(ctx, builder, signature, args):  # type: ignore[no-untyped-def]
            builder.store(args[1], builder.inttoptr(args[0], kind.as_pointer()))
            return ctx.get_dummy_value()
        return types.void(types.int64, _NUMBA[kind]), emit
    return store


load, load_i32, load_i8, load_f32, load_f64 = (_loader(k) for k in (i64, i32, i8, f32, f64))
store, store_i32, store_i8, store_f32, store_f64 = (_storer(k) for k in (i64, i32, i8, f32, f64))


def c_function(symbol: str, *arguments: ir.Type, result: ir.Type | None = i64) -> Callable[..., Any]:
    """A function of CPython's C API or of the C library, called by its symbol."""
    signature_ = (_NUMBA[result] if result else types.void)(*(_NUMBA[a] for a in arguments))

    def make(context: Any, *args: Any) -> Any:
        def emit(ctx, builder, signature, args):  # type: ignore[no-untyped-def]
            kind = ir.FunctionType(result or ir.VoidType(), arguments)
            out = builder.call(cgutils.get_or_insert_function(builder.module, kind, symbol), args)
            return out if result else ctx.get_dummy_value()
        return signature_, emit
    # @intrinsic wants a function of fixed arity
    names = ", ".join(f"a{i}" for i in range(len(arguments)))
    scope: dict[str, Any] = {"make": make}
    exec(f"def {symbol}(context, {names}): return make(context, {names})", scope)
    return intrinsic(scope[symbol])


@intrinsic
def state(context):  # type: ignore[no-untyped-def]
    """Address of the process's state table, a symbol resolved when the object file is linked."""
    def emit(ctx, builder, signature, args):  # type: ignore[no-untyped-def]
        module = builder.module
        table = module.globals.get("jitgrad_state") or ir.GlobalVariable(module, i8, "jitgrad_state")
        return builder.ptrtoint(table, i64)
    return types.int64(), emit


@intrinsic
def call_kernel(context, address, params, slots):  # type: ignore[no-untyped-def]
    """Call ``i64 kernel(i64 *params, ptr *slots)`` by address."""
    def emit(ctx, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(i64, [i64, i64])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
    return types.int64(types.int64, types.int64, types.int64), emit


@intrinsic
def call_visit(context, visit, o, argument):  # type: ignore[no-untyped-def]
    """Call a visitor of the garbage collector: ``int visit(object, void *)``."""
    def emit(ctx, builder, signature, args):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(i32, [i64, i64])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
    return types.int32(types.int64, types.int64, types.int64), emit


def pointer(dtype: Any) -> Callable[..., Any]:
    """A function that takes an address for a typed pointer."""
    kind = types.CPointer(from_dtype(np.dtype(dtype)))

    @intrinsic
    def convert(context, address):  # type: ignore[no-untyped-def]
        def emit(ctx, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.inttoptr(args[0], ctx.get_value_type(kind))
        return kind(types.int64), emit
    return convert


def stack(words: int) -> Callable[..., Any]:
    """A function that returns ``words`` 64-bit words of this call's stack frame."""
    @intrinsic
    def frame(context):  # type: ignore[no-untyped-def]
        def emit(ctx, builder, signature, args):  # type: ignore[no-untyped-def]
            with builder.goto_entry_block():
                block = builder.alloca(ir.ArrayType(i64, words))
                block.align = 64
            return builder.ptrtoint(block, i64)
        return types.int64(), emit
    return frame


incref = c_function("Py_IncRef", i64, result=None)
decref = c_function("Py_DecRef", i64, result=None)
object_new_var = c_function("_PyObject_NewVar", i64, i64)
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
error_clear = c_function("PyErr_Clear", result=None)
thread_state = c_function("PyThreadState_Get")
save_thread = c_function("PyEval_SaveThread")
restore_thread = c_function("PyEval_RestoreThread", i64, result=None)
tuple_new = c_function("PyTuple_New", i64)
tuple_set = c_function("PyTuple_SetItem", i64, i64, i64, result=i32)
tuple_get = c_function("PyTuple_GetItem", i64, i64)
tuple_size = c_function("PyTuple_Size", i64)
list_new = c_function("PyList_New", i64)
list_append = c_function("PyList_Append", i64, i64, result=i32)
list_set = c_function("PyList_SetItem", i64, i64, i64, result=i32)
list_get = c_function("PyList_GetItem", i64, i64)
list_size = c_function("PyList_Size", i64)
bytes_new = c_function("PyBytes_FromStringAndSize", i64, i64)
buffer_fill = c_function("PyBuffer_FillInfo", i64, i64, i64, i64, i32, i32, result=i32)
resize = c_function("PyMem_RawRealloc", i64, i64)
release = c_function("PyMem_RawFree", i64, result=None)
copy = c_function("memcpy", i64, i64, i64)
move_bytes = c_function("memmove", i64, i64, i64)
compare = c_function("memcmp", i64, i64, i64, result=i32)
zero = c_function("memset", i64, i32, i64)
