"""Random Programs over the entries of the table."""

from __future__ import annotations

import numpy as np

import jitgrad as jg
from jitgrad.core.aval import aval
from jitgrad.core.dtypes import CODES
from jitgrad.core.primitive import OPS, Kind
from jitgrad.core.record import tensor
from jitgrad.core.recorder import Recorder
from table import ENTRIES, data_domains

FLOAT = CODES[np.dtype("float64")]


def _cuts(prim):
    """Whether an entry stops gradients though its results move with its operands: differences look through it."""
    if prim.vjp is not None:
        return False
    arrays, params = prim.samples(np.random.default_rng(0))[-1]
    moved = [a + 1e-9 if a.dtype.kind == "f" else a for a in arrays]
    one, other = (np.asarray(prim.ref(*given, **params)) for given in (arrays, moved))
    return one.dtype.kind == "f" and not np.array_equal(one, other, equal_nan=True)


USABLE = [p for p in ENTRIES if data_domains(p) and not {"logical", "integer"} & {*p.domains} and not _cuts(p)]


def fitted(x, shape):
    """Any value as one of a shape, all its elements still counting."""
    if x.shape == shape:
        return x
    if x.ndim == len(shape) and all(n in (1, m) for n, m in zip(x.shape, shape, strict=True)):
        return jg.broadcast_to(x, shape)
    return jg.broadcast_to(jg.mean(x), shape)


def tamed(x, array):
    """Within the middle half of the sample's numbers, where the entry is well conditioned."""
    low, high = (float(np.quantile(array, q)) for q in (0.25, 0.75)) if array.size else (0.5, 1.5)
    return (low + high) / 2 + (high - low) / 2 * jg.tanh(0.3 * x) if x.dtype.kind == "f" else x


def random_rows(rng, values, rows):
    """Record so many entries drawn at random, on these values and on what the rows before made."""
    values = list(values)
    for _ in range(rows):
        prim = USABLE[rng.integers(len(USABLE))]
        arrays, params = prim.samples(rng)[-1]
        generic = prim.kind is Kind.ELEMENTWISE
        operands = []
        for array, domain in zip(arrays, prim.domains, strict=True):
            x = values[rng.integers(len(values))]
            if domain == "index":
                operands.append(tensor(array))
                continue
            if not generic:
                x = fitted(x, np.shape(array))
            elif operands and jg.core.aval.broadcast_shapes(*(o.shape for o in operands), x.shape) is None:
                x = jg.mean(x)
            operands.append(x > 1.0 if domain == "bool" else tamed(x, array))
        made = OPS[prim.name](*operands, **params)
        if made.dtype.kind == "f" and made.size:
            values.append(made if made.dtype == "float64" else jg.astype(made, "float64"))
    return values


def random_program(rng, rows, inputs=3):
    """A Program in float64 over entries drawn at random; its results are the last values and a sum over all."""
    recorder = Recorder()
    shapes = [(), (3,), (2, 3), (4, 1, 3)]
    values = [recorder.input(aval(FLOAT, shapes[rng.integers(len(shapes))])) for _ in range(inputs)]
    values = random_rows(rng, values, rows)
    total = values[0] * 0.0
    for x in values:
        total = total + jg.mean(x * x)
    return recorder.program([values[-1], jg.sum(total)])


def random_body(rng, given, results, rows):
    """A Program in float64 between given shapes, whose results are tame however often it runs on them."""
    recorder = Recorder()
    values = random_rows(rng, [recorder.input(aval(FLOAT, shape)) for shape in given], rows)
    return recorder.program([1.0 + 0.4 * jg.tanh(fitted(values[-1 - i % len(values)], shape) - 1.0)
                             for i, shape in enumerate(results)])


def arguments(program, rng):
    """Arrays for a Program's inputs: positive and away from kinks."""
    return [rng.uniform(0.5, 1.5, program.aval(v).shape) for v in program.inputs.tolist()]


def recorded(f, *shapes, dtype="float64"):
    """A function of Tensors as a Program; of one dtype, or of one each."""
    recorder = Recorder()
    dtypes = [dtype] * len(shapes) if isinstance(dtype, str) else dtype
    out = f(*(recorder.input(aval(CODES[np.dtype(d)], shape)) for d, shape in zip(dtypes, shapes, strict=True)))
    return recorder.program(out if isinstance(out, (tuple, list)) else [out])


def shapes_of(program):
    return [program.aval(v).shape for v in program.inputs.tolist()]


def names(program):
    return [made.prim.name for made, _, _ in program.rows()]


def tensors(arrays):
    return [jg.asarray(a) for a in arrays]
