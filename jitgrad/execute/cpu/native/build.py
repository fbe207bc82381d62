"""Machine code of the natives and of own kernels as LLVM text: imported only to fill the cache."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jitgrad import config
from jitgrad.core.primitive import Primitive
from jitgrad.execute.cpu import layout
from jitgrad.execute.cpu.native import exports, raw
from jitgrad.execute.cpu.native.language import Array, Unsupported, Value
from jitgrad.execute.cpu.native.translate import Module


def natives(later: bool) -> list[str]:
    """Texts that define the native functions of one object file (see `exports`)."""
    functions = {name: getattr(importlib.import_module(f"jitgrad.execute.cpu.native.{place}"), name)
                 for name, place in exports.names(later).items()}
    if config.numba_kernels():
        from jitgrad.execute.cpu.native import by_numba
        return [by_numba.exported(name, function) for name, function in functions.items()]
    module = Module()
    for name, function in functions.items():
        module.export(name, function)
    return [module.text()]


def trampolines(slots: Iterable[tuple[int, str]], operator: str, arity: int) -> str:
    """Number slots, as (place in the table of operators, name): each passes its place on to one generic function."""
    args = ", ".join(f"i64 %a{i}" for i in range(arity))
    lines = [f"declare i64 @{operator}(i64, {', '.join(['i64'] * arity)})"]
    for place, name in slots:
        lines.append(f"define i64 @{name}({args}) {{\n  %r = tail call i64 @{operator}(i64 {place}, {args})\n"
                     "  ret i64 %r\n}")
    return "\n".join(lines)


def own_kernel(symbol: str, prim: Primitive, dtypes: Sequence[np.dtype[Any]], words: int) -> str:
    """An entry's own kernel: its body over flat arrays, behind the kernel interface.

    params = sizes, words, and the size of the working memory where the body asks for some.
    """
    if not config.numba_kernels():
        try:
            return translated(symbol, prim, dtypes, words)
        except Unsupported:
            pass                         # of a user's kernel, say: Numba knows more of Python
    from jitgrad.execute.cpu.native import by_numba
    return by_numba.own_kernel(symbol, prim, dtypes, words)


def element_types(prim: Primitive, dtypes: Sequence[np.dtype[Any]]) -> list[np.dtype[Any]]:
    """What a body sees of its arrays."""
    return [np.dtype(f"i{d.itemsize}") if prim.bits and d.kind == "f" else d for d in dtypes]


def translated(symbol: str, prim: Primitive, dtypes: Sequence[np.dtype[Any]], words: int) -> str:
    """The direct build of an own kernel; raises Unsupported for a body that leaves the language."""
    module = Module()
    lines = ["  %params = inttoptr i64 %a0 to ptr", "  %slots = inttoptr i64 %a1 to ptr"]
    given = []
    for i, dtype in enumerate(element_types(prim, dtypes)):
        lines += _loaded(f"p{i}", "ptr", "%slots", i) + _loaded(f"n{i}", "i64", "%params", i)
        # no operand shares memory with the output, and the output alone is written
        given.append(Value(f"%p{i}", Array(dtype.name, distinct=True), f"%n{i}"))
    after: list[str] = []
    if prim.scratch is not None:
        lines += _loaded("room", "i64", "%params", len(dtypes) + words)
        lines += ["  %bytes = shl i64 %room, 3", "  %some = add i64 %bytes, 8",
                  f"  %block = call i64 @{raw.resize.name}(i64 0, i64 %some)", "  %none = icmp eq i64 %block, 0",
                  "  br i1 %none, label %fail, label %work", "fail:", f"  ret i64 {layout.NO_MEMORY}", "work:",
                  "  %scratch = inttoptr i64 %block to ptr"]
        after = [f"  call void @{raw.release.name}(i64 %block)"]
        module.declare(raw.resize)
        module.declare(raw.release)
        given.append(Value("%scratch", Array("int64", distinct=True), "%room"))
    for w in range(words):
        lines += _loaded(f"w{w}", "i64", "%params", len(dtypes) + w)
        given.append(Value(f"%w{w}", "i64"))
    module.define(symbol, ["i64", "i64"], lines, prim.body, given, after)
    return module.text()


def array_function(symbol: str, function: Any, count: int) -> str:
    """A function of ``count`` int64 arrays, behind a table of (address, size)."""
    if config.numba_kernels():
        from jitgrad.execute.cpu.native import by_numba
        return by_numba.array_function(symbol, function, count)
    lines = ["  %table = inttoptr i64 %a0 to ptr"]
    for i in range(count):
        lines += _loaded(f"p{i}", "ptr", "%table", 2 * i) + _loaded(f"n{i}", "i64", "%table", 2 * i + 1)
    module = Module()
    module.define(symbol, ["i64"], lines, function, [Value(f"%p{i}", Array("int64"), f"%n{i}") for i in range(count)])
    return module.text()


def _loaded(name: str, kind: str, table: str, word: int) -> list[str]:
    return [f"  %{name}.at = getelementptr i64, ptr {table}, i64 {word}", f"  %{name} = load {kind}, ptr %{name}.at"]
