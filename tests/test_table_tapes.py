"""Every differentiable entry through two nested tapes, with operands of one dtype and of several: the value and the
derivatives of both orders are those of Programs made of operands promoted first."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.aval import AVALS
from jitgrad.core.primitive import FIXED, OPS, Missing
from jitgrad.core.record import tensor
from jitgrad.core.recorder import Recorder
from jitgrad.execute import oracle
from jitgrad.testing import tolerances
from jitgrad.transform.vjp import vjp
from table import ENTRIES, converted, data_domains, dtypes_of

NARROW, WIDE, SMALL, LONG = (np.dtype(n) for n in ("float32", "float64", "int32", "int64"))
PAIRS = [(NARROW, WIDE), (WIDE, NARROW), (SMALL, WIDE), (WIDE, LONG), (NARROW, LONG)]


def mixes(prim):
    """Dtypes of the data operands, one tuple per case."""
    count = len(data_domains(prim))
    mixed = [tuple(itertools.islice(itertools.cycle(pair), count)) for pair in PAIRS] if count > 1 else []
    return [(NARROW,) * count, (WIDE,) * count, *mixed]


CASES = [(p, mix) for p in ENTRIES
         if p.vjp is not None and not isinstance(p.vjp, Missing) and WIDE in dtypes_of(p) for mix in mixes(p)]


def ident(value):
    return getattr(value, "name", None) or "-".join(d.name for d in value)


def given(prim, arrays, mix):
    """The sample's arrays, the data operands in the dtypes of the mix."""
    dtypes = iter(mix)
    domains = prim.domains if len(prim.domains) == len(arrays) else prim.domains * len(arrays)
    return [np.asarray(a) if d in FIXED else converted(np.asarray(a), next(dtypes, mix[-1]))
            for a, d in zip(arrays, domains, strict=True)]


def by_tapes(prim, arrays, params, weight, directions):
    """Value, gradients, gradients of <gradients, directions>; None where there is none."""
    xs = [tensor(a) for a in arrays]
    places = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    sources = [xs[i] for i in places]
    with jg.GradientTape() as outer:
        outer.watch(sources)
        with jg.GradientTape() as inner:
            inner.watch(sources)
            y = OPS[prim.name](*xs, **params)
        first = inner.gradient(y, sources, output_gradients=tensor(weight.astype(y.dtype)))
        total = sum(jg.sum(g * tensor(directions[i].astype(g.dtype)))
                    for i, g in zip(places, first, strict=True) if g is not None)
    second = outer.gradient(total, sources) if isinstance(total, jg.Tensor) else [None] * len(sources)
    return y.numpy(), dict(zip(places, first, strict=True)), dict(zip(places, second, strict=True))


def by_programs(prim, arrays, params, places, weight, directions):
    """The same of operands of one dtype, by vjp of the entry and vjp of that, run by the oracle."""
    recorder = Recorder()
    xs = [recorder.input(AVALS[tensor(a)._aval]) for a in arrays]
    program = recorder.program([OPS[prim.name](*xs, **params)])
    (value,) = oracle.run(program, arrays)
    weight = weight.astype(value.dtype)
    back = vjp(program, places)
    first = dict(zip(places, oracle.run(back, [*arrays, weight]), strict=True))
    live = [directions[i].astype(g.dtype) for i, g in first.items() if g is not None]
    if not live:
        return value, first, dict.fromkeys(places)
    second = oracle.run(vjp(back, places), [*arrays, weight, *live])
    return value, first, dict(zip(places, second, strict=True))


@pytest.mark.parametrize("prim, mix", CASES, ids=ident)
def test_two_tapes_and_mixed_dtypes(prim, mix, rng):
    common = np.result_type(*(d for d in mix if d.kind == "f"))
    rtol = tolerances(NARROW if NARROW in mix else WIDE).values
    for arrays, params in prim.samples(rng)[:2]:
        mixed = given(prim, arrays, mix)
        promoted = [a.astype(common) if a.dtype.kind in "fi" and d not in FIXED else a
                    for a, d in zip(mixed, prim.domains * len(mixed), strict=False)]
        if "dtype" in params:
            params = {**params, "dtype": WIDE.name}
        places = [i for i, a in enumerate(mixed) if a.dtype.kind == "f"]
        shape = np.shape(OPS[prim.name](*map(tensor, promoted), **params).numpy())
        weight = rng.normal(size=shape)
        directions = {i: rng.normal(size=mixed[i].shape) for i in places}
        value, first, second = by_tapes(prim, mixed, params, weight, directions)
        wanted = by_programs(prim, promoted, params, places, weight, directions)
        assert value.dtype == wanted[0].dtype
        np.testing.assert_allclose(value, wanted[0], rtol=rtol, atol=rtol)
        for found, want in ((first, wanted[1]), (second, wanted[2])):
            for i in places:
                got = None if found[i] is None else found[i].numpy()
                if got is None or want[i] is None:      # a zero that one of them knows of beforehand
                    assert not np.any(got) and not np.any(want[i])
                    continue
                assert got.dtype == mixed[i].dtype and got.shape == mixed[i].shape
                scale = float(np.abs(want[i]).max(initial=1))
                np.testing.assert_allclose(got, want[i].astype(got.dtype), rtol=rtol, atol=rtol * scale)


def test_the_cases_cover_the_table():
    assert len({p.name for p, _ in CASES}) >= 60 and sum(len(set(mix)) > 1 for _, mix in CASES) >= 60
