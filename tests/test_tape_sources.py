"""Sources: repeated, nested in containers, unconnected, of integers; what the errors say."""

import collections

import pytest

import jitgrad as jg
from jitgrad.interop.tensorflow.contrib.eager import gradients_function, implicit_grad
from tape_omissions import expresses
from tapes import leakless, numbers

Pair = collections.namedtuple("Pair", "left right")


@expresses("testGradientTapeRepeatedSource")
@leakless
def test_repeated_source():
    with jg.GradientTape() as tape:
        x = jg.constant(3.0)
        tape.watch(x)
        y = 2 * x
    assert numbers(tape.gradient(target=y, sources=[x, x])) == [2.0, 2.0]


@expresses("testPersistentGradientTapeRepeatedSource")
@leakless
def test_repeated_source_of_a_persistent_tape():
    with jg.GradientTape(persistent=True) as tape:
        x, y = jg.constant(3.0), jg.constant(5.0)
        tape.watch(x)
        tape.watch(y)
        z = x * x + x * y
    assert numbers(tape.gradient(target=z, sources=[x, x])) == [11.0, 11.0]
    assert numbers(tape.gradient(target=z, sources=[y, x])) == [3.0, 11.0]
    v = jg.Variable(3.0)
    with jg.GradientTape() as tape:
        y = v * v
    assert numbers(tape.gradient(y, [v, v, y, v])) == [6.0, 6.0, 1.0, 6.0]


@expresses("testGradientTapeStructure")
@leakless
def test_gradients_have_the_structure_of_the_sources():
    with jg.GradientTape(persistent=True) as tape:
        a, b, c = jg.constant(3.0), jg.constant(3.1), jg.constant(3.2)
        tape.watch([a, b, c])
        y = a + 2 * b + 3 * c
    for sources, want in [
        (a, 1.0),
        ([a], [1.0]),
        ((a,), (1.0,)),
        ((a, b), (1.0, 2.0)),
        ([(a, b), (b, c)], [(1.0, 2.0), (2.0, 3.0)]),
        ((a, b, [a, c]), (1.0, 2.0, [1.0, 3.0])),
        ([a, {"x2": b, "x3": c}], [1.0, {"x2": 2.0, "x3": 3.0}]),
        ({"z": a, "a": {"k": [b]}}, {"z": 1.0, "a": {"k": [2.0]}}),
        (Pair(c, (a, b)), Pair(3.0, (1.0, 2.0))),
        (collections.OrderedDict(z=a, a=b), collections.OrderedDict(z=1.0, a=2.0)),
        ([], []),
        ((), ()),
        ({}, {}),
        ([[], {"n": ()}], [[], {"n": ()}]),
    ]:
        found = numbers(tape.gradient(y, sources))
        assert found == want
        assert type(found) is type(want)
        if isinstance(want, dict):
            assert list(found) == list(sources)


@expresses("testGadientTapeCalledOnConstantTarget")
@leakless
def test_target_that_was_never_recorded():
    with jg.GradientTape() as tape:
        x, y = jg.Variable([3.0]), jg.Variable([2.0])
    assert tape.gradient(x, y) is None


@expresses("testUnconnectedGradientsDefault")
@leakless
def test_unconnected_source():
    x, y = jg.constant(1.0), jg.constant(3.0)
    with jg.GradientTape() as tape:
        tape.watch([x, y])
        z = y * 2
    assert tape.gradient(z, x) is None


@expresses("testUnconnectedGradientsZeros", "testUnconnectedGradientsVariablesZeros")
@pytest.mark.parametrize("kind", [jg.constant, jg.Variable])
@pytest.mark.parametrize("how", ["zero", jg.UnconnectedGradients.ZERO])
@leakless
def test_zeros_for_an_unconnected_source(kind, how):
    x, y = kind(jg.ones((2, 2), dtype="float64")), kind(3.0)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch([x, y])
        z = y * 2
    g = tape.gradient(z, x, unconnected_gradients=how)
    assert (numbers(g), g.dtype.name) == ([[0.0, 0.0], [0.0, 0.0]], "float64")
    assert numbers(tape.gradient(z, {"x": x, "y": [y]}, None, how)) == {"x": [[0.0, 0.0], [0.0, 0.0]], "y": [2.0]}
    for none in ("none", jg.UnconnectedGradients.NONE):
        assert tape.gradient(z, x, unconnected_gradients=none) is None


@expresses("testUnknownUnconnectedGradientsValueGiven")
@pytest.mark.parametrize("value", ["nonsense", None, 0, "ZERO"])
@leakless
def test_unknown_way_of_unconnected(value):
    x = jg.Variable([[1.0]])
    with jg.GradientTape(persistent=True) as tape:
        z = x * 2
    for ask in (tape.gradient, tape.jacobian, tape.batch_jacobian):
        with pytest.raises(ValueError, match=f"Unknown value for unconnected_gradients: {value!r}"):
            ask(z, x, unconnected_gradients=value)


@expresses("testUnconnectedNone")
@leakless
def test_variable_that_is_read_and_not_used():
    v = jg.Variable(1.0)

    def f():
        v.read_value()
        return jg.constant(1.0)

    assert numbers(implicit_grad(f)()) == [(None, 1.0)]


@expresses("testGradientInteger")
@leakless
def test_integers():
    assert gradients_function(lambda x: x + x)(jg.constant(1)) == [None]
    n, x = jg.constant([1, 2]), jg.Variable([1.0, 2.0])
    with jg.GradientTape(persistent=True) as tape:
        m = n * n
        y = x * n
    assert tape.gradient([m, n], n) is None
    assert tape.gradient(m, x) is None
    assert numbers(tape.gradient([y, m], [x, n])) == [[1.0, 2.0], None]
    zeros = tape.gradient(y, [n], unconnected_gradients="zero")
    assert (numbers(zeros), zeros[0].dtype.name) == ([[0, 0]], "int32")


@leakless
def test_constant_operand_as_source():
    x, w = jg.constant(2.0), jg.constant(3.0)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(w)
        y = x * w
        tape.watch(x)
        z = x * w
    assert numbers(tape.gradient(z, [x, w])) == [3.0, 2.0]
    assert numbers(tape.gradient(y, w)) == 2.0


@leakless
def test_no_targets():
    x = jg.Variable(2.0)
    with jg.GradientTape(persistent=True) as tape:
        x * x
    assert tape.gradient([], x) is None
    assert numbers(tape.gradient([], x, unconnected_gradients="zero")) == 0.0
    assert tape.gradient([], []) == []


@leakless
def test_empty_arrays():
    x = jg.zeros((0, 3))
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y, s = x * x, jg.sum(x * x)
    assert [tape.gradient(t, x).shape for t in (x, y, s)] == [(0, 3)] * 3


@leakless
def test_a_source_of_another_tape():
    x = jg.constant(2.0)
    with jg.GradientTape() as mine:
        mine.watch(x)
        y = x * x
    with jg.GradientTape() as other:
        other.watch(y)
        z = y * y
    assert other.gradient(z, x) is None
    assert numbers(mine.gradient([y, z], x)) == 4.0


@leakless
def test_gradients_of_equal_structure_and_other_shapes():
    for shape in [(), (2,), (2, 3), (0,), (1, 1)]:
        for dtype in ("float32", "float64"):
            x = jg.ones(shape, dtype=dtype)
            with jg.GradientTape(persistent=True) as tape:
                tape.watch(x)
            seed = jg.ones(shape, dtype=dtype) * 4
            found = [tape.gradient(x, x), tape.gradient([x, x], [x])[0], tape.gradient(x, x, seed)]
            assert [(g.shape, g.dtype.name) for g in found] == [(shape, dtype)] * 3
            assert [float(jg.sum(g)) for g in found] == [n * x.size for n in (1, 2, 4)]


def test_operation_without_a_rule_raises_lookup_error():
    from jitgrad.core.primitive import BY_NAME, OPS, TABLE, elementwise, missing, uniform

    @elementwise(vjp=missing, ref=lambda x: x, samples=uniform((3,)))
    def without_a_rule(x):
        return x

    try:
        op, x, v = OPS["without_a_rule"], jg.constant(1.0), jg.Variable(2.0)
        assert numbers(op(v)) == 2.0
        with jg.GradientTape() as tape:
            assert numbers(op(x)) == 1.0
            for operand in (v, v * x):
                with pytest.raises(LookupError, match="gradient registry has no entry for: without_a_rule"):
                    op(operand)
            with tape.stop_recording():
                assert numbers(op(v)) == 2.0
            y = v * v
        assert numbers(tape.gradient(y, v)) == 4.0
    finally:
        TABLE.remove(BY_NAME.pop("without_a_rule"))
        del OPS["without_a_rule"]


@leakless
def test_seed_that_is_watched_itself():
    x, s = jg.constant(3.0), jg.constant(2.0)
    with jg.GradientTape(persistent=True) as outer:
        outer.watch(s)
        with jg.GradientTape(persistent=True) as inner:
            inner.watch([x, s])
            y = x * x
        of_square, of_itself = inner.gradient(y, [x, s], s), inner.gradient(x, x, s * 1.0)
        with jg.GradientTape() as blank:
            pass
        of_unwatched = blank.gradient(x, x, s * 1.0)
    assert numbers([of_square, of_itself, of_unwatched]) == [[12.0, None], 2.0, 2.0]
    assert numbers([outer.gradient(g, s) for g in (of_square[0], of_itself, of_unwatched)]) == [6.0, 1.0, 1.0]
