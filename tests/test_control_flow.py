"""`cond`, `while_loop`, `fori_loop` and `scan` over nests with Variables, against the Python loop they stand for."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg

C, X = jg.constant(1.0), jg.constant([1.0, 2.0, 3.0])
WRONG = [
    (lambda: jg.cond(True, lambda: (C, C), lambda: [C, C]), TypeError, r"structure: \(\*, \*\) and \[\*, \*\]"),
    (lambda: jg.cond(True, lambda: (C, None), lambda: (C, C)), TypeError, r"\(\*, None\) and \(\*, \*\)"),
    (lambda: jg.cond(True, lambda: C, lambda: X), TypeError, r"float32\[\], the other float32\[3\]"),
    (lambda: jg.cond(X > 0, lambda: C, lambda: C), TypeError, r"one bool, got shape \(3,\)"),
    (lambda: jg.while_loop(lambda v: v[0] < 3, lambda v: [v[0], v[1]], (C, C)), TypeError, r"as \(\*, \*\), .* \[\*, \*\]"),
    (lambda: jg.while_loop(lambda v: v < 3, lambda v: v + 0.5, 0), TypeError, r"int32\[\], one round makes float32\[\]"),
    (lambda: jg.scan(lambda c, x: ({"b": c["a"]}, x), {"a": C}, X), TypeError, r"\{'a': \*\}, one round makes \{'b': \*\}"),
    (lambda: jg.scan(lambda c, x: c, C, X), TypeError, r"must return \(carry, y\), got Tensor"),
    (lambda: jg.scan(lambda c, x: (c, x), C, (X, X[:2])), ValueError, r"one length, got \[2, 3\]"),
    (lambda: jg.scan(lambda c, x: (c, x), C), ValueError, "needs a length"),
    (lambda: jg.scan(lambda c, x: (c, x), C, X, checkpoint_every=0), ValueError, "at least 1, got 0"),
    (lambda: jg.scan(lambda c, x: (c if x > 0 else -c, x), C, X), TypeError, "cond, where or scan"),
]


@pytest.mark.parametrize(("wrong", "kind", "words"), WRONG, ids=range(len(WRONG)))
def test_errors_say_what_is_wrong_and_where(wrong, kind, words):
    with pytest.raises(kind, match=words) as said:
        wrong()
    assert "test_control_flow.py:" in str(said.value)


def test_none_among_leaves_stays_none():
    carry, ys = jg.scan(lambda c, x: ({"a": c["a"] + x["k"], "n": None}, (x["n"], c["a"])), {"a": C, "n": None},
                        {"k": X, "n": None})
    assert (float(carry["a"]), carry["n"], ys[0], ys[1].numpy().tolist()) == (7.0, None, None, [1.0, 2.0, 4.0])
    last = jg.while_loop(lambda v: v[0] < 3, lambda v: (v[0] + 1, None), (C, None))
    assert (float(last[0]), last[1]) == (3.0, None)


def cell(w, h, x):
    return jg.tanh(w @ h + x)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 2, 5, 6, 7])
def test_a_recurrent_cell(length, reverse):
    """Values and gradients of the Python loop, with and without checkpoints, eagerly and replayed."""
    rng = np.random.default_rng(length)
    w, h0, xs = jg.Variable(rng.normal(size=(3, 3))), jg.asarray(rng.normal(size=3)), jg.asarray(rng.normal(size=(length, 3)))

    def looped():
        h = h0
        for i in range(length)[::-1 if reverse else 1]:
            h = cell(w, h, xs[i])
        return jg.sum(h * h)

    def derived(f):
        with jg.GradientTape() as tape:
            y = f()
        return y.numpy(), tape.gradient(y, w, unconnected_gradients="zero").numpy()
    want = derived(looped)
    for every in (None, 1, 2, 3, 10):
        def scanned(every=every):
            return jg.sum(jg.scan(lambda h, x: (cell(w, h, x), None), h0, xs, reverse=reverse,
                                  checkpoint_every=every)[0] ** 2)
        for f in (scanned, jg.function(scanned)):
            for _ in range(2):
                for a, b in zip(derived(f), want, strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_an_epoch_is_one_scan():
    """Variables read and assigned, and tapes opened, in the body."""
    rng = np.random.default_rng(0)
    xs, ys = jg.asarray(rng.normal(size=(6, 4, 3))), jg.asarray(rng.normal(size=(6, 4)))
    w, scanned_w = jg.Variable(np.zeros(3)), jg.Variable(np.zeros(3))

    def step(w, x, y):
        with jg.GradientTape() as tape:
            loss = jg.mean((x @ w - y) ** 2)
        w.assign_sub(0.1 * tape.gradient(loss, w))
        return loss
    epoch = jg.function(lambda: jg.scan(lambda c, b: (c, step(scanned_w, *b)), None, (xs, ys))[1])
    for _ in range(3):
        np.testing.assert_allclose(epoch().numpy(), [step(w, x, y).numpy() for x, y in zip(xs, ys, strict=True)], rtol=1e-12)
        np.testing.assert_allclose(scanned_w.numpy(), w.numpy(), rtol=1e-12)
    assert epoch.cache_info().hits == 2
