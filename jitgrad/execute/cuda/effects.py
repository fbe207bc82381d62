"""Rows that check something: what they find is left at STATUS."""

from __future__ import annotations

import numpy as np

from jitgrad.core.form import Form
from jitgrad.core.primitive import GUARD_FAILED
from jitgrad.execute.cuda.kernel import STATUS, Work, kernel, launch, turns, width_of


def work(f: Form) -> Work:
    """The bits of both operands of a guard, compared as integers."""
    x = f.avals[0]
    if not x.size:
        return Work(())
    width = width_of(x.dtype)
    made = kernel(f"guard_{width.name}", turns(["if x[i] != expected[i]:", f"    status[0] = {GUARD_FAILED}"]),
                  (width, width, np.dtype(np.int32)), ("x", "expected", "status", "n"))
    return Work((launch(made, (0, 1, STATUS), (x.size,), x.size),))
