"""What a tape watches: Variables when read, what watch names, and watched_variables."""


import numpy as np
import pytest

import jitgrad as jg
from tape_omissions import expresses
from tapes import leakless, numbers


@expresses("testAutomaticWatchedVariables")
@leakless
def test_variables_are_watched_when_read():
    with jg.GradientTape() as tape:
        assert tape.watched_variables() == ()
        v = jg.Variable(1.0)
        loss = v * v
        assert [v] == list(tape.watched_variables())
        tape.reset()
        assert tape.watched_variables() == ()
        loss += v * v
        assert [v] == list(tape.watched_variables())


@expresses("testExplicitWatchedVariables")
@leakless
def test_variables_are_watched_by_name():
    with jg.GradientTape() as tape:
        assert len(tape.watched_variables()) == 0
        v = jg.Variable(1.0)
        tape.watch(v)
        assert [v] == list(tape.watched_variables())
        tape.reset()
        assert len(tape.watched_variables()) == 0
        tape.watch(v)
        assert [v] == list(tape.watched_variables())


@leakless
def test_watched_variables_in_order_of_construction():
    a, b, c = (jg.Variable(float(i)) for i in range(3))
    with jg.GradientTape() as tape:
        tape.watch(c)
        y = b * a
        y = y * b
        with tape.stop_recording():
            y = y * jg.Variable(4.0)
    assert all(v is w for v, w in zip(tape.watched_variables(), (a, b, c), strict=True))


@expresses("testWatchedVariablesAfterNonPersistentGradientCall")
@leakless
def test_watched_variables_after_the_gradient():
    with jg.GradientTape() as tape:
        x = jg.Variable(1.0)
        tape.watch(x)
    assert numbers(tape.gradient(x, x)) == 1.0
    assert tape.watched_variables() == (x,)


@expresses("testWatchedVariablesOnlyHasVariablesFromLastTape")
@leakless
def test_watched_variables_are_the_tapes_own():
    with jg.GradientTape() as tape:
        x = jg.Variable(1.0)
        tape.watch(x)
    with jg.GradientTape() as tape:
        z = jg.Variable(2.0)
        tape.watch(z)
    tape.gradient(z, z)
    (only,) = tape.watched_variables()
    assert only is z


@expresses("testWatchedVariablesRespectReset")
@leakless
def test_watched_variables_after_a_reset():
    with jg.GradientTape() as tape:
        x = jg.Variable(1.0)
        tape.watch(x)
        assert [v is x for v in tape.watched_variables()] == [True]
        tape.reset()
        z = jg.Variable(2.0)
        tape.watch(z)
        assert [v is z for v in tape.watched_variables()] == [True]
    tape.gradient(z, z)
    assert [v is z for v in tape.watched_variables()] == [True]


@expresses("testSelectivelyWatchVariables")
@leakless
def test_only_watched_variables():
    a, b = jg.Variable(1.0), jg.Variable(1.0)
    with jg.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(b)
        y, z = a ** 2, b ** 3
    assert [v is b for v in tape.watched_variables()] == [True]
    assert numbers(tape.gradient([y, z], [a, b])) == [None, 3.0]


@leakless
def test_variable_watched_late_counts_from_there():
    v = jg.Variable(3.0, trainable=False)
    with jg.GradientTape() as tape:
        y = v * v
        tape.watch(v)
        z = v * v
    assert numbers(tape.gradient([y, z], v)) == 6.0


@leakless
def test_tensor_watched_late_counts_from_there():
    x = jg.constant(3.0)
    with jg.GradientTape() as tape:
        y = x * x
        tape.watch(x)
        z = x * x
    assert numbers(tape.gradient([y, z], x)) == 6.0


@leakless
def test_intermediate_value_watched():
    x = jg.constant(3.0)
    with jg.GradientTape() as tape:
        y = x * x
        tape.watch(y)
        z = y * y
    assert numbers(tape.gradient(z, [x, y])) == [None, 18.0]


@leakless
def test_watching_a_nest_and_twice():
    x, v, w = jg.constant(2.0), jg.Variable(3.0, trainable=False), jg.constant(4.0)
    with jg.GradientTape() as tape:
        tape.watch({"x": x, "rest": [v, (w, x)]})
        tape.watch(x)
        y = x * v * w
    assert numbers(tape.gradient(y, [x, v, w])) == [12.0, 8.0, 6.0]


@expresses("testWatchBadThing")
@pytest.mark.parametrize("thing", [np.array(1.0), 3.0, "x", None, [None], {"a": object()}])
@leakless
def test_watching_what_cannot_be_watched(thing):
    tape = jg.GradientTape()
    leaf = next(iter(thing.values())) if isinstance(thing, dict) else thing[0] if isinstance(thing, list) else thing
    with pytest.raises(ValueError, match=f"Passed in object of type.*{type(leaf).__name__}"), tape:
        tape.watch(thing)


def test_watching_integers_is_logged(caplog):
    n, v = jg.constant([1, 2]), jg.Variable(3)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch([n, v])
        y = n * n * v
    assert ["The dtype of the watched tensor must be floating" in r.message and "int32" in r.message
            and r.levelname == "WARNING" for r in caplog.records] == [True, True]
    assert numbers(tape.gradient(y, [n, v])) == [None, None]
    assert tape.watched_variables() == (v,)


@expresses("testPythonMax")
@leakless
def test_max_of_python():
    vs = [jg.Variable(2.0), jg.Variable(3.0), jg.Variable(5.0)]
    with jg.GradientTape() as tape:
        top = max(vs)
    assert top is vs[2]
    assert numbers(tape.gradient(top, vs)) == [None, None, 1.0]


@expresses("testWatchingIsTapeLocal")
@leakless
def test_watching_is_local_to_a_tape():
    a, b = jg.Variable(2.0, trainable=False), jg.Variable(2.0, trainable=False)
    with jg.GradientTape() as outer:
        with jg.GradientTape() as inner:
            outer.watch(a)
            inner.watch([a, b])
            y, z = a ** 3, b ** 2
            dy, dz = inner.gradient([y, z], [a, b])
        second = outer.gradient([dy, dz], [a, b])
    assert numbers([dy, dz, second]) == [12.0, 4.0, [12.0, None]]


@leakless
def test_tapes_watch_different_things():
    x, y, v = jg.constant(2.0), jg.constant(5.0), jg.Variable(3.0)
    with jg.GradientTape() as of_x, jg.GradientTape(watch_accessed_variables=False) as of_y, \
            jg.GradientTape(persistent=True) as of_v:
        of_x.watch(x)
        of_y.watch(y)
        z = x * y * v
    assert numbers(of_x.gradient(z, [x, y, v])) == [15.0, None, 10.0]
    assert numbers(of_y.gradient(z, [x, y, v])) == [None, 6.0, None]
    assert numbers(of_v.gradient(z, [x, y, v])) == [None, None, 10.0]
