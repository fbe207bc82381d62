"""What the lines of kernels name: LLVM's and libdevice's functions for the compiler, NumPy's for the simulator.

The compiler may fuse a product and a sum; bodies say where that is wanted (``fmuladd``), so products of floats are a
function that it leaves alone (`CALLS`). It takes for granted that Numba's operators on int64 do not overflow; bodies
wrap, so theirs are functions that promise nothing.
"""

from __future__ import annotations

import functools
import importlib
import math
import operator
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from jitgrad.execute.cuda import toolkit

CALLS = frozenset({"mul", "add64", "sub64", "mul64"})
_PLAIN: dict[str, Any] = {
    "i4": np.int32, "i8": np.int64, "f4": np.float32, "f8": np.float64, "b1": np.bool_, "u1": np.uint8,
    "inf": np.inf, "nan": np.nan}      # fmt: skip


@functools.cache
def names() -> dict[str, Any]:
    """By name."""
    found = _simulated() if toolkit.simulated() else _compiled()
    return {**_PLAIN, "cuda": toolkit.cuda(), **found}


# ---- for the compiler ------------------------------------------------------------------------------------

def _libdevice(single: str, double: str, count: int) -> Any:
    """A function of libdevice by the type of its operands."""
    def typed(a: Any) -> tuple[Any, Callable[..., Any]]:
        name = f"__nv_{single if a.bitwidth == 32 else double}"

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = arguments[0].type
            llir = importlib.import_module("llvmlite.ir")
            function = builder.module.globals.get(name) or llir.Function(
                builder.module, llir.FunctionType(kind, [kind] * count), name)
            return builder.call(function, arguments)
        return a(*[a] * count), generate
    if count == 1:
        return toolkit.intrinsic(lambda typing, a: typed(a))
    if count == 2:
        return toolkit.intrinsic(lambda typing, a, b: typed(a))
    return toolkit.intrinsic(lambda typing, a, b, c: typed(a))


def _cast(pairs: dict[Any, Any]) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))
    return toolkit.intrinsic(lambda typing, a: (pairs[a](a), generate))


def _instruction(method: str) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, method)(*arguments)
    return toolkit.intrinsic(lambda typing, a, b: (a(a, a), generate))


def _select(boolean: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)
    return toolkit.intrinsic(lambda typing, condition, a, b: (a(boolean, a, a), generate))


def _atomic_add(typing: Any, pointer: Any, index: Any, value: Any) -> Any:
    """The old value; integers by an instruction, floats by NVVM's function."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(arguments[0], [arguments[1]])
        element = arguments[2].type
        if not isinstance(pointer.dtype, toolkit.types().Float):
            return builder.atomic_rmw("add", place, arguments[2], "monotonic")
        llir = importlib.import_module("llvmlite.ir")
        name = f"llvm.nvvm.atomic.load.add.f{pointer.dtype.bitwidth}.p0f{pointer.dtype.bitwidth}"
        function = builder.module.globals.get(name) or llir.Function(
            builder.module, llir.FunctionType(element, [element.as_pointer(), element]), name)
        return builder.call(function, [place, arguments[2]])
    return pointer.dtype(pointer, index, pointer.dtype), generate


def _compiled() -> dict[str, Any]:
    kinds = toolkit.types()
    found = {"bits": _cast({kinds.float32: kinds.int32, kinds.float64: kinds.int64}),
             "from_bits": _cast({kinds.int32: kinds.float32, kinds.int64: kinds.float64}),
             "fmuladd": _libdevice("fmaf", "fma", 3), "copysign": _libdevice("copysignf", "copysign", 2),
             "mul": _libdevice("fmul_rn", "dmul_rn", 2), "select": _select(kinds.boolean),
             "atomic_add": toolkit.intrinsic(_atomic_add), "sdiv": _instruction("sdiv"),
             "ushr": _instruction("lshr"), "shl": _instruction("shl"),
             **{f"{name}64": _instruction(name) for name in ("add", "sub", "mul")}}
    for name in ("rint", "floor", "ceil", "trunc", "sqrt", "fabs"):
        found[name] = _libdevice(f"{name}f", name, 1)
    return found


# ---- for the simulator -----------------------------------------------------------------------------------

_INTEGER = {np.dtype(np.float32): np.int32, np.dtype(np.float64): np.int64}
_adding = threading.Lock()
_FLOAT = {np.dtype(np.int32): np.float32, np.dtype(np.int64): np.float64}


def _fused(a: Any, b: Any, c: Any) -> Any:
    if not all(map(math.isfinite, (a, b, c))) or 0.0 in (a, b):
        return a * b + c
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    try:
        return type(a)(float(exact)) if exact else type(a)(0.0)
    except OverflowError:
        return type(a)(math.copysign(math.inf, exact))


def _quotient(a: Any, b: Any) -> Any:
    whole = abs(int(a)) // abs(int(b))
    return type(a)(whole if (a < 0) == (b < 0) else -whole)


def _logical(a: Any, b: Any) -> Any:
    width = 8 * a.dtype.itemsize
    return np.array((int(a) & ((1 << width) - 1)) >> int(b), f"u{width // 8}").astype(a.dtype)[()]


def _locked_add(pointer: Any, index: Any, value: Any) -> Any:
    with _adding:
        old = pointer[index]
        pointer[index] = old + value
    return old


def _simulated() -> dict[str, Any]:
    return {"bits": lambda x: x.view(_INTEGER[x.dtype]), "from_bits": lambda i: i.view(_FLOAT[i.dtype]),
            "fmuladd": _fused, "copysign": np.copysign, "mul": lambda a, b: a * b,
            "select": lambda condition, a, b: a if condition else b, "sdiv": _quotient, "ushr": _logical,
            "shl": lambda a, b: a << b, "add64": operator.add, "sub64": operator.sub, "mul64": operator.mul,
            "atomic_add": _locked_add, "fabs": np.abs,
            **{name: getattr(np, name) for name in ("rint", "floor", "ceil", "trunc", "sqrt")}}
