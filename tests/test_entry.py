"""The machine's way into a Function: which calls and data a trace takes, and what comes out."""

from __future__ import annotations

import functools
import pickle

import numpy as np
import pytest

import jitgrad as jg
from entry import F32, F64, I64, function, is_slow, plan, program, trace
from jitgrad.core.aval import aval
from jitgrad.core.dtypes import CODES
from jitgrad.core.recorder import Recorder
from jitgrad.execute.cpu import functions, types
from jitgrad.execute.cpu.function_type import Function

KEY = object()


# ---- calls ----

def test_positional_and_keyword_arguments():
    made = trace([(F64, ()), (F64, ())], lambda x, y: x - y, [("float", 0, 0), ("float", 1, 1)], positional=1,
                 names=("second",))
    f = function(made)
    assert f(5.0, second=3.0).numpy() == 2.0
    assert f(5.0, **{"".join(["sec", "ond"]): 3.0}).numpy() == 2.0
    for args, kwargs in (((5.0,), {}), ((5.0, 3.0), {}), ((), {"second": 3.0}), ((5.0,), {"third": 3.0}), ((), {}),
                         ((5.0,), {"second": 3.0, "third": 1.0}), ((5.0, 3.0), {"second": 3.0})):
        assert f(*args, **kwargs) == ("slow", args, kwargs)
    two = functions.Trace(plan([], lambda: []), [], positional=0, names=("a", "b"), answer=[("argument", 1)])
    assert function(two)(a=1, b=2) == 2 and is_slow(function(two)(b=2, a=1))
    assert functools.partial(f, 5.0)(second=1.0).numpy() == 4.0


def test_methods():
    made = functions.Trace(plan([(F64, ())], lambda x: x * 2.0), [("float", 1, 0)], positional=2,
                           answer=[("result", 0), ("argument", 0), ("tuple", 2)])
    f = function(made)
    Model = type("Model", (), {"step": f})
    model = Model()
    for _ in range(3):
        assert model.step(1.5)[0].numpy() == 3.0 and model.step(1.5)[1] is model
    bound = model.step
    assert bound.__self__ is model and bound.__func__ is f and bound(2.0)[1] is model
    assert Model.step is f and f.__get__(None, Model) is f and Model.step(model, 1.0)[1] is model
    assert model.step("x") == ("slow", (model, "x"), {})
    f.__name__ = "step"
    assert f.__name__ == "step" and f.__dict__ == {"__name__": "step"}


def test_a_function_without_a_python_half_says_so():
    f = Function()
    for call in (f, lambda: f(1, a=2)):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(AttributeError):
        _ = f._slow
    f._slow = lambda: 5
    assert f() == 5 and f._hits == 0


# ---- data ----

def layouts(shape, dtype):
    """Arrays that are not what a trace of this shape and dtype reads directly."""
    x = np.ones(shape, dtype)
    wide = np.ones([2 * n for n in shape] or [2], dtype)
    bytes_ = np.zeros(x.nbytes + 1, np.uint8)[1:].view(dtype).reshape(shape)
    yield from (wide[tuple(slice(None, None, 2) for _ in shape)] if shape else wide[::2], x.astype(x.dtype.newbyteorder()),
                x[None], x.astype("int16"), x.astype("float16"), x.astype("complex64"), x.astype(object), x.view(Sub),
                np.ma.masked_array(x), x.astype(np.longlong) if dtype == "int64" else x.astype(np.int8), bytes_,
                np.zeros(shape, [("a", dtype)]), x.tolist(), None, "x", 2**80, jg.asarray(x).numpy().tobytes())
    if len(shape) > 1:
        yield np.asfortranarray(x)
        yield x.reshape(-1)


class Sub(np.ndarray):
    pass


@pytest.mark.parametrize("dtype", ("bool", "int32", "int64", "float32", "float64"))
@pytest.mark.parametrize("shape", ((), (3,), (2, 3), (0, 4), (1, 2, 1, 2)), ids=str)
def test_arrays_and_tensors(dtype, shape, rng):
    avals = [(CODES[np.dtype(dtype)], shape)]
    x = rng.integers(0, 2, shape).astype(dtype)
    by_array = function(trace(avals, lambda x: jg.reshape(x, (*shape, 1)), [("array", 0, 0)]))
    by_tensor = function(trace(avals, lambda x: jg.reshape(x, (*shape, 1)), [("tensor", 0, 0)]))
    t = jg.asarray(x)
    copied = pickle.loads(pickle.dumps(x))          # its dtype is equal to NumPy's, and another object
    locked = x.copy()
    locked.flags.writeable = False
    for good in (x, x.copy(), copied, locked):
        np.testing.assert_array_equal(by_array(good).numpy(), x[..., None], strict=True)
        assert is_slow(by_tensor(good))
    np.testing.assert_array_equal(by_tensor(t).numpy(), x[..., None], strict=True)
    others = [jg.asarray(np.ones(shape, d)) for d in ("bool", "int32", "int64", "float32", "float64") if d != dtype]
    others += [jg.asarray(np.ones((*shape, 2), dtype)), jg.Variable(np.ones(shape, dtype)), jg.Tensor]
    assert is_slow(by_array(t)) and all(is_slow(f(o)) for o in others for f in (by_array, by_tensor))
    for bad in layouts(shape, dtype):
        good = type(bad) is np.ndarray and bad.dtype == dtype and bad.shape == shape and bad.flags.c_contiguous \
            and bad.flags.aligned and bad.dtype.isnative and bad.dtype.char == np.dtype(dtype).char
        assert is_slow(by_array(bad)) != good, (bad, getattr(bad, "dtype", None))
        assert is_slow(by_tensor(bad))


def test_python_numbers():
    f = function(trace([(F64, ())], lambda x: x * 2.0, [("float", 0, 0)]))
    assert f(1.5).numpy() == 3.0 and f(1.5).dtype == "float64" and np.isnan(f(float("nan")).numpy())
    for bad in (1, True, np.float64(1.5), np.float32(1.5), "1.5", None, jg.constant(1.5), 2**70):
        assert is_slow(f(bad))
    g = function(trace([(I64, ()), (I64, ())], lambda x, y: x + y, [("int", 0, 0), ("int", 1, 1)]))
    for n in (0, 1, -1, 2**31, 2**62, -2**63):
        assert int(g(n, 0)) == n and int(g(n, n)) == (2 * n + 2**63) % 2**64 - 2**63
    for bad in (1.0, True, np.int64(1), 2**63, -2**63 - 1, 10**100, None):
        assert is_slow(g(bad, 1)) and is_slow(g(1, bad))
    single = function(trace([(F32, ())], lambda x: x * 2.0, [("float", 0, 0)]))
    for x in (1.5, 0.1, 1e300, -1e-60, float("nan"), 16777217.0):
        with np.errstate(over="ignore"):
            assert single(x).numpy().tobytes() == (np.float32(x) * np.float32(2.0)).tobytes()
    for kind, code in (("float", I64), ("int", F64)):
        with pytest.raises(ValueError, match=f"a Python {kind} is no input"):
            trace([(code, ())], lambda x: x + x, [(kind, 0, 0)])


def test_dry_tensors_go_to_python():
    f = function(trace([(F32, (2,))], lambda x: x + x, [("tensor", 0, 0)]))
    assert is_slow(f(Recorder().input(aval(F32, (2,)))))


@pytest.mark.parametrize("wrong", (
    {"recipe": [("tensor", 1, 0)]}, {"recipe": [("tuple", 0, 2, 1), ("tensor", 3, 0)]}, {"recipe": [("tensor", 0, 1)]},
    {"answer": [("result", 1)]}, {"answer": [("argument", 1)]}, {"answer": [("result", -1)]}, {"recipe": [("is", -1, 0)]},
    {"answer": [("tuple", 1)]}, {"assignments": [(jg.Variable([1.0, 2.0]), 0)]},
    {"assignments": [(jg.Variable(1.0), 1)]}), ids=str)
def test_descriptions_out_of_range_are_refused(wrong):
    given = {"recipe": [("tensor", 0, 0)], **wrong}
    with pytest.raises(ValueError, match="a trace"):
        trace([(F32, ())], lambda x: x + x, given.pop("recipe"), **given)


def test_a_recipe_names_every_input_once():
    with pytest.raises(ValueError, match=r"the inputs \[1\] come from"):
        trace([(F32, ()), (F32, ())], lambda x, y: x + y, [("tensor", 0, 0)])
    with pytest.raises(ValueError, match="names input 0 twice"):
        trace([(F64, ())], lambda x: x + x, [("float", 0, 0), ("float", 1, 0)], positional=2)


@pytest.mark.parametrize("n", (3, 8, 9, 40, 200))
@pytest.mark.parametrize("kind", ("tensor", "array"))
def test_aliasing(n, kind, rng):
    """Different inputs want different objects, one input one object."""
    def total(*xs):
        return functools.reduce(lambda a, b: a + b, xs)
    make = jg.constant if kind == "tensor" else lambda v: np.array(v, "float32")
    xs = [make(float(i)) for i in range(n)]
    f = function(trace([(F32, ())] * n, total, [(kind, i, i) for i in range(n)]))
    assert f(*xs).numpy() == n * (n - 1) / 2
    for _ in range(20):
        i, j = rng.choice(n, 2, replace=False)
        given = [*xs]
        given[i] = xs[j]
        assert is_slow(f(*given))
    g = function(trace([(F32, ())] * (n - 1), total, [*((kind, i, i) for i in range(n - 1)), (kind, n - 1, 0)],
                       positional=n))
    assert g(*xs[:-1], xs[0]).numpy() == (n - 1) * (n - 2) / 2
    assert is_slow(g(*xs)) and is_slow(g(*xs[:-1], xs[-2]))


def test_numbers_may_be_one_object():
    f = function(trace([(F64, ()), (F64, ())], lambda x, y: x + y, [("float", 0, 0), ("float", 1, 1)]))
    x = 2.5
    assert f(x, x).numpy() == 5.0


def test_nests_of_hundreds(rng):
    n = 300
    recipe = [("list", 0, n, 1), *(("tensor", 1 + i, i) for i in range(n))]
    made = trace([(F32, (2,))] * n, lambda *xs: [x * 2.0 for x in xs], recipe, positional=1,
                 answer=[*(("result", i) for i in range(n)), ("list", n)])
    xs = [jg.asarray(rng.normal(size=2).astype("f4")) for _ in range(n)]
    f = function(made)
    for _ in range(3):
        out = f(xs)
        assert type(out) is list and all((a.numpy() == 2 * b.numpy()).all() for a, b in zip(out, xs, strict=True))
    assert is_slow(f(xs[:-1])) and is_slow(f([*xs[:-1], xs[0]])) and is_slow(f((*xs,)))


# ---- captured ----

def test_variables_are_read_at_each_call():
    v = jg.Variable([1.0, 2.0])
    f = function(trace([(F32, (2,))], lambda w: w * 3.0, [("variable", v, 0)], positional=0))
    assert f().numpy().tolist() == [3.0, 6.0]
    v.assign([2.0, 4.0])
    assert f().numpy().tolist() == [6.0, 12.0]
    bare = object.__new__(jg.Variable)
    g = function(trace([(F32, (2,))], lambda w: w * 3.0, [("variable", bare, 0)], positional=0))
    assert is_slow(g())
    bare._value = jg.constant([1.0, 2.0, 3.0])
    assert is_slow(g())
    bare._value = jg.constant([1.0, 2.0])
    assert g().numpy().tolist() == [3.0, 6.0]


def test_captured_arrays_are_read_at_each_call():
    a = np.array([1.0, 2.0])
    f = function(trace([(F64, (2,))], lambda w: w * 3.0, [("captured", a, 0)], positional=0))
    assert f().numpy().tolist() == [3.0, 6.0]
    a[0] = 5
    assert f().numpy().tolist() == [15.0, 6.0]
    a.resize((3,), refcheck=False)
    assert is_slow(f())
    a.resize((2,), refcheck=False)
    assert f().numpy().tolist() == [15.0, 6.0]
    a.resize((2, 1), refcheck=False)
    assert is_slow(f())


# ---- answers ----

def test_answers_of_every_kind():
    x = jg.constant([1.0, 2.0])
    one, two = ("result", 0), ("result", 1)
    seen = []

    def unpack(leaves):
        seen.append(leaves)
        return {"made": leaves}
    cases = {
        "one": ([one], lambda r: r.numpy().tolist() == [2, 4]),
        "tuple": ([one, two, ("tuple", 2)], lambda r: type(r) is tuple and r[1].numpy().tolist() == [3, 6]),
        "list": ([two, one, ("list", 2)], lambda r: type(r) is list and r[0].numpy().tolist() == [3, 6]),
        "dict": ([one, ("const", KEY), ("dict", ("a", 3))], lambda r: list(r) == ["a", 3] and r[3] is KEY),
        "argument": ([("argument", 0)], lambda r: r is x),
        "const": ([("const", None)], lambda r: r is None),
        "empty": ([("tuple", 0), ("list", 0), ("dict", ()), ("tuple", 3)], lambda r: r == ((), [], {})),
        "twice": ([one, one, ("tuple", 2)], lambda r: r[0] is r[1]),
        "nest": ([one, ("argument", 0), ("tuple", 2), two, ("dict", ("b",)), ("list", 2)],
                 lambda r: r[0][1] is x and r[1]["b"].numpy().tolist() == [3, 6]),
        "call": ([("const", 5), one, two, ("call", unpack, 2), ("tuple", 2)],
                 lambda r: r[0] == 5 and r[1]["made"][1].numpy().tolist() == [3, 6]),
    }
    for what, (answer, holds) in cases.items():
        f = function(trace([(F32, (2,))], lambda x: [x * 2.0, x * 3.0], [("tensor", 0, 0)], answer=answer))
        for _ in range(3):
            got = f(x)
            assert holds(got), (what, got)
    assert len(seen) == 3 and type(seen[0]) is list
    with pytest.raises(ValueError, match="leaves 2 objects"):
        trace([(F32, (2,))], lambda x: x * 2.0, [("tensor", 0, 0)], answer=[one, one])


def test_what_an_answer_raises_comes_out():
    def boom(leaves):
        raise ZeroDivisionError(len(leaves))
    v = jg.Variable([1.0, 2.0])
    f = function(trace([(F32, (2,))], lambda x: x * 2.0, [("tensor", 0, 0)], assignments=[(v, 0)],
                       answer=[("const", KEY), ("result", 0), ("call", boom, 1), ("tuple", 2)]))
    with pytest.raises(ZeroDivisionError, match="1"):
        f(jg.constant([1.0, 2.0]))
    assert v.numpy().tolist() == [2.0, 4.0]          # the assignment came before, as in Python


def test_results_are_fresh_each_time():
    f = function(trace([(F32, (2,))], lambda x: x * 2.0, [("array", 0, 0)]))
    a = np.array([1, 2], "f4")
    first = f(a)
    a[:] = 5
    assert f(a).numpy().tolist() == [10, 10] and first.numpy().tolist() == [2, 4]
    whole = function(trace([(F32, (2,))], lambda x: x, [("array", 0, 0)]))
    kept = whole(a)
    a[:] = 7
    assert kept.numpy().tolist() == [5, 5]           # what is returned is a copy


def test_debugging_and_recording_go_to_python():
    f = function(trace([(F32, (2,))], lambda x: x * 2.0, [("tensor", 0, 0)]))
    x = jg.constant([1.0, 2.0])
    assert not is_slow(f(x))
    with jg.debug_nans():
        assert is_slow(f(x))
    types.recording_enter()
    try:
        assert is_slow(f(x))
    finally:
        types.recording_leave()
    assert not is_slow(f(x))


def test_a_kernel_that_fails_leaves_the_error_to_python():
    f = function(trace([(F32, (3,)), (I64, (1,))], lambda x, i: jg.take(x, i), [("array", 0, 0), ("array", 1, 1)]))
    x = np.arange(3, dtype="f4")
    assert f(x, np.array([2])).numpy().tolist() == [2.0]
    assert is_slow(f(x, np.array([3])))
    assert f(x, np.array([1])).numpy().tolist() == [1.0]


def test_programs_are_what_they_say():
    """The plans of these tests are those of Programs: nothing is computed in Python."""
    assert len(program([(F32, (2,))], lambda x: x * 2.0 + 1.0)) == 2
