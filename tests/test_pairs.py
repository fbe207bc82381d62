"""Every transform of every transform, on every differentiable entry: values and derivatives against the oracle.

An operator below takes a function of arrays, whose result is one number, to another such function: of the same numbers,
or of the derivative along a direction. So it is known what any chain of them must give: the oracle's value of the entry,
or a central difference of it, of first or second order.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.aval import AVALS
from jitgrad.core.primitive import OPS
from jitgrad.core.record import tensor
from jitgrad.core.recorder import Recorder
from jitgrad.execute import oracle
from table import ident
from test_table_gradients import RULED, float_samples
from tolerance import DIFFERENCES

STEP = 2.0**-12                # extrapolated from two steps: truncation is h^4, rounding eps/h^2, 4e-9 of the terms
ROUNDING = 1e-7
OTHER = 0.7                    # what the second example of a batch counts


class Case:
    """An entry's smallest sample at two points, and the number made of its result."""

    def __init__(self, prim, rng):
        draws = [list(float_samples(prim, rng)) for _ in range(2)]
        sizes = [sum(a.size for a in s[0]) + s[3].size for s in draws[0]]
        at = min((n, i) for i, n in enumerate(sizes) if n)[1]
        (self.arrays, self.params, self.places, self.weight), (others, *_) = (d[at] for d in draws)
        self.prim = prim
        self.points = [[a[i] for i in self.places] for a in (self.arrays, others)]
        self.ways = [[rng.choice([-1, 1], x.shape) * rng.uniform(0.5, 1, x.shape) for x in self.points[0]]
                     for _ in range(2)]
        recorder = Recorder()
        dry = [recorder.input(AVALS[tensor(a)._aval]) for a in self.arrays]
        self.program = recorder.program([OPS[prim.name](*dry, **self.params)])
        terms = np.abs(oracle.run(self.program, self.arrays)[0] * self.weight)
        self.rounding, self.known = ROUNDING * max(1.0, float(terms.sum())), {}

    def __call__(self, *xs):
        given = [tensor(a) for a in self.arrays]
        for i, x in zip(self.places, xs, strict=True):
            given[i] = x
        return jg.sum(OPS[self.prim.name](*given, **self.params) * tensor(self.weight))

    def value(self, point, *steps):
        given = list(self.arrays)
        for i, x, *ways in zip(self.places, self.points[point], *self.ways, strict=True):
            given[i] = x + sum(s * d for s, d in zip(steps, ways, strict=False))
        return float(np.sum(oracle.run(self.program, given)[0] * self.weight))

    def expected(self, order, point):
        """The derivative of an order along the first directions, by differences."""
        if (order, point) not in self.known:
            self.known[order, point] = self.differences(order, point)
        return self.known[order, point]

    def differences(self, order, point):
        def difference(h):
            ends = itertools.product((h, -h), repeat=order)
            return sum(np.prod(np.sign(s)) * self.value(point, *s) for s in ends) / (2 * h) ** order
        return difference(STEP) if not order else (4 * difference(STEP / 2) - difference(STEP)) / 3


# ---- operators: each takes a function, the case and a direction -----------------------------------

def reverse(g, case, way):
    def slope(*xs):
        found = jg.grad(g, argnums=tuple(range(len(xs))))(*xs)
        return sum(jg.sum(ct * tensor(d)) for ct, d in zip(found, way, strict=True))
    return slope


def forward(g, case, way):
    return lambda *xs: jg.jvp(g, xs, tuple(map(tensor, way)))[1]


def batch(g, case, way):
    def both(*xs):
        pairs = [jg.stack([x, tensor(y)]) for x, y in zip(xs, case.points[1], strict=True)]
        return jg.sum(jg.vmap(g)(*pairs) * tensor(np.array([1, OTHER])))
    return both


def function(g, case, way):
    f = jg.function(g)

    def replayed(*xs):
        f(*xs)
        return f(*xs)
    return replayed


def cond(g, case, way):
    return lambda *xs: jg.cond(jg.sum(xs[0]) < 1e9, g, lambda *ys: jg.sum(ys[0]) * 0.5, *xs)


def scan(g, case, way):
    def summed(*xs):
        twice = tuple(jg.stack([x, x]) for x in xs)
        return jg.scan(lambda c, x: (c + g(*x) * 0.5, None), tensor(np.float64(0)), twice)[0]
    return summed


def while_loop(g, case, way):
    def summed(*xs):
        return jg.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1], c[2] + g(*c[1]) * 0.5),
                             (0, xs, tensor(np.float64(0))))[2]
    return summed


def checkpoint(g, case, way):
    return jg.checkpoint(g)


DERIVATIVES = (reverse, forward)
OPERATORS = (reverse, forward, batch, function, cond, scan, while_loop, checkpoint)


def check(case, chain):
    """``chain``: operators, the outermost first."""
    order = sum(op in DERIVATIVES for op in chain)
    ways = iter(case.ways)
    g = case
    for op in reversed(chain):
        g = op(g, case, next(ways) if op in DERIVATIVES else None)
    got = g(*map(tensor, case.points[0]))
    assert (got.shape, got.dtype) == ((), np.dtype("float64"))
    others = 0.0               # how often the other example is in it: under a derivative it is constant
    for op in itertools.takewhile(lambda op: op not in DERIVATIVES, chain):
        others += OTHER * (1 + others) if op is batch else 0
    terms = [case.expected(order, 0), others * case.expected(order, 1)]
    np.testing.assert_allclose(float(got), sum(terms), rtol=0,
                               atol=DIFFERENCES * sum(map(abs, terms)) + case.rounding,
                               err_msg=" of ".join(op.__name__ for op in chain))


@pytest.mark.parametrize("prim", RULED, ids=ident)
def test_pairs(prim, rng):
    case = Case(prim, rng)
    for chain in itertools.product(OPERATORS, repeat=2):
        check(case, chain)
