"""A reduction inside a nest, as vector text, in the order that `reductions` has."""

from __future__ import annotations

from collections.abc import Sequence

from jitgrad.execute.cpu.lanes import Text, emit, register, splat
from jitgrad.execute.cpu.reductions import reduction_init
from jitgrad.ops.scalar import FLOAT32, FLOAT64, Trace
from jitgrad.plan.fuse import Member, body_of

ACCUMULATORS = 32              # lanes that a reduction adds up side by side


class Fold:
    """The accumulators of one row."""

    def __init__(self, text: Text, member: Member, lanes: int) -> None:
        self.text, self.lanes = text, lanes
        self.value = member.outs[0]
        self.dtype = member.form.outs[0].dtype
        self.trace = body_of(member.form.id)
        self.wide = FLOAT64 if self.dtype == FLOAT32 else self.dtype
        self.across: Trace = self.trace.at(self.wide, self.wide) if self.dtype == FLOAT32 else self.trace
        self.init = splat(reduction_init(member.form.prim.init, self.dtype), self.dtype)
        self.kind = f"<{lanes} x {register(self.dtype)}>"
        self.one, self.wide_one = f"<1 x {register(self.dtype)}>", f"<1 x {register(self.wide)}>"
        self.count = max(ACCUMULATORS // lanes, 1) if lanes > 1 else 1
        self.first_total = f"{self.wide_one} = {splat(reduction_init(member.form.prim.init, self.wide), self.wide)}"
        self.part = ""
        self.clear()

    def clear(self) -> None:
        self.accs: list[str | None] = [None] * self.count

    def apply(self, a: str, b: str) -> str:
        self.text.lanes = self.lanes
        return emit(self.text, self.trace, [a, b])[0]

    def folded(self, acc: str, x: str, count: int) -> str:
        """An accumulator that has met the first lanes of a vector."""
        new = self.apply(acc, x)
        if count == self.lanes:
            return new
        mask = ", ".join(f"i1 {'true' if j < count else 'false'}" for j in range(self.lanes))
        return self.text.set(f"select <{self.lanes} x i1> <{mask}>, {self.kind} {new}, {self.kind} {acc}")

    def add(self, x: str, p: int, count: int) -> None:
        """Vector p of an unrolled row."""
        at = p % self.count
        self.accs[at] = self.folded(self.accs[at] or self.init, x, count)

    def close(self, length: int) -> None:
        self.part = self.joined(self.accs, length)

    def joined(self, accs: Sequence[str | None], length: int = ACCUMULATORS) -> str:
        """The accumulators by halves: j with j + 16, 8, 4, 2, 1. One that met nothing changes no bit: left out."""
        given = list(accs)
        while len(given) > 1:
            half = len(given) // 2
            given = [a if b is None else self.apply(a or self.init, b)
                     for a, b in zip(given[:half], given[half:], strict=True)]
        (acc,) = given
        assert acc is not None
        distance = self.lanes // 2
        while distance:
            if length > distance:
                lanes = ", ".join(f"i32 {(k + distance) % self.lanes}" for k in range(self.lanes))
                acc = self.apply(acc, self.text.set(
                    f"shufflevector {self.kind} {acc}, {self.kind} {acc}, <{self.lanes} x i32> <{lanes}>"))
            distance //= 2
        if self.lanes == 1:
            return acc
        return self.text.set(f"shufflevector {self.kind} {acc}, {self.kind} poison, <1 x i32> zeroinitializer")

    def met(self, total: str, part: str, first: str | None) -> str:
        """The total of chunks and a part; where ``first`` holds, the part alone."""
        text = self.text
        text.lanes = 1
        if self.wide != self.dtype:
            part = text.set(f"fpext {self.one} {part} to {self.wide_one}")
        both = emit(text, self.across, [total, part])[0]
        return both if first is None else text.set(f"select i1 {first}, {self.wide_one} {part}, {self.wide_one} {both}")

    def narrowed(self, total: str) -> str:
        """A total in the dtype of the result."""
        if self.wide == self.dtype:
            return total
        return self.text.set(f"fptrunc {self.wide_one} {total} to {self.one}")
