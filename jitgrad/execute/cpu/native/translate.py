"""Restricted Python to LLVM text, in milliseconds: the build of the natives and of entries' own kernels.

The language is what Numba compiles to straight machine code anyway, so that every function has a second build
(`by_numba`) that tests compare with. It has integers (int64, wrapping; np.uint64), floats (float32, float64; mixed
arithmetic widens as in Numba), booleans; flat arrays, indexed from 0 without checks; assignment, `if`, `while`, `for`
over a range; calls of such functions, of `raw` operations, and of min, max, abs, len, int, float, bool, fmuladd. A
variable has one type, the join of all that is assigned to it. Everything else raises `Unsupported`.
"""

from __future__ import annotations

import ast
import re
import types
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from jitgrad.execute.cpu.native.expressions import Expressions
from jitgrad.execute.cpu.native.language import ELEMENT, LLVM, Array, Unsupported, Value, join, passed, source_of
from jitgrad.execute.cpu.native.raw import Raw

SMALL, ONCE = 90, 300              # lines of text of a function that callers take in; of one that has a single caller


class Module:
    """Functions under translation, with what they need from outside."""

    def __init__(self) -> None:
        self.definitions: list[str] = []             # entry points
        self.inner: dict[str, str] = {}              # by symbol
        self.declarations: dict[str, None] = {}
        self.made: dict[Any, tuple[str, str]] = {}

    def function(self, function: types.FunctionType, arguments: tuple[Any, ...]) -> tuple[str, str]:
        """Symbol and result type of a function for arguments of these types."""
        key = (function, arguments)
        if key not in self.made:
            symbol = f"py.{function.__name__}.{len(self.made)}"
            self.made[key] = (symbol, "")            # a call of itself finds no result type
            self.inner[symbol], result = _translate(self, function, symbol, arguments)
            self.made[key] = (symbol, result)
        symbol, result = self.made[key]
        if not result:
            raise Unsupported(f"{function.__name__} calls itself")
        return symbol, result

    def export(self, name: str, function: Callable[..., Any]) -> None:
        """Define ``i64 name(i64, ...)``."""
        assert isinstance(function, types.FunctionType)
        self.define(name, ["i64"] * function.__code__.co_argcount, [], function,
                    [Value(f"%a{i}", "i64") for i in range(function.__code__.co_argcount)])

    def define(self, name: str, kinds: Sequence[str], lines: Sequence[str], function: types.FunctionType,
               arguments: Sequence[Value], after: Sequence[str] = ()) -> None:
        """An entry point: the lines, a call of the function, the lines after it; the result as i64."""
        symbol, result = self.function(function, tuple(a.type for a in arguments))
        given = ", ".join(passed(a) for a in arguments)
        head = ", ".join(f"{LLVM[k]} %a{i}" for i, k in enumerate(kinds))
        call = f"call {LLVM[result]} @{symbol}({given})"
        ending = {"void": [f"  {call}", *after, "  ret i64 0"],
                  "i1": [f"  %r = {call}", *after, "  %w = zext i1 %r to i64", "  ret i64 %w"]}
        body = ending.get(result, [f"  %r = {call}", *after, "  ret i64 %r"])
        if result not in ("void", "i1", "i64", "u64"):
            raise Unsupported(f"{function.__name__} returns {result} where an integer is wanted")
        self.definitions.append("\n".join([f"define i64 @{name}({head}) nounwind {{", *lines, *body, "}"]))

    def declare(self, op: Raw) -> None:
        """A function of C or of CPython that the text calls."""
        result = LLVM[op.result] if op.result else "void"
        kinds = ", ".join(LLVM[k] for k in op.arguments)
        self.declarations[f"declare {result} @{op.name}({kinds}) nounwind"] = None

    def text(self) -> str:
        """The whole module. What is to be inlined is said here, which takes LLVM's inliner a third of the time."""
        calls = Counter(re.findall(r" call \w+ @(py\.[\w.]+)\(", "\n".join([*self.definitions, *self.inner.values()])))
        inner = []
        for symbol, text in self.inner.items():
            taken_in = text.count("\n") <= (ONCE if calls[symbol] == 1 else SMALL)
            inner.append(text.replace(" nounwind {", " alwaysinline nounwind {", 1) if taken_in else text)
        return "\n".join([*self.definitions, *inner, *self.declarations, ""])


def _translate(module: Module, function: types.FunctionType, symbol: str,
               arguments: tuple[Any, ...]) -> tuple[str, str]:
    """Passes until no variable is wider than was assumed; each pass writes the whole text."""
    assumed: dict[str, Any] = {}
    while True:
        attempt = _Function(module, function, symbol, arguments, dict(assumed))
        attempt.run()
        if attempt.types == assumed:
            return attempt.text(), attempt.types["return"]
        assumed = attempt.types


class _Function(Expressions):
    """One pass over one function: its statements."""

    def __init__(self, module: Module, function: types.FunctionType, symbol: str, arguments: tuple[Any, ...],
                 assumed: dict[str, Any]) -> None:
        super().__init__(module, function, assumed)
        self.symbol, self.node = symbol, source_of(function)
        self.loops: list[tuple[str, str]] = []       # (continue, break)
        given = self.node.args
        if given.vararg or given.kwarg or given.kwonlyargs or len(given.args) != len(arguments):
            raise self.unsupported(self.node, f"{len(arguments)} arguments given")
        head = []
        for name, kind in zip((a.arg for a in given.args), arguments, strict=True):
            if isinstance(kind, Array):
                head.append(f"ptr {'noalias ' if kind.distinct else ''}%a.{name}, i64 %a.{name}.size")
                self.arrays[name] = Value(f"%a.{name}", kind, f"%a.{name}.size")
            else:
                head.append(f"{LLVM[kind]} %a.{name}")
                self.assign(name, Value(f"%a.{name}", kind))
        self.head = ", ".join(head)

    def text(self) -> str:
        result = self.types["return"]
        exit_ = ["exit:"]
        if result == "void":
            exit_ += ["  ret void"]
        else:
            exit_ += [f"  %result = load {LLVM[result]}, ptr %return", f"  ret {LLVM[result]} %result"]
        head = f"define internal {LLVM[result]} @{self.symbol}({self.head}) nounwind {{"
        body = [*self.entry, "  br label %begin", "begin:", *self.lines, "  br label %exit", *exit_]
        return "\n".join([head, "entry:", *body, "}"])

    def run(self) -> None:
        self.block(self.node.body)
        if "return" not in self.types:
            self.types["return"] = "void"

    def statement(self, node: ast.stmt) -> None:
        method = getattr(self, f"do_{type(node).__name__}", None)
        if method is None:
            raise self.unsupported(node, f"{type(node).__name__} is not in the language")
        method(node)

    def block(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            self.statement(statement)

    def do_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):          # a docstring
            self.value(node.value)

    def do_Pass(self, node: ast.Pass) -> None:
        pass

    def do_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            self.assign("return", self.value(node.value))
        elif self.types.setdefault("return", "void") != "void":
            raise self.unsupported(node, "returns a value elsewhere")
        self.end("exit")

    def do_Assign(self, node: ast.Assign) -> None:
        if len(node.targets) != 1:
            raise self.unsupported(node, "one target is wanted")
        (target,) = node.targets
        if not isinstance(target, ast.Tuple):
            self.store(target, self.value(node.value))
            return
        if not isinstance(node.value, ast.Tuple) or len(node.value.elts) != len(target.elts):
            raise self.unsupported(node, "as many values as targets are wanted")
        values = [self.value(v) for v in node.value.elts]     # all before the first is stored
        for t, v in zip(target.elts, values, strict=True):
            self.store(t, v)

    def do_AugAssign(self, node: ast.AugAssign) -> None:
        left = ast.copy_location(
            ast.Name(node.target.id, ast.Load()) if isinstance(node.target, ast.Name) else
            ast.Subscript(node.target.value, node.target.slice, ast.Load()), node)     # type: ignore[union-attr]
        self.store(node.target, self.value(ast.copy_location(ast.BinOp(left, node.op, node.value), node)))

    def store(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            self.assign(target.id, value)
        elif isinstance(target, ast.Subscript):
            array, at = self.element(target)
            memory, kind = ELEMENT[array.type.dtype]
            text = self.convert(value, kind).text
            if memory in ("i8", "i32"):
                text = self.set(f"{'zext i1' if memory == 'i8' else 'trunc i64'} {text} to {memory}")
            self.do(f"store {memory} {text}, ptr {at}")
        else:
            raise self.unsupported(target, "cannot be assigned to")

    def assign(self, name: str, value: Value) -> None:
        if isinstance(value.type, Array) or name in self.arrays:
            raise Unsupported(f"{self.function.__name__}: the array {name} cannot be assigned")
        if value.type == "void":
            raise Unsupported(f"{self.function.__name__}: {name} gets no value")
        kind = self.types[name] = join(self.types.get(name, value.type), value.type)
        slot = f"%v.{name}" if name != "return" else "%return"
        if name not in self.variables:
            self.variables.add(name)
            self.entry.append(f"  {slot} = alloca {LLVM[kind]}")
            if name == "return":                     # where the end of the function is reached
                self.entry.append(f"  store {LLVM[kind]} zeroinitializer, ptr {slot}")
        self.do(f"store {LLVM[kind]} {self.convert(value, kind).text}, ptr {slot}")

    def do_If(self, node: ast.If) -> None:
        yes, no, after = self.fresh("yes"), self.fresh("no"), self.fresh("after")
        self.do(f"br i1 {self.truth(node.test)}, label %{yes}, label %{no}")
        self.label(yes)
        self.block(node.body)
        self.goto(after)
        self.label(no)
        self.block(node.orelse)
        self.goto(after)
        self.label(after)

    def do_While(self, node: ast.While) -> None:
        if node.orelse:
            raise self.unsupported(node, "while .. else")
        test, body, after = self.fresh("while"), self.fresh("do"), self.fresh("done")
        self.goto(test)
        self.label(test)
        self.do(f"br i1 {self.truth(node.test)}, label %{body}, label %{after}")
        self.label(body)
        self.loops.append((test, after))
        self.block(node.body)
        self.loops.pop()
        self.goto(test)
        self.label(after)

    def do_For(self, node: ast.For) -> None:
        call = node.iter
        if (node.orelse or not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name)
                or call.func.id != "range" or not isinstance(node.target, ast.Name)):
            raise self.unsupported(node, "only `for name in range(...)` is in the language")
        given = [self.convert(self.value(a), "i64").text for a in call.args]
        start, stop, step = (["0", given[0], "1"] if len(given) == 1 else [*given, "1"][:3])
        if not step.lstrip("-").isdigit() or int(step) == 0:
            raise self.unsupported(node, "the step of a range is a number")
        counter = self.place("i64")
        test, body, onward, after = (self.fresh(s) for s in ("for", "do", "next", "done"))
        self.do(f"store i64 {start}, ptr {counter}")
        self.goto(test)
        self.label(test)
        at = self.set(f"load i64, ptr {counter}")
        inside = self.set(f"icmp {'slt' if int(step) > 0 else 'sgt'} i64 {at}, {stop}")
        self.do(f"br i1 {inside}, label %{body}, label %{after}")
        self.label(body)
        self.assign(node.target.id, Value(at, "i64"))
        self.loops.append((onward, after))
        self.block(node.body)
        self.loops.pop()
        self.goto(onward)
        self.label(onward)
        self.do(f"store i64 {self.set(f'add nsw i64 {at}, {step}')}, ptr {counter}")
        self.goto(test)
        self.label(after)

    def do_Break(self, node: ast.Break) -> None:
        self.end(self.loops[-1][1])

    def do_Continue(self, node: ast.Continue) -> None:
        self.end(self.loops[-1][0])
