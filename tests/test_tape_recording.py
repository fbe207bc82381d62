"""What a tape records: stopping, resetting, re-entering, several tapes, exceptions."""

import gc
import itertools
import weakref

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


@pytest.mark.parametrize("persistent", [False, True])
@leakless
def test_gradient_while_recording_is_stopped(persistent):
    v = jg.Variable(2.0)
    with jg.GradientTape(persistent=persistent) as tape:
        y = v * v
        with tape.stop_recording():
            g = tape.gradient(y, v)
        z = g * v
    assert numbers(g) == 4.0
    if persistent:
        assert numbers(tape.gradient(z, v)) == 4.0


@leakless
def test_tapes_die_in_any_order():
    for order in itertools.permutations(range(3)):
        v = jg.Variable(2.0)
        tapes = [jg.GradientTape(persistent=True) for _ in range(3)]
        values = [v * 1.0]
        for tape in tapes:
            tape.__enter__()
            values.append(values[-1] * v)
        for i in order:
            tapes[i].__exit__(None, None, None)
            values.append(values[-1] * v)
        for i in order:
            assert numbers(tapes[i].gradient(values[i + 1], v)) == 2.0 ** (i + 1)
            tapes[i] = None
    assert not (v * v)._tracked


@leakless
def test_leaving_a_tape_twice():
    v = jg.Variable(3.0)
    with jg.GradientTape() as tape:
        y = v * v
    tape.__exit__(None, None, None)
    assert numbers(tape.gradient(y, v)) == 6.0
