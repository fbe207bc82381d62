"""What a tape records: watching, stopping, resetting, re-entering, several tapes, exceptions."""

import gc
import weakref

import numpy as np
import pytest

import jitgrad as jg
from tape_omissions import expresses
from tapes import leakless, numbers


@expresses("testTapeStopRecording")
@leakless
def test_stop_recording():
    with jg.GradientTape() as tape:
        x = jg.Variable(1.0)
        with tape.stop_recording():
            y = x * x
    assert tape.gradient(y, x) is None


@expresses("testTapeStopStartRecording")
@leakless
def test_recording_goes_on_after_a_stop():
    with jg.GradientTape(persistent=True) as tape:
        x = jg.Variable(1.0)
        twice = x * 2
        with tape.stop_recording():
            y = twice * twice
        z = twice * twice
    assert tape.gradient(y, twice) is None
    assert numbers([tape.gradient(z, twice), tape.gradient(z, x)]) == [4.0, 8.0]


@leakless
def test_stopping_what_does_not_record():
    tape = jg.GradientTape()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="Trying to stop recording a tape which is not recording") as caught:
            with tape.stop_recording():
                pass
        assert __file__ in str(caught.value)
        del caught
        with tape:
            pass
    with tape, tape.stop_recording(), pytest.raises(RuntimeError, match="not recording"), tape.stop_recording():
        pass


@leakless
def test_exception_while_stopped():
    v = jg.Variable(3.0)
    with jg.GradientTape() as tape:
        with pytest.raises(KeyError), tape.stop_recording():
            raise KeyError
        y = v * v
    assert numbers(tape.gradient(y, v)) == 6.0


@leakless
def test_one_tape_stops_and_another_goes_on():
    x = jg.constant(2.0)
    with jg.GradientTape() as outer:
        outer.watch(x)
        with jg.GradientTape() as inner:
            inner.watch(x)
            a = x * x
            with outer.stop_recording():
                b = a * x
                with inner.stop_recording():
                    c = b * x
                d = b * x
            e = d + a
    assert numbers(inner.gradient([c, e], x)) == 4 * 8 + 4
    assert numbers(outer.gradient([b, c, d, e], x)) == 4.0


@expresses("testTapeReset")
@leakless
def test_reset():
    with jg.GradientTape() as tape:
        v = jg.Variable(1.0)
        loss = v * v
        tape.reset()
        loss += v * v
    assert numbers(tape.gradient(loss, v)) == 2.0


@leakless
def test_reset_forgets_what_was_watched():
    x, v = jg.constant(2.0), jg.Variable(3.0, trainable=False)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch([x, v])
        y = x * v
        tape.reset()
        z = x * v
    assert tape.watched_variables() == ()
    assert numbers(tape.gradient([y, z], [x, v])) == [None, None]


@leakless
def test_reset_of_one_of_two_tapes():
    v = jg.Variable(3.0)
    with jg.GradientTape() as first:
        y = v * v
        with jg.GradientTape() as second:
            z = y * v
            second.reset()
            w = z * v
    assert numbers(second.gradient(w, [v, y, z])) == [27.0, None, None]
    assert numbers(first.gradient(w, v)) == 4 * 27.0


@leakless
def test_reset_of_a_tape_that_does_not_record():
    tape = jg.GradientTape()
    with pytest.raises(ValueError, match="Tape is not recording"):
        tape.reset()
    with tape:
        tape.reset()
    with pytest.raises(ValueError, match="Tape is not recording"):
        tape.reset()


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


@expresses("testNestedSelfContexts")
@leakless
def test_entering_a_tape_twice():
    v = jg.Variable(3.0)
    with jg.GradientTape() as tape:
        with pytest.raises(ValueError, match=r"Tape is still recording, This can happen if you try to re-enter an "
                                             r"already-active tape\."), tape:
            pass
        y = v * v
    assert numbers(tape.gradient(y, v)) == 6.0


@expresses("testGradientTapeReEnterContext")
@leakless
def test_entering_a_tape_again_continues_it():
    tape = jg.GradientTape()
    with tape:
        x = jg.constant(3.0)
        tape.watch(x)
        y = 2 * x
    between = y * 7
    with tape:
        z = 2 * y
        late = between * x
    assert numbers(tape.gradient([z, late], [x])) == [4.0 + 42.0]


@leakless
def test_entering_a_tape_after_its_gradient_starts_it_anew():
    x, v = jg.constant(3.0), jg.Variable(2.0)
    tape = jg.GradientTape()
    for _ in range(3):
        with tape:
            tape.watch(x)
            y = x * x * v
        assert numbers(tape.gradient(y, [x, v])) == [12.0, 9.0]
        assert tape.watched_variables() == (v,)


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


@leakless
def test_interleaved_tapes():
    v = jg.Variable(2.0)
    first, second = jg.GradientTape(persistent=True), jg.GradientTape(persistent=True)
    first.__enter__()
    a = v * v
    second.__enter__()
    b = a * v
    first.__exit__(None, None, None)
    c = b * v
    second.__exit__(None, None, None)
    assert numbers(first.gradient([b, c], [v, a, b])) == [12.0, 2.0, 1.0]
    assert numbers(second.gradient(c, [v, a, b])) == [16.0, None, 2.0]
    assert numbers(second.gradient(b, [v, a])) == [4.0, None]
    del second
    assert numbers(first.gradient(b, v)) == 12.0


@expresses("testExceptionSafety")
@leakless
def test_exception_in_the_block():
    v = jg.Variable(1.0)
    with pytest.raises(ValueError, match="mine"), jg.GradientTape(), jg.GradientTape(persistent=True):
        y = v * v
        raise ValueError("mine")
    assert not (v * v)._tracked
    with jg.GradientTape() as tape:
        z = v * v
    assert numbers(tape.gradient([y, z], v)) == 2.0


@leakless
def test_variable_assigned_between_reads():
    v = jg.Variable(2.0)
    with jg.GradientTape(persistent=True) as tape:
        y = v * v
        v.assign(5.0)
        z = v * v
        v.assign_add(1.0)
        w = v * v
    assert numbers([tape.gradient(t, v) for t in (y, z, w)]) == [4.0, 10.0, 12.0]
    assert numbers(tape.gradient([y, z, w], v)) == 26.0
    assert numbers(v) == 6.0


@leakless
def test_value_computed_before_an_assignment_keeps_its_gradient():
    v = jg.Variable([1.0, 2.0])
    with jg.GradientTape() as tape:
        y = v * v
        v.assign_sub([5.0, 5.0])
        y = y * v                       # v0^2 v1
    assert numbers(tape.gradient(y, v)) == [2 * 1 * -4 + 1.0, 2 * 2 * -3 + 4.0]


@leakless
def test_assignments_cut_the_chain():
    a, b = jg.Variable(3.0), jg.Variable(0.0)
    with jg.GradientTape() as tape:
        b.assign(a * 2)
        y = b ** 2
    assert numbers(tape.gradient(y, [a, b])) == [None, 12.0]


def test_a_dead_tape_is_gone_at_once():
    v = jg.Variable(jg.ones((100,)))
    gc.disable()
    try:
        for persistent in (False, True):
            with jg.GradientTape(persistent=persistent) as tape:
                y = jg.sum(jg.exp(v) * v)
            tape.gradient(y, v)
            gone = weakref.ref(tape)
            del tape
            assert gone() is None
    finally:
        gc.enable()
