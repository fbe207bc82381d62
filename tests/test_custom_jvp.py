"""`custom_jvp`: one Program runs, another says the tangents."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.aval import aval
from jitgrad.core.dtypes import CODES
from jitgrad.core.recorder import Recorder
from jitgrad.execute import oracle
from jitgrad.execute.cpu.plans import plan_of
from jitgrad.frontend.explain import program_of
from jitgrad.transform.custom_jvp import custom_jvp
from jitgrad.transform.jvp import jvp
from jitgrad.transform.vjp import vjp
from programs import names, recorded, shapes_of, tensors

SOFT = recorded(lambda x, s: jg.log(1 + jg.exp(x)) * s, (3,), ())
RULE = recorded(lambda x, s, tx, ts: jg.sigmoid(x) * s * tx + jg.softplus(x) * ts, (3,), (), (3,), ())


def soft(x, s, rule=RULE):
    return custom_jvp(SOFT, rule, [x, s])[0]


def test_custom_jvp_runs_the_one_and_differentiates_the_other(rng):
    """In both modes and orders, as the rows of a Program and on tapes."""
    custom = recorded(soft, (3,), ())
    plain = recorded(lambda x, s: jg.softplus(x) * s, (3,), ())
    x, s = rng.normal(size=3), np.array(1.5)
    (got,) = oracle.run(custom, [x, s])
    np.testing.assert_array_equal(got, oracle.run(SOFT, [x, s])[0])
    for modes in ([jvp], [vjp], [jvp, vjp], [vjp, jvp], [jvp, jvp], [vjp, vjp]):
        some, others = custom, plain
        for mode in modes:
            some, others = (mode(p, [0, 1]) for p in (some, others))
            some.verify()
        arrays = [x, s, *(rng.normal(size=shape) for shape in shapes_of(some)[2:])]
        want = oracle.run(others, arrays)
        for found in (oracle.run(some, arrays), plan_of(some).run(tensors(arrays))):
            for a, b in zip(found, want, strict=True):
                np.testing.assert_allclose(np.asarray(a), b, rtol=1e-12)
    hot = np.array([0.0, 1000.0, -1000.0])             # where the rows' own derivative is not a number
    (_, t) = oracle.run(jvp(custom, [0]), [hot, s, np.ones(3)])
    np.testing.assert_array_equal(t, [0.75, 1.5, 0.0])


def test_custom_jvp_on_tapes():
    x, s = jg.constant([0.0, 1000.0, -1000.0], "float64"), jg.constant(2.0, "float64")
    with jg.GradientTape() as outer:
        outer.watch(x)
        with jg.GradientTape(persistent=True) as tape:
            tape.watch([x, s])
            y = soft(x, s)
        assert "custom_jvp" in names(program_of(tape))
        g, gs = tape.gradient(y, [x, s])
    np.testing.assert_array_equal(g.numpy(), [1.0, 2.0, 0.0])
    np.testing.assert_allclose(gs.numpy(), np.log(2) + 1000)
    np.testing.assert_array_equal(outer.gradient(g, x).numpy(), [0.5, 0.0, 0.0])


def test_custom_jvp_of_integers_zeros_and_several_results(rng):
    """Integers among operands and results have no tangent; a rule may say that one is zero."""
    recorder = Recorder()
    x, n, y = (recorder.input(aval(CODES[np.dtype(d)], (3,))) for d in ("float64", "int32", "float32"))
    program = recorder.program([x * n, n + 1, jg.floor(x), y * 2.0])
    recorder = Recorder()
    x, n, y, tx, ty = (recorder.input(aval(CODES[np.dtype(d)], (3,)))
                       for d in ("float64", "int32", "float32", "float64", "float32"))
    rule = recorder.program([tx * n * 10.0, None, None, ty * 20.0])
    recorder = Recorder()
    xs = [recorder.input(program.aval(v)) for v in program.inputs.tolist()]
    custom = recorder.program(custom_jvp(program, rule, xs))
    a = [rng.normal(size=3), np.array([1, 2, 3], "int32"), rng.normal(size=3).astype("float32")]
    t = rng.normal(size=3)
    out = oracle.run(jvp(custom, [0]), [*a, t])
    np.testing.assert_allclose(out[4], 10 * t * a[1], rtol=1e-14)
    assert out[5] is None and out[6] is None and out[7].dtype == "float32" and not out[7].any()
    w = [rng.normal(size=3), np.array([1, 1, 1], "int32"), rng.normal(size=3), rng.normal(size=3).astype("float32")]
    gx, gn, gy = oracle.run(vjp(custom, [0, 1, 2]), [*a, *w])
    np.testing.assert_allclose(gx, 10 * w[0] * a[1], rtol=1e-14)
    assert gn is None
    np.testing.assert_allclose(gy, 20 * w[3], rtol=1e-6)


@pytest.mark.parametrize(("rule", "words"), [
    (recorded(lambda x, s, tx: tx, (3,), (), (3,)), r"the rule takes float64\[3\], float64\[\], float64\[3\], but the "
                                                    r"operands and the tangents of floats are float64\[3\], float64\[\], "
                                                    r"float64\[3\], float64\[\]"),
    (recorded(lambda x, s, tx, ts: ts, (3,), (), (3,), ()), r"the rule returns float64\[\], but the results are float64\[3\]"),
    (recorded(lambda x, s, tx, ts: (tx, None), (3,), (), (3,), ()), r"the rule returns float64\[3\], None, but"),
])
def test_custom_jvp_says_what_does_not_fit(rule, words):
    with pytest.raises(ValueError, match=f"custom_jvp: {words}"):
        recorded(lambda x, s: soft(x, s, rule), (3,), ())
    with pytest.raises(ValueError, match=r"custom_jvp: the function takes float64\[3\], float64\[\], but the operands are"):
        recorded(lambda x, s: soft(s, x, rule), (3,), ())


def test_custom_jvp_needs_a_linear_rule_for_gradients():
    squared = recorded(lambda x, s, tx, ts: tx * tx + ts, (3,), (), (3,), ())
    custom = recorded(lambda x, s: soft(x, s, squared), (3,), ())
    with pytest.raises(ValueError, match="custom_jvp: the rule must be linear in the derivatives"):
        vjp(custom, [0])


def test_arguments_by_keyword_count_by_their_positions():
    @jg.custom_jvp
    def f(x, scale=2.0, *, exact=True):
        return x * scale
    f.defjvp(lambda primals, tangents: (f(*primals), 10.0 * tangents[0] + tangents[1]))
    assert float(f(3.0, scale=4.0)) == float(f(x=3.0, scale=4.0)) == 12.0
    assert [float(jg.grad(lambda x, s: f(scale=s, x=x), k)(3.0, 4.0)) for k in range(2)] == [10.0, 1.0]
    assert float(jg.grad(lambda x: f(x=x))(3.0)) == 10.0
    with pytest.raises(TypeError, match=r"custom_jvp: f was given exact, which it takes by keyword alone; .* \(at .*:\d+\)"):
        f(3.0, exact=False)
