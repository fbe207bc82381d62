"""Random Programs of what plans fuse: elementwise rows, broadcasts, reductions, movements that stay in order."""

from __future__ import annotations

import numpy as np

import jitgrad as jg
from jitgrad.core.aval import aval
from jitgrad.core.dtypes import CODES
from jitgrad.core.recorder import Recorder

SHAPES = [(), (1,), (5,), (16,), (3, 10), (7, 33), (2, 3, 5), (4, 1, 6), (32, 64), (5000,), (3, 4100), (130,), (2, 70),
          (1, 9), (9, 1)]
TINY = [(), (1,), (2,), (3,), (4,), (2, 2), (1, 3), (2, 1), (1, 1, 4)]
LARGE = [(300_000,), (500, 600), (40, 9000), (3, 100_000), (20_000, 7), (64, 16, 300)]
ONE = [jg.exp, jg.tanh, jg.sin, jg.square, jg.abs, lambda x: -x, lambda x: x * 0.5 + 1.0,
       lambda x: jg.where(x > 0.3, x, 0.1), lambda x: jg.log(jg.abs(x) + 1.0),
       lambda x: jg.astype(x, "float64" if x.dtype == "float32" else "float32")]
TWO = [jg.add, jg.multiply, jg.maximum, jg.subtract, lambda x, y: jg.where(x > y, x, y * 2.0)]
FOLDS = [jg.sum, jg.max, jg.mean, jg.min]


def _operands(recorder, rng, shape):
    """Values of a shape and of shapes that broadcast to it, in one dtype."""
    dtype = CODES[np.dtype("float64" if rng.random() < 0.3 else "float32")]
    partly = [tuple(n if rng.random() < 0.6 else 1 for n in shape) for _ in range(2)]
    return [recorder.input(aval(dtype, s)) for s in (shape, *partly, shape[rng.integers(len(shape) + 1):])]


def _two(rng, x, y):
    y = y if x.dtype == y.dtype else jg.astype(y, x.dtype)
    shape = jg.core.aval.broadcast_shapes(x.shape, y.shape)
    if shape is None or np.prod(shape, dtype=float) > 2e6:
        return x + 1.0
    return TWO[rng.integers(len(TWO))](x, y)


def _moved(rng, x):
    if x.ndim == 0:
        return x + 1.0
    kind = rng.integers(7)
    if kind == 0:
        return jg.reshape(x, (-1,))
    if kind == 1:
        return jg.concat([x, x[:1] * 2.0]) if x.size < 1000 else x[:]
    if kind == 2:
        return jg.flip(x, axis=int(rng.integers(x.ndim)))
    if kind == 3:
        return jg.matrix_transpose(x) if x.ndim > 1 else jg.stack([x, x]) if x.size < 1000 else x[:]
    return x[..., None] if kind < 6 and x.ndim < 8 else x[1:] if x.shape[0] > 1 else x[:]


def _folded(rng, x):
    axis = int(rng.integers(x.ndim))
    axes = tuple(range(axis, x.ndim)) if rng.random() < 0.7 else axis
    return FOLDS[rng.integers(len(FOLDS))](x, axis=axes, keepdims=bool(rng.random() < 0.7))


def random_nests(rng, rows, shapes=SHAPES):
    """A Program of so many rows at most, and a few of its values as results."""
    recorder = Recorder()
    values = _operands(recorder, rng, shapes[rng.integers(len(shapes))])
    given = len(values)
    for _ in range(rows):
        x, kind = values[rng.integers(len(values)) if rng.random() < 0.5 else -1], rng.random()
        if kind < 0.4:
            values.append(ONE[rng.integers(len(ONE))](x))
        elif kind < 0.75:
            values.append(_two(rng, x, values[rng.integers(len(values))]))
        elif kind < 0.9 and x.ndim:
            values.append(_folded(rng, x))
        else:
            values.append(_moved(rng, x))
    return recorder.program([values[rng.integers(given, len(values))] for _ in range(4)] + [values[-1]])


def arguments(program, rng):
    """Numbers of every sort: mostly around 1, some huge, tiny, infinite, zeros of both signs, NaN."""
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38, -800.0])
    made = []
    for v in program.inputs.tolist():
        a = program.aval(v)
        x = rng.normal(size=a.shape)
        if rng.random() < 0.3:
            x = np.where(rng.random(a.shape) < 0.1, rng.choice(odd, a.shape), x)
        with np.errstate(over="ignore"):
            made.append(np.asarray(x, a.dtype))
    return made
