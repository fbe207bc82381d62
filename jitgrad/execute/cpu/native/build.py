"""Machine code of the natives and of own kernels as LLVM text: imported only to fill the cache."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from jitgrad import config
from jitgrad.execute.cpu.native import exports
from jitgrad.execute.cpu.native.language import Array, Unsupported, Value
from jitgrad.execute.cpu.native.translate import Module


def natives() -> list[str]:
    """Texts that define every native function."""
    functions = {name: getattr(importlib.import_module(f"jitgrad.execute.cpu.native.{place}"), name)
                 for table in (exports.BUILTINS, exports.INNER) for place, names in table.items() for name in names}
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


def own_kernel(symbol: str, body: Callable[..., int], dtypes: Sequence[Any], words: int) -> str:
    """An entry's own kernel: its body over flat arrays, behind the kernel interface. params = sizes, words."""
    if not config.numba_kernels():
        try:
            return translated(symbol, body, dtypes, words)
        except Unsupported:
            pass                         # of a user's kernel, say: Numba knows more of Python
    from jitgrad.execute.cpu.native import by_numba
    return by_numba.own_kernel(symbol, body, dtypes, words)


def translated(symbol: str, body: Any, dtypes: Sequence[Any], words: int) -> str:
    """The direct build of an own kernel; raises Unsupported for a body that leaves the language."""
    lines = ["  %params = inttoptr i64 %a0 to ptr", "  %slots = inttoptr i64 %a1 to ptr"]
    given = []
    for i, dtype in enumerate(dtypes):
        lines += _loaded(f"p{i}", "ptr", "%slots", i) + _loaded(f"n{i}", "i64", "%params", i)
        # no operand shares memory with the output, and the output alone is written
        given.append(Value(f"%p{i}", Array(np.dtype(dtype).name, distinct=True), f"%n{i}"))
    for w in range(words):
        lines += _loaded(f"w{w}", "i64", "%params", len(dtypes) + w)
        given.append(Value(f"%w{w}", "i64"))
    module = Module()
    module.define(symbol, ["i64", "i64"], lines, body, given)
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
