"""The same kernels by Numba: Python source from a Trace, with exact dtypes, in a loop template with the same ABI.

The results are those of the vector builds bit for bit (NaN payloads aside): every node is one operation in its own
dtype, nothing widens, nothing is contracted but `fmuladd`, and reductions take the same order.
"""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import llvmlite.ir as llir
import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from jitgrad.core.aval import Aval, aval
from jitgrad.core.dtypes import CODES
from jitgrad.core.primitive import Kind, Primitive
from jitgrad.execute.cpu import llvm
from jitgrad.execute.cpu.native import by_numba, drivers
from jitgrad.execute.cpu.reductions import BLOCK, CHUNK, GROUP, reduction_init
from jitgrad.execute.cpu.types import NATIVE
from jitgrad.execute.source import WORDS, lines_of, literal, loaded, stored
from jitgrad.ops.scalar import DTYPES, FLOAT32, FLOAT64, Trace

_ACCUMULATORS = 32
_WRAPPING = frozenset({"add64", "sub64", "mul64"})       # Numba's own operators on int64 promise not to overflow
_SIGNATURE = types.int64(types.CPointer(types.int64), types.CPointer(types.intp))


@dataclass(frozen=True)
class Kernel:
    """A kernel compiled by Numba. `address` is `int64 (int64 *params, void **slots)`."""

    name: str
    source: str
    address: int
    ir: str = field(repr=False)
    owner: Any = field(repr=False, compare=False)  # holds the machine code

    def standalone(self, symbol: str) -> str:
        """LLVM text of the kernel under another name, for the object cache."""
        return by_numba.standalone(symbol, self.owner, ["ptr", "ptr"])


def _llvm_call(name: str, count: int) -> Callable[..., Any]:
    """An LLVM intrinsic on `count` operands of one float type."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        function = builder.module.declare_intrinsic(f"llvm.{name}", [kind], llir.FunctionType(kind, [kind] * count))
        return builder.call(function, arguments)

    if count == 1:
        return intrinsic(lambda typing, a: (a(a), generate))
    if count == 2:
        return intrinsic(lambda typing, a, b: (a(a, a), generate))
    return intrinsic(lambda typing, a, b, c: (a(a, a, a), generate))


def _cast(pairs: dict[Any, Any]) -> Callable[..., Any]:
    """A bit cast by type."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return intrinsic(lambda typing, a: (pairs[a](a), generate))


def _instruction(method: str) -> Callable[..., Any]:
    """One integer instruction of two operands."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, method)(*arguments)

    return intrinsic(lambda typing, a, b: (a(a, a), generate))


@intrinsic
def _select(typing: Any, condition: Any, a: Any, b: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return a(types.boolean, a, a), generate


def _pointer(element: Any) -> Callable[..., Any]:
    """An address as a typed pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return intrinsic(lambda typing, address: (types.CPointer(element)(types.intp), generate))


def _stack(element: Any) -> Callable[..., Any]:
    """Room for the accumulators on the stack: a NumPy array would bring Numba's runtime along."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return cgutils.alloca_once(builder, context.get_data_type(element), size=_ACCUMULATORS)

    return intrinsic(lambda typing: (types.CPointer(element)(), generate))


def _names() -> dict[str, Any]:
    """What generated source may use."""
    names: dict[str, Any] = {
        "i4": np.int32, "i8": np.int64, "f4": np.float32, "f8": np.float64, "b1": np.bool_, "u1": np.uint8,
        "inf": np.inf, "nan": np.nan, "select": _select,
        "bits": _cast({types.float32: types.int32, types.float64: types.int64}),
        "from_bits": _cast({types.int32: types.float32, types.int64: types.float64}),
        "fmuladd": _llvm_call("fmuladd", 3), "copysign": _llvm_call("copysign", 2),
        "sdiv": _instruction("sdiv"), "ushr": _instruction("lshr"), "shl": _instruction("shl"),
        **{f"{name}64": _instruction(name) for name in ("add", "sub", "mul")},
    }  # fmt: skip
    for name in ("rint", "floor", "ceil", "trunc", "sqrt", "fabs"):
        names[name] = _llvm_call(name, 1)
    for dtype in DTYPES:
        element = types.uint8 if dtype.kind == "b" else numba.from_dtype(dtype)
        names[f"pointer_{WORDS[dtype.name]}"] = _pointer(element)
        names[f"stack_{WORDS[dtype.name]}"] = _stack(element)
    return names


_NAMES = _names()


def _compile(name: str, source: str, tables: dict[str, Any], helpers: tuple[str, ...] = ()) -> Kernel:
    filename = f"<jitgrad kernel {name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    scope = {**_NAMES, **tables}
    exec(compile(source, filename, "exec"), scope)
    for helper in helpers:
        scope[helper] = numba.njit(nogil=True, error_model="numpy")(scope[helper])
    compiled = numba.cfunc(_SIGNATURE, nogil=True, error_model="numpy")(scope[name])
    return Kernel(name, source, compiled.address or 0, compiled.inspect_llvm(), compiled)


def elementwise_kernel(name: str, trace: Trace) -> Kernel:
    """params = [n, step_0, ...], slots = outputs, operands; see codegen.elementwise_ir."""
    tables: dict[str, Any] = {}
    outputs = len(trace.results)
    lines = [f"def {name}(params, slots):", "    n = params[0]"]
    for j, dtype in enumerate((*trace.dtypes, *trace.arguments)):
        lines.append(f"    p{j} = pointer_{WORDS[dtype.name]}(slots[{j}])")
    lines += [f"    step{k} = params[{1 + k}]" for k in range(len(trace.arguments))]
    lines.append("    for i in range(n):")
    arguments = [f"x{k}" for k in range(len(trace.arguments))]
    for k, dtype in enumerate(trace.arguments):
        lines.append(f"        x{k} = {loaded(f'p{outputs + k}', f'i * step{k}', dtype)}")
    body, results = lines_of(trace, arguments, "        ", tables, calls=_WRAPPING)
    lines += body
    lines += [f"        p{j}[i] = {stored(results[j], dtype)}" for j, dtype in enumerate(trace.dtypes)]
    lines += ["    return 0", ""]
    return _compile(name, "\n".join(lines), tables)


_REDUCTION = """
def {name}(params, slots):
    outer = params[0]
    red = params[1]
    inner = params[2]
    out = pointer_{word}(slots[0])
    x = pointer_{word}(slots[1])
    lane = stack_{word}()
    for o in range(outer):
        for c in range(inner):
            base = o * red * inner + c
            total = {wide_init}
            size = {chunk} if inner == 1 else {block}
            for start in range(0, red, size):
                stop = min(start + size, red)
                if inner == 1:
                    whole = stop - ((stop - start) & 31)
                    for j in range(32):
                        lane[j] = {stored_init}
                    for i in range(start, whole, 32):
                        for j in range(32):
                            lane[j] = {step}
                    for j in range(stop - whole):
                        i = whole
                        lane[j] = {step}
                    half = 16
                    while half > 0:
                        for j in range(half):
                            lane[j] = {halve}
                        half >>= 1
                    part = {lane}
                else:
                    part = {init}
                    grouped = start + (stop - start) // {group} * {group}
                    for i in range(start, grouped, {group}):
                        part = combine(part, {grouped})
                    for i in range(grouped, stop):
                        part = combine(part, {strided})
                if start == 0:
                    total = {widened}
                else:
                    total = combine_wide(total, {widened})
            out[o * inner + c] = {result}
    return 0
"""


def _by_halves(values: list[str]) -> str:
    while len(values) > 1:
        half = len(values) // 2
        values = [f"combine({a}, {b})" for a, b in zip(values[:half], values[half:], strict=True)]
    return values[0]


def reduction_kernel(name: str, trace: Trace, init: float | Callable[[np.dtype[Any]], float], dtype: Any) -> Kernel:
    """params = [outer, red, inner], slots = [output, operand]; the order is that of reductions.reduction_ir."""
    dtype = np.dtype(dtype)
    wide = FLOAT64 if dtype == FLOAT32 else dtype
    tables: dict[str, Any] = {}
    source = ""
    for function, body in (("combine", trace), ("combine_wide", trace.at(wide, wide))):
        lines, (result,) = lines_of(body, ["acc", "x"], "    ", tables, calls=_WRAPPING)
        source += "\n".join([f"def {function}(acc, x):", *lines, f"    return {result}", "", ""])
    start = literal(reduction_init(init, dtype), dtype)
    lane = loaded("lane", "j", dtype)
    source += _REDUCTION.format(
        name=name,
        word=WORDS[dtype.name],
        chunk=CHUNK,
        init=start,
        stored_init=stored(start, dtype),
        wide_init=literal(reduction_init(init, wide), wide),
        step=stored(f"combine({lane}, {loaded('x', 'base + i + j', dtype)})", dtype),
        halve=stored(f"combine({lane}, {loaded('lane', 'j + half', dtype)})", dtype),
        lane=loaded("lane", "0", dtype),
        block=BLOCK,
        group=GROUP,
        grouped=_by_halves([loaded("x", f"base + (i + {k}) * inner", dtype) for k in range(GROUP)]),
        strided=loaded("x", "base + i * inner", dtype),
        widened="part" if wide == dtype else "f8(part)",
        result=stored("total" if wide == dtype else "f4(total)", dtype),
    ).lstrip("\n")
    return _compile(name, source, tables, ("combine", "combine_wide"))


_SCAN = """
def {name}(params, slots):
    outer = params[0]
    n = params[1]
    inner = params[2]
    first = params[3]
    step = params[4]
    exclusive = params[5] != 0
    out = pointer_{word}(slots[0])
    {pointers}
    for o in range(outer):
        for c in range(inner):
            acc = {init}
            for k in range(n):
                i = (o * n + first + k * step) * inner + c
                new = combine(acc, {operands})
                out[i] = {word}(acc if exclusive else new)
                acc = new
    return 0
"""


def scan_kernel(name: str, trace: Trace, init: float | Callable[[np.dtype[Any]], float], dtype: Any) -> Kernel:
    """params and slots as those of scans.scan_ir, and the same order; the body has the accumulator's dtype."""
    dtype, wide = np.dtype(dtype), trace.arguments[0]
    tables: dict[str, Any] = {}
    word, widened = WORDS[dtype.name], WORDS[wide.name]
    names = [f"x{k}" for k in range(len(trace.arguments) - 1)]
    lines, (result,) = lines_of(trace, ["acc", *names], "    ", tables, calls=_WRAPPING)
    source = "\n".join([f"def combine(acc, {', '.join(names)}):", *lines, f"    return {result}", "", ""])
    source += _SCAN.format(
        name=name, word=word, init=literal(reduction_init(init, wide), wide),
        pointers="\n    ".join(f"{x} = pointer_{word}(slots[{1 + k}])" for k, x in enumerate(names)),
        operands=", ".join(f"{widened}({x}[i])" for x in names),
    ).lstrip("\n")
    return _compile(name, source, tables, ("combine",))


def own_kernel(prim: Primitive, dtype: np.dtype[Any]) -> Kernel:
    """The kernel of an entry that is neither elementwise nor a reduction, for float (or other) operands of a dtype."""
    if prim.kind in (Kind.MOVE, Kind.PLACE):
        name = prim.kind.value
        text = by_numba.exported(name, getattr(drivers, name))
        return Kernel(prim.name, inspect.getsource(getattr(drivers, name)), NATIVE[name], text, None)
    arrays, params = prim.samples(np.random.default_rng(0))[0]  # type: ignore[misc]
    kinds = [np.dtype(np.int64) if domain == "index" else dtype for domain in prim.domains]
    avals = [aval(CODES[kind], np.shape(array)) for array, kind in zip(arrays, kinds, strict=True)]
    out = prim.aval(*avals, **params)
    assert isinstance(out, Aval) and prim.words is not None
    symbol = f"numba_{prim.name}_{dtype.name}"
    text = by_numba.own_kernel(symbol, prim, (out.dtype, *kinds), len(prim.words(*avals, **params)))
    address = llvm.link(llvm.emit(text, optimise="loops"), [symbol])[symbol]
    return Kernel(prim.name, inspect.getsource(prim.body), address, text, None)
