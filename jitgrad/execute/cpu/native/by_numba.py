"""The second build of the natives and of own kernels: the same functions compiled by Numba.

It runs under ``JITGRAD_KERNELS=numba``, for `jitgrad.kernels`, and where a body leaves the language of `translate`.
"""

from __future__ import annotations

import functools
import re
import types as python
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from jitgrad.core.primitive import Primitive
from jitgrad.execute.cpu import layout
from jitgrad.execute.cpu.native import build, raw
from jitgrad.ops.scalar import fmuladd

_IR = {"i64": ir.IntType(64), "i32": ir.IntType(32), "i8": ir.IntType(8), "f32": ir.FloatType(), "f64": ir.DoubleType(),
       None: ir.VoidType()}
_NUMBA = {"i64": types.int64, "i32": types.int32, "i8": types.int8, "f32": types.float32, "f64": types.float64,
          None: types.void}


def exported(name: str, function: Callable[..., int]) -> str:
    """LLVM text that defines ``i64 name(i64, ...)``."""
    return _exported(name, _rebound(function))


def _exported(name: str, function: Callable[..., int]) -> str:
    count = function.__code__.co_argcount
    llvm.add_symbol("jitgrad_state", 8)         # Numba resolves symbols at once; ours is bound when linked
    compiled = cfunc(types.int64(*[types.int64] * count), error_model="numpy")(function)
    return standalone(name, compiled, ["i64"] * count)


def standalone(name: str, compiled: Any, kinds: Sequence[str]) -> str:
    """LLVM text of a cfunc as a function that needs nothing of Numba at run time.

    Numba's own C wrapper prints errors through its runtime library; these functions raise none, so a plain
    wrapper takes its place.
    """
    text: str = compiled.inspect_llvm()
    wrapper = compiled.native_name
    inner = wrapper.removeprefix("cfunc.")
    text = _without_function(text, wrapper)
    text = re.sub(rf'^define .*?(i32 @"?{re.escape(inner)}"?\()', r"define internal \1", text, flags=re.M)
    # arrays over raw addresses own nothing, so there is never anything to destroy
    text = re.sub(r"^declare void @NRT_MemInfo_call_dtor\(.*$",
                  "define internal void @NRT_MemInfo_call_dtor(ptr %p) {\n  ret void\n}", text, flags=re.M)
    args = ", ".join(f"{kind} %a{i}" for i, kind in enumerate(kinds))
    comma = ", " if kinds else ""
    return text + f"""
define i64 @{name}({args}) {{
  %out = alloca i64, align 8
  %status = call i32 @"{inner}"(ptr %out, ptr null{comma}{args})
  %result = load i64, ptr %out, align 8
  ret i64 %result
}}
"""


def _without_function(text: str, name: str) -> str:
    """Drop one function's definition; declarations it alone needed are dropped when the module is optimised."""
    start = re.search(rf'^define .*@"?{re.escape(name)}"?\(', text, flags=re.M)
    assert start, name
    end = text.index("\n}\n", start.start()) + 3
    return text[: start.start()] + text[end:]


def own_kernel(symbol: str, prim: Primitive, dtypes: Sequence[np.dtype[Any]], words: int) -> str:
    """An entry's own kernel: see `build.own_kernel`."""
    kinds = build.element_types(prim, dtypes)
    arrays = [f"carray(pointer{i}(load(slots + {8 * i})), load(params + {8 * i}))" for i in range(len(kinds))]
    numbers = [f"load(params + {8 * (len(kinds) + w)})" for w in range(words)]
    names = {f"pointer{i}": _pointer(kind) for i, kind in enumerate(kinds)}
    if prim.scratch is None:
        return _around(symbol, f"def entry(params, slots):\n    return body({', '.join(arrays + numbers)})\n",
                       dispatcher(prim.body), names)
    given = ", ".join(f"a{i}" for i in range(len(kinds)))
    rest = ", ".join(f"w{i}" for i in range(words))
    source = (f"def with_scratch({given}, size, {rest}):\n    block = resize(0, 8 * size + 8)\n"
              f"    if block == 0:\n        return {layout.NO_MEMORY}\n"
              f"    status = body({given}, carray(pointer(block), size), {rest})\n    release(block)\n"
              "    return status\n")
    scope = {"body": dispatcher(prim.body), "resize": _intrinsic(raw.resize), "release": _intrinsic(raw.release),
             "carray": carray, "pointer": _pointer(np.int64)}
    exec(compile(source, f"<kernel {symbol}>", "exec"), scope)
    size = f"load(params + {8 * (len(kinds) + words)})"
    return _around(symbol, f"def entry(params, slots):\n    return body({', '.join([*arrays, size, *numbers])})\n",
                   njit(error_model="numpy")(scope["with_scratch"]), names)


def array_function(symbol: str, function: Callable[..., int], count: int) -> str:
    """A function of ``count`` int64 arrays, behind a table of (address, size)."""
    arrays = ", ".join(f"carray(pointer(load(t + {16 * i})), load(t + {16 * i + 8}))" for i in range(count))
    return _around(symbol, f"def entry(t):\n    return body({arrays})\n", dispatcher(function),
                   {"pointer": _pointer(np.int64)})


def _around(symbol: str, source: str, body: Any, names: dict[str, Any]) -> str:
    scope: dict[str, Any] = {"body": body, "load": _intrinsic(raw.load), "carray": carray, **names}
    exec(compile(source, f"<kernel {symbol}>", "exec"), scope)
    return _exported(symbol, scope["entry"])


@functools.cache
def dispatcher(function: Callable[..., int]) -> Any:
    """The function as other compiled functions call it."""
    return njit(error_model="numpy")(_rebound(function))


def _rebound(function: Any) -> Any:
    """The function with what it names replaced by what Numba compiles."""
    names = dict(function.__globals__)
    for name in function.__code__.co_names:
        found = names.get(name)
        if isinstance(found, raw.Raw):
            names[name] = _intrinsic(found)
        elif found is fmuladd:
            names[name] = multiplied_and_added
        elif isinstance(found, python.FunctionType):
            names[name] = dispatcher(found)
    return python.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)


@intrinsic
def multiplied_and_added(context, a, b, c):  # type: ignore[no-untyped-def]
    """a * b + c; of floats rounded once, where the processor can."""
    kind = context.unify_types(a, b, c)

    def emit(ctx, builder, signature, args):  # type: ignore[no-untyped-def]
        x, y, z = (ctx.cast(builder, v, old, kind) for v, old in zip(args, signature.args, strict=True))
        if isinstance(kind, types.Float):
            function = builder.module.declare_intrinsic("llvm.fmuladd", [x.type], ir.FunctionType(x.type, [x.type] * 3))
            return builder.call(function, [x, y, z])
        return builder.add(builder.mul(x, y), z)
    return kind(a, b, c), emit


@functools.cache
def _intrinsic(op: raw.Raw) -> Any:
    signature = _NUMBA[op.result](*(_NUMBA[a] for a in op.arguments))

    def make(context: Any, *args: Any) -> Any:
        def emit(ctx: Any, builder: Any, signature: Any, args: Any) -> Any:
            out = _emit(op, builder, args)
            return ctx.get_dummy_value() if op.result is None else out
        return signature, emit
    # @intrinsic wants a function of fixed arity
    names = ", ".join(f"a{i}" for i in range(len(op.arguments)))
    scope: dict[str, Any] = {"make": make}
    exec(f"def operation(context, {names}): return make(context, {names})", scope)
    return intrinsic(scope["operation"])


def _emit(op: raw.Raw, builder: Any, args: Sequence[Any]) -> Any:
    if op.how == "load":
        return builder.load(builder.inttoptr(args[0], _IR[op.result].as_pointer()))
    if op.how == "store":
        return builder.store(args[1], builder.inttoptr(args[0], args[1].type.as_pointer()))
    if op.how == "atomic":
        place = builder.inttoptr(args[0], _IR["i64"].as_pointer())
        if op.name == "load":
            return builder.load_atomic(place, "seq_cst", 8)
        if op.name == "cmpxchg":
            pair = builder.cmpxchg(place, args[1], args[2], "seq_cst", "seq_cst")
            return builder.zext(builder.extract_value(pair, 1), _IR["i64"])
        return builder.atomic_rmw(op.name, place, args[1], "seq_cst")
    if op.how == "state":
        table = builder.module.globals.get(op.name) or ir.GlobalVariable(builder.module, _IR["i8"], op.name)
        return builder.ptrtoint(table, _IR["i64"])
    if op.how == "stack":
        with builder.goto_entry_block():
            block = builder.alloca(ir.ArrayType(_IR["i64"], op.words))
            block.align = 64
        return builder.ptrtoint(block, _IR["i64"])
    if op.how == "call":
        kind = ir.FunctionType(_IR[op.result], [_IR[a] for a in op.arguments[1:]])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
    kind = ir.FunctionType(_IR[op.result], [_IR[a] for a in op.arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, op.name), args)


def _pointer(dtype: Any) -> Any:
    """A function that takes an address for a typed pointer."""
    kind = types.CPointer(from_dtype(np.dtype(dtype)))

    @intrinsic
    def convert(context, address):  # type: ignore[no-untyped-def]
        def emit(ctx, builder, signature, args):  # type: ignore[no-untyped-def]
            return builder.inttoptr(args[0], ctx.get_value_type(kind))
        return kind(types.int64), emit
    return convert
