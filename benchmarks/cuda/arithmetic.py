"""How long a card has to compute for the expression: an estimate from the instructions of its kernel's PTX."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

import jitgrad as jg
from benchmarks.engine.use_jitgrad import written
from jitgrad.execute.cuda import toolkit
from jitgrad.execute.cuda.kernel import Kernel, Launch
from jitgrad.execute.cuda.plans import actions_of

_JUMP = re.compile(r"\bbra(?:\.uni)?\s+(\$\w+);")
_INSTRUCTION = re.compile(r"(@!?%p\d+\s+)?[a-z][\w.]*(\s.*)?;")
LANES = 128                     # instructions that a multiprocessor begins at each clock: 4 warps of 32 threads
DIVISION = 10                   # that a division rounded to nearest is made of, about


class Arithmetic(NamedTuple):
    """Instructions an element, and what the card begins in a microsecond."""

    instructions: int
    rate: float

    def limit(self, points: int) -> float:
        """Microseconds for so many elements."""
        return points * self.instructions / self.rate

    def sentence(self) -> str:
        """What it is an estimate of."""
        return (f"{self.instructions} instructions an element (of branches the shorter way; {DIVISION} for a division, "
                "none for constants)")



def instructions(text: str) -> int:
    """Of a kernel's longest innermost loop, once around, by the shortest way."""
    lines = [line.strip() for line in text.splitlines()]
    labels = {line[:-1]: k for k, line in enumerate(lines) if re.fullmatch(r"\$\w+:", line)}
    jumps = {k: labels[found[1]] for k, line in enumerate(lines) if (found := _JUMP.search(line))}
    loops = [(to, k) for k, to in jumps.items() if to < k]
    return max((_around(lines, jumps, *loop) for loop in loops
                if not any(loop[0] <= first and last <= loop[1] and (first, last) != loop for first, last in loops)),
               default=0)


def _around(lines: list[str], jumps: dict[int, int], first: int, last: int) -> int:
    reached = {first: 0}
    for k in range(first, last):
        if k not in reached:
            continue
        count = reached[k] + _cost(lines[k])
        ways = [jumps[k]] if k in jumps else []
        if k not in jumps or lines[k].startswith("@"):
            ways.append(k + 1)
        for to in ways:
            if k < to <= last:
                reached[to] = min(count, reached.get(to, count))
    return reached[last] + 1


def _cost(line: str) -> int:
    """Constants and casts of bits are operands of others in machine code."""
    return 0 if line.startswith("mov.") else DIVISION if line.startswith("div.rn") else bool(_INSTRUCTION.match(line))


def kernels(points: int) -> list[Kernel]:
    """Of value and gradient of the expression."""
    f = jg.function(jg.value_and_grad(written))
    x = jg.asarray(np.zeros(min(points, 1 << 16), np.float32))
    actions = actions_of(f.program(x)).actions
    return [launch.kernel for action in actions for launch in action.launches if isinstance(launch, Launch)]


def counted(points: int) -> Arithmetic:
    """For the card that is here."""
    facts = toolkit.core().Device(0).properties
    rate = facts.multiprocessor_count * LANES * facts.clock_rate / 1e3
    return Arithmetic(max(instructions(kernel.ptx()) for kernel in kernels(points)), rate)
