"""New values of Variables in the memory of the old ones: the same bits, and only where nobody can tell."""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.aval import aval
from jitgrad.core.dtypes import CODES
from jitgrad.core.recorder import Recorder
from jitgrad.execute.cpu import compiling, engine
from jitgrad.execute.cpu.native.places import NOWHERE
from jitgrad.transform.simplify import simplify
from nests import ONE, TWO
from tolerance import assert_same_bits

N = 1 << 17                    # elements: a run is long, so that other threads would be let run
F4 = CODES[np.dtype("float32")]


@pytest.fixture(autouse=True)
def hot(monkeypatch):
    """Plans are compiled when they have run a few times."""
    monkeypatch.setenv("JITGRAD_MACHINE_CODE", "hot")


# ---- which results may ---------------------------------------------------------------------------

def program_of(build, *shapes):
    recorder = Recorder()
    made = build(*(recorder.input(aval(F4, shape)) for shape in shapes))
    return simplify(recorder.program(made))


def pairs(program, machine):
    """(input, result) that may share memory."""
    n = len(program.inputs)
    read, made = machine.places[:n], machine.places[n:]
    return [(i, r) for i, a in enumerate(read) for r, b in enumerate(made) if NOWHERE not in (a, b)
            and a >> 32 == b >> 32 and a <= b
            and program.avals[program.inputs[i]] == program.avals[program.results[r]]]


def allowed(build, *shapes):
    program = program_of(build, *shapes)
    return pairs(program, engine.machine_code(program, len(shapes), len(shapes) + len(program.results), []))


def run(program, machine, arrays, over=()):
    """Results of machine code, some of them written over inputs."""
    given = [a.copy() for a in arrays]
    outs = [np.empty(program.aval(v).shape, program.aval(v).dtype) for v in program.results.tolist()]
    for i, r in over:
        outs[r] = given[i]
    pointers = [a.ctypes.data for a in (*given, *outs)] + [t._data for t in program.constants.values()]
    table, arena = np.array([*pointers, 0], np.int64), np.empty(machine.arena + 128, np.uint8)
    call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(machine.address)
    assert call(table.ctypes.data, (arena.ctypes.data + 63) & -64) == 0
    return outs


def random_updates(rng, shape, rows):
    """A Program of elementwise rows mostly, whose inputs are alike; a sum, a part or a row here and there."""
    def build(*inputs):
        values = list(inputs)
        for _ in range(rows):
            x, y = (values[rng.integers(len(values))] for _ in range(2))
            kind = rng.random()
            if kind < 0.4:
                values.append(ONE[rng.integers(len(ONE) - 1)](x))
            elif kind < 0.85:
                values.append(TWO[rng.integers(len(TWO))](x, y))
            elif kind < 0.95:
                values.append(x + (jg.sum(y, axis=-1, keepdims=True) if kind < 0.9 else y[:1]))
            else:
                values.append(jg.flip(x, 0) + y)
        return values[-6:]
    return program_of(build, *[shape] * 5)


@pytest.mark.parametrize("block", range(10))
def test_whatever_may_be_written_over_inputs_gives_the_same_bits(block):
    rng, shared = np.random.default_rng(block), 0
    for shape in [(3,), (7, 5), (4, 64), (33,), (2, 300), (3, 5000), (200_000,)]:
        program = random_updates(rng, shape, int(rng.integers(2, 14)))
        n = len(program.inputs)
        machine = engine.machine_code(program, n, n + len(program.results), [])
        arrays = [rng.normal(size=shape).astype(np.float32) for _ in range(n)]
        want, found = run(program, machine, arrays), pairs(program, machine)
        for _ in range(4):
            over = {}
            for i, r in rng.permutation(found).tolist() if found else ():
                if i not in over and r not in over.values():
                    over[i] = r
            shared += len(over)
            for a, b in zip(run(program, machine, arrays, over.items()), want, strict=True):
                assert_same_bits(a, b)
    assert shared > 5


def test_an_update_may():
    assert allowed(lambda w, g: [w - g * 0.1], (40,), (40,)) == [(0, 0), (1, 0)]


def test_what_is_read_again_may_not():
    assert (0, 0) not in allowed(lambda w, g: [w - g, w[::-1] + 1.0], (40,), (40,))      # in another order, by a kernel
    assert allowed(lambda w, g: [w - g, w], (40,), (40,)) == [(1, 0)]                     # a result itself
    assert allowed(lambda w, g: [w - g, jg.tanh(w) @ g], (4, 4), (4, 4)) == [(0, 0)]      # the product reads g
    assert (0, 0) not in allowed(lambda w, g: [w - g, w[1:] + g[1:]], (40,), (40,))
    assert (0, 1) in allowed(lambda a, b: [b + 1.0, a + 1.0], (40,), (40,))
    assert (0, 0) not in allowed(lambda a, b: [b + 1.0, a + b], (40,), (40,))             # stored before that is read


def test_what_a_row_or_a_sum_needs_first_may_not():
    assert allowed(lambda w, g: [w - jg.sum(w, axis=-1, keepdims=True)], (4, 600), (4, 600)) == []
    assert allowed(lambda w, g: [w - g], (4, 600), (600,)) == [(0, 0)]
    assert allowed(lambda w, g: [w + g], (600,), (4, 600)) == [(1, 0)]


def test_nothing_is_written_over_before_a_step_that_may_fail():
    assert allowed(lambda w, g: [w - g, jg.sort(g * 2.0)], (40,), (40,)) in ([], [(0, 0)])
    assert allowed(lambda w, g: [w - g, jg.sort(w - g)], (40,), (40,)) == []


def test_nothing_is_written_over_where_a_handler_of_signals_may_run():
    def rounds(w, g):
        return [w - g, jg.fori_loop(0, 3, lambda _, x: jg.sin(x), g)]
    assert allowed(rounds, (40,), (40,)) == []


# ---- Variables -----------------------------------------------------------------------------------

def trained(n=N):
    """A Variable, a function that changes it, in machine code, and how far its numbers are."""
    w = jg.Variable(np.zeros(n, np.float32))

    @jg.function
    def step(g):
        w.assign_add(g * 2.0)
    g = jg.asarray(np.full(n, 0.5, np.float32))
    for _ in range(6):
        step(g)
    compiling.wait()
    step(g)
    step(g)
    return w, lambda: step(g)


def address(w):
    return w._value._data


def alone():
    """Whether no test before has left a thread of its own: then nothing is written in place, which is right."""
    return all(t is threading.current_thread() or t.name == "jitgrad compiler" for t in threading.enumerate())


def at(w, number):
    assert np.array_equal(np.unique(w.numpy()), [number])


def test_a_value_of_nobody_else_keeps_its_place():
    w, step = trained()
    before = address(w)
    for _ in range(5):
        step()
    assert address(w) == before or not alone()
    at(w, 13)


def test_a_value_that_somebody_has_keeps_its_numbers():
    w, step = trained()
    for hold in (lambda: w.value(), lambda: w.numpy(), lambda: memoryview(w.value()), lambda: np.from_dlpack(w.value()),
                 lambda: w.value()[3:], lambda: jg.reshape(w.value(), (2, -1)), lambda: weakref.ref(w.value())):
        held, before = hold(), address(w)
        copy = np.array(w.numpy())
        gc.collect()
        step()
        if isinstance(held, weakref.ref):
            assert held() is None or np.array_equal(held().numpy(), copy)
            continue
        assert np.array_equal(np.unique(np.asarray(held)), np.unique(copy))
        if isinstance(held, jg.Tensor):
            assert address(w) != before
        del held
        before = address(w)
        step()
        assert address(w) == before or not alone()


def test_what_a_tape_wants_keeps_its_numbers():
    w, step = trained()
    with jg.GradientTape() as tape:
        y = jg.sum(w * w)
    start = float(w.numpy()[0])
    step()
    slope = tape.gradient(y, w)
    assert np.array_equal(np.unique(slope.numpy()), [2 * start])
    with jg.GradientTape() as tape:
        y = jg.sum(w * 3.0)
        step()
        z = y + jg.sum(w * 5.0)
    assert np.array_equal(np.unique(tape.gradient(z, w).numpy()), [8.0])
    at(w, start + 2)


def test_while_other_threads_are_there_nothing_changes_under_them():
    w, step = trained()
    stop, wrong = threading.Event(), []

    def read():
        while not stop.is_set():
            seen = w.value()
            first = float(seen.numpy()[0])
            if not (seen.numpy() == first).all():
                wrong.append(first)
    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(300):
        step()
    stop.set()
    reader.join()
    assert not wrong
    at(w, 308)


def test_two_names_of_one_value():
    w, step = trained()
    other = jg.Variable(np.zeros(N, np.float32))
    other.assign(w.value())
    at(other, 8)
    step()
    at(other, 8)
    at(w, 9)


def test_values_that_cross():
    a, b = (jg.Variable(np.full(N, k, np.float32)) for k in (1.0, 2.0))

    @jg.function
    def step():
        x, y = a.value(), b.value()
        a.assign(y + 1.0)
        b.assign(x + y)
    x, y = 1, 2
    for k in range(20):
        step()
        x, y = y + 1, x + y
        at(a, x)
        at(b, y)
        if k == 8:
            compiling.wait()


def test_a_result_that_is_returned_is_the_callers():
    w = jg.Variable(np.zeros(N, np.float32))

    @jg.function
    def step():
        w.assign_add(jg.ones((N,)))
        return w.value()
    seen = []
    for k in range(12):
        seen.append(step())
        if k == 6:
            compiling.wait()
    assert [float(t.numpy()[-1]) for t in seen] == list(range(1, 13))


def test_a_guard_that_fails_changes_nothing():
    w = jg.Variable(np.zeros(N, np.float32))

    @jg.function
    def step(x):
        if float(x) > 0:
            w.assign_add(jg.ones((N,)))
        else:
            w.assign_sub(jg.ones((N,)))
    total = 0
    for k in range(30):
        sign = 1.0 if k % 3 else -1.0
        step(jg.asarray(np.float32(sign)))
        total += sign
        at(w, total)
        if k == 12:
            compiling.wait()


def test_an_optimizer_has_the_bits_of_the_sweep(monkeypatch):
    def losses(mode):
        monkeypatch.setenv("JITGRAD_MACHINE_CODE", mode)
        rng = np.random.default_rng(5)
        w, b = (jg.Variable(rng.normal(size=s).astype(np.float32)) for s in ((300, 200), (200,)))
        x = jg.asarray(rng.normal(size=(64, 300)).astype(np.float32))
        adam = jg.nn.optimizers.Adam(1e-2)

        @jg.function
        def step():
            with jg.GradientTape() as tape:
                loss = jg.mean(jg.square(jg.relu(x @ w + b) - 1.0))
            adam.apply_gradients(zip(tape.gradient(loss, [w, b]), [w, b], strict=True))
            return loss
        found = [step().numpy() for _ in range(15)]
        return [*found, w.numpy(), b.numpy()]
    for a, b in zip(losses("1"), losses("0"), strict=True):
        assert_same_bits(a, b)
