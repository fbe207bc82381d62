"""Rows that run Programs: `call` in both modes, and what it leaves for its gradient."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.aval import AVALS
from jitgrad.core.form import form
from jitgrad.core.primitive import BY_NAME, Kind, define
from jitgrad.core.record import dispatch
from jitgrad.execute import oracle
from jitgrad.execute.cpu.plans import plan_of
from jitgrad.transform.higher import called, inlined
from jitgrad.transform.jvp import jvp
from jitgrad.transform.prune import pruned
from jitgrad.transform.residuals import with_residuals
from jitgrad.transform.vjp import pullback, vjp
from programs import arguments, names, random_program, recorded, shapes_of, tensors
from tolerance import assert_close, assert_same_bits

SEEDS = range(8)


def inner_of(program, name="call"):
    """The Programs that rows of a Program run."""
    return [made.params["program"] for made, _, _ in program.rows() if made.prim.name == name]


def nested(program):
    """The same by way of rows that call rows that call it, between rows of other kinds."""
    once = recorded(lambda *xs: called(program, xs), *shapes_of(program))
    return recorded(lambda *xs: [2.0 * y for y in called(once, [jg.tanh(x) for x in xs])], *shapes_of(program))


def agree(got, want):
    for a, b in zip(got, want, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert_same_bits(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("seed", SEEDS)
def test_calls_have_the_derivatives_of_their_rows(seed):
    """In both modes and both orders of them; sums may be in another order."""
    rng = np.random.default_rng(seed)
    program = nested(random_program(rng, 6))
    flat = inlined(program)
    assert names(program).count("call") == 1 and "call" not in names(flat)
    n = len(program.inputs)
    for modes in ([jvp], [vjp], [jvp, vjp], [vjp, jvp]):
        some, others = program, flat
        for mode in modes:
            some, others = (mode(p, range(n)) for p in (some, others))
            some.verify()
        arrays = arguments(some, rng)
        want = oracle.run(others, arrays)
        for found in (oracle.run(some, arrays), plan_of(some).run(tensors(arrays))):
            for a, b in zip(found, want, strict=True):
                assert (a is None) == (b is None)
                if a is not None:
                    assert_close(a, b, rtol=1e-10)


def test_derivatives_of_a_call_take_what_is_known():
    """Operands and results are read; rows run again only for what is neither."""
    def f(x, y):
        e = jg.exp(x)
        return e * y, jg.tanh(e), x, jg.sin(y)
    program = recorded(f, (3,), (3,))
    outer = recorded(lambda x, y: called(program, [x, y]), (3,), (3,))
    (_, back), (_, tangents) = (inner_of(mode(outer, [0, 1])) for mode in (vjp, jvp))
    for derived in (back, tangents):
        assert names(derived).count("exp") == 1 and not {"tanh", "sin"} & {*names(derived)}
    (of_one,) = inner_of(vjp(outer, [1]))
    assert len(of_one.inputs) == 4 and names(of_one).count("exp") == 1         # x, y, and two cotangents
    (_, by_sin) = inner_of(jvp(recorded(lambda x, y: called(program, [jg.exp(x), y]), (3,), (3,)), [1]))
    assert "tanh" not in names(by_sin) and len(by_sin.inputs) == 3             # x, y and the tangent of y


@pytest.mark.parametrize("seed", SEEDS)
def test_residuals_save_all_rows_of_the_gradient(seed):
    rng = np.random.default_rng(seed)
    program = random_program(rng, 8)
    n, count = len(program.inputs), len(program.results)
    whole = with_residuals(program, range(n))
    whole.verify()
    assert whole.results[:count].tolist() == program.results.tolist() and names(whole) == names(program)
    extra = whole.results[count:].tolist()
    assert len({*extra}) == len(extra) and not {*extra} & {*program.inputs.tolist(), *program.constants,
                                                           *program.results.tolist()}
    plain, kept = (recorded(lambda *xs, p=p: called(p, xs)[:count], *shapes_of(p)) for p in (program, whole))
    arrays = arguments(program, rng)
    weights = [rng.normal(size=program.aval(v).shape) for v in program.results.tolist()]
    gradients = [vjp(p, range(n)) for p in (program, plain, kept)]
    found = [oracle.run(g, [*arrays, *weights]) for g in gradients]
    agree(found[1], found[0])
    agree(found[2], found[0])
    targets = program.results.tolist()
    back, _ = pullback(program, targets, [len(program.avals) + i for i in range(count)], program.inputs.tolist(),
                       [program.aval(v) for v in targets])
    again, once = (inner_of(g)[-1] for g in gradients[1:])
    assert names(once) == names(pruned(back, keep_inputs=True)) and len(again) >= len(once)


def test_residuals_are_none_where_all_is_known():
    program = recorded(lambda x: (jg.exp(x), jg.exp(x) > 1, None), (3,))
    assert with_residuals(program, [0]).results.tolist() == program.results.tolist()
    program = recorded(lambda x, y: jg.tanh(jg.exp(x)) * y, (3,), (3,))
    of_x, of_y = (with_residuals(program, [k]) for k in (0, 1))
    assert len(of_x.results) == 3 and len(of_y.results) == 2       # exp(x) and tanh; tanh


def test_residuals_on_a_tape():
    """Eager calls of such a Program, to second order."""
    program = recorded(lambda x: jg.sum(jg.sin(jg.exp(x))), (3,))
    whole = with_residuals(program, [0])
    x = jg.constant([0.1, 0.5, -0.3], "float64")
    found = []
    for p in (program, whole):
        with jg.GradientTape() as outer:
            outer.watch(x)
            with jg.GradientTape() as tape:
                tape.watch(x)
                y = called(p, [x])[0]
            g = tape.gradient(y, x)
            total = jg.sum(g * g)
        found.append([g.numpy(), outer.gradient(total, x).numpy()])
    agree(found[1], found[0])
    np.testing.assert_allclose(found[0][0], np.cos(np.exp(x.numpy())) * np.exp(x.numpy()), rtol=1e-14)


def effect(x):
    """A row without outputs on a dry Tensor."""
    name = "effect_of_tests"
    if name not in BY_NAME:
        define(lambda: None, name=name, kind=Kind.EFFECT, vjp=None, aval=lambda x: (), ref=None, samples=None,
               operands=("x",), params=(), domains=("any",))
    dispatch(form(BY_NAME[name], [AVALS[x._aval]], {}), [x])


def test_effects_happen_once():
    """jvp and vjp stand for the Program and keep its effects, also those in calls; derivatives of a call have none."""
    def f(x):
        effect(jg.sin(x))
        return x * 2.0
    program = recorded(f, (3,))
    outer = recorded(lambda x: called(program, [x]), (3,))
    for mode in (jvp, vjp):
        for p in (program, inlined(outer), outer):
            made = mode(p, [0])
            made.verify()
            everything = names(inlined(made))
            assert everything.count("effect_of_tests") == everything.count("sin") == 1
        assert names(inner_of(mode(outer, [0]))[-1]) == ["multiply"]


def test_forward_mode_of_a_gradient_keeps_float32(rng):
    program = recorded(lambda x: called(recorded(lambda y: jg.sum(jg.exp(y)), (4,), dtype="float32"), [x]), (4,),
                       dtype="float32")
    x, t = (rng.normal(size=4).astype("float32") for _ in range(2))
    (_, tangent) = oracle.run(jvp(vjp(program, [0]), [0]), [x, np.float32(1.0), t])
    assert tangent.dtype == "float32"
    np.testing.assert_allclose(tangent, np.exp(x) * t, rtol=1e-5)
