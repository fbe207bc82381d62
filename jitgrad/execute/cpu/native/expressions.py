"""Expressions of the restricted language as LLVM text."""

from __future__ import annotations

import ast
import functools
import inspect
import struct
import types
from typing import Any

import numpy as np

from jitgrad.execute.cpu.native.language import ELEMENT, LLVM, Array, Text, Unsupported, Value, join, passed
from jitgrad.execute.cpu.native.raw import Raw
from jitgrad.ops.scalar import fmuladd

_CASTS = {np.int64: "i64", np.uint64: "u64", np.float32: "f32", np.float64: "f64", np.bool_: "i1",
          int: "i64", float: "f64", bool: "i1"}
_ARITHMETIC = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor",
               ast.LShift: "shl"}
_COMPARE = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne"}


class Expressions(Text):
    """Values: each method appends instructions and gives the register that holds the result."""

    def __init__(self, module: Any, function: types.FunctionType, assumed: dict[str, Any]) -> None:
        super().__init__(function)
        self.module, self.types = module, assumed
        self.variables: set[str] = set()
        self.arrays: dict[str, Value] = {}
        closed = inspect.getclosurevars(function) if function.__closure__ else None
        self.names = {**function.__globals__, **(closed.nonlocals if closed else {})}

    def value(self, node: ast.expr) -> Value:
        method = getattr(self, f"of_{type(node).__name__}", None)
        if method is None:
            raise self.unsupported(node, f"{type(node).__name__} is not in the language")
        try:
            found: Value = method(node)
        except Unsupported as error:
            placed = str(error).startswith(f"{self.function.__name__} (")
            raise error if placed else self.unsupported(node, str(error)) from None
        return found

    def truth(self, node: ast.expr) -> str:
        return self.convert(self.value(node), "i1").text

    def constant(self, value: Any, node: ast.AST) -> Value:
        if isinstance(value, bool | np.bool_):
            return Value("true" if value else "false", "i1")
        if isinstance(value, np.uint64):
            return Value(str(int(value)), "u64")
        if isinstance(value, int | np.integer):
            return Value(str((int(value) + (1 << 63)) % (1 << 64) - (1 << 63)), "i64")
        if isinstance(value, float | np.floating):
            kind = "f32" if isinstance(value, np.float32) else "f64"
            return Value(f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}", kind)
        raise self.unsupported(node, f"{value!r} is no number")

    def of_Constant(self, node: ast.Constant) -> Value:
        return self.constant(node.value, node)

    def of_Name(self, node: ast.Name) -> Value:
        if node.id in self.arrays:
            return self.arrays[node.id]
        if node.id in self.variables:
            kind = self.types[node.id]
            return Value(self.set(f"load {LLVM[kind]}, ptr %v.{node.id}"), kind)
        return self.constant(self.known(node), node)

    def known(self, node: ast.expr) -> Any:
        """What a name outside the function stands for."""
        if isinstance(node, ast.Name):
            builtins = self.names.get("__builtins__", {})
            builtins = builtins if isinstance(builtins, dict) else vars(builtins)
            if node.id in self.names or node.id in builtins:
                return self.names.get(node.id, builtins.get(node.id))
        elif isinstance(node, ast.Attribute):
            if ast.unparse(node).endswith(".dtype.type") and isinstance(node.value, ast.Attribute):
                return self.value(node.value.value).type
            return getattr(self.known(node.value), node.attr)
        raise self.unsupported(node, f"{ast.unparse(node)} is not known here, or has no value yet")

    def of_Attribute(self, node: ast.Attribute) -> Value:
        if isinstance(node.value, ast.Name) and node.value.id in self.arrays and node.attr == "size":
            return Value(self.arrays[node.value.id].size, "i64")
        return self.constant(self.known(node), node)

    def of_Subscript(self, node: ast.Subscript) -> Value:
        array, at = self.element(node)
        memory, kind = ELEMENT[array.type.dtype]
        text = self.set(f"load {memory}, ptr {at}")
        if memory == "i8":
            text = self.set(f"icmp ne i8 {text}, 0")
        elif memory == "i32":
            text = self.set(f"sext i32 {text} to i64")
        return Value(text, kind)

    def element(self, node: ast.Subscript) -> tuple[Value, str]:
        if not isinstance(node.value, ast.Name) or node.value.id not in self.arrays:
            raise self.unsupported(node, "only an array is indexed")
        array, index = self.arrays[node.value.id], self.value(node.slice)
        if index.type not in ("i64", "u64") or index.text.startswith("-"):
            raise self.unsupported(node, "an index is an integer, 0 or more")
        memory = ELEMENT[array.type.dtype][0]
        return array, self.set(f"getelementptr inbounds {memory}, ptr {array.text}, i64 {index.text}")

    def convert(self, value: Value, kind: str) -> Value:
        text, old = value.text, value.type
        if old == kind or {old, kind} == {"i64", "u64"}:
            return Value(text, kind)
        if isinstance(old, Array) or old == "void":
            raise Unsupported(f"{old} is no number")
        source, target = LLVM[old], LLVM[kind]
        real = old in ("f32", "f64")
        if kind == "i1":
            return Value(self.set(f"fcmp une {source} {text}, 0.0" if real else f"icmp ne {source} {text}, 0"), kind)
        if text.lstrip("-").isdigit() and kind in ("f32", "f64"):
            return self.constant(np.float32(int(text)) if kind == "f32" else float(text), self.node)
        if old == "f64" and kind == "f32" and text.startswith("0x"):
            (number,) = struct.unpack("<d", struct.pack("<Q", int(text, 16)))
            return self.constant(np.float32(number), self.node)
        if old == "i1" and text in ("true", "false") and kind in ("i64", "u64"):
            return Value(str(int(text == "true")), kind)
        if real:
            word = ("fpext" if kind == "f64" else "fptrunc") if kind in ("f32", "f64") else "fptosi"
        elif kind in ("f32", "f64"):
            word = "uitofp" if old in ("i1", "u64") else "sitofp"
        elif kind in ("i8", "i32"):
            word = "zext" if old == "i1" else "trunc"
        else:
            word = "zext" if old == "i1" else "sext"
        return Value(self.set(f"{word} {source} {text} to {target}"), kind)

    def together(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Both operands in the type that holds both; a literal takes the type of a uint64 beside it."""
        for one, other in ((a, b), (b, a)):
            if one.type == "u64" and other.type == "i64" and other.text.isdigit():
                return self.convert(a, "u64"), self.convert(b, "u64")
        kind = join(a.type, b.type)
        return self.convert(a, kind), self.convert(b, kind)

    def of_BinOp(self, node: ast.BinOp) -> Value:
        return self.arithmetic(type(node.op), self.value(node.left), self.value(node.right))

    def arithmetic(self, op: Any, a: Value, b: Value) -> Value:
        a, b = self.together(a, b)
        kind = a.type
        if kind == "i1" and op not in (ast.BitAnd, ast.BitOr, ast.BitXor):
            a, b, kind = self.convert(a, "i64"), self.convert(b, "i64"), "i64"
        if op is ast.Div:
            kind = kind if kind in ("f32", "f64") else "f64"
            a, b = self.convert(a, kind), self.convert(b, kind)
            return Value(self.set(f"fdiv {LLVM[kind]} {a.text}, {b.text}"), kind)
        if kind in ("f32", "f64"):
            if op not in (ast.Add, ast.Sub, ast.Mult):
                raise Unsupported(f"{op.__name__} of floats is not in the language")
            return Value(self.set(f"f{_ARITHMETIC[op]} {LLVM[kind]} {a.text}, {b.text}"), kind)
        if op is ast.RShift:
            return Value(self.set(f"{'lshr' if kind == 'u64' else 'ashr'} i64 {a.text}, {b.text}"), kind)
        if op in (ast.FloorDiv, ast.Mod):
            return self.divide(op, a, b)
        if op not in _ARITHMETIC:
            raise Unsupported(f"{op.__name__} is not in the language")
        return Value(self.set(f"{_ARITHMETIC[op]} {LLVM[kind]} {a.text}, {b.text}"), kind)

    def divide(self, op: Any, a: Value, b: Value) -> Value:
        """Towards minus infinity; by 0 it gives 0."""
        if a.type == "u64":
            divisor = self.set(f"call i64 @llvm.umax.i64(i64 {b.text}, i64 1)")
            self.module.declarations["declare i64 @llvm.umax.i64(i64, i64)"] = None
            return Value(self.set(f"{'udiv' if op is ast.FloorDiv else 'urem'} i64 {a.text}, {divisor}"), "u64")
        if b.text.isdigit() and int(b.text) > 0 and int(b.text) & (int(b.text) - 1) == 0:
            if op is ast.FloorDiv:
                return Value(self.set(f"ashr i64 {a.text}, {int(b.text).bit_length() - 1}"), "i64")
            return Value(self.set(f"and i64 {a.text}, {int(b.text) - 1}"), "i64")
        zero = self.set(f"icmp eq i64 {b.text}, 0")
        divisor = self.set(f"select i1 {zero}, i64 1, i64 {b.text}")
        quotient = self.set(f"sdiv i64 {a.text}, {divisor}")
        rest = self.set(f"sub i64 {a.text}, {self.set(f'mul i64 {quotient}, {divisor}')}")
        unlike = self.set(f"icmp slt i64 {self.set(f'xor i64 {rest}, {divisor}')}, 0")
        wrong = self.set(f"and i1 {unlike}, {self.set(f'icmp ne i64 {rest}, 0')}")
        if op is ast.FloorDiv:
            lower = self.set(f"sub i64 {quotient}, {self.set(f'zext i1 {wrong} to i64')}")
            return Value(self.set(f"select i1 {zero}, i64 0, i64 {lower}"), "i64")
        raised = self.set(f"add i64 {rest}, {self.set(f'select i1 {wrong}, i64 {divisor}, i64 0')}")
        return Value(self.set(f"select i1 {zero}, i64 0, i64 {raised}"), "i64")

    def of_UnaryOp(self, node: ast.UnaryOp) -> Value:
        if isinstance(node.op, ast.Not):
            return Value(self.set(f"xor i1 {self.truth(node.operand)}, true"), "i1")
        a = self.value(node.operand)
        if isinstance(node.op, ast.USub):
            if a.text.isdigit():
                return Value(f"-{a.text}" if a.text != "0" else "0", a.type)
            if a.type in ("f32", "f64"):
                return Value(self.set(f"fneg {LLVM[a.type]} {a.text}"), a.type)
            a = self.convert(a, "i64") if a.type == "i1" else a
            return Value(self.set(f"sub i64 0, {a.text}"), a.type)
        if isinstance(node.op, ast.Invert) and a.type in ("i64", "u64"):
            return Value(self.set(f"xor i64 {a.text}, -1"), a.type)
        raise self.unsupported(node, f"{type(node.op).__name__} is not in the language")

    def of_Compare(self, node: ast.Compare) -> Value:
        left, found = self.value(node.left), ""
        for op, right in zip(node.ops, map(self.value, node.comparators), strict=True):
            one = self.compare(type(op), left, right)
            found = self.set(f"and i1 {found}, {one}") if found else one
            left = right
        return Value(found, "i1")

    def compare(self, op: Any, a: Value, b: Value) -> str:
        if op not in _COMPARE:
            raise Unsupported(f"{op.__name__} is not in the language")
        a, b = self.together(a, b)
        word = _COMPARE[op]
        if a.type in ("f32", "f64"):
            return self.set(f"fcmp {'une' if word == 'ne' else 'o' + word} {LLVM[a.type]} {a.text}, {b.text}")
        sign = "" if word in ("eq", "ne") else "u" if a.type in ("u64", "i1") else "s"
        return self.set(f"icmp {sign}{word} {LLVM[a.type]} {a.text}, {b.text}")

    def of_BoolOp(self, node: ast.BoolOp) -> Value:
        """The value of the first operand that settles it, as in Python; what follows is not computed."""
        after, key = self.fresh("settled"), f".{node.lineno}.{node.col_offset}"
        slot = ""
        for i, operand in enumerate(node.values):
            value = self.value(operand)
            kind = self.types[key] = join(self.types.get(key, value.type), value.type)
            slot = slot or self.place(kind)
            self.do(f"store {LLVM[kind]} {self.convert(value, kind).text}, ptr {slot}")
            if i + 1 < len(node.values):
                onward, truth = self.fresh("more"), self.convert(value, "i1").text
                yes, no = (onward, after) if isinstance(node.op, ast.And) else (after, onward)
                self.do(f"br i1 {truth}, label %{yes}, label %{no}")
                self.label(onward)
        self.goto(after)
        self.label(after)
        return Value(self.set(f"load {LLVM[kind]}, ptr {slot}"), kind)

    def of_IfExp(self, node: ast.IfExp) -> Value:
        yes, no, after = self.fresh("yes"), self.fresh("no"), self.fresh("chosen")
        key, slot = f".{node.lineno}.{node.col_offset}", ""
        self.do(f"br i1 {self.truth(node.test)}, label %{yes}, label %{no}")
        for name, operand in ((yes, node.body), (no, node.orelse)):
            self.label(name)
            value = self.value(operand)
            kind = self.types[key] = join(self.types.get(key, value.type), value.type)
            slot = slot or self.place(kind)
            self.do(f"store {LLVM[kind]} {self.convert(value, kind).text}, ptr {slot}")
            self.goto(after)
        self.label(after)
        return Value(self.set(f"load {LLVM[kind]}, ptr {slot}"), kind)

    # ---- calls ----

    def of_Call(self, node: ast.Call) -> Value:
        if node.keywords:
            raise self.unsupported(node, "arguments go by position")
        callee = self.known(node.func)
        arguments = [self.value(a) for a in node.args]
        if isinstance(callee, Array):                # x.dtype.type(number)
            return self.convert(arguments[0], ELEMENT[callee.dtype][1])
        if isinstance(callee, Raw):
            return self.raw(callee, arguments)
        if callee is fmuladd:
            return self.multiplied_and_added(*arguments)
        if callee in (min, max):
            return functools.reduce(functools.partial(self.choose, callee), arguments)
        if callee is abs:
            return self.magnitude(*arguments)
        if callee is len and isinstance(arguments[0].type, Array):
            return Value(arguments[0].size, "i64")
        if callee in _CASTS:
            return self.convert(arguments[0], _CASTS[callee])
        if not isinstance(callee, types.FunctionType):
            raise self.unsupported(node, f"{ast.unparse(node.func)} is not in the language")
        symbol, result = self.module.function(callee, tuple(a.type for a in arguments))
        call = f"call {LLVM[result]} @{symbol}({', '.join(map(passed, arguments))})"
        if result == "void":
            self.do(call)
            return Value("", "void")
        return Value(self.set(call), result)

    def multiplied_and_added(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c; of floats rounded once, where the processor can."""
        kind = functools.reduce(join, (a.type, b.type, c.type))
        if kind not in ("f32", "f64"):
            return self.arithmetic(ast.Add, self.arithmetic(ast.Mult, a, b), c)
        real = LLVM[kind]
        name = f"llvm.fmuladd.{kind}"
        self.module.declarations[f"declare {real} @{name}({real}, {real}, {real})"] = None
        given = ", ".join(f"{real} {self.convert(value, kind).text}" for value in (a, b, c))
        return Value(self.set(f"call {real} @{name}({given})"), kind)

    def choose(self, function: Any, a: Value, b: Value) -> Value:
        """min or max of two, as Python has it: the second only if it is strictly beyond the first."""
        a, b = self.together(a, b)
        beyond = self.compare(ast.Lt if function is min else ast.Gt, b, a)
        return Value(self.set(f"select i1 {beyond}, {LLVM[a.type]} {b.text}, {LLVM[a.type]} {a.text}"), a.type)

    def magnitude(self, a: Value) -> Value:
        """abs"""
        kind = LLVM[a.type]
        if a.type in ("f32", "f64"):
            self.module.declarations[f"declare {kind} @llvm.fabs.{a.type}({kind})"] = None
            return Value(self.set(f"call {kind} @llvm.fabs.{a.type}({kind} {a.text})"), a.type)
        a = self.convert(a, "i64")
        below = self.compare(ast.Lt, a, Value("0", "i64"))
        return Value(self.set(f"select i1 {below}, i64 {self.set(f'sub i64 0, {a.text}')}, i64 {a.text}"), "i64")

    def raw(self, op: Raw, arguments: list[Value]) -> Value:
        """An operation beyond arithmetic; see `raw`."""
        if len(arguments) != len(op.arguments):
            raise Unsupported(f"{op.name} takes {len(op.arguments)} arguments")
        given = [self.convert(a, kind).text for a, kind in zip(arguments, op.arguments, strict=True)]
        if op.how == "stack":
            name = f"%{self.fresh('frame')}"
            self.entry.append(f"  {name} = alloca [{op.words} x i64], align 64")
            return Value(self.set(f"ptrtoint ptr {name} to i64"), "i64")
        if op.how == "state":
            self.module.declarations[f"@{op.name} = external global i8"] = None
            return Value(self.set(f"ptrtoint ptr @{op.name} to i64"), "i64")
        if op.how == "load":
            kind = LLVM[op.result or ""]
            return self.widened(self.set(f"load {kind}, ptr {self.set(f'inttoptr i64 {given[0]} to ptr')}"), op.result)
        if op.how == "store":
            kind = LLVM[op.arguments[1]]
            self.do(f"store {kind} {given[1]}, ptr {self.set(f'inttoptr i64 {given[0]} to ptr')}")
            return Value("", "void")
        if op.how == "atomic":
            return self.atomic(op.name, given)
        kinds = [LLVM[k] for k in op.arguments]
        result = LLVM[op.result] if op.result else "void"
        if op.how == "call":                         # of the address that comes first
            callee = self.set(f"inttoptr i64 {given[0]} to ptr")
            kinds, given = kinds[1:], given[1:]
        else:
            callee = f"@{op.name}"
            self.module.declare(op)
        call = f"call {result} {callee}({', '.join(f'{k} {v}' for k, v in zip(kinds, given, strict=True))}) nounwind"
        if result == "void":
            self.do(call)
            return Value("", "void")
        return self.widened(self.set(call), op.result)

    def atomic(self, name: str, given: list[str]) -> Value:
        """A word read or changed in one step, in one order for all threads."""
        at, words = self.set(f"inttoptr i64 {given[0]} to ptr"), ", ".join(f"i64 {v}" for v in given[1:])
        if name == "load":
            return Value(self.set(f"load atomic i64, ptr {at} seq_cst, align 8"), "i64")
        if name == "cmpxchg":
            pair = self.set(f"cmpxchg ptr {at}, {words} seq_cst seq_cst, align 8")
            done = self.set(f"extractvalue {{ i64, i1 }} {pair}, 1")
            return Value(self.set(f"zext i1 {done} to i64"), "i64")
        return Value(self.set(f"atomicrmw {name} ptr {at}, {words} seq_cst, align 8"), "i64")

    def widened(self, text: str, kind: str | None) -> Value:
        """Narrow integers become int64 at once."""
        assert kind
        return Value(self.set(f"sext {kind} {text} to i64"), "i64") if kind in ("i8", "i32") else Value(text, kind)
