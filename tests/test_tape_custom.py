"""custom_gradient and stop_gradient in all their variants."""

import functools

import numpy as np
import pytest

import jitgrad as jg
from tape_omissions import expresses
from tapes import leakless, numbers


class MineError(Exception):
    pass


def gradient(f, *xs, of=None):
    """The gradient of f(*xs) in xs, or in ``of``."""
    with jg.GradientTape() as tape:
        tape.watch([x for x in xs if isinstance(x, jg.Tensor)])
        y = f(*xs)
    return numbers(tape.gradient(y, list(xs) if of is None else of))


@expresses("testCustomGradientInEagerAndGraph")
@leakless
def test_rule_of_a_square():
    @jg.custom_gradient
    def f(x):
        return x * x, lambda dy: [4 * dy]

    assert gradient(f, jg.constant(1.0)) == [4.0]
    assert gradient(lambda x: f(x) * 2.0 + x, jg.constant([1.0, 2.0])) == [[9.0, 9.0]]


@pytest.mark.parametrize("wrong", [lambda d: [], lambda d: [d, d], lambda d: ()])
@expresses("testCustomGradientEmptyError", "testInvalidRecordOperationMessage")
@leakless
def test_wrong_number_of_gradients(wrong):
    @jg.custom_gradient
    def f(x):
        return x, wrong

    v = jg.Variable(1.0)
    with jg.GradientTape() as tape:
        y = f(v)
    with pytest.raises(ValueError, match="gradient function of f is expected to return 1 gradients.*too few gradients"):
        tape.gradient(y, [v])


@leakless
def test_function_that_does_not_return_a_pair():
    for answer in (lambda x: x, lambda x: (x, x), lambda x: (x, abs, abs)):
        with pytest.raises(TypeError, match=r"must return \(y, grad_fn\)"):
            jg.custom_gradient(answer)(jg.constant(1.0))


@leakless
def test_exceptions_propagate():
    @jg.custom_gradient
    def forward(x):
        raise MineError("forward")

    @jg.custom_gradient
    def backward(x):
        def rule(dy):
            raise MineError("backward")
        return x * 2.0, rule

    v = jg.Variable(3.0)
    with jg.GradientTape(persistent=True) as tape:
        with pytest.raises(MineError, match="^forward$"):
            forward(v)
        y, z = backward(v), v * v
    with pytest.raises(MineError, match="^backward$"):
        tape.gradient(y, v)
    assert numbers(tape.gradient(z, v)) == 6.0
    assert not (v * v)._tracked


@leakless
def test_results_are_tensors_of_their_own():
    @jg.custom_gradient
    def both(x, y):
        return (x, y, x, kept), lambda *d: (d[0] * 10.0 + d[2] * 100.0 + d[3], d[1] * 1000.0)

    kept = jg.constant(7.0)
    x = jg.constant(2.0)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch([x, kept])
        a, b, c, d = both(x, x)
    assert all(t is not s for t in (a, b, c, d) for s in (x, kept))
    assert len({id(t) for t in (a, b, c, d)}) == 4
    assert [numbers(tape.gradient(t, x)) for t in (a, b, c, d)] == [10.0, 1000.0, 100.0, 1.0]
    assert tape.gradient(d, kept) is None


@leakless
def test_constant_result():
    @jg.custom_gradient
    def f(x):
        return 5.0, lambda dy: dy * 2.0

    assert numbers(f(jg.constant(1.0))) == 5.0
    assert gradient(f, jg.constant(1.0)) == [2.0]


@leakless
def test_one_of_two_results_is_used():
    seen = []

    @jg.custom_gradient
    def f(x):
        def rule(da, db):
            seen.append(numbers((da, db)))
            return da + db
        return (x * 2, x * 3), rule

    x = jg.constant(3.0)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        a, b = f(x)
    assert numbers(tape.gradient(a, x)) == 1.0
    assert numbers(tape.gradient([a, b], x, [jg.constant(5.0), jg.constant(7.0)])) == 12.0
    assert seen == [(1.0, 0.0), (5.0, 7.0)]
    seen.clear()


@leakless
def test_nests_of_arguments_and_results():
    @jg.custom_gradient
    def f(xs, pair):
        out = {"sum": xs[0] + xs[1], "rest": (pair["p"] * 2,)}
        return out, lambda total, rest: ([total, rest * 10], {"p": total + rest})

    xs, p = [jg.constant(1.0), jg.constant(2.0)], jg.constant(3.0)
    with jg.GradientTape() as tape:
        tape.watch([xs, p])
        y = f(xs, {"p": p})
    assert numbers(y) == {"sum": 3.0, "rest": (6.0,)}
    assert numbers(tape.gradient(y, [xs, p])) == [[1.0, 10.0], 2.0]


@leakless
def test_none_among_the_gradients():
    @jg.custom_gradient
    def f(x, y):
        return x * y, lambda dy: (None, dy * 2.0)

    assert gradient(f, jg.constant(3.0), jg.constant(5.0)) == [None, 2.0]


@leakless
def test_gradients_as_python_numbers_and_arrays():
    @jg.custom_gradient
    def f(x, y):
        return x * y, lambda dy: (3.0, np.array([1.0, 2.0], np.float32))

    assert gradient(f, jg.constant(3.0), jg.constant([5.0, 6.0])) == [3.0, [1.0, 2.0]]


@leakless
def test_arrays_numbers_and_integers_count_as_inputs():
    @jg.custom_gradient
    def f(a, n, x, flag, i):
        assert all(isinstance(t, jg.Tensor) for t in (a, n, x, flag, i))
        return a * n * x if flag else x, lambda dy: (dy, dy, dy * 2.0, None, None)

    x = jg.constant([3.0, 4.0])
    assert gradient(lambda x: f(np.array([1.0, 2.0], np.float32), 2, x, True, jg.constant(3)), x) == [[2.0, 2.0]]


@leakless
def test_keywords():
    @jg.custom_gradient
    def f(x, *, power=2.0, name=""):
        return x ** power, lambda dy: dy * power * 10

    assert gradient(functools.partial(f, power=3.0, name="cube"), jg.constant(2.0)) == [30.0]
    assert f.__name__ == "f" and f.__wrapped__ is not f


@leakless
def test_variables_that_the_function_reads():
    v, w = jg.Variable(2.0, name="v"), jg.Variable(5.0, name="w")
    given = []

    @jg.custom_gradient
    def f(x):
        def rule(dy, variables=None):
            given.extend(u.name for u in variables)
            return dy * 10.0, [dy * 100.0 for _ in variables]
        return x * v * v, rule

    x = jg.constant(3.0)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = f(x) * w
    assert numbers(y) == 60.0
    assert numbers(tape.gradient(y, [x, v, w])) == [50.0, 500.0, 12.0]
    assert given == ["v"]
    assert [u.name for u in tape.watched_variables()] == ["v", "w"]
    given.clear()


@leakless
def test_variables_without_the_keyword():
    v = jg.Variable(2.0)

    @jg.custom_gradient
    def f(x):
        return x * v, lambda dy: dy

    x = jg.constant(3.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        with pytest.raises(TypeError, match="must accept the keyword argument 'variables'"):
            f(x)
        y = x * v
    assert numbers(tape.gradient(y, [x, v])) == [2.0, 3.0]


@leakless
def test_wrong_number_of_variable_gradients():
    v = jg.Variable(2.0)

    @jg.custom_gradient
    def f(x):
        return x * v, lambda dy, variables: (dy, [])

    x = jg.constant(3.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = f(x)
    with pytest.raises(ValueError, match="a gradient for each of 1 variables"):
        tape.gradient(y, v)


@leakless
def test_variables_as_arguments_are_inputs():
    v = jg.Variable(3.0)

    @jg.custom_gradient
    def f(x):
        return x * x, lambda dy, variables=None: dy * 7.0

    assert gradient(f, v) == [7.0]

    @jg.custom_gradient
    def g(x, scale=None):
        return x * scale, lambda dy: dy * 7.0

    assert gradient(lambda x: g(x, scale=v), jg.constant(1.0), of=v) is None


@leakless
def test_frozen_variables_do_not_count():
    v = jg.Variable(2.0, trainable=False)

    @jg.custom_gradient
    def f(x):
        return x * v, lambda dy: dy * 9.0

    assert gradient(f, jg.constant(1.0)) == [9.0]
