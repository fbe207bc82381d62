"""Checks of derivatives and values for tests, yours and ours: `check_grads` and `assert_allclose`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jitgrad.core import nest
from jitgrad.core.aval import AVALS
from jitgrad.core.dtypes import CODES, DTYPES, code_of, default_float, is_float
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.execute.cpu.types import Tensor, Variable
from jitgrad.frontend.forward import jvp
from jitgrad.frontend.tape import GradientTape, UnconnectedGradients

Floats = Sequence[np.ndarray]
Flat = Callable[[Sequence[Any]], list[Any]]              # from Tensors to Tensors
Slope = Callable[[np.ndarray], tuple[float, float]]      # along a direction: its value and the size of its terms


@dataclass(frozen=True)
class Tolerances:
    """How far numbers of one dtype may be apart."""

    values: float              # relative; two programs of some tens of rows that round differently
    derivatives: float         # relative; a derivative and its finite differences
    step: float                # of those differences


# Values: each row adds an error of about one ulp, and a badly conditioned one multiplies it by some tens: 2^-23 * 64 is
# 8e-6, 2^-52 * 64 is 1.4e-14. Derivatives: central differences at two steps, extrapolated, are off by h^4 f'''''/480
# and by rounding, some eps/h: 2e-15 f''''' and 1e-12 in float64, 2e-9 f''''' and 1e-5 in float32.
_TOLERANCES = {np.dtype("float32"): Tolerances(1e-5, 2e-3, 2.0**-5),
               np.dtype("float64"): Tolerances(2e-14, 1e-6, 2.0**-10)}
_ROUNDING = 8                  # ulps of the terms of a sum by which its differences may be off


def tolerances(dtype: Any) -> Tolerances:
    """The tolerances of `check_grads` and `assert_allclose` for a float dtype; ValueError for others.

    >>> from jitgrad.testing import tolerances
    >>> tolerances("float64").derivatives
    1e-06
    """
    found = _TOLERANCES.get(DTYPES[code_of(dtype)])
    if found is None:
        raise user_error(ValueError, f"tolerances: float32 and float64 have tolerances, {DTYPES[code_of(dtype)].name} "
                                     "is compared exactly")
    return found


def assert_allclose(got: Any, want: Any, rtol: float | None = None, atol: float | None = None) -> None:
    """Nests of numbers agree in structure, shapes and dtypes, and in values to the tolerance of their dtype.

    ``rtol`` is relative to each element (default: ``tolerances(dtype).values``), ``atol`` absolute (default: ``rtol``
    of the largest finite element, as sums lose that much). Integers and booleans must be equal; NaNs and infinities
    must stand in the same places. Raises AssertionError that names the leaf.

    >>> import jitgrad as jg
    >>> jg.testing.assert_allclose({"w": jg.constant([0.1, 0.2]) * 3}, {"w": jg.constant([0.3, 0.6])})
    """
    gots, wants = nest.named(got, "got"), nest.named(want, "want")
    if [name.partition("got")[2] for name, _ in gots] != [name.partition("want")[2] for name, _ in wants]:
        has, needs = (", ".join(name for name, _ in named) for named in (gots, wants))
        raise user_error(AssertionError, f"assert_allclose: the nests differ: {has} and {needs}")
    for (name, a), (_, b) in zip(gots, wants, strict=True):
        if a is None and b is None:
            continue
        x, y = np.asarray(a), np.asarray(b)
        if x.dtype != y.dtype or x.shape != y.shape:
            raise user_error(AssertionError, f"assert_allclose: {name} is {x.dtype}{list(x.shape)}, not "
                                             f"{y.dtype}{list(y.shape)}")
        exact = x.dtype.kind != "f"
        relative = rtol if rtol is not None else 0.0 if exact else tolerances(x.dtype).values
        largest = 0.0 if exact else float(np.abs(y[np.isfinite(y)]).max(initial=0))
        np.testing.assert_allclose(x, y, rtol=relative, atol=relative * largest if atol is None else atol, err_msg=name)


def check_grads(f: Callable[..., Any], args: Sequence[Any], order: int = 2, modes: Sequence[str] = ("fwd", "rev"),
                atol: float | None = None, rtol: float | None = None, eps: float | None = None) -> None:
    """Compare the derivatives of a function, up to an order, with central finite differences of it.

    ``f(*args)`` takes nests of arrays and returns a nest with at least one float in it; integers and booleans, and
    what is no array, are passed on as they are. In turn for each float argument, the derivative along a random
    direction, with random cotangents of the results, by `jvp` ("fwd") and by the tape ("rev"), is compared with
    differences of ``f`` at the steps ``eps`` and ``eps/2``, extrapolated (Richardson); for order k, ``f`` is the
    derivative of order k - 1, by the modes in turn, the last one first. The numbers are the same in every run.

    Defaults by the widest dtype of the float arguments, `tolerances`: in float64 ``eps`` is 2^-10 and ``rtol`` 1e-6, in
    float32 2^-5 and 2e-3, both relative to the sum of magnitudes that make the derivative. ``atol`` is by default what
    rounding of ``f`` itself does to the differences. Choose ``eps`` smaller where ``f`` bends within such a step,
    and stay away from kinks. Functions that draw random numbers must draw the same ones each time.

    Raises AssertionError that names the argument, the order, the direction and both values; ValueError where there is
    no float argument or result, or for other modes.

    >>> import jitgrad as jg
    >>> jg.testing.check_grads(lambda x, y: jg.sin(x * y), (jg.constant([0.1, 0.2]), jg.constant(2.0)), order=3)
    """
    if order < 1 or isinstance(modes, str) or not modes or any(mode not in _MODES for mode in modes):
        raise user_error(ValueError, f"check_grads: orders count from 1 and modes are some of {', '.join(_MODES)}; got "
                                     f"order={order!r}, modes={modes!r}")
    leaves, structure = nest.flatten(tuple(args))
    names = [name for name, _ in nest.named(tuple(args), "args")]
    places = [i for i, leaf in enumerate(leaves) if _is_float(leaf)]
    if not places:
        raise user_error(ValueError, f"check_grads: no argument is a float; got {', '.join(_kind(x) for x in leaves)}")
    strong = [CODES[np.dtype(leaves[i].dtype)] for i in places if type(leaves[i]) is not float]
    widest = max(strong, default=default_float())
    xs = [np.array(leaves[i], DTYPES[widest] if type(leaves[i]) is float else None) for i in places]

    def flat(points: Sequence[Any]) -> list[Any]:
        given = list(leaves)
        for i, x in zip(places, points, strict=True):
            given[i] = x
        outs, _ = nest.flatten(f(*nest.rebuild(structure, given)))
        return [out for out in outs if type(out) in (Tensor, Variable) and out.dtype.kind == "f"]

    default = tolerances(DTYPES[widest])
    check = _Check(getattr(f, "__name__", repr(f)), [names[i] for i in places],
                   default.derivatives if rtol is None else rtol, atol, default.step if eps is None else eps)
    check.run(flat, xs, order, modes)


class _Check:
    """What stays the same over the orders of one `check_grads`."""

    def __init__(self, function: str, names: list[str], rtol: float, atol: float | None, eps: float) -> None:
        self.function, self.names = function, names
        self.rtol, self.atol, self.eps = rtol, atol, eps
        self.rng = np.random.default_rng(0)

    def run(self, f: Flat, xs: Floats, orders: int, modes: Sequence[str]) -> None:
        for order in range(1, orders + 1):
            at = f([tensor(x) for x in xs])
            if not at:
                raise user_error(ValueError, f"check_grads: {self.function} returns no float Tensor")
            weights = [_direction(self.rng, out.shape, out.dtype) for out in at]
            ways = [_direction(self.rng, x.shape, x.dtype) for x in xs]
            for mode in modes:
                for place, slope in enumerate(_MODES[mode].slopes(f, xs, weights)):
                    self.compare(f, xs, place, ways[place], slope, weights, f"{order} of {self.function}", mode)
            f = _MODES[modes[-order % len(modes)]].derivative(f, weights, ways)

    def compare(self, f: Flat, xs: Floats, place: int, way: np.ndarray, slope: Slope, weights: Floats, what: str,
                mode: str) -> None:
        """The derivative along one direction of one argument."""
        errors, noise = [], 0.0
        for step in (self.eps, self.eps / 2):
            ends = []
            for sign in (1, -1):
                moved = [*xs]
                moved[place] = (xs[place] + sign * step * way).astype(xs[place].dtype)
                terms = [w.astype(np.float64) * out.numpy() for w, out in
                         zip(weights, f([tensor(x) for x in moved]), strict=True)]
                ends.append((moved[place].astype(np.float64), sum(float(t.sum()) for t in terms)))
                noise = max(noise, sum(float((np.abs(t) * np.finfo(w.dtype).eps).sum())
                                       for t, w in zip(terms, weights, strict=True)) / step)
            (high, above), (low, below) = ends
            errors.append((above - below) / (2 * step) - slope((high - low) / (2 * step))[0])
        got, scale = slope(way.astype(np.float64))
        want = got + (4 * errors[1] - errors[0]) / 3
        allowed = self.rtol * max(scale, abs(want)) + (_ROUNDING * noise if self.atol is None else self.atol)
        if not abs(got - want) <= allowed:              # NaN agrees with nothing
            x = xs[place]
            shown = np.array2string(way.ravel()[:8], precision=3, separator=", ")
            raise user_error(AssertionError, (
                f"check_grads: the derivative of order {what} in {self.names[place]} "
                f"(shape {x.shape}, {x.dtype}) along {shown}{' ...' if way.size > 8 else ''} is {got:.10g} by "
                f"{_MODES[mode].name} but {want:.10g} by central differences at eps={self.eps:g}; they may differ by "
                f"{allowed:.2g}"))


class _Reverse:
    """Derivatives by the tape: all of them for one set of cotangents."""

    name = "the tape"

    @staticmethod
    def derivative(f: Flat, weights: Floats, ways: Floats) -> Flat:
        """The function of the cotangents of all arguments."""
        def gradients(xs: Sequence[Any]) -> list[Any]:
            with GradientTape() as tape:
                tape.watch(list(xs))
                outs = f(xs)
            found: list[Any] = tape.gradient(outs, list(xs), output_gradients=[tensor(w) for w in weights],
                                             unconnected_gradients=UnconnectedGradients.ZERO)
            return found
        return gradients

    @staticmethod
    def slopes(f: Flat, xs: Floats, weights: Floats) -> list[Slope]:
        """The derivative along a direction of each argument."""
        def slope(g: np.ndarray, way: np.ndarray) -> tuple[float, float]:
            terms = g.astype(np.float64) * way
            return float(terms.sum()), float(np.abs(terms).sum())
        found = _Reverse.derivative(f, weights, ())([tensor(x) for x in xs])
        return [functools.partial(slope, g.numpy()) for g in found]


class _Forward:
    """Derivatives by forward mode: along one direction, of all results."""

    name = "jvp"

    @staticmethod
    def derivative(f: Flat, weights: Floats, ways: Floats) -> Flat:
        """The function of the tangents of all results."""
        def tangents(xs: Sequence[Any]) -> list[Any]:
            found: list[Any] = jvp(lambda *given: f(given), tuple(xs), tuple(map(tensor, ways)))[1]
            return found
        return tangents

    @staticmethod
    def slopes(f: Flat, xs: Floats, weights: Floats) -> list[Slope]:
        """The derivative along a direction of each argument."""
        def slope(place: int, way: np.ndarray) -> tuple[float, float]:
            ways = [np.zeros_like(x) for x in xs]
            ways[place] = way.astype(xs[place].dtype)
            found = _Forward.derivative(f, weights, ways)([tensor(x) for x in xs])
            terms = [w.astype(np.float64) * t.numpy() for w, t in zip(weights, found, strict=True)]
            return sum(float(t.sum()) for t in terms), sum(float(np.abs(t).sum()) for t in terms)
        return [functools.partial(slope, place) for place in range(len(xs))]


_MODES: dict[str, type[_Reverse] | type[_Forward]] = {"fwd": _Forward, "rev": _Reverse}


def _direction(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Numbers of both signs, none of them small, so that each element counts."""
    return np.asarray(rng.uniform(0.5, 1.0, shape) * rng.choice([-1.0, 1.0], shape)).astype(dtype)


def _is_float(leaf: Any) -> bool:
    if type(leaf) in (Tensor, Variable):
        return is_float(AVALS[(leaf._value if type(leaf) is Variable else leaf)._aval].code)
    return type(leaf) is float or isinstance(leaf, np.ndarray | np.generic) and leaf.dtype in _TOLERANCES


def _kind(leaf: Any) -> str:
    return str(leaf.dtype) if hasattr(leaf, "dtype") else type(leaf).__name__
