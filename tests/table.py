"""The table of primitives as cases for tests: which dtypes an entry takes, its samples in a dtype, its reference."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np

from jitgrad.core.aval import AVALS
from jitgrad.core.dtypes import DTYPES, NAMES
from jitgrad.core.form import form
from jitgrad.core.primitive import ACCUMULATING, FIXED, OPS, TABLE, Kind, takes
from jitgrad.core.record import tensor
from tolerance import ulps, wider

_KERNEL = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
ENTRIES = [p for p in TABLE if p.kind not in (Kind.HIGHER, Kind.EFFECT)]


def data_domains(prim):
    return [d for d in prim.domains if d not in FIXED]


def dtypes_of(prim):
    """Dtypes that the data operands of an entry take without a cast; one None where there are no data operands."""
    return [d for d in DTYPES if takes(prim, d)] if data_domains(prim) else [None]


def cases(entries, kinds=tuple(Kind), chars="bif"):
    """(entry, dtype) pairs as pytest parameters, with ids."""
    return [(p, d) for p in entries if p.kind in kinds for d in dtypes_of(p) if d is None or d.kind in chars]


def ident(value):
    return getattr(value, "name", None) or str(value)


def converted(array, dtype):
    """A sample in a dtype: integers are eighths, so that they spread."""
    if dtype is None or array.dtype == dtype:
        return array
    if dtype.kind == "i":
        return np.rint(array * 8).astype(dtype) if array.dtype.kind == "f" else array.astype(dtype)
    return array > 0 if dtype.kind == "b" else array.astype(dtype)


def operands(prim, arrays, dtype):
    domains = prim.domains if len(prim.domains) == len(arrays) else prim.domains * len(arrays)
    return [a if domain in FIXED else converted(a, dtype) for a, domain in zip(arrays, domains, strict=True)]


def samples(prim, dtype, rng):
    """An entry's samples with operands in a dtype; an elementwise entry that makes a dtype makes each of them."""
    for arrays, params in prim.samples(rng):
        if prim.kind is Kind.ELEMENTWISE and "dtype" in params:
            for name in NAMES:
                yield operands(prim, arrays, dtype), {**params, "dtype": name}
        else:
            yield operands(prim, arrays, dtype), params


def drawn(prim, dtype, rng, shapes):
    """Operands of given shapes, of numbers that occur in the entry's first sample."""
    arrays, params = prim.samples(rng)[0]
    return operands(prim, [rng.choice(a.ravel(), s) for a, s in zip(arrays, shapes, strict=True)], dtype), params


def run(prim, arrays, params):
    """The op on Tensors, as an array."""
    return OPS[prim.name](*(tensor(a) for a in arrays), **params).numpy()


def form_of(prim, arrays, params):
    return form(prim, [AVALS[tensor(a)._aval] for a in arrays], params)


def call(address, params, *arrays):
    """The kernel interface: ``i64 kernel(i64 *params, ptr *slots)``."""
    words = np.array(params, np.int64)
    slots = np.array([a.ctypes.data for a in arrays], np.uintp)
    assert _KERNEL(address)(words.ctypes.data, slots.ctypes.data) == 0


def reference(prim, arrays, params):
    """The entry's reference in a wider format."""
    with np.errstate(all="ignore"):
        return np.asarray(prim.ref(*map(wider, arrays), **params))


def error(prim, got, arrays, params):
    """The largest error of a result in ulp (integers and booleans: 0 or infinity); shapes must be those of the reference."""
    want = reference(prim, arrays, params)
    assert got.shape == want.shape, f"shape {got.shape}, the reference has {want.shape}"
    if got.dtype.kind != "f":
        return 0.0 if np.array_equal(got, want.astype(got.dtype)) else np.inf
    scale = reference(prim, [np.abs(a) if a.dtype.kind == "f" else a for a in arrays], params) \
        if prim.kind in ACCUMULATING and prim.ulp else None
    return float(ulps(got, want, scale).max(initial=0))


def check(prim, arrays, params, room=0.0):
    """The op agrees with the reference to the error that the entry states (and ``room``); its dtype is the shape rule's."""
    got = run(prim, arrays, params)
    made = prim.aval(*(AVALS[tensor(a)._aval] for a in arrays), **params)
    assert got.dtype == made.dtype and got.shape == made.shape
    found = error(prim, got, arrays, params)
    assert found <= prim.ulp + room, f"{prim.name}{params} on {arrays}: {found} ulp, states {prim.ulp}: {got}"
    return found


def points(prim, dtype):
    """All tuples of an entry's special points that exist in a dtype, as operands; nothing where it has none."""
    if not prim.at:
        return []
    limit = float(np.iinfo(dtype).max if dtype.kind == "i" else np.finfo(dtype).max if dtype.kind == "f" else np.inf)
    exist = [v for v in prim.at if (abs(v) <= limit if np.isfinite(v) else dtype.kind == "f")]
    columns = zip(*itertools.product(exist, repeat=len(prim.domains)), strict=True)
    return [np.array(c, np.float64).astype(bool if domain == "bool" else dtype)
            for c, domain in zip(columns, prim.domains, strict=True)]
