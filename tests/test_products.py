"""einsum and its like against NumPy, by a table of subscripts; gradients through nested tapes."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg

LENGTHS = {"i": 2, "j": 3, "k": 4, "l": 5, "m": 2, "b": 3}
SUBSCRIPTS = ("ij,jk->ik", "ij,jk", "ij->ji", "ij->", "ij", "ji", "i,j->ij", "i,i->i", "i,i", "bij,bjk->bik", "ij,ij->i",
              "ijk,k->ij", "ijk,jkl->il", "ij,jk,kl->il", "ij,jk,kl,lm->im", "i,j,k->ijk", "bij,bik->bjk", "ij,kj->",
              "i->", ",->", "ij,j,ji->i", ",i->i", "ik,kj,j->", "bi,bj,bk->ijk", " i j , j k -> k i ")
SHAPED = (("ii", (3, 3)), ("ii->i", (3, 3)), ("iij->j", (3, 3, 2)), ("iji->j", (3, 2, 3)), ("iii->i", (3, 3, 3)),
          ("ii,ij->j", (3, 3), (3, 2)), ("...ij,...jk->...ik", (5, 2, 3), (3, 4)),
          ("...ij,...jk->...ik", (5, 1, 2, 3), (6, 3, 4)), ("...i->...", (2, 3)), ("i...->...", (2, 3)), ("...", (2, 3)),
          ("...ij", (2, 3, 4)), ("i...,i...->...", (2, 3), (2, 1)), ("b...,b...->b...", (2, 3, 4), (2, 4)),
          ("...,...", (3,), (2, 3)), ("ij,jk->ik", (0, 3), (3, 2)), ("ij,jk->ik", (2, 0), (0, 2)), ("i,i->", (0,), (0,)),
          ("...i,...i,...i->...", (2, 3), (1, 3), (4, 1, 3)), ("ij,ij->ij", (1, 3), (2, 3)), ("ij,ij->", (1, 3), (2, 3)),
          ("ij,jk->ik", (2, 1), (3, 2)))


def cases():
    for subscripts in SUBSCRIPTS:
        given = subscripts.replace(" ", "").split("->")[0].split(",")
        yield subscripts, *(tuple(LENGTHS[c] for c in own) for own in given)
    yield from SHAPED


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_einsum(case, rng):
    subscripts, *shapes = case
    for dtype in ("float64", "int32"):
        xs = [(4 * rng.normal(size=shape)).astype(dtype) for shape in shapes]
        got, want = jg.einsum(subscripts, *xs), np.einsum(subscripts, *xs)
        assert got.shape == want.shape and got.dtype == dtype
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_gradients_of_einsum(case, rng):
    """It is linear in each operand: <gradient, v> is the value with v in its place, twice for the square."""
    subscripts, *shapes = case
    xs = [rng.normal(size=shape) for shape in shapes]
    vs = [rng.normal(size=shape) for shape in shapes]
    for k, (x, v) in enumerate(zip(xs, vs, strict=True)):
        def along(value, k=k):
            return np.einsum(subscripts, *xs[:k], value, *xs[k + 1:])
        t = jg.constant(x)
        with jg.GradientTape() as outer:
            outer.watch(t)
            with jg.GradientTape() as inner:
                inner.watch(t)
                y = jg.sum(jg.einsum(subscripts, *xs[:k], t, *xs[k + 1:]) ** 2)
            first = inner.gradient(y, t)
            total = jg.sum(first * v)
        scale = 1e-11 * (1 + np.abs(along(x)).sum() * np.abs(along(v)).sum())
        np.testing.assert_allclose(np.sum(first.numpy() * v), np.sum(2 * along(x) * along(v)), atol=scale)
        np.testing.assert_allclose(np.sum(outer.gradient(total, t).numpy() * v), np.sum(2 * along(v) ** 2), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("arguments, words", [
    (("ij,jk->ik", [1.0], [[1.0]]), "'ij' of 'ij,jk->ik' does not name the 1 axes"),
    (("ij,jk->ik", np.zeros((2, 3)), np.zeros((4, 2))), "gives 'j' the lengths 3 and 4"),
    (("ij->k", np.zeros((2, 3))), "has a name that no operand has, or one twice"),
    (("ij->ii", np.zeros((2, 3))), "has a name that no operand has, or one twice"),
    (("ij", 1.0, 2.0), "names 1 operands, got 2"), (("i1", np.zeros((2, 2))), "does not name the 2 axes"),
    ((3, 1.0), "needs subscripts as a string"), (("ii", np.zeros((2, 3))), "lengths 2 and 3"),
    (("ii", np.zeros((1, 3))), "names axes of lengths 1 and 3 of one operand"),
])
def test_einsum_errors(arguments, words):
    with pytest.raises(ValueError, match=words):
        jg.einsum(*arguments)


def test_products_of_two(rng):
    a, b = rng.normal(size=3), rng.normal(size=4)
    np.testing.assert_array_equal(jg.outer(a, b).numpy(), np.outer(a, b))
    x, y = rng.normal(size=(5, 1, 3)), rng.normal(size=(2, 3))
    np.testing.assert_allclose(jg.vecdot(x, y).numpy(), np.vecdot(x, y), rtol=1e-13)
    np.testing.assert_allclose(jg.vecdot(x, y, axis=-1).numpy(), np.sum(x * y, -1), rtol=1e-13)
    x, y = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 3, 5))
    for axes in (0, 1, ([1, 2], [1, 0]), ((2,), (0,)), ([], [])):
        np.testing.assert_allclose(jg.tensordot(x, y, axes).numpy(), np.tensordot(x, y, axes), rtol=1e-12, atol=1e-13)
    assert jg.tensordot(2.0, y, 0).shape == y.shape
    for call, words in ((lambda: jg.outer(x, a), "outer: takes vectors"), (lambda: jg.tensordot(x, y, 3), "differ along axes"),
                        (lambda: jg.tensordot(x, y, 4), "no 4 axes"), (lambda: jg.vecdot(a, b), "differ along axis -1"),
                        (lambda: jg.vecdot(a, a, axis=0), "axis must be negative"),
                        (lambda: jg.tensordot(x, y, ([0, 0], [0, 1])), "names an axis twice")):
        with pytest.raises(ValueError, match=words):
            call()
