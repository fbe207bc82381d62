"""Replay equals eager, bit for bit, for every entry of the table in every dtype that it takes."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.primitive import OPS
from jitgrad.core.record import tensor
from table import ENTRIES, dtypes_of, ident, samples
from tolerance import assert_same_bits


@pytest.mark.parametrize("prim", ENTRIES, ids=ident)
def test_replay_equals_eager(prim, rng):
    """The recording, a replay, and a replay for other numbers, of Tensors, and of NumPy arrays for the first sample."""
    for dtype in dtypes_of(prim):
        pairs = zip(samples(prim, dtype, rng), samples(prim, dtype, rng), strict=True)
        for k, ((arrays, params), (others, _)) in enumerate(pairs):
            given, moved = ([np.asarray(a) for a in of] for of in (arrays, others))
            for made in (tensor, np.array) if k == 0 else (tensor,):
                f = jg.function(lambda *xs, p=params: OPS[prim.name](*xs, **p))
                for of in (given, given, moved, given):
                    want = OPS[prim.name](*map(tensor, of), **params)
                    assert_same_bits(f(*map(made, of)).numpy(), want.numpy())
                info = f.cache_info()
                assert (info.recordings, info.hits, info.python_bound) == (1, 3, False)


@pytest.mark.parametrize("prim", [p for p in ENTRIES if p.vjp is not None], ids=ident)
def test_replayed_gradients_equal_eager_ones(prim, rng):
    def both(*xs):
        floats = [x for x in xs if x.dtype.kind == "f"]
        with jg.GradientTape() as tape:
            tape.watch(floats)
            y = OPS[prim.name](*xs, **params)
        return y, tape.gradient(y, floats)

    for dtype in [d for d in dtypes_of(prim) if d is None or d.kind == "f"]:
        arrays, params = next(samples(prim, dtype, rng))
        given = [tensor(np.asarray(a)) for a in arrays]
        f = jg.function(both)
        want, slopes = both(*given)
        for _ in range(3):
            got, found = f(*given)
            assert_same_bits(got.numpy(), want.numpy())
            assert [g is None for g in found] == [g is None for g in slopes]
            for a, b in zip(found, slopes, strict=True):
                if b is not None:
                    assert_same_bits(a.numpy(), b.numpy())
        assert f.cache_info().hits == 2


def test_a_gradient_of_nothing_that_is_connected_replays():
    @jg.function
    def both(x):
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = jg.cast(x, dtype="int32")
        return y, tape.gradient(y, x)
    for k in range(3):
        y, g = both(jg.ones(2) * k)
        assert (y.numpy().tolist(), g) == ([k, k], None)
