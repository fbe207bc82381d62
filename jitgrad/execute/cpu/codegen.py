"""Elementwise kernels as vector text.

Every kernel is `define i64 @NAME(ptr %params, ptr %slots)`: `params` are int64 words, `slots` pointers, outputs
first; it returns 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jitgrad.execute.cpu import llvm
from jitgrad.execute.cpu.lanes import LANES, Text, emit, module, stored
from jitgrad.ops.scalar import Trace

__all__ = ["elementwise_ir", "module", "width"]

WIDE = 16  # lanes of a long float32 body where registers have 512 bits
LONG_BODY = 12  # nodes; a shorter body waits for memory anyway
SHORT_BODY = 8  # nodes; a body up to here is there once more for a single element
MANY = 256  # elements from which on wide vectors are used: one 512-bit operation slows its neighbours in small calls


def width(trace: Trace) -> int:
    """The lanes to build an elementwise body with; any number gives the same bits."""
    always, branches = [], 0
    for node in trace.nodes:
        branches += (node.op == "branch") - (node.op == "merge" and node.immediate[1] == 0)
        if not branches:
            always.append(node)
    long = sum(node.op not in ("const", "argument") for node in always) >= LONG_BODY
    narrow = all(node.dtype.itemsize <= 4 for node in always)
    return WIDE if long and narrow and llvm.has_feature("avx512f") else LANES


def elementwise_ir(name: str, trace: Trace, lanes: int | None = None) -> str:
    """Text of the kernel `name` that maps the body over n elements: one loop, entered once more for the last few, and
    before it one of wider vectors where there are many elements and that is faster.

    params = [n, step_0, ..., step_k-1]: step 1 walks the operand, step 0 holds its one value. slots = outputs,
    operands. An output may be exactly the memory of an operand, since a vector is loaded whole before one is stored.
    """
    text = Text(name)
    wide = lanes or width(trace)
    outputs = [f"%o{j}" for j in range(len(trace.results))]
    operands = [f"%a{k}" for k in range(len(trace.arguments))]
    _given(text, trace, outputs, operands, ".all" if wide > LANES else "")
    if wide > LANES:
        _wide_loop(text, trace, outputs, operands, wide)
    elif len(trace.nodes) <= SHORT_BODY:
        _one(text, trace, outputs, operands)
    buffers = [text.stack(stored(dtype), LANES) for dtype in (*trace.dtypes, *trace.arguments)]
    targets, sources = buffers[: len(outputs)], buffers[len(outputs) :]

    text.branch(text.set("icmp sgt i64 %n, 0"), "start", "exit")
    text.label("start")
    for k, dtype in enumerate(trace.arguments):
        _source(text, k, operands[k], dtype, sources[k])
    text.set(f"and i64 %n, {-LANES}", "whole")
    text.set("sub i64 %n, %whole", "rest")
    text.set(f"sdiv exact i64 %whole, {LANES}", "rounds")
    text.branch(text.set("icmp ne i64 %whole, 0"), "loop", "short")
    text.label("short")  # n < 8; the buffers hold the first element already, all there is when n = 1
    text.branch(text.set("icmp eq i64 %n, 1"), "ready", "tail")
    text.label("tail")
    mask = text.first_lanes("%rest")
    for k, dtype in enumerate(trace.arguments):
        walks = text.set(f"select i1 %fixed{k}, {text.vector('i1')} zeroinitializer, {text.vector('i1')} {mask}")
        place = text.at(operands[k], text.set(f"mul i64 %whole, %step{k}"), dtype)
        last = text.load_some(place, walks, f"%first{k}", dtype)
        text.do(f"store {text.vector(stored(dtype))} {last}, ptr {sources[k]}, align 8")
    text.goto("ready")
    text.label("ready")
    text.goto("loop")

    text.label("loop")
    walk = [(f"%po{j}", o, targets[j]) for j, o in enumerate(outputs)]
    walk += [(f"%pa{k}", f"%from{k}", sources[k]) for k in range(len(operands))]
    at = len(text.lines)  # the phis need the last block of the body, known after it
    results = emit(text, trace, [text.load(f"%pa{k}", dtype) for k, dtype in enumerate(trace.arguments)])
    for j, dtype in enumerate(trace.dtypes):
        text.store(results[j], f"%po{j}", dtype)
    for j, dtype in enumerate(trace.dtypes):
        text.set(f"getelementptr i8, ptr %po{j}, i64 {LANES * dtype.itemsize}", f"po{j}.next")
    for k in range(len(operands)):
        text.set(f"getelementptr i8, ptr %pa{k}, i64 %stride{k}", f"pa{k}.next")
    text.set("sub i64 %left, 1", "left.next")
    last = text.block
    text.branch(text.set("icmp ne i64 %left.next, 0"), "loop", "done")
    phis = [f"  %left = phi i64 [%rounds, %start], [%left.next, %{last}], [1, %ready]"]
    phis += [f"  %ending = phi i1 [false, %start], [%ending, %{last}], [true, %ready]"]
    phis += [f"  {p} = phi ptr [{first}, %start], [{p}.next, %{last}], [{buffer}, %ready]" for p, first, buffer in walk]
    text.lines[at:at] = phis

    text.label("done")
    text.branch("%ending", "flush", "more")
    text.label("more")
    text.branch(text.set("icmp eq i64 %rest, 0"), "exit", "tail")
    text.label("flush")
    text.branch(text.set("icmp eq i64 %rest, 1"), "single", "several")
    text.label("single")  # a masked store would not forward to the load of the next kernel
    for j, dtype in enumerate(trace.dtypes):
        text.copy_one(text.at(outputs[j], "%whole", dtype), targets[j], dtype)
    text.goto("exit")
    text.label("several")
    mask = text.first_lanes("%rest")
    for j, dtype in enumerate(trace.dtypes):
        text.store_some(text.at(outputs[j], "%whole", dtype), mask, targets[j], dtype)
    text.goto("exit")
    text.label("exit")
    text.do("ret i64 0")
    return text.finish()


def _one(text: Text, trace: Trace, outputs: list[str], operands: list[str]) -> None:
    """A single element goes through no buffers: numbers by the row are what small programs consist of."""
    text.branch(text.set("icmp eq i64 %n, 1"), "one", "many")
    text.label("one")
    given = []
    for a, dtype in zip(operands, trace.arguments, strict=True):
        first = text.set(f"load {stored(dtype)}, ptr {a}, align {dtype.itemsize}")
        vector = text.broadcast(first, stored(dtype))
        truth = dtype.kind == "b"
        given.append(text.set(f"icmp ne {text.vector('i8')} {vector}, zeroinitializer") if truth else vector)
    for value, o, dtype in zip(emit(text, trace, given), outputs, trace.dtypes, strict=True):
        kind = text.vector(stored(dtype))
        if dtype.kind == "b":
            value = text.set(f"zext {text.vector('i1')} {value} to {kind}")
        element = text.set(f"extractelement {kind} {value}, i64 0")
        text.do(f"store {stored(dtype)} {element}, ptr {o}, align {dtype.itemsize}")
    text.goto("exit")
    text.label("many")


def _given(text: Text, trace: Trace, outputs: list[str], operands: list[str], suffix: str) -> None:
    """Read the params and slots; the suffix is of the names of what a wide loop would advance."""
    text.set("load i64, ptr %params, align 8", "n" + suffix)
    for j, pointer in enumerate([*outputs, *operands]):
        slot = text.set(f"getelementptr ptr, ptr %slots, i64 {j}")
        text.set(f"load ptr, ptr {slot}, align 8", pointer[1:] + suffix)
    for k in range(len(trace.arguments)):
        word = text.set(f"getelementptr i64, ptr %params, i64 {1 + k}")
        text.set(f"load i64, ptr {word}, align 8", f"step{k}")


def _source(text: Text, k: int, operand: str, dtype: np.dtype[Any], buffer: str, stem: str = "") -> None:
    """Where operand k is read, %from (step 0: a buffer full of its first value), and the %stride between vectors."""
    lane = stored(dtype)
    first = text.set(f"load {lane}, ptr {operand}, align {dtype.itemsize}")
    text.broadcast(first, lane, f"{stem}first{k}")
    text.do(f"store {text.vector(lane)} %{stem}first{k}, ptr {buffer}, align 8")
    text.set(f"icmp eq i64 %step{k}, 0", f"{stem}fixed{k}")
    text.set(f"select i1 %{stem}fixed{k}, ptr {buffer}, ptr {operand}", f"{stem}from{k}")
    text.set(f"mul i64 %step{k}, {text.lanes * dtype.itemsize}", f"{stem}stride{k}")


def _wide_loop(text: Text, trace: Trace, outputs: list[str], operands: list[str], lanes: int) -> None:
    """Whole vectors of so many lanes; names %n and the pointers of what they leave."""
    before, text.lanes = text.block, lanes
    text.branch(text.set(f"icmp sge i64 %n.all, {MANY}"), "wide", "narrow")
    text.label("wide")
    text.set(f"and i64 %n.all, {-lanes}", "wide.whole")
    for k, dtype in enumerate(trace.arguments):
        _source(text, k, f"{operands[k]}.all", dtype, text.stack(stored(dtype), lanes), "wide.")
    walk = [(o, f"{o}.all", str(lanes * dtype.itemsize)) for o, dtype in zip(outputs, trace.dtypes, strict=True)]
    walk += [(a, f"%wide.from{k}", f"%wide.stride{k}") for k, a in enumerate(operands)]
    text.goto("wide.loop")
    text.label("wide.loop")
    at = len(text.lines)
    loaded = [text.load(f"{a}.at", dtype) for a, dtype in zip(operands, trace.arguments, strict=True)]
    for result, o, dtype in zip(emit(text, trace, loaded), outputs, trace.dtypes, strict=True):
        text.store(result, f"{o}.at", dtype)
    for pointer, _, stride in walk:
        text.set(f"getelementptr i8, ptr {pointer}.at, i64 {stride}", f"{pointer[1:]}.on")
    text.set(f"sub i64 %wide.left, {lanes}", "wide.rest")
    last = text.block
    phis = [f"  {p}.at = phi ptr [{first}, %wide], [{p}.on, %{last}]" for p, first, _ in walk]
    text.lines[at:at] = [f"  %wide.left = phi i64 [%wide.whole, %wide], [%wide.rest, %{last}]", *phis]
    text.branch(text.set("icmp ne i64 %wide.rest, 0"), "wide.loop", "wide.end")
    text.label("wide.end")
    for k, a in enumerate(operands):
        text.set(f"select i1 %wide.fixed{k}, ptr {a}.all, ptr {a}.on", f"{a[1:]}.end")
    text.set("sub i64 %n.all, %wide.whole", "n.end")
    text.goto("narrow")
    text.label("narrow")
    text.lanes = LANES
    text.set(f"phi i64 [%n.all, %{before}], [%n.end, %wide.end]", "n")
    for pointers, end in ((outputs, "on"), (operands, "end")):
        for p in pointers:
            text.set(f"phi ptr [{p}.all, %{before}], [{p}.{end}, %wide.end]", p[1:])
