"""Forward mode as Program -> Program: every entry against differences of the oracle, to second order in all modes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.aval import AVALS, aval
from jitgrad.core.dtypes import CODES
from jitgrad.core.form import Form, form
from jitgrad.core.primitive import BY_NAME, OPS, Kind, Linear, Missing, missing
from jitgrad.core.record import tensor
from jitgrad.core.recorder import Recorder
from jitgrad.execute import oracle
from jitgrad.execute.cpu.plans import plan_of
from jitgrad.transform import tangent
from jitgrad.transform.jvp import jvp, pushforward
from jitgrad.transform.vjp import joined, pullback, vjp
from programs import FLOAT, arguments, random_program
from table import ENTRIES, data_domains, drawn, ident, operands, points, reference
from tolerance import DIFFERENCES, DIFFERENCES_ZERO, STEP, assert_close

FLOAT64 = np.dtype("float64")
RULED = [p for p in ENTRIES if p.vjp is not None and not isinstance(p.vjp, Missing)]
SEEDS = range(12)


def float_samples(prim, rng):
    """Samples in float64 that a derivative can pass, the positions of float operands, and a cotangent."""
    for arrays, params in prim.samples(rng):
        given = operands(prim, [np.asarray(a) for a in arrays], FLOAT64)
        answer = reference(prim, given, params)
        places = [i for i, a in enumerate(given) if a.dtype.kind == "f"]
        if answer.dtype.kind == "f" and places:
            yield given, params, places, rng.normal(size=answer.shape)


def program_of(prim, arrays, params):
    recorder = Recorder()
    xs = [recorder.input(AVALS[tensor(a)._aval]) for a in arrays]
    return recorder.program([OPS[prim.name](*xs, **params)])


def pushed(program, places, arrays, directions):
    """Tangents of a Program's results by the oracle."""
    return oracle.run(jvp(program, places), [*arrays, *directions])[len(program.results):]


def moved(arrays, places, directions, step):
    """The arrays a step along directions."""
    out = list(arrays)
    for i, d in zip(places, directions, strict=True):
        out[i] = arrays[i] + step * d
    return out


def differences(f, arrays, places, directions):
    """Central differences of an array along directions."""
    high, low = (f(moved(arrays, places, directions, step)) for step in (STEP, -STEP))
    return ((high - low) / (2 * STEP)).astype(np.float64)


def assert_derivative(got, want):
    assert got.dtype == FLOAT64 and got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=DIFFERENCES, atol=DIFFERENCES_ZERO * max(1, np.abs(want).max(initial=0)))


def inner(some, others):
    """<some, others> where None is zero."""
    return sum(float(np.sum(a * b)) for a, b in zip(some, others, strict=True) if a is not None and b is not None)


# ---- every entry ---------------------------------------------------------------------------------

@pytest.mark.parametrize("prim", RULED, ids=ident)
def test_jvp(prim, rng):
    """Along all operands together, and along each alone."""
    tried = 0
    for arrays, params, places, _ in float_samples(prim, rng):
        tried += 1
        program = program_of(prim, arrays, params)
        for some in [places, *([[i] for i in places] if len(places) > 1 else [])]:
            directions = [rng.normal(size=arrays[i].shape) for i in some]
            want = differences(lambda at, p=params: reference(prim, at, p), arrays, some, directions)
            (got,) = pushed(program, some, arrays, directions)
            if got is None:          # the condition of a gate: its derivative is nowhere but at a jump
                assert not want.any()
            else:
                assert_derivative(got, want)
    assert tried


@pytest.mark.parametrize("prim", [p for p in RULED if p.kind is Kind.ELEMENTWISE and len(data_domains(p)) > 1], ids=ident)
def test_operands_broadcast(prim, rng):
    shapes = [(2, 1, 3), (4, 1), (1,)][-len(prim.domains):]
    arrays, params = drawn(prim, FLOAT64, rng, shapes)
    program = program_of(prim, arrays, params)
    places = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    for some in (places, places[:1], places[1:]):
        directions = [rng.normal(size=arrays[i].shape) for i in some]
        want = differences(lambda at: reference(prim, at, params), arrays, some, directions)
        (got,) = pushed(program, some, arrays, directions)
        if got is None:
            assert not want.any()
        else:
            assert_derivative(got, want)


@pytest.mark.parametrize("prim", RULED, ids=ident)
def test_second_order(prim, rng):
    """Forward of forward, reverse of forward, forward of reverse: one number, and that of differences."""
    for arrays, params, places, weight in float_samples(prim, rng):
        program = program_of(prim, arrays, params)
        first, second = ([rng.normal(size=arrays[i].shape) for i in places] for _ in range(2))
        forward, back = jvp(program, places), vjp(program, places)

        def slope(at, forward=forward, first=first, weight=weight):
            t = oracle.run(forward, [*at, *first])[1]
            return np.asarray(0.0 if t is None else np.sum(weight * t))
        want = float(differences(slope, arrays, places, second))
        zero = np.zeros_like(weight)
        over_forward = pushed(forward, places, [*arrays, *first], second)[1]
        over_reverse = pushed(back, places, [*arrays, weight], second)
        live = [w for w, v in zip((zero, weight), forward.results.tolist(), strict=True) if v >= 0]
        reverse_over = oracle.run(vjp(forward, places), [*arrays, *first, *live])
        found = [inner([weight], [over_forward]), inner(second, reverse_over), inner(first, over_reverse)]
        scale = max(1.0, *np.abs(found))
        np.testing.assert_allclose(found, want, rtol=DIFFERENCES, atol=10 * DIFFERENCES_ZERO * scale)
        np.testing.assert_allclose(found, found[0], rtol=1e-11, atol=1e-12 * scale)


@pytest.mark.parametrize("prim", [p for p in ENTRIES if p.vjp is None], ids=ident)
def test_without_a_rule_the_tangent_is_zero(prim, rng):
    for arrays, params in prim.samples(rng):
        given = operands(prim, [np.asarray(a) for a in arrays], None)
        program = jvp(program_of(prim, given, params), range(len(given)))
        program.verify()
        assert program.results[1:].tolist() == [-1]


# ---- where derivatives are not unique, or not finite ---------------------------------------------------------------

@pytest.mark.parametrize("prim", [p for p in RULED if p.at and p.kind is Kind.ELEMENTWISE], ids=ident)
def test_special_points_have_the_derivative_of_reverse_mode(prim, rng):
    """An elementwise derivative is its own transpose, infinities, NaN and kinks included; zeros meet no infinity."""
    for _, params in prim.samples(rng):
        if params.get("dtype", "float64") != "float64":
            continue
        arrays = points(prim, FLOAT64)
        program = program_of(prim, arrays, params)
        finite = np.isfinite([*arrays, reference(prim, arrays, params)]).all(axis=0)
        direction = rng.normal(size=arrays[0].shape)
        for place in range(len(arrays)):
            (got,) = pushed(program, [place], arrays, [direction])
            (want,) = oracle.run(vjp(program, [place]), [*arrays, direction])
            assert (got is None) == (want is None)
            if got is not None:
                np.testing.assert_array_equal(got, want)
                (still,) = pushed(program, [place], arrays, [0 * direction])
                np.testing.assert_array_equal(still[finite], 0)


def along(f, x, t):
    recorder = Recorder()
    x = np.asarray(x, np.float64)
    program = recorder.program([f(recorder.input(aval(FLOAT, x.shape)))])
    (got,) = pushed(program, [0], [x], [np.asarray(t, np.float64)])
    return got.tolist()


def test_ties_and_kinks():
    assert along(jg.max, [1.0, 3.0, 3.0, 0.0], [9.0, 1.0, 4.0, 9.0]) == 2.5
    assert along(jg.min, [2.0, 2.0], [1.0, 4.0]) == 2.5
    for op in (jg.maximum, jg.minimum):
        assert along(lambda x, op=op: op(x, 1.0), [1.0], [7.0]) == [7.0]
        assert along(lambda x, op=op: op(1.0, x), [1.0], [7.0]) == [0.0]
    assert along(jg.abs, [0.0, -2.0], [1.0, 1.0]) == [0.0, -1.0]
    assert along(jg.relu, [0.0, -1.0, 2.0], [1.0, 1.0, 1.0]) == [0.0, 0.0, 1.0]
    assert along(jg.sqrt, [0.0, 4.0], [1.0, 1.0]) == [0.0, 0.25]
    assert along(lambda x: jg.where(x > 0, jg.log(x), 0.0), [0.0, 1.0], [1.0, 1.0]) == [0.0, 1.0]
    assert along(lambda x: jg.where(x > 0, jg.sqrt(x), 0.0), [-1.0, 4.0], [1.0, 1.0]) == [0.0, 0.25]
    assert along(lambda x: jg.sqrt(jg.sum(x * x)), [0.0, 0.0], [1.0, 1.0]) == 0.0
    assert along(jg.prod, [0.0, 2.0, 3.0], [1.0, 1.0, 1.0]) == 6.0 and along(jg.prod, [0.0, 0.0], [1.0, 1.0]) == 0.0
    assert along(jg.sort, [3.0, 1.0, 2.0], [30.0, 10.0, 20.0]) == [10.0, 20.0, 30.0]


# ---- dtypes, and what has no tangent --------------------------------------------------------------------------------

def test_dtypes_of_tangents_are_those_of_values(rng):
    recorder = Recorder()
    x, y, n = (recorder.input(aval(CODES[np.dtype(d)], (3,))) for d in ("float32", "float64", "int32"))
    both = jg.astype(x, "float64") * y * n
    results = [both, jg.astype(both, "float32"), jg.argmax(both), jg.astype(both, "int32"), both > 0,
               jg.astype(jg.astype(both, "int64"), "float64"), jg.stop_gradient(x), n * 2, y]
    program = recorder.program(results)
    made = jvp(program, [0, 1, 2])
    made.verify()
    tangents = made.results[len(results):].tolist()
    assert [v >= 0 for v in tangents] == [True, True, *[False] * 6, True]
    assert [made.aval(v).dtype for v in tangents if v >= 0] == ["float64", "float32", "float64"]
    a = [rng.normal(size=3).astype("float32"), rng.normal(size=3), np.array([1, 2, 3], "int32")]
    t = [rng.normal(size=3).astype("float32"), rng.normal(size=3), np.array([9, 9, 9], "int32")]
    out = oracle.run(made, [*a, *t])
    np.testing.assert_allclose(out[len(results)], (t[0] * a[1] + a[0] * t[1]) * a[2], rtol=1e-12)
    np.testing.assert_array_equal(out[-1], t[1])


def test_a_missing_rule_is_said():
    ruleless = dataclasses.replace(BY_NAME["exp"], vjp=missing)
    with pytest.raises(LookupError, match=r"exp: has no derivative rule \(operands float64\[3\]\)"):
        tangent.fragment(Form(0, ruleless, (aval(FLOAT, (3,)),), {}), 1)


def test_a_python_rule_for_reverse_mode_is_said():
    recorder = Recorder()
    value = aval(FLOAT, (3,))
    y = recorder.append(form(BY_NAME["custom"], [value], {"outs": (value.id,)}), [recorder.input(value)])
    with pytest.raises(TypeError, match="custom_gradient: .* reverse mode only"):
        jvp(recorder.program([y]), [0])


def test_a_rule_that_is_not_linear_is_said():
    squared = dataclasses.replace(BY_NAME["sort"], name="crooked", vjp=lambda g, ans, x, **params: (g * g * x,))
    with pytest.raises(ValueError, match="crooked: its vjp rule must be linear"):
        tangent.fragment(Form(0, squared, (aval(FLOAT, (3,)),), {"axis": 0, "descending": False}), 1)


def test_an_entry_may_say_its_own_tangent():
    """Its rule is asked with None for zero; the result gets the output's shape and dtype."""
    asked = []

    def rule(ts, ans, x, y):
        asked.append([t is None for t in ts])
        return jg.astype(ts[0], "float32")
    own = dataclasses.replace(BY_NAME["add"], jvp=rule)
    made = Form(0, own, (aval(FLOAT, ()), aval(FLOAT, (2,))), {})
    program = tangent.fragment(made, 1)
    assert asked == [[False, True]] and program.aval(int(program.results[0])) is aval(FLOAT, (2,))


# ---- Programs ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", SEEDS)
def test_forward_and_reverse_are_transposes(seed):
    """<w, J t> = <J' w, t>, also of the Program that forward mode makes; by the oracle and by the machine."""
    rng = np.random.default_rng(seed)
    program = random_program(rng, 8)
    for _ in range(2):
        n = len(program.inputs)
        made = jvp(program, range(n))
        made.verify()
        xs = arguments(program, rng)
        ts = [rng.normal(size=x.shape) for x in xs]
        ws = [rng.normal(size=program.aval(v).shape) for v in program.results.tolist() if v >= 0]
        out = oracle.run(made, [*xs, *ts])
        tangents = [t for t, v in zip(out[len(program.results):], program.results.tolist(), strict=True) if v >= 0]
        assert inner(ws, tangents) == pytest.approx(inner(oracle.run(vjp(program, range(n)), [*xs, *ws]), ts), rel=1e-9)
        for a, b in zip(plan_of(made).run([jg.asarray(a) for a in (*xs, *ts)]), out, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert_close(a.numpy(), b, rtol=1e-10)
        program = made


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_sources_and_targets_within_a_program(seed):
    """Any values, sources that lead to others and one named twice: the transpose of `pullback` for the same."""
    rng = np.random.default_rng(seed)
    program = random_program(rng, 8)
    floats = [v for v in range(len(program.avals)) if program.aval(v).code == FLOAT and v not in program.constants]
    sources = [0, *rng.choice(floats, 3).tolist(), 0]
    targets = [int(program.results[-1]), *rng.choice(floats, 2).tolist()]
    xs = arguments(program, rng)
    ts, ws = ([rng.normal(size=program.aval(v).shape) for v in values] for values in (sources, targets))
    tangents, saved = pushforward(program, targets, sources)
    tangents.verify()
    assert len(tangents.inputs) == len(saved) + len(sources)
    found = oracle.run(joined(program, tangents, saved), [*xs, *ts])
    seeds = [len(program.avals) + i for i in range(len(targets))]
    back, read = pullback(program, targets, seeds, sources, [program.aval(t) for t in targets])
    pulled = oracle.run(joined(program, back, read), [*xs, *ws])
    assert inner(ws, found) == pytest.approx(inner(pulled, ts), rel=1e-9)


def test_rows_without_a_tangent_are_not_differentiated():
    recorder = Recorder()
    x, y = (recorder.input(aval(FLOAT, (3,))) for _ in range(2))
    z = jg.tanh(jg.exp(x)) * y
    program = recorder.program([z, jg.exp(x)])
    tangents, saved = pushforward(program, program.results.tolist(), program.inputs[1:].tolist())
    assert [made.prim.name for made, _, _ in tangents.rows()] == ["multiply"] and len(saved) == 1
    assert tangents.results.tolist()[1] == -1
    assert len(jvp(program, [])) == len(program) and jvp(program, []).results[2:].tolist() == [-1, -1]


def test_linear_entries_are_their_own_tangent():
    """One row, of the very form, where all operands have a tangent."""
    for prim in [p for p in RULED if p.linear is Linear.EACH]:
        for arrays, params, places, _ in float_samples(prim, np.random.default_rng(0)):
            program = program_of(prim, arrays, params)
            made, _ = pushforward(program, program.results.tolist(), [int(program.inputs[i]) for i in places])
            assert made.attr.tolist() == program.attr.tolist()[-1:], prim
