"""Loops that add up a float32 array and do nothing else: how fast this machine reads memory, one thread."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from jitgrad.execute.cpu import llvm

LANES = 8
VECTORS = 16                    # read in a turn of a loop, from one place or several
BLOCK = LANES * VECTORS         # the length must be a multiple of it


def text(streams: int) -> str:
    """`void @read(ptr data, ptr out, i64 n)`: a loop over so many parts of the array at once."""
    kind, turn = f"<{LANES} x float>", LANES * VECTORS // streams
    lines = ["define void @read(ptr %data, ptr %out, i64 %n) {", "entry:", f"  %part = udiv i64 %n, {streams}",
             "  br label %loop", "loop:", "  %i = phi i64 [0, %entry], [%next, %loop]"]
    lines += [f"  %a{v} = phi {kind} [zeroinitializer, %entry], [%b{v}, %loop]" for v in range(VECTORS)]
    for v in range(VECTORS):
        stream, within = divmod(v, VECTORS // streams)
        lines += [f"  %s{v} = mul i64 %part, {stream}", f"  %j{v} = add i64 %s{v}, %i",
                  f"  %k{v} = add i64 %j{v}, {within * LANES}", f"  %p{v} = getelementptr float, ptr %data, i64 %k{v}",
                  f"  %x{v} = load {kind}, ptr %p{v}, align 4", f"  %b{v} = fadd {kind} %a{v}, %x{v}"]
    lines += [f"  %next = add i64 %i, {turn}", "  %more = icmp ult i64 %next, %part",
              "  br i1 %more, label %loop, label %end", "end:"]
    for v in range(VECTORS):
        lines += [f"  %o{v} = getelementptr float, ptr %out, i64 {v * LANES}",
                  f"  store {kind} %b{v}, ptr %o{v}, align 4"]
    return "\n".join([*lines, "  ret void", "}", ""])


def readers(address: int, n: int) -> dict[str, Callable[[], np.ndarray]]:
    """By name, loops over n float32 at an address; a call gives the sums of its accumulators."""
    assert n % BLOCK == 0 and n > 0
    found: dict[str, Callable[[], np.ndarray]] = {}
    for streams in (1, 2, 4):
        place = llvm.link(llvm.emit(text(streams)), ["read"])["read"]
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(place)
        out = np.zeros(BLOCK, np.float32)

        def call(function: Callable[..., None] = function, out: np.ndarray = out) -> np.ndarray:
            function(address, out.ctypes.data, n)
            return out
        found[f"{streams} streams" if streams > 1 else "1 stream"] = call
    return found
