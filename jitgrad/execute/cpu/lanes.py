"""A Trace as LLVM text on explicit vectors: fast without any optimisation pass.

The number of lanes is a choice of the build and changes no bit of a result. Loads and stores are unaligned, booleans
are bytes 0/1 in memory and `<n x i1>` in registers. No instruction carries a fast-math flag: the bits are those of the
body.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from jitgrad.ops.scalar import COMPARISONS, Node, Trace

LANES = 8  # of what has no reason to be wider
_REGISTER = {np.dtype(d): t for d, t in (
    ("bool", "i1"), ("int32", "i32"), ("int64", "i64"), ("float32", "float"), ("float64", "double"))}
_FLOAT_OPS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT_OPS = {
    "add": "add", "sub": "sub", "mul": "mul", "div": "sdiv", "and": "and", "or": "or", "xor": "xor",
    "shl": "shl", "shr": "ashr", "ushr": "lshr",
}  # fmt: skip
_RARELY = ', !prof !{!"branch_weights", i32 1, i32 2000}'
_INTRINSICS = frozenset({"fmuladd", "rint", "floor", "ceil", "trunc", "sqrt", "fabs", "copysign"})


def register(dtype: np.dtype[Any]) -> str:
    """Type of one lane in a register."""
    return _REGISTER[dtype]


def stored(dtype: np.dtype[Any]) -> str:
    """Type of one element in memory."""
    return "i8" if dtype.kind == "b" else _REGISTER[dtype]


def literal(value: float, dtype: np.dtype[Any]) -> str:
    """One constant; floats as the bits of the double, exact for both widths."""
    if dtype.kind == "f":
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    if dtype.kind == "b":
        return "true" if value else "false"
    return str(int(value))


def splat(value: float, dtype: np.dtype[Any]) -> str:
    """A constant in all lanes."""
    return f"splat ({register(dtype)} {literal(value, dtype)})"


class Text:
    """Lines of one function under construction, with its declarations and constant tables."""

    def __init__(self, name: str, arguments: str = "ptr %params, ptr %slots") -> None:
        self.name, self.arguments = name, arguments
        self.lanes = LANES  # of the vectors written now
        self.lines: list[str] = []
        self.entry: list[str] = []  # allocas: they belong to the entry block
        self.declarations: dict[str, None] = {}
        self.tables: dict[str, str] = {}
        self.asides: dict[str, str] = {}  # functions that are hardly ever called: text -> name
        self.block = "entry"
        self._count = 0

    def vector(self, lane: str) -> str:
        """A vector type."""
        return f"<{self.lanes} x {lane}>"

    def fresh(self, stem: str = "v") -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def set(self, text: str, name: str | None = None) -> str:
        """`%name = text`; the name of the value."""
        name = name or self.fresh()
        self.lines.append(f"  %{name} = {text}")
        return f"%{name}"

    def do(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self.block = name

    def goto(self, name: str) -> None:
        self.do(f"br label %{name}")

    def branch(self, condition: str, yes: str, no: str, hint: str = "") -> None:
        self.do(f"br i1 {condition}, label %{yes}, label %{no}{hint}")

    def aside(self, name: str = "", arguments: str = "") -> Text:
        """The text of another function of the module, with the same lanes."""
        other = Text(name or self.name, arguments)
        other.lanes, other.declarations, other.tables, other.asides = (
            self.lanes, self.declarations, self.tables, self.asides)
        return other

    def keep_aside(self, result: str, arguments: str, aside: Text) -> str:
        """Define a function that is hardly ever called, once; its name."""
        body = "\n".join([f"({arguments}) noinline cold {{", "entry:", *aside.lines, "}"])
        return self.asides.setdefault(f"{result}\n{body}", f"{self.name}.slow{len(self.asides)}")

    def declare(self, result: str, name: str, *arguments: str) -> str:
        self.declarations[f"declare {result} @{name}({', '.join(arguments)})"] = None
        return name

    def stack(self, lane: str, count: int) -> str:
        name = self.fresh("stack")
        self.entry.append(f"  %{name} = alloca [{count} x {lane}], align 64")
        return f"%{name}"

    def table(self, values: tuple[float, ...], dtype: np.dtype[Any]) -> str:
        lane = register(dtype)
        body = ", ".join(f"{lane} {literal(v, dtype)}" for v in values)
        text = f"private unnamed_addr constant [{len(values)} x {lane}] [{body}], align 64"
        return self.tables.setdefault(text, f"@{self.name}.table{len(self.tables)}")

    def load(self, pointer: str, dtype: np.dtype[Any]) -> str:
        """As many elements as there are lanes."""
        raw = self.set(f"load {self.vector(stored(dtype))}, ptr {pointer}, align {dtype.itemsize}")
        return _unpacked(self, raw, dtype)

    def store(self, value: str, pointer: str, dtype: np.dtype[Any]) -> None:
        value = _packed(self, value, dtype)
        self.do(f"store {self.vector(stored(dtype))} {value}, ptr {pointer}, align {dtype.itemsize}")

    def broadcast(self, scalar: str, lane: str, name: str | None = None) -> str:
        kind = self.vector(lane)
        one = self.set(f"insertelement {kind} poison, {lane} {scalar}, i64 0")
        return self.set(f"shufflevector {kind} {one}, {kind} poison, <{self.lanes} x i32> zeroinitializer", name)

    def first_lanes(self, count: str, base: int = 0) -> str:
        """The mask of the lanes j with base + j < count; in 32 bits, as one 512-bit operation slows its neighbours."""
        lanes = ", ".join(f"i32 {base + j}" for j in range(self.lanes))
        limit = self.broadcast(self.set(f"trunc i64 {count} to i32"), "i32")
        return self.set(f"icmp slt {self.vector('i32')} <{lanes}>, {limit}")

    def load_some(self, pointer: str, mask: str, other: str, dtype: np.dtype[Any]) -> str:
        """Elements in memory form where the mask holds, else lanes of `other`; nothing else is touched."""
        kind, masks = self.vector(stored(dtype)), self.vector("i1")
        suffix = f"v{self.lanes}{'f' if dtype.kind == 'f' else 'i'}{8 * dtype.itemsize}.p0"
        name = self.declare(kind, f"llvm.masked.load.{suffix}", "ptr", "i32", masks, kind)
        align = f"i32 {dtype.itemsize}"
        return self.set(f"call {kind} @{name}(ptr {pointer}, {align}, {masks} {mask}, {kind} {other})")

    def store_some(self, pointer: str, mask: str, buffer: str, dtype: np.dtype[Any]) -> None:
        """Copy the elements of a buffer where the mask holds."""
        kind, masks = self.vector(stored(dtype)), self.vector("i1")
        suffix = f"v{self.lanes}{'f' if dtype.kind == 'f' else 'i'}{8 * dtype.itemsize}.p0"
        name = self.declare("void", f"llvm.masked.store.{suffix}", kind, "ptr", "i32", masks)
        value = self.set(f"load {kind}, ptr {buffer}, align 8")
        self.do(f"call void @{name}({kind} {value}, ptr {pointer}, i32 {dtype.itemsize}, {masks} {mask})")

    def fetch(self, pointer: str) -> None:
        """Let the processor fetch what may be read soon; nothing fails where nothing is."""
        self.declare("void", "llvm.prefetch.p0", "ptr", "i32", "i32", "i32")
        self.do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 3, i32 1)")

    def at(self, pointer: str, index: str, dtype: np.dtype[Any]) -> str:
        """Address of an element."""
        return self.set(f"getelementptr {stored(dtype)}, ptr {pointer}, i64 {index}")

    def copy_one(self, to: str, source: str, dtype: np.dtype[Any]) -> None:
        element = self.set(f"load {stored(dtype)}, ptr {source}, align {dtype.itemsize}")
        self.do(f"store {stored(dtype)} {element}, ptr {to}, align {dtype.itemsize}")

    def copy(self, to: str, source: str, count: str, dtype: np.dtype[Any]) -> None:
        """for j < count (> 0): to[j] = source[j]."""
        before, loop, after = self.block, self.fresh("copy"), self.fresh("copied")
        self.goto(loop)
        self.label(loop)
        j, following = f"%{loop}.j", f"%{loop}.n"
        self.do(f"{j} = phi i64 [0, %{before}], [{following}, %{loop}]")
        self.copy_one(self.at(to, j, dtype), self.at(source, j, dtype), dtype)
        self.do(f"{following} = add i64 {j}, 1")
        self.branch(self.set(f"icmp slt i64 {following}, {count}"), loop, after)
        self.label(after)

    def loop(
        self, stem: str, start: str, stop: str, step: int | str, body: Callable[..., list[str]], *carried: str
    ) -> list[str]:
        """for i in range(start, stop, step): carried = body(i, carried); each carried is "type = value"."""
        stem = self.fresh(stem + ".")
        before = self.block
        self.goto(stem)
        self.label(stem)
        i, following = f"%{stem}.i", f"%{stem}.next"
        at = len(self.lines)
        names = [f"%{stem}.c{j}" for j in range(len(carried))]
        self.branch(self.set(f"icmp slt i64 {i}, {stop}"), f"{stem}.do", f"{stem}.end")
        self.label(f"{stem}.do")
        results = body(i, *names)
        self.do(f"{following} = add i64 {i}, {step}")
        phis = [f"  {i} = phi i64 [{start}, %{before}], [{following}, %{self.block}]"]
        for name, first, result in zip(names, carried, results, strict=True):
            kind, value = first.rsplit(" = ", 1)
            phis.append(f"  {name} = phi {kind} [{value}, %{before}], [{result}, %{self.block}]")
        self.lines[at:at] = phis
        self.goto(stem)
        self.label(f"{stem}.end")
        return names

    def finish(self) -> str:
        """The whole function with what it needs, one module's worth of text."""
        tables = [f"{name} = {text}" for text, name in self.tables.items()]
        asides = []
        for text, name in self.asides.items():
            result, body = text.split("\n", 1)
            asides.append(f"define internal fastcc {result} @{name}{body}")
        return "\n".join([*tables, *asides, self.function(), *self.declarations, ""])

    def function(self, linkage: str = "") -> str:
        """The function alone."""
        head = f"define {linkage} i64 @{self.name}({self.arguments}) {{".replace("  ", " ")
        return "\n".join([head, "entry:", *self.entry, *self.lines, "}"])


def module(kernels: Iterable[str]) -> str:
    """One module from the texts of several kernels: each declaration once."""
    lines: dict[str, None] = {}
    bodies = []
    for text in kernels:
        for line in text.splitlines():
            if line.startswith("declare "):
                lines[line] = None
            else:
                bodies.append(line)
    return "\n".join([*bodies, *lines, ""])


def load_first(text: Text, pointer: str, dtype: np.dtype[Any], count: int) -> str:
    """A vector of which so many elements are in memory. The other lanes are 1, at which bodies have no slow path.

    (Repeating an element there has been compiled wrongly, by LLVM 22.)
    """
    if count == text.lanes:
        return text.load(pointer, dtype)
    lane = stored(dtype)
    some = text.set(f"load <{count} x {lane}>, ptr {pointer}, align {dtype.itemsize}")
    if dtype.kind == "b":
        some = text.set(f"icmp ne <{count} x i8> {some}, zeroinitializer")
    lanes = ", ".join(f"i32 {j if j < count else count}" for j in range(text.lanes))
    kind = f"<{count} x {register(dtype)}>"
    return text.set(f"shufflevector {kind} {some}, {kind} {splat(1, dtype)}, <{text.lanes} x i32> <{lanes}>")


def store_first(text: Text, value: str, pointer: str, dtype: np.dtype[Any], count: int) -> None:
    """So many elements of a vector to memory."""
    if count == text.lanes:
        text.store(value, pointer, dtype)
        return
    if dtype.kind == "b":
        value = text.set(f"zext {text.vector('i1')} {value} to {text.vector('i8')}")
    lanes = ", ".join(f"i32 {j}" for j in range(count))
    kind = text.vector(stored(dtype))
    some = text.set(f"shufflevector {kind} {value}, {kind} poison, <{count} x i32> <{lanes}>")
    text.do(f"store <{count} x {stored(dtype)}> {some}, ptr {pointer}, align {dtype.itemsize}")


def emit(text: Text, trace: Trace, arguments: Sequence[str]) -> list[str]:
    """Append the body for all lanes; returns the names of the results."""
    names: dict[int, str] = {}
    _nodes(text, trace, 0, len(trace.nodes), names, arguments)
    return [names[i] for i in trace.results]


def _nodes(text: Text, trace: Trace, at: int, end: int, names: dict[int, str], arguments: Sequence[str] = ()) -> None:
    """Append nodes of a body, which find and enter their values by number."""
    while at < end:
        node = trace.nodes[at]
        operands = [names[j] for j in node.operands]
        dtypes = [trace.nodes[j].dtype for j in node.operands]
        if node.op == "argument":
            names[at] = arguments[node.immediate]
        elif node.op == "const":
            names[at] = splat(node.immediate, node.dtype)
        elif node.op == "branch":
            at = _rarely(text, trace, at, names)
        elif node.op == "table":
            names[at] = _gather(text, node, operands[0], dtypes[0])
        elif node.op == "convert":
            names[at] = _convert(text, operands[0], dtypes[0], node.dtype)
        else:
            names[at] = _instruction(text, node, operands, dtypes)
        at += 1


def _instruction(text: Text, node: Node, operands: list[str], dtypes: list[np.dtype[Any]]) -> str:
    """Nodes that are one LLVM instruction."""
    op, dtype = node.op, dtypes[-1]
    real = dtype.kind == "f"
    kind = text.vector(register(dtype))
    if op in COMPARISONS:
        if real:
            predicate = "fcmp " + ("une" if op == "ne" else "o" + op)
        else:
            sign = "" if op in ("eq", "ne") else "u" if dtype.kind == "b" else "s"
            predicate = f"icmp {sign}{op}"
        return text.set(f"{predicate} {kind} {operands[0]}, {operands[1]}")
    if op == "select":
        return text.set(f"select {text.vector('i1')} {operands[0]}, {kind} {operands[1]}, {kind} {operands[2]}")
    if op == "neg":
        return text.set(f"fneg {kind} {operands[0]}" if real else f"sub {kind} zeroinitializer, {operands[0]}")
    if op == "not":
        return text.set(f"xor {kind} {operands[0]}, splat ({register(dtype)} {'true' if dtype.kind == 'b' else -1})")
    if op in ("bits", "from_bits"):
        return text.set(f"bitcast {kind} {operands[0]} to {text.vector(register(node.dtype))}")
    if op in _INTRINSICS:
        suffix = f"v{text.lanes}f{8 * dtype.itemsize}"
        name = text.declare(kind, f"llvm.{op}.{suffix}", *[kind] * len(operands))
        return text.set(f"call {kind} @{name}({', '.join(f'{kind} {x}' for x in operands)})")
    return text.set(f"{(_FLOAT_OPS if real else _INT_OPS)[op]} {kind} {operands[0]}, {operands[1]}")


def _convert(text: Text, value: str, old: np.dtype[Any], new: np.dtype[Any]) -> str:
    a, b = text.vector(register(old)), text.vector(register(new))
    if new.kind == "b":
        return text.set(f"{'fcmp une' if old.kind == 'f' else 'icmp ne'} {a} {value}, zeroinitializer")
    wider = new.itemsize > old.itemsize
    word = {
        "bi": "zext", "bf": "uitofp", "if": "sitofp", "fi": "fptosi",
        "ii": "sext" if wider else "trunc", "ff": "fpext" if wider else "fptrunc",
    }[old.kind + new.kind]  # fmt: skip
    return text.set(f"{word} {a} {value} to {b}")


def _gather(text: Text, node: Node, index: str, dtype: np.dtype[Any]) -> str:
    lane, kind, masks = register(node.dtype), text.vector(register(node.dtype)), text.vector("i1")
    constants = text.table(node.immediate, node.dtype)
    places = text.set(f"getelementptr {lane}, ptr {constants}, {text.vector(register(dtype))} {index}")
    suffix = f"v{text.lanes}{'f' if node.dtype.kind == 'f' else 'i'}{8 * node.dtype.itemsize}.v{text.lanes}p0"
    name = text.declare(kind, f"llvm.masked.gather.{suffix}", text.vector("ptr"), "i32", masks, kind)
    given = f"{text.vector('ptr')} {places}, i32 {node.dtype.itemsize}, {masks} splat (i1 true), {kind} poison"
    return text.set(f"call {kind} @{name}({given})")


def _rarely(text: Text, trace: Trace, branch: int, names: dict[int, str]) -> int:
    """A branch up to its last merge, whose number is returned: a call where any lane wants it, then choices by lane."""
    first = next(k for k in range(branch, len(trace.nodes))
                 if trace.nodes[k].op == "merge" and trace.nodes[k].immediate[0] == branch)
    merges = trace.merges(first)
    condition = names[trace.nodes[branch].operands[0]]
    mask = text.set(f"bitcast {text.vector('i1')} {condition} to i{text.lanes}")
    rare, join, before = text.fresh("slow"), text.fresh("join"), text.block
    text.branch(text.set(f"icmp ne i{text.lanes} {mask}, 0"), rare, join, _RARELY)
    text.label(rare)
    slows = _call_aside(text, trace, branch + 1, first, [m.operands[1] for m in merges], names)
    chosen = []
    for node, slow in zip(merges, slows, strict=True):
        kind, fast = text.vector(register(node.dtype)), names[node.operands[2]]
        value = text.set(f"select {text.vector('i1')} {condition}, {kind} {slow}, {kind} {fast}")
        chosen.append(f"phi {kind} [{fast}, %{before}], [{value}, %{text.block}]")
    text.goto(join)
    text.label(join)
    names.update((first + k, text.set(phi)) for k, phi in enumerate(chosen))
    return first + len(merges) - 1


def _call_aside(text: Text, trace: Trace, start: int, stop: int, wanted: Sequence[int],
                names: dict[int, str]) -> list[str]:
    """Values of nodes that are hardly ever computed, by a call of a function of their own.

    Equal ones of a module are one function, and registers are saved around the call only where it is made: code gets
    smaller, and several times sooner ready, than with these nodes in its loops.
    """
    inside = range(start, stop)
    taken = dict.fromkeys(j for k in inside for j in trace.nodes[k].operands if j not in inside)
    taken |= dict.fromkeys(j for j in wanted if j not in inside)
    given = [j for j in taken if trace.nodes[j].op != "const"]
    aside = text.aside()
    own = {j: names[j] if trace.nodes[j].op == "const" else _unpacked(aside, f"%a{k}", trace.nodes[j].dtype)
           for k, j in enumerate(taken)}
    _nodes(aside, trace, start, stop, own)
    kinds = {j: text.vector(stored(trace.nodes[j].dtype)) for j in (*given, *wanted)}
    result = "{" + ", ".join(kinds[j] for j in wanted) + "}"
    value = "poison"
    for k, j in enumerate(wanted):
        packed = _packed(aside, own[j], trace.nodes[j].dtype)
        value = aside.set(f"insertvalue {result} {value}, {kinds[j]} {packed}, {k}")
    aside.do(f"ret {result} {value}")
    order = {j: k for k, j in enumerate(taken)}
    name = text.keep_aside(result, ", ".join(f"{kinds[j]} %a{order[j]}" for j in given), aside)
    arguments = ", ".join(f"{kinds[j]} {_packed(text, names[j], trace.nodes[j].dtype)}" for j in given)
    call = text.set(f"call fastcc {result} @{name}({arguments})")
    return [_unpacked(text, text.set(f"extractvalue {result} {call}, {k}"), trace.nodes[j].dtype)
            for k, j in enumerate(wanted)]


def _packed(text: Text, value: str, dtype: np.dtype[Any]) -> str:
    """A vector as calls pass it: booleans as in memory (LLVM 22 cannot pass a vector of one bit)."""
    return value if dtype.kind != "b" else text.set(f"zext {text.vector('i1')} {value} to {text.vector('i8')}")


def _unpacked(text: Text, value: str, dtype: np.dtype[Any]) -> str:
    return value if dtype.kind != "b" else text.set(f"icmp ne {text.vector('i8')} {value}, zeroinitializer")
