"""Bodies in the scalar language as lines of Python, each node one operation with its exact dtype, for Numba's targets.

What the lines name besides operators (``fmuladd``, ``bits``, ``f4``...) is given by who compiles them.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from jitgrad.ops.scalar import Node, Trace

WORDS = {"bool": "b1", "int32": "i4", "int64": "i8", "float32": "f4", "float64": "f8"}
_BINARY = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^", "shl": "<<", "shr": ">>",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip


def literal(value: float, dtype: np.dtype[Any]) -> str:
    return f"{WORDS[dtype.name]}({value!r})"


def lines_of(trace: Trace, arguments: Sequence[str], indent: str, tables: dict[str, Any], prefix: str = "v",
             calls: Container[str] = ()) -> tuple[list[str], list[str]]:
    """The body as assignments, and the names of its results, which begin with `prefix`; constant tables are added to
    `tables`. Of float operators those in `calls` are calls of a function by the name of the node; of operators on int64
    those that are there with their width.
    """
    names: list[str] = []
    lines: list[str] = []
    pad = indent
    for i, node in enumerate(trace.nodes):
        operands = [names[j] for j in node.operands]
        names.append(f"{prefix}{i}")
        if node.op == "argument":
            names[i] = arguments[node.immediate]
        elif node.op == "const":
            names[i] = literal(node.immediate, node.dtype)
        elif node.op == "branch":
            lines.append(f"{pad}if {operands[0]}:")
            lines.append(f"{pad}    pass")
            pad += "    "
        elif node.op == "merge":
            if node.immediate[1] == 0:
                merges = trace.merges(i)
                ids = [f"{prefix}{i + k}" for k in range(len(merges))]
                lines += [f"{pad}{v} = {names[m.operands[1]]}" for v, m in zip(ids, merges, strict=True)]
                pad = pad[:-4]
                lines.append(f"{pad}else:")
                lines += [f"{pad}    {v} = {names[m.operands[2]]}" for v, m in zip(ids, merges, strict=True)]
        else:
            if node.op == "table":
                table = np.array(node.immediate, node.dtype)
                same = (name for name, other in tables.items() if other.dtype == table.dtype and
                        other.tobytes() == table.tobytes())
                operands.append(next(same, f"table{len(tables)}"))
                tables[operands[-1]] = table
            last = trace.nodes[node.operands[-1]].dtype
            name = node.op if last.kind == "f" else f"{node.op}64" if last == np.int64 else ""
            value = f"{name}({', '.join(operands)})" if name in calls else _expression(node, operands, last)
            lines.append(f"{pad}{prefix}{i} = {value}")
    return lines, [names[i] for i in trace.results]


def _expression(node: Node, operands: list[str], last: np.dtype[Any]) -> str:
    """One node as Python; the cast around it undoes Numba's widening of integers."""
    word = WORDS[node.dtype.name]
    a = operands[0]
    if node.op == "table":
        return f"{operands[1]}[{a}]"
    if node.op == "convert":
        return f"{a} != {literal(0, last)}" if word == "b1" else f"{word}({a})"
    if node.op == "neg":
        return f"-{a}" if last.kind == "f" else f"{word}(-{a})"
    if node.op == "not":
        return f"not {a}" if word == "b1" else f"{word}(~{a})"
    if node.op == "div" and last.kind == "i":
        return f"sdiv({', '.join(operands)})"
    if node.op == "shl" or node.op not in _BINARY:
        return f"{node.op}({', '.join(operands)})"
    expression = f"{a} {_BINARY[node.op]} {operands[1]}"
    return expression if word in ("b1", "f4", "f8") else f"{word}({expression})"


def loaded(pointer: str, index: str, dtype: np.dtype[Any]) -> str:
    return f"{pointer}[{index}]" + (" != 0" if dtype.kind == "b" else "")


def stored(value: str, dtype: np.dtype[Any]) -> str:
    return f"u1({value})" if dtype.kind == "b" else value
