"""Matrix products of any dtype and shape: a block for a square of the result, the operands through shared memory.

cuBLAS takes the larger products of floats; these add in the order of the inner axis, one fused chain for each element.
"""

from __future__ import annotations

import textwrap

import numpy as np

from jitgrad.core.form import Form
from jitgrad.execute.cuda.kernel import BLOCKS, Kernel, Launch, Work, kernel
from jitgrad.execute.source import WORDS, literal

SIDES = 8, 16                  # of the squares: small ones for small matrices


def work(f: Form) -> Work:
    """One launch; none for an empty result."""
    assert f.prim.words is not None
    batch, m, n, k, ta, tb = f.prim.words(*f.avals, **f.params)
    if not f.outs[0].size:
        return Work(())
    side = SIDES[max(m, n) > SIDES[0]]
    squares = batch * -(-m // side) * -(-n // side)
    made = _kernel(f.outs[0].dtype, side)
    return Work((Launch(made, (0, 1, 2), (batch, m, n, k, ta, tb), min(squares, BLOCKS), side * side),))


def _kernel(dtype: np.dtype[np.generic], side: int) -> Kernel:
    """Neighbours among the threads read neighbours in memory, whichever way an operand is given."""
    word, pitch = WORDS[dtype.name], side + 1             # so that the columns of a square lie in different banks
    one, other = f"left[r * {pitch} + q]", f"right[q * {pitch} + c]"
    term = f"fmuladd({one}, {other}, total)" if dtype.kind == "f" else f"i4(total + i4({one} * {other}))" \
        if dtype.itemsize == 4 else f"add64(total, mul64({one}, {other}))"
    lines = f"""
        left = cuda.shared.array({side * pitch}, {word})
        right = cuda.shared.array({side * pitch}, {word})
        t = i8(cuda.threadIdx.x)
        r = sdiv(t, {side})
        c = t - r * {side}
        down = sdiv(m + {side - 1}, {side})
        across = sdiv(n + {side - 1}, {side})
        square = i8(cuda.blockIdx.x)
        while square < batch * down * across:
            rest = sdiv(square, across)
            first_column = (square - rest * across) * {side}
            b = sdiv(rest, down)
            first_row = (rest - b * down) * {side}
            total = {literal(0, dtype)}
            p = i8(0)
            while p < k:
                if ta != 0:
                    if first_row + c < m and p + r < k:
                        left[c * {pitch} + r] = x[(b * k + p + r) * m + first_row + c]
                elif first_row + r < m and p + c < k:
                    left[r * {pitch} + c] = x[(b * m + first_row + r) * k + p + c]
                if tb != 0:
                    if first_column + r < n and p + c < k:
                        right[c * {pitch} + r] = y[(b * n + first_column + r) * k + p + c]
                elif first_column + c < n and p + r < k:
                    right[r * {pitch} + c] = y[(b * k + p + r) * n + first_column + c]
                cuda.syncthreads()
                stop = min(k - p, {side})
                if first_row + r < m and first_column + c < n:
                    q = i8(0)
                    while q < stop:
                        total = {term}
                        q += 1
                cuda.syncthreads()
                p += {side}
            if first_row + r < m and first_column + c < n:
                out[(b * m + first_row + r) * n + first_column + c] = total
            square += cuda.gridDim.x
    """
    return kernel(f"matmul_{dtype.name}_{side}", textwrap.dedent(lines).strip().splitlines(), (dtype,) * 3,
                  ("out", "x", "y", "batch", "m", "n", "k", "ta", "tb"))
