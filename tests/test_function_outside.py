"""What a recorded function finds outside its arguments: closures, arrays, containers and iterators that change."""

from __future__ import annotations

import array
import collections
import types

import numpy as np
import pytest

import jitgrad as jg
from replays import assert_alike, told

X = jg.constant([1.0, -2.0, 3.0])
Y = jg.constant([4.0, 5.0, -6.0])


def gradients(wrap, of):
    """The gradient of two calls by a Tensor that the function finds around it."""
    c, out = jg.constant(3.0), []
    f = wrap(of(c))
    f(X)
    for _ in range(2):
        with jg.GradientTape() as tape:
            tape.watch(c)
            y = jg.sum(f(X))
        out.append(told(tape.gradient(y, c)))
    return out


class Holder:
    """Holds a Tensor, as a layer that is none of jitgrad's does."""

    def __init__(self, t):
        self.t = t

    def __call__(self, x):
        return x * self.t


@pytest.mark.parametrize("of", [
    lambda c: lambda x: x * c,
    lambda c: lambda x, c=c: x * c,
    lambda c: Holder(c),
    lambda c: lambda x, held=[c, {"c": c}]: x * held[0] * held[1]["c"],
    lambda c: lambda x: c,
], ids=["closure", "default", "attribute", "list", "returned"])
def test_a_tape_of_the_callers_knows_tensors_around_a_function(of):
    assert gradients(jg.function, of) == gradients(lambda f: f, of)


def test_a_tensor_that_the_callers_tape_computed_leads_on_to_its_variable():
    w = jg.Variable(2.0)
    with jg.GradientTape() as tape:
        h = w * 3.0
        f = jg.function(lambda x: x * h)
        y = jg.sum(f(X)) + jg.sum(f(X)) + jg.sum(f(X))
    assert float(tape.gradient(y, w)) == 3 * 3.0 * 2.0


def test_a_tensor_around_a_function_may_be_its_argument():
    assert_alike(lambda wrap: wrap(lambda x: (x * X, x is X)[0]), [(X,), (Y,), (X,), (Y,)])


@pytest.mark.parametrize("use", [
    lambda a: a * 2, lambda a: float(a[1]), lambda a: a.sum(), lambda a: 1.0 if a[0] > 5 else 2.0, lambda a: a,
    lambda a: a[1:], lambda a: a.reshape(-1, 1)[0, 0], lambda a: float(np.dot(a, a)),
], ids=["product", "number", "sum", "branch", "itself", "view", "reshaped", "dot"])
def test_arrays_that_numpy_reads_may_change_in_place(use):
    def make(wrap):
        held = np.array([1.0, 2.0, 3.0])
        f = wrap(lambda x: x * jg.sum(jg.constant(use(held))))

        def step(at, value):
            held[at] = value
            return f(X)
        return step
    assert_alike(make, [(0, 1.0), (1, 7.0), (0, 9.0), (0, 9.0), (2, float("nan")), (2, -0.0), (2, 0.0), (1, 7.0)])


def test_arrays_that_the_function_itself_changes():
    def make(wrap):
        held = np.zeros(3)

        def f(x):
            held[0] += 1.0
            return x * float(held[0])
        return wrap(f)
    assert_alike(make, [(X,)] * 5)


def test_arrays_in_lists_views_and_other_layouts():
    def make(wrap):
        big = np.arange(12, dtype=np.float32).reshape(3, 4)
        row, column, held = big[1], big[:, 0], [np.ones(3, np.float32)]
        by_row, by_column, by_list = (wrap(f) for f in (
            lambda x: x[0] * row, lambda x: x * column, lambda x: x * held[0]))

        def step(k):
            big[1, k % 4] += k
            held[0][k % 3] *= 2
            if k == 6:
                held[0] = np.full(3, 9.0, np.float32)
            return by_row(X), by_column(X), by_list(X)
        return step
    assert_alike(make, [(k,) for k in range(10)])


@pytest.mark.parametrize("dtype", ["U3", "O", "c16", ">f4", "f2"])
def test_arrays_of_types_that_no_tensor_has(dtype):
    def make(wrap):
        held = np.array(["1", "2"]).astype(dtype)
        f = wrap(lambda x: x * float(str(held[0]).strip("(+0j)") or 0))

        def step(value):
            held[0] = value
            return f(X)
        return step
    assert_alike(make, [("1",), ("1",), ("3",), ("1",)])


def test_the_order_of_a_dictionary():
    a, b = {"a": X, "b": Y}, {"b": Y, "a": X}
    assert_alike(lambda wrap: wrap(lambda d: list(d.values())), [(a,), (a,), (b,), (b,), (a,)])


def test_keys_of_a_dictionary_have_types():
    assert_alike(lambda wrap: wrap(lambda d: d), [({1: X},), ({1: X},), ({True: X},), ({1.0: X},), ({1: X},)])


def changing(make, change):
    """Calls a function that has a container, which is changed before the fourth call and each after it."""
    def made(wrap):
        held = make()
        f, given = wrap(lambda x: x * total(held)), wrap(lambda x, held: x * total(held))

        def step(k):
            if k > 2:
                change(held)
            return f(X), given(X, held)
        return step
    assert_alike(made, [(k,) for k in range(6)])


def total(held):
    """A number that depends on the order of the items of a container."""
    out = 0.5
    for n, item in enumerate(held.values() if hasattr(held, "values") else held):
        out += float(item) * (n + 1)
    return out


@pytest.mark.parametrize(("make", "change"), [
    (lambda: [1.0, 2.0], lambda held: held.append(3.0)),
    (lambda: {"a": 1.0, "b": 2.0}, lambda held: held.update(a=held.pop("a"))),
    (lambda: {1.0, 2.0}, lambda held: held.add(len(held) + 7.0)),
    (lambda: bytearray(b"ab"), lambda held: held.append(3)),
    (lambda: collections.deque([1.0, 2.0]), lambda held: held.append(3.0)),
    (lambda: array.array("d", [1.0, 2.0]), lambda held: held.append(3.0)),
    (lambda: [1.0] * 300, lambda held: held.append(3.0)),
    (lambda: dict.fromkeys(range(300), 1.0), lambda held: held.update({7: held[7] + 1.0})),
    (lambda: {object(): 1.0}, lambda held: held.update({object(): 2.0})),
    (lambda: collections.OrderedDict(a=1.0, b=2.0), lambda held: held.update(c=held["a"], a=held["a"] + 1.0)),
    (lambda: collections.defaultdict(float, a=1.0), lambda held: held.update({len(held): 1.0})),
    (lambda: collections.Counter("aab"), lambda held: held.update("c")),
    (lambda: collections.UserDict(a=1.0), lambda held: held.update(a=held["a"] + 1.0)),
    (lambda: collections.UserList([1.0]), lambda held: held.append(2.0)),
    (lambda: collections.ChainMap({"a": 1.0}), lambda held: held.update(a=held["a"] + 1.0)),
    (lambda: type("Own", (list,), {})([1.0]), lambda held: held.append(2.0)),
    (lambda: type("Own", (dict,), {})(a=1.0), lambda held: held.update(b=2.0)),
], ids=["list", "dict", "set", "bytearray", "deque", "array", "long list", "long dict", "keys", "OrderedDict",
        "defaultdict", "Counter", "UserDict", "UserList", "ChainMap", "subclass of list", "subclass of dict"])
def test_containers_that_change(make, change):
    changing(make, change)


def test_namespaces_that_change():
    def make(wrap):
        cfg = types.SimpleNamespace(rate=1.0)
        f, given = wrap(lambda x: x * cfg.rate), wrap(lambda x, cfg: x * cfg.rate)

        def step(rate):
            cfg.rate = rate
            return f(X), given(X, cfg)
        return step
    assert_alike(make, [(rate,) for rate in (1.0, 1.0, 2.0, 2.0, -0.0, 0.0)])


@pytest.mark.parametrize("make", [
    lambda: iter([2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), lambda: (k + 0.5 for k in range(6)), lambda: map(float, range(6)),
    lambda: zip([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], strict=True)], ids=["list", "generator", "map", "zip"])
def test_iterators_go_on(make):
    def made(wrap):
        one, two = make(), make()
        f, given = wrap(lambda x: (x, next(one))), wrap(lambda x, it: (x, next(it)))
        return lambda: (f(X), given(X, two))
    assert_alike(made, [()] * 6)


def test_iterators_that_a_call_makes_are_its_own(caplog):
    f = jg.function(lambda x: sum((x * k for k in range(3)), x) + sum(a * b for a, b in zip((x, x), (1.0, 2.0), strict=True)))
    f(X)
    f(X)
    assert (f.cache_info().hits, caplog.records) == (1, [])


def test_a_list_or_dict_that_the_function_changes_is_the_callers(caplog):
    def f(x, out, seen):
        out.append(x * 2.0)
        seen["last"] = x
        return x
    f, out, seen = jg.function(f), [], {}
    for x in (X, Y, X):
        f(x, out, seen)
    assert [told(t) for t in out] == [told(x * 2.0) for x in (X, Y, X)]
    assert told(seen["last"]) == told(X)
    assert [r.message for r in caplog.records] == [
        f"function {f.__qualname__} runs as plain Python from now on: it changes a list that it is given"]


def test_a_list_that_was_changed_before_an_exception_is_the_callers():
    def f(out, x):
        out.append(x)
        raise KeyError("after that")
    out = []
    with pytest.raises(KeyError, match="after that"):
        jg.function(f)(out, X)
    assert [told(x) for x in out] == [told(X)]


def test_too_many_names_are_no_error(caplog, monkeypatch):
    from jitgrad.frontend import watching
    monkeypatch.setattr(watching, "MOST_FACTS", 1)
    rate, shift = 2.0, 1.0
    f = jg.function(lambda x: x * rate + shift)
    assert [told(f(X)) for _ in range(2)] == [told(X * rate + shift)] * 2
    assert f.cache_info().python_bound
    assert len(caplog.records) == 1
