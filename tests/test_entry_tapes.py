"""Calls of Functions while tapes record: one row each, the reads of Variables, guards and assignments as without."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from entry import DOWN, F32, F64, I64, UP, branch, function, is_slow, recorded, trace


@pytest.mark.parametrize("residuals", (None, lambda x, w: [jg.sin(x), w * 5.0]), ids=("same", "more"))
def test_gradients_go_through_the_row(residuals):
    w = jg.Variable([2.0, 3.0])
    made = recorded([(F32, (2,)), (F32, (2,))], lambda x, w: [jg.sin(x) * w, x * 3.0],
                    [("tensor", 0, 0), ("variable", w, 1)], residuals, positional=1,
                    answer=[("result", 0), ("result", 1), ("tuple", 2)])
    f = function(made)
    x = jg.constant([0.5, 1.0])
    with jg.GradientTape() as tape:
        tape.watch(x)
        y, z = f(x)
        total = jg.sum(y * y) + jg.sum(z)
    dx, dw = tape.gradient(total, [x, w])
    s, c = np.sin(x.numpy()), np.cos(x.numpy())
    np.testing.assert_allclose(dx.numpy(), 2 * s * w.numpy()**2 * c + 3, rtol=1e-6)
    np.testing.assert_allclose(dw.numpy(), 2 * s**2 * w.numpy(), rtol=1e-6)
    assert tape.watched_variables() == [w] or tape.watched_variables() == (w,)
    assert f._hits == 1


def test_variables_that_a_replay_reads_are_watched_though_nothing_is_differentiable():
    w, frozen = jg.Variable([2.0, 3.0]), jg.Variable([1.0, 1.0], trainable=False)
    made = recorded([(F32, (2,)), (F32, (2,))], lambda w, v: (w + v) > 2.0, [("variable", w, 0), ("variable", frozen, 1)],
                    positional=0)
    with jg.GradientTape() as tape:
        function(made)()
    assert list(tape.watched_variables()) == [w]


def test_what_no_tape_follows_leaves_no_row():
    made = trace([(F32, (2,))], lambda x: x * 2.0, [("tensor", 0, 0)])
    x, f = jg.constant([1.0, 2.0]), function(made)
    with jg.GradientTape(persistent=True) as tape:
        f(x)
        assert "call" not in tape.show()
        tape.watch(x)
        assert is_slow(f(x))                         # no plan to record yet
        made.record_with(made.plan)
        y = f(x)
        assert "call" in tape.show()
    assert tape.gradient(y, x).numpy().tolist() == [2, 2]
    assert f._hits == 2


def test_arrays_and_numbers_are_operands_too():
    w, a, b = jg.Variable(2.0, dtype="float64"), np.array([1.0, 2.0]), np.array([3.0, 4.0])
    made = recorded([(F64, (2,)), (F64, ()), (I64, ()), (F64, ()), (F64, (2,))],
                    lambda a, x, n, w, b: a * x * jg.astype(n, "float64") * w * w * b,
                    [("array", 0, 0), ("float", 1, 1), ("int", 2, 2), ("variable", w, 3), ("captured", b, 4)],
                    positional=3)
    f = function(made)
    with jg.GradientTape() as tape:
        y = f(a, 0.5, 3)
        a[:] = 100.0                                  # the row has what was there
        b[:] = 100.0
    np.testing.assert_allclose(y.numpy(), [18.0, 48.0])
    np.testing.assert_allclose(tape.gradient(y, w).numpy(), 66.0)


def test_the_plan_to_record_has_to_fit():
    made = trace([(F32, (2,))], lambda x: x * 2.0, [("tensor", 0, 0)])
    for other in (branch(True, 1.0, [("tensor", 0, 0)]), trace([(F32, (2,))], lambda x: jg.sum(x), [("tensor", 0, 0)])):
        with pytest.raises(ValueError, match="of its inputs, results and guards"):
            made.record_with(other.plan)


def test_assigning_breaks_the_chain_under_a_tape():
    w = jg.Variable([1.0, 2.0])
    made = recorded([(F32, (2,)), (F32, (2,))], lambda x, w: [w * x, w * 3.0], [("tensor", 0, 0), ("variable", w, 1)],
                    positional=1, assignments=[(w, 0)], answer=[("result", 1)])
    x = jg.constant([3.0, 5.0])
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = function(made)(x)
        z = w * 1.0
    assert w.numpy().tolist() == [3, 10]
    assert tape.gradient(y, w).numpy().tolist() == [3, 3] and tape.gradient(z, x) is None
    assert tape.gradient(z, w).numpy().tolist() == [1, 1]


def test_guards_hold_under_a_tape_too():
    up, down = branch(True, 2.0, [("tensor", 0, 0)]), branch(False, -1.0, [("tensor", 0, 0)])
    for made in (up, down):
        made.record_with(made.plan)
    f = function(up)
    up.follow_with([(0, down)])
    for x, scale in ((UP, 2.0), (DOWN, -1.0)):
        x = jg.asarray(x)
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = f(x)
        assert tape.gradient(y, x).numpy().tolist() == [scale] * 3
    up.follow_with([])
    with jg.GradientTape() as tape:
        tape.watch(x)
        assert f(x)[0] == "failed"
        assert "call" not in tape.show()
