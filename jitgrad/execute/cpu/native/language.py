"""The words of the restricted language, and the text of a function under translation."""

from __future__ import annotations

import ast
import functools
import linecache
import types
from typing import Any, NamedTuple

LLVM = {"i64": "i64", "u64": "i64", "i32": "i32", "i8": "i8", "i1": "i1", "f32": "float", "f64": "double",
        "void": "void"}
ELEMENT = {"bool": ("i8", "i1"), "int32": ("i32", "i64"), "int64": ("i64", "i64"), "uint64": ("i64", "u64"),
           "float32": ("float", "f32"), "float64": ("double", "f64")}          # in memory; as a value


class Unsupported(TypeError):
    """What the language does not have; says where."""


class Array(NamedTuple):
    """The type of a flat array."""

    dtype: str
    distinct: bool = False       # no other array that is written shares its memory


class Value(NamedTuple):
    """A register or a constant, and its type; an array has its size as well."""

    text: str
    type: Any
    size: str = ""


def join(a: str, b: str) -> str:
    """The type that holds both."""
    if a == b:
        return a
    if isinstance(a, Array) or isinstance(b, Array) or "void" in (a, b):
        raise Unsupported(f"{a} and {b} do not go together")
    order = ["i1", "i64", "f32", "f64"]
    if "u64" in (a, b):
        other = b if a == "u64" else a
        if other in ("i1", "u64"):
            return "u64"
        raise Unsupported(f"uint64 and {other} do not mix")
    if {a, b} == {"i64", "f32"}:
        return "f64"                                 # as Numba and NumPy have it
    return order[max(order.index(a), order.index(b))]


@functools.cache
def _functions_of(filename: str) -> dict[types.CodeType, ast.FunctionDef]:
    """The functions of a file by what Python makes of them."""
    tree = ast.parse("".join(linecache.getlines(filename)))
    nodes = {min([node.lineno, *(d.lineno for d in node.decorator_list)]): node
             for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    codes = [compile(tree, filename, "exec", dont_inherit=True)]
    for code in codes:                               # grows on the way
        codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return {code: nodes[code.co_firstlineno] for code in codes
            if code.co_firstlineno in nodes and nodes[code.co_firstlineno].name == code.co_name}


def source_of(function: types.FunctionType) -> ast.FunctionDef:
    """The source of a function, if it is still what was imported: a file may have been edited since."""
    node = _functions_of(function.__code__.co_filename).get(function.__code__)
    if node is None:
        raise Unsupported(f"{function.__name__}: its source is not to be found, or not what was imported")
    return node


class Text:
    """Lines of one function."""

    def __init__(self, function: types.FunctionType) -> None:
        self.function = function
        self.entry: list[str] = []                   # allocas: they belong to the entry block
        self.lines: list[str] = []
        self.count = 0

    def unsupported(self, node: ast.AST, what: str) -> Unsupported:
        code = self.function.__code__
        return Unsupported(f"{code.co_name} ({code.co_filename}:{getattr(node, 'lineno', 0)}): {what}")

    def fresh(self, stem: str = "t") -> str:
        self.count += 1
        return f"{stem}.{self.count}"

    def set(self, text: str) -> str:
        name = f"%{self.fresh()}"
        self.lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def goto(self, name: str) -> None:
        self.do(f"br label %{name}")

    def end(self, name: str) -> None:
        """Leave for a block; what follows in the source is never reached, or a new block."""
        self.goto(name)
        self.label(self.fresh("dead"))

    def place(self, kind: str) -> str:
        name = f"%{self.fresh('slot')}"
        self.entry.append(f"  {name} = alloca {LLVM[kind]}")
        return name


def passed(a: Value) -> str:
    return f"ptr {a.text}, i64 {a.size}" if isinstance(a.type, Array) else f"{LLVM[a.type]} {a.text}"
