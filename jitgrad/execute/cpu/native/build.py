"""Compile the native functions with Numba and hand their LLVM text over: imported only to fill the cache."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

import llvmlite.binding as llvm
from numba import carray, cfunc, njit, types

from jitgrad.execute.cpu.native import raw


def exported(name: str, function: Callable[..., int]) -> str:
    """LLVM text that defines ``i64 name(i64, ...)``.

    Numba's own C wrapper prints errors through its runtime library; these functions raise none, so a plain
    wrapper takes its place and the result needs nothing of Numba at run time.
    """
    count = function.__code__.co_argcount
    llvm.add_symbol("jitgrad_state", 8)         # Numba resolves symbols at once; ours is bound when linked
    compiled = cfunc(types.int64(*[types.int64] * count), error_model="numpy")(function)
    text: str = compiled.inspect_llvm()
    wrapper = compiled.native_name
    inner = wrapper.removeprefix("cfunc.")
    text = _without_function(text, wrapper)
    text = re.sub(rf'^define .*?(i32 @"?{re.escape(inner)}"?\()', r"define internal \1", text, flags=re.M)
    # arrays over raw addresses own nothing, so there is never anything to destroy
    text = re.sub(r"^declare void @NRT_MemInfo_call_dtor\(.*$",
                  "define internal void @NRT_MemInfo_call_dtor(ptr %p) {\n  ret void\n}", text, flags=re.M)
    args = ", ".join(f"i64 %a{i}" for i in range(count))
    comma = ", " if count else ""
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


def trampolines(slots: Iterable[tuple[int, str]], operator: str, arity: int) -> str:
    """Number slots, as (place in the table of operators, name): each passes its place on to one generic function."""
    args = ", ".join(f"i64 %a{i}" for i in range(arity))
    lines = [f"declare i64 @{operator}(i64, {', '.join(['i64'] * arity)})"]
    for place, name in slots:
        lines.append(f"define i64 @{name}({args}) {{\n  %r = tail call i64 @{operator}(i64 {place}, {args})\n"
                     "  ret i64 %r\n}")
    return "\n".join(lines)


def own_kernel(symbol: str, body: Callable[..., int], dtypes: Iterable[Any], words: int) -> str:
    """An entry's own kernel: its body over flat arrays, behind the kernel interface. params = sizes, words."""
    kinds = list(dtypes)
    arrays = [f"carray(pointer{i}(load(slots + {8 * i})), load(params + {8 * i}))" for i in range(len(kinds))]
    numbers = [f"load(params + {8 * (len(kinds) + w)})" for w in range(words)]
    source = f"def kernel(params, slots):\n    return body({', '.join(arrays + numbers)})\n"
    scope: dict[str, Any] = {"body": njit(error_model="numpy")(body), "load": raw.load, "carray": carray}
    scope |= {f"pointer{i}": raw.pointer(kind) for i, kind in enumerate(kinds)}
    exec(compile(source, f"<kernel {symbol}>", "exec"), scope)
    return exported(symbol, scope["kernel"])


def array_function(symbol: str, function: Callable[..., int], count: int) -> str:
    """A function of ``count`` int64 arrays, behind a table of (address, size)."""
    names = function.__code__.co_names
    scope: dict[str, Any] = {"carray": carray, "load": raw.load, "pointer": raw.pointer("int64")}
    helpers = {n: njit(error_model="numpy")(f) for n, f in function.__globals__.items()
               if n in names and inspect.isfunction(f)}
    inner = with_helpers(function, helpers)
    scope["function"] = njit(error_model="numpy")(inner)
    arrays = ", ".join(f"carray(pointer(load(t + {16 * i})), load(t + {16 * i + 8}))" for i in range(count))
    exec(compile(f"def entry(t):\n    return function({arrays})\n", f"<compiled {symbol}>", "exec"), scope)
    return exported(symbol, scope["entry"])


def with_helpers(function: Callable[..., int], helpers: dict[str, Any]) -> Callable[..., int]:
    """The function with its module's helpers replaced by their compiled selves."""
    return FunctionType(function.__code__, {**function.__globals__, **helpers}, function.__name__,
                        function.__defaults__)


def natives() -> dict[str, Callable[..., Any]]:
    """Every function that the object file exports, by the name it gets there."""
    from jitgrad.execute.cpu.native import calls, drivers, gradient, inside, sweep, tapes, values
    exports = {
        calls: "op_vectorcall run_form key_set slot_binary slot_unary compare_slot",
        values: "to_float to_int to_index to_bool get_buffer tensor_dealloc variable_dealloc variable_read "
                "variable_assign_add variable_assign_sub",
        drivers: "broadcast move place gemm",
        tapes: "tape_new tape_enter tape_exit tape_start tape_stop tape_release tape_watch tape_dealloc "
               "tape_traverse tape_clear thread_log append_cut",
        inside: "tape_variables tape_reads tape_watches open_tapes log_rows log_row",
        sweep: "plan_run fill_rows",
        gradient: "gradient connect tape_gradient tape_finish",
    }
    return {name: getattr(module, name) for module, names in exports.items() for name in names.split()}
