"""The error of every elementwise float entry of the table, measured: `python -m benchmarks.accuracy [NAME ...]`.

Prints the largest error found, in units of the last place, beside the one that the entry states. Arguments are of all
binades, near zeros, branch points and the entry's special points, around multiples of pi/2, huge, and of any bits
(`--count` of each sort). The entry's NumPy reference in the widest format picks out the worst arguments, and mpmath
decides about those; where there is no wide reference mpmath computes all of a smaller sample (`--exact`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mpmath
import numpy as np

import jitgrad as jg
from jitgrad.core.primitive import OPS, TABLE, Kind, Primitive

FLOATS = (np.dtype("float32"), np.dtype("float64"))
WORST = 12              # arguments that mpmath looks at again
DIGITS = 60
NAN = mpmath.mpf("nan")


class Measured(NamedTuple):
    """The largest error of an entry in a dtype, in ulp, and where it was found."""

    error: float
    at: tuple[float, ...]
    count: int


def entries() -> list[Primitive]:
    """Entries whose error in floats is to be measured, from the table; `nextafter` has no wider reference."""
    return [p for p in TABLE if p.kind is Kind.ELEMENTWISE and {*p.domains} <= {"float", "number"}
            and "dtype" not in p.params and p.ref is not np.nextafter and _result_is_float(p)]


def _result_is_float(prim: Primitive) -> bool:
    x = jg.constant(1.0)
    params = prim.samples(np.random.default_rng(0))[0][1] if prim.samples else {}
    return bool(OPS[prim.name](*[x] * len(prim.domains), **params).dtype.kind == "f")


# ---- exact values --------------------------------------------------------------------------------

def _fmod(x: Any, y: Any) -> Any:
    if not mpmath.isfinite(x) or y == 0:
        return NAN
    if mpmath.isinf(y):
        return x
    with mpmath.workdps(700):
        a, b = abs(x), abs(y)
        return mpmath.sign(x) * (a - b * mpmath.floor(a / b))


def _logaddexp(x: Any, y: Any) -> Any:
    top = max(x, y)
    return top if mpmath.isinf(top) else top + mpmath.log1p(mpmath.exp(min(x, y) - top))


EXACT: dict[str, Callable[..., Any]] = {        # what mpmath has under another name, or not at all
    "exp2": lambda x: mpmath.power(2, x), "log2": lambda x: mpmath.log(x, 2),
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)), "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "logaddexp": _logaddexp, "rsqrt": lambda x: 1 / mpmath.sqrt(x), "reciprocal": lambda x: 1 / x,
    "fmod": _fmod, "integer_power": lambda x, n: x**n, "square": lambda x: x * x,
    "add": lambda x, y: x + y, "subtract": lambda x, y: x - y, "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
}


def exact(prim: Primitive) -> Callable[..., Any] | None:
    """The entry's function in mpmath, if there is one."""
    return EXACT.get(prim.name) or getattr(mpmath, prim.name, None)


def exact_error(prim: Primitive, got: Any, arguments: tuple[Any, ...], params: dict[str, Any]) -> float | None:
    """The error of one result in ulp by mpmath; None where that has no finite real value."""
    function = exact(prim)
    if function is None or not np.isfinite(got) or not np.isfinite(arguments).all():
        return None
    with mpmath.workdps(DIGITS):
        try:
            want = function(*[mpmath.mpf(float(a)) for a in arguments], **params)
        except (ValueError, ZeroDivisionError, OverflowError):
            return None
        if isinstance(want, mpmath.mpc) or not mpmath.isfinite(want):
            return None
        scale = max([abs(want), *map(abs, map(float, arguments))]) if prim.cancels else abs(want)
        info = np.finfo(got.dtype)
        binade = max(int(mpmath.frexp(scale)[1]) - 1, int(info.minexp))
        return float(abs(mpmath.mpf(float(got)) - want) / mpmath.ldexp(1, binade - int(info.nmant)))


# ---- arguments -----------------------------------------------------------------------------------

def arguments(prim: Primitive, dtype: np.dtype[Any], rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """One array per operand: sorts of arguments, each `count` long, met in every combination of two sorts or so."""
    operands = len(prim.domains)
    if operands == 1:
        return [np.concatenate(list(_sorts(prim, dtype, rng, count)))]
    columns: list[list[np.ndarray]] = [[] for _ in range(operands)]
    for first in _sorts(prim, dtype, rng, count // 4):
        for other in _sorts(prim, dtype, rng, count // 4):
            n = min(len(first), len(other))
            for column, values in zip(columns, (first, other, first), strict=False):
                column.append(values[:n] if column is not columns[0] else rng.permutation(values)[:n])
    near = rng.uniform(0.5, 2, count)                         # operands that almost agree
    for column in columns:
        column.append((near * (1 + rng.normal(size=count) * 2.0 ** rng.integers(-50, 1, count))).astype(dtype))
    return [np.concatenate(column) for column in columns]


def _sorts(prim: Primitive, dtype: np.dtype[Any], rng: np.random.Generator, count: int) -> Iterator[np.ndarray]:
    info, word = np.finfo(dtype), np.dtype(f"i{dtype.itemsize}")
    sign = rng.choice([-1.0, 1.0], count)
    with np.errstate(all="ignore"):
        for width in (1.0, 4.0, 20.0, 120.0, 800.0):
            yield rng.uniform(-width, width, count).astype(dtype)
        yield (sign * 2.0 ** rng.uniform(-40, 40, count)).astype(dtype)
        yield (sign * np.exp2(rng.uniform(int(info.minexp) - int(info.nmant), int(info.maxexp), count))).astype(dtype)
        yield rng.integers(np.iinfo(word).min, np.iinfo(word).max, count, dtype=word).view(dtype)
        turns = np.rint(2.0 ** rng.uniform(0, 60, count)) * (np.pi / 2)
        yield _around((sign * turns).astype(dtype), rng)
        finite = [v for v in (*prim.at, 0.5, 1.0, 2.0) if np.isfinite(v)]
        yield _around(rng.choice(finite, count).astype(dtype), rng)
        yield (rng.choice(finite, count) * (1 + sign * 2.0 ** rng.uniform(-52, 0, count))).astype(dtype)
        yield np.array([*prim.at, np.inf, -np.inf, np.nan, 0.0, -0.0, info.max, -info.max, info.tiny,
                        info.smallest_subnormal, -info.smallest_subnormal], np.float64).astype(dtype)


def _around(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Neighbours of numbers, up to eight steps away."""
    return values + np.spacing(values) * rng.integers(-8, 9, values.shape).astype(values.dtype)


# ---- measuring -----------------------------------------------------------------------------------

def measure(prim: Primitive, dtype: np.dtype[Any], count: int, exactly: int, seed: int = 0) -> Measured:
    """The largest error over `count` arguments of each sort; `exactly` as many where only mpmath can tell."""
    rng = np.random.default_rng([seed, prim.code])
    found = [_measure(prim, dtype, count, exactly, params, rng)
             for params in ([p for _, p in prim.samples(rng)] if prim.params and prim.samples else [{}])]
    return max(found)


def _measure(prim: Primitive, dtype: np.dtype[Any], count: int, exactly: int, params: dict[str, Any],
             rng: np.random.Generator) -> Measured:
    wide = np.finfo(np.longdouble).nmant > 60 and _has_wide_reference(prim) or dtype == np.float32
    xs = arguments(prim, dtype, rng, count if wide else exactly)
    got = OPS[prim.name](*map(jg.asarray, xs), **params).numpy()
    if not wide:
        errors = np.array([exact_error(prim, g, a, params) or 0.0 for g, *a in zip(got, *xs, strict=True)])
        screen = _screen(prim, got, xs, params)
        errors = np.where(np.isinf(screen), screen, errors)        # special values are right in any reference
        worst = int(errors.argmax())
        return Measured(float(errors[worst]), tuple(float(x[worst]) for x in xs), len(got))
    screen = _screen(prim, got, xs, params)
    best = Measured(0.0, (), len(got))
    for i in np.argsort(screen)[::-1][:WORST]:
        at = tuple(x[i] for x in xs)
        looked = None if np.isinf(screen[i]) else exact_error(prim, got[i], at, params)
        error = float(screen[i]) if looked is None else looked
        best = max(best, Measured(error, tuple(map(float, at)), len(got)))
    return best


def _has_wide_reference(prim: Primitive) -> bool:
    half = [np.full(1, 0.5, np.longdouble)] * len(prim.domains)
    with np.errstate(all="ignore"):
        return bool(np.asarray(prim.ref(*half, **_params(prim))).dtype == np.longdouble)


def _params(prim: Primitive) -> dict[str, Any]:
    params: dict[str, Any] = prim.samples(np.random.default_rng(0))[0][1] if prim.samples else {}
    return params


def _screen(prim: Primitive, got: np.ndarray, xs: list[np.ndarray], params: dict[str, Any]) -> np.ndarray:
    """Errors in ulp against the reference; infinite where special values or the signs of zeros differ."""
    with np.errstate(all="ignore"):
        want = np.asarray(prim.ref(*[x.astype(np.longdouble) for x in xs], **params))
        rounded = want.astype(got.dtype)
        scale = np.abs(rounded)
        if prim.cancels:
            scale = np.maximum(scale, np.max(np.where(np.isfinite(xs), np.abs(xs), 0), axis=0))
        errors = np.abs(got.astype(want.dtype) - want) / np.spacing(scale).astype(want.dtype)
        same = (got == rounded) | np.isnan(got) & np.isnan(rounded)
        special = ~np.isfinite(rounded) | ~np.isfinite(got)
        flipped = (got == 0) & (want == 0) & (np.signbit(got) != np.signbit(want))
    return np.where(special, np.where(same, 0, np.inf), np.where(flipped, np.inf, errors)).astype(np.float64)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="entries (all)")
    parser.add_argument("--count", type=int, default=100_000, help="arguments of each of twelve sorts")
    parser.add_argument("--exact", type=int, default=3_000, help="of each sort, where mpmath computes all of them")
    given = parser.parse_args()
    print(f"{'entry':16}{'stated':>8}{'float32':>10}{'float64':>10}   worst arguments")
    for prim in entries():
        if given.names and prim.name not in given.names:
            continue
        found = [measure(prim, dtype, given.count, given.exact) for dtype in FLOATS]
        where = "; ".join(", ".join(f"{v:.9g}" for v in m.at) for m in found)
        print(f"{prim.name:16}{prim.ulp:8.2f}{found[0].error:10.3f}{found[1].error:10.3f}   {where}", flush=True)


if __name__ == "__main__":
    main()
