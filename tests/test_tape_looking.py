"""Looking inside a tape: explain for every cause of None, show, nbytes, and what dies when."""

import numpy as np
import pytest

import jitgrad as jg
from tapes import census, leakless, numbers


@leakless
def test_explain_of_a_connection():
    v = jg.Variable([1.0, 2.0])
    with jg.GradientTape(persistent=True) as tape:
        y = jg.exp(v)
        side = y * 2.0
        z = jg.sin(y)
    assert tape.explain(y, v) == "The target depends on the source, through one recorded row: exp."
    assert tape.explain(z, v) == "The target depends on the source, through 2 recorded rows: exp, sin."
    assert tape.explain(side, y) == "The target depends on the source, through one recorded row: multiply."
    assert "The target is the source" in tape.explain(v, v) and "The target is the source" in tape.explain(y, y)


@leakless
def test_explain_of_sources():
    v, frozen, unread = jg.Variable(2.0), jg.Variable(3.0, trainable=False), jg.Variable(4.0)
    x, n = jg.constant(5.0), jg.constant(6)
    with jg.GradientTape(persistent=True) as tape:
        y = v * frozen * x * n
    for source, words in [
        (x, "a Tensor that the tape does not watch: call tape.watch"),
        (frozen, "a Variable that is not trainable"),
        (unread, "a Variable that was not read while the tape recorded"),
        (n, "dtype int32; only floats have gradients"),
        (3.0, "is a float, not a Tensor or Variable"),
        (np.ones(2), "is a ndarray, not a Tensor or Variable"),
        (None, "is a NoneType"),
    ]:
        assert words in tape.explain(y, source)
        assert tape.gradient(y, source) is None
    with jg.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        y = v * v
    assert "watch_accessed_variables=False: watch it" in tape.explain(y, v)
    assert tape.gradient(y, v) is None


@leakless
def test_explain_of_targets():
    v, other = jg.Variable(2.0), jg.Variable(1.0)
    before = v * v
    with jg.GradientTape(persistent=True) as tape:
        with tape.stop_recording():
            unseen = v * v
        held = jg.stop_gradient(v * v)
        numpy_made = jg.constant(float(v * v))
        other.assign(v * v)
        whole = jg.cast(v, dtype="int32")
        recorded = (held + numpy_made + jg.cast(whole, dtype="float32")) * other
    for target, words in [
        (before, "made before the tape started"),
        (unseen, "while recording was stopped"),
        (held, "behind stop_gradient"),
        (numpy_made, "outside jitgrad"),
        (other, "Assigning to a Variable stores a number and breaks the chain"),
        (whole, "dtype int32; only floats have gradients"),
        (recorded, "The target was recorded, but no recorded operation leads to it from the source"),
        (7, "is a int, not a Tensor or Variable"),
    ]:
        assert words in tape.explain(target, v)
        assert tape.gradient(target, v) is None


@leakless
def test_explain_of_a_used_tape():
    v = jg.Variable(2.0)
    with jg.GradientTape() as tape:
        y = v * v
    assert "depends on the source" in tape.explain(y, v)
    tape.gradient(y, v)
    assert "make it persistent to ask again" in tape.explain(y, v)


@leakless
def test_show():
    v = jg.Variable([1.0, 2.0])
    with jg.GradientTape() as tape:
        y = jg.exp(v) * 3.0
    lines = tape.show().splitlines()
    assert sorted(line.split()[1] for line in lines[1:-1]) == ["exp", "input", "input", "multiply"]
    assert "float32[2]" in lines[-2] and lines[-1] == "results: %3"
    tape.gradient(y, v)
    assert "exp" not in tape.show()
    assert jg.GradientTape().show()


@leakless
def test_bytes_of_a_tape():
    v = jg.Variable(np.ones(1000, np.float32))
    tape = jg.GradientTape()
    assert tape.nbytes == 0
    with tape:
        y = v * v
        assert 8000 <= tape.nbytes < 8200
        z = y * y
        assert 12000 <= tape.nbytes < 12400
    total = jg.sum(z)
    tape.gradient(z, v)
    assert tape.nbytes == 0
    assert numbers(total) == 1000.0


@pytest.mark.parametrize("how", ["gradient", "death", "reset", "failure"])
def test_values_are_freed(how):
    v = jg.Variable(np.ones(1000, np.float32))
    start = census()["Tensor"]
    tape = jg.GradientTape()
    with tape:
        y = v * v
        for _ in range(10):
            y = y * 1.5
        kept = census()["Tensor"] - start
        assert kept >= 11
        if how == "reset":
            tape.reset()
    if how == "gradient":
        tape.gradient(y, v)
    if how == "failure":
        with pytest.raises(ValueError, match="output gradient"):
            tape.gradient(y, v, jg.ones((2,)))
    if how in ("death", "failure"):
        del tape
    assert census()["Tensor"] - start == 1


def test_rows_live_as_long_as_a_tape_covers_them():
    v = jg.Variable(2.0)
    start = census()["Tensor"]
    with jg.GradientTape(persistent=True) as outer:
        a = v * v
        with jg.GradientTape(persistent=True) as inner:
            b = a * v
        c = b * v
    assert outer.nbytes > inner.nbytes > 0
    del outer
    assert numbers(inner.gradient(b, v)) == 4.0
    assert inner.gradient(c, v) is None
    assert inner.nbytes > 0
    del inner, a, b, c
    assert census()["Tensor"] == start


def test_nested_tapes_leave_nothing():
    v = jg.Variable(2.0)
    start = census()
    for _ in range(3):
        with jg.GradientTape(persistent=True) as outer:
            with jg.GradientTape() as inner:
                y = v * v * v
            g = inner.gradient(y, v)
        h = outer.gradient(g, v)
        assert numbers(h) == 12.0
    del outer, inner, y, g, h
    assert census() == start
