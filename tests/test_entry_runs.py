"""What a replayed call does beyond its answer: guards and links, assignments; threads, memory, the end."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import jitgrad as jg
from entry import DOWN, F32, F64, UP, branch, function, installed, is_slow, plan, program, recorded, trace
from jitgrad.core.primitive import OPS
from jitgrad.execute.cpu import compiling, layout, library, types
from jitgrad.execute.cpu.functions import Trace, install
from jitgrad.execute.cpu.plans import plan_of
from jitgrad.transform import control
from still import still

GUARD = OPS["guard"]
ARRAY = [("array", 0, 0)]


# ---- guards and links ----

def test_a_failed_guard_without_a_link_asks_python():
    made = branch(True, 2.0, ARRAY, names=("x",), positional=0)
    f = function(made)
    assert f(x=UP).numpy().tolist() == [2, 4, 6]
    answer = f(x=DOWN)
    assert answer[:4] == ("failed", made.address, 0, ()) and answer[4]["x"] is DOWN
    assert f._hits == made.hits == 1
    f._failed = None
    with pytest.raises(TypeError):
        f(x=DOWN)


def test_links_are_followed_and_the_last_comes_first():
    up, down = branch(True, 2.0, ARRAY), branch(False, -1.0, ARRAY)
    f = function(up, down)
    up.follow_with([(0, down)])
    down.follow_with([(0, up)])
    for _ in range(3):
        for x, scale, first in ((UP, 2.0, up), (DOWN, -1.0, down), (DOWN, -1.0, down)):
            np.testing.assert_array_equal(f(x).numpy(), scale * x)
            assert installed(f)[0] == first.address
    assert (f._hits, up.hits, down.hits) == (9, 3, 6)
    assert up.used < down.used


def test_links_that_lead_nowhere_end():
    """In a ring of traces whose guards all fail each is tried once."""
    ring = [branch(False, float(i), ARRAY) for i in range(20)]
    for i, made in enumerate(ring):
        made.follow_with([(0, made), (1, ring[3]), (0, ring[(i + 1) % 20]), (0, ring[0])])
    answer = function(*ring)(UP)
    assert answer[:3] == ("failed", ring[-1].address, 0)
    many = [branch(False, float(i), ARRAY) for i in range(100)]
    for one, other in itertools.pairwise(many):
        one.follow_with([(0, other)])
    many[-1].follow_with([(0, branch(True, 5.0, ARRAY))])
    assert function(many[0])(UP)[0] == "failed"                # far away, but never wrong
    assert function(many[60])(UP).numpy().tolist() == [5, 10, 15]


def test_the_number_of_a_guard_counts_guards():
    def body(x):
        y = jg.reshape(x, (3, 1)) * 2.0
        GUARD(jg.sum(y), jg.constant(12.0, "float64"))
        z = jg.exp(y)
        GUARD(jg.max(x), jg.constant(3.0, "float64"))
        return jg.sum(z) * 0.0 + 1.0
    made, other = trace([(F64, (3,))], body, ARRAY), branch(True, 7.0, ARRAY)
    f = function(made)
    assert f(UP).numpy() == 1.0 and f(DOWN)[2] == 0 and f(np.array([2.0, 2.0, 2.0]))[2] == 1
    made.follow_with([(1, other)])
    assert f(DOWN)[2] == 0 and f(np.array([2.0, 2.0, 2.0])).numpy().tolist() == [14, 14, 14]


def test_guards_inside_a_choice_stop_too():
    """They have no number among the plan's guards, so Python goes on; nothing was assigned."""
    def checked(x):
        GUARD(jg.max(x), jg.constant(3.0, "float64"))
        return [x * 2.0]
    yes, no = program([(F64, (3,))], checked), program([(F64, (3,))], lambda x: [x * -1.0])
    v = jg.Variable([0.0, 0.0, 0.0], dtype="float64")

    def whole(x):
        (y,) = control.cond(x[0] > 0.0, [x], yes, no)
        GUARD(jg.sum(y) > 100.0, jg.constant(False))
        return [y]
    made = trace([(F64, (3,))], whole, ARRAY, assignments=[(v, 0)])
    f = function(made)
    assert f(UP).numpy().tolist() == [2, 4, 6] and f(DOWN).numpy().tolist() == v.numpy().tolist() == [1, -2, 3]
    assert is_slow(f(UP + 1.0)) and v.numpy().tolist() == [1, -2, 3]
    assert f(DOWN * 100.0)[:3] == ("failed", made.address, 0) and v.numpy().tolist() == [1, -2, 3]


def test_a_linked_trace_has_to_match():
    up, down = branch(True, 2.0, ARRAY), branch(False, -1.0, [("is", 1, None), ("array", 0, 0)], positional=2)
    up.follow_with([(0, down)])
    assert function(up)(DOWN)[0] == "failed"


def test_traces_are_tried_in_order_up_to_a_bound():
    made = [Trace(plan([], lambda: []), [("int_key", 0, i)], positional=1, answer=[("const", f"hit {i}")])
            for i in range(layout.MAX_TRACES + 3)]
    f = function(*made)
    for _ in range(2):
        for i in range(layout.MAX_TRACES):
            assert f(i) == f"hit {i}" and installed(f)[0] == made[i].address
    assert is_slow(f(layout.MAX_TRACES)) and sorted(installed(f)) == sorted(t.address for t in made[:8])
    install(f, made[5:6])
    assert f(5) == "hit 5" and is_slow(f(0))
    install(f, ())
    assert is_slow(f(5)) and f._held == ()


# ---- assignments ----

def test_assignments_wait_for_every_guard():
    v, w = jg.Variable([0.0, 0.0, 0.0], dtype="float64"), jg.Variable(1.0, dtype="float64")

    def body(x, old, count):
        new = old + x
        GUARD(jg.sum(new) > 100.0, jg.constant(False))
        return [new, count + 1.0, new * 2.0]
    made = trace([(F64, (3,)), (F64, (3,)), (F64, ())], body, [*ARRAY, ("variable", v, 1), ("variable", w, 2)],
                 positional=1, answer=[("result", 2)], assignments=[(v, 0), (w, 1)])
    f = function(made)
    before = v._value
    assert f(UP).numpy().tolist() == [2, 4, 6]
    assert v.numpy().tolist() == [1, 2, 3] and w.numpy() == 2.0 and before.numpy().tolist() == [0, 0, 0]
    assert f(UP).numpy().tolist() == [4, 8, 12] and w.numpy() == 3.0
    kept = v._value
    assert f(np.array([100.0, 0.0, 0.0]))[0] == "failed"
    assert v._value is kept and w.numpy() == 3.0


def test_what_is_assigned_is_a_tensor_of_its_own():
    v, w = jg.Variable([0.0, 0.0]), jg.Variable([0.0, 0.0])
    f = function(trace([(F32, (2,))], lambda x: x * 2.0, [("tensor", 0, 0)], assignments=[(v, 0), (w, 0)]))
    y = f(jg.constant([1.0, 2.0]))
    assert len({id(y), id(v._value), id(w._value)}) == 3
    assert y.numpy().tolist() == v.numpy().tolist() == w.numpy().tolist() == [2, 4]
    only = function(trace([(F32, (2,))], lambda x: [x * 2.0, x + 1.0], [("tensor", 0, 0)], assignments=[(v, 1)]))
    only(jg.constant([1.0, 2.0]))
    assert v.numpy().tolist() == [2, 3]


def test_hundreds_of_variables():
    vs = [jg.Variable([float(i), 1.0]) for i in range(400)]
    made = trace([(F32, (2,))] * 400, lambda *xs: [x * 2.0 for x in xs], [("variable", v, i) for i, v in enumerate(vs)],
                 positional=0, answer=[("const", None)], assignments=[(v, i) for i, v in enumerate(vs)])
    f = function(made)
    for _ in range(4):
        assert f() is None
    assert [v.numpy().tolist() for v in vs] == [[16.0 * i, 16.0] for i in range(400)]


# ---- threads, memory, the end ----

def test_eight_threads_call_one_function():
    """Short plans and long ones, which let go of the lock, with branches that go either way."""
    big = library.LONG_ELEMENTS
    v = jg.Variable(np.ones(big, "f4"))

    def long(x, w):
        return jg.sum(x * w) + jg.sum(jg.exp(x * 0.0))
    slow = trace([(F32, (big,)), (F32, (big,))], long, [("array", 0, 0), ("variable", v, 1)], positional=1)
    up, down = branch(True, 2.0, ARRAY), branch(False, -1.0, ARRAY)
    up.follow_with([(0, down)])
    down.follow_with([(0, up)])
    f = function(up, down, slow)
    assert types.peek(slow.plan.address + layout.P_FLAGS) & layout.LONG
    wrong = []

    def work(k):
        x = np.full(big, k, "f4")
        for i in range(30):
            if f(x).numpy() != (k + 1) * big:
                wrong.append((k, i))
            v.assign(np.ones(big, "f4"))
            for _ in range(30):
                given = UP * k if (i + k) % 2 else DOWN * (k + 1)
                scale = 2.0 if given.sum() > 0 else -1.0
                if given.sum() != 0 and f(given).numpy().tolist() != (scale * given).tolist():
                    wrong.append((k, i, given))
    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_traces_come_and_go_while_threads_call():
    f, stop, wrong = function(), threading.Event(), []

    def work():
        while not stop.is_set():
            for x, scale in ((UP, 2.0), (DOWN, -1.0)):
                answer = f(x)
                if type(answer) is jg.Tensor and answer.numpy().tolist() != (scale * x).tolist():
                    wrong.append(answer)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for i in range(96):
        up, down = branch(True, 2.0, ARRAY), branch(False, -1.0, ARRAY)
        install(f, ((up, down), (down, up), (up,), ())[i % 4])
        up.follow_with([(0, down)] * (i % 3))
        down.follow_with([(0, up)])
        up.follow_with([])
    stop.set()
    for t in threads:
        t.join()
    assert wrong == [] and f._hits > 0


def test_traces_may_change_while_they_match():
    """Code of the user's that runs in a match replaces what is matched."""
    class Trap:
        f = None

        @property
        def rate(self):
            install(Trap.f, ())
            made.clear()
            gc.collect()
            return 5

    made = [trace([(F64, ())], lambda x: x * 2.0, [("attr", 0, "rate", 2), ("int_key", 2, 5), ("float", 1, 0)],
                  positional=2)]
    Trap.f = function(*made)
    assert Trap.f(Trap(), 1.5).numpy() == 3.0
    assert is_slow(Trap.f(Trap(), 1.5))
    Trap.f = None


def test_lists_may_change_while_they_match():
    class Clear:
        def __eq__(self, other):
            xs.clear()
            gc.collect()
            return True
        __hash__ = None

    xs = [Clear(), np.full(3, 2.0)]
    made = trace([(F64, (3,))], lambda x: x * 2.0, [("list", 0, 2, 1), ("equal", 1, Clear()), ("array", 2, 0)],
                 positional=1, answer=[("result", 0), ("argument", 1), ("argument", 2), ("list", 3)])
    first, one, two = function(made)(xs)
    assert first.numpy().tolist() == [4, 4, 4] and type(one) is Clear and two.tolist() == [2, 2, 2] and xs == []


def test_cycles_are_collected():
    class Thing:
        pass
    gc.collect()
    thing, f, space = Thing(), None, {}
    made = Trace(plan([], lambda: []), [("global", space, "f", 1), ("is", 0, thing)], positional=1,
                           answer=[("const", thing)])
    f = function(made)
    made.follow_with([(0, made)])
    space["f"] = f
    f.myself, thing.f = f, f
    f._slow = functools.partial(lambda *args: "slow", f, thing)
    assert f(thing) is thing and f(0) == "slow"
    gone = [weakref.ref(o) for o in (thing, f, made)]
    del thing, f, made, space
    gc.collect()
    assert [r() for r in gone] == [None] * 3


def test_a_function_dies_at_once_without_cycles():
    made = branch(True, 2.0, ARRAY)
    f = function(made)
    f(UP)
    gone = [weakref.ref(f), weakref.ref(made)]
    gc.disable()
    try:
        del f, made
        assert all(r() is None for r in gone)
    finally:
        gc.enable()


@still()
def test_reference_counts_stay():
    """All ways through a call, a hundred thousand times: every count, Tensor and byte is as before."""
    v, w, n = jg.Variable([1.0, 2.0, 3.0], dtype="float64"), jg.Variable(2.0, dtype="float64"), 12_500
    key, space = object(), {"g": 5}
    held = jg.constant([1.0, 2.0, 3.0], "float64")

    def body(x, v, s):
        GUARD(jg.sum(x) > 0.0, jg.constant(True))
        return [x * s, v + x, s + 1.0]
    recipe = [("tuple", 0, 2, 2), ("list", 2, 1, 4), ("dict", 3, ("k",), 5), ("is", 5, key), ("global", space, "g", 6),
              ("int_key", 6, 5), ("attr", 1, "real", 7), ("item", 0, 0, 8), ("array", 4, 0), ("variable", v, 1),
              ("float", 1, 2)]
    made = recorded([(F64, (3,)), (F64, (3,)), (F64, ())], body, recipe, lambda x, v, s: [x + v], positional=2,
                    answer=[("result", 0), ("argument", 0), ("const", key), ("tuple", 2), ("result", 1), ("result", 0),
                            ("dict", ("a", "b")), ("list", 3)], assignments=[(v, 1), (w, 2)])
    f = function(made)
    up, down, half = ([UP], {"k": key}), ([DOWN], {"k": key}), 0.5
    other = jg.asarray(UP)
    watched = [key, space, held, v, w, up, down, UP, DOWN, half, None, True, f, made, v._value, other, jg.Tensor, tuple, ()]

    def work():
        f(up, half)
        f(down, half)
        f(up, "x")
        f(up)
        f(([UP, UP], {"k": key}), half)
        f(([other], {"k": key}), half)
        v._value, w._value = watched[14], watched[14]
        with jg.GradientTape() as tape:
            y = f(up, half)[0]
        tape.gradient(y, v)
        v._value, w._value = watched[14], watched[14]
    v._value, w._value = watched[14], watched[14]
    gc.disable()
    try:
        for _ in range(50):
            work()
        compiling.wait()
        before, blocks = [sys.getrefcount(o) for o in watched], sys.getallocatedblocks()
        for _ in range(n):
            work()
        after = [sys.getrefcount(o) for o in watched]
        assert [b - a for a, b in zip(before, after, strict=True)] == [0] * len(watched)
        assert sys.getallocatedblocks() - blocks < 200
    finally:
        gc.enable()


def test_memory_that_is_out_is_an_exception():
    v = jg.Variable([1.0, 2.0])
    huge = (1 << 40,)
    made = trace([(F32, (2,)), (F32, ())], lambda x, s: [x * 2.0, jg.broadcast_to(s, huge)],
                 [("tensor", 0, 0), ("tensor", 1, 1)], assignments=[(v, 0)], answer=[("const", 1)])
    with pytest.raises(MemoryError):
        function(made)(jg.constant([1.0, 2.0]), jg.constant(1.0))
    assert v.numpy().tolist() == [1, 2]
    inner = trace([(F32, ())], lambda s: jg.sum(jg.exp(jg.broadcast_to(s, huge))), [("tensor", 0, 0)])
    with pytest.raises(MemoryError):
        function(inner)(jg.constant(1.0))


def test_plans_of_walks_share_the_code():
    """Results that are none stay none, in the order of the plan."""
    made = plan_of(program([(F32, (2,))], lambda x: [x * 2.0, None, x + 1.0]))
    out = made.run([jg.constant([1.0, 2.0])])
    assert out[1] is None and [t.numpy().tolist() for t in out[::2]] == [[2, 4], [2, 3]]


@pytest.mark.skipif("JITGRAD_KERNELS" in os.environ, reason="it is what runs")
def test_the_numba_build_of_the_entry():
    code = ("import numpy as np, jitgrad as jg; from entry import *; import test_entry_runs as t, test_entry_tapes as u; "
            "t.test_links_are_followed_and_the_last_comes_first(); t.test_assignments_wait_for_every_guard(); "
            "u.test_what_no_tape_follows_leaves_no_row(); u.test_arrays_and_numbers_are_operands_too()")
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "JITGRAD_KERNELS": "numba", "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
