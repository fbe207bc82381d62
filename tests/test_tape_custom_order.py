"""Rules of custom_gradient among other tapes: locality, jacobians, higher orders."""


import pytest

import jitgrad as jg
from tape_omissions import expresses
from tapes import leakless, numbers


@expresses("testJacobianCustomGradient")
@leakless
def test_jacobian_inside_a_rule():
    a, b, c = jg.Variable(1.0), jg.Variable(2.0), jg.Variable(3.0)

    def parabola(x):
        return a * x * x + b * x + c

    def call(x):
        @jg.custom_gradient
        def inner():
            def rule(dy, variables=None):
                with jg.GradientTape(persistent=True) as tape:
                    tape.watch(variables)
                    y = parabola(x)
                return (), [2 * jg.sum(dy * tape.jacobian(y, v)) for v in variables]
            return parabola(x), rule
        return inner()

    x = jg.constant([1.0, 2.0, 3.0])
    with jg.GradientTape(persistent=True) as tape:
        tape.watch([a, b, c])
        y = call(x)
    assert tape.gradient(y, x) is None
    assert numbers(y) == [6.0, 11.0, 18.0]
    assert numbers(tape.gradient(y, [a, b, c])) == [28.0, 12.0, 6.0]


@leakless
def test_watching_is_local_through_a_rule():
    @jg.custom_gradient
    def f(x):
        return x * x, lambda dy: dy * 7.0

    x, w = jg.constant(2.0), jg.constant(3.0)
    with jg.GradientTape(persistent=True) as outer:
        outer.watch(x)
        with jg.GradientTape(persistent=True) as inner:
            inner.watch(w)
            y, z = f(x) * w, f(w) * x
    assert numbers(inner.gradient(y, [x, w])) == [None, 4.0]
    assert numbers(inner.gradient([y, z], [x, w])) == [None, 18.0]
    assert numbers(outer.gradient([y, z], [x, w])) == [30.0, None]
    assert numbers(inner.gradient([y, z, x], [x, w])) == [1.0, 18.0]


@leakless
def test_a_rule_that_is_not_on_the_way_does_not_run():
    def no(dy):
        raise AssertionError("not on the way")

    @jg.custom_gradient
    def f(x):
        return x * x, no

    x, w = jg.constant(2.0), jg.constant(3.0)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch([x, w])
        side, y = f(x), w * w
        z = side * w
    assert numbers(tape.gradient(y, [x, w])) == [None, 6.0]
    assert numbers(tape.gradient(z, [side, w])) == [3.0, 4.0]


@leakless
def test_variable_assigned_between_two_rules():
    @jg.custom_gradient
    def f(x):
        return x * x, lambda dy: dy * 10.0 * x

    v = jg.Variable(2.0)
    with jg.GradientTape() as tape:
        y = f(v)
        v.assign(3.0)
        y = y + f(v) + v
    assert numbers(tape.gradient(y, v)) == 51.0


@pytest.mark.parametrize("persistent", [False, True])
@leakless
def test_second_order_goes_through_the_rule(persistent):
    @jg.custom_gradient
    def f(x):
        return x * x, lambda dy: dy * 3.0 * x * x * x

    x = jg.constant(2.0)
    with jg.GradientTape(persistent=persistent) as outer:
        outer.watch(x)
        with jg.GradientTape(persistent=persistent) as inner:
            inner.watch(x)
            y = f(x)
        g = inner.gradient(y, x)
    assert numbers([g, outer.gradient(g, x)]) == [24.0, 36.0]


@leakless
def test_rule_that_uses_the_result():
    @jg.custom_gradient
    def f(x):
        y = jg.exp(x)
        return y, lambda dy: dy * y

    x = jg.constant(0.0)
    with jg.GradientTape() as a:
        a.watch(x)
        with jg.GradientTape() as b:
            b.watch(x)
            with jg.GradientTape() as c:
                c.watch(x)
                y = f(x)
            first = c.gradient(y, x)
        second = b.gradient(first, x)
    assert numbers([first, second, a.gradient(second, x)]) == [1.0, 1.0, 1.0]


@expresses("testOverrideSecondOrderWithCustomGradient")
@leakless
def test_second_order_of_its_own():
    @jg.custom_gradient
    def f(x):
        def first(dz):
            @jg.custom_gradient
            def slope(_):
                return -1.1, lambda ddz: -2.1 * ddz
            return dz * slope(x)
        return x + 10.0, first

    c = jg.constant(1.0)
    with jg.GradientTape() as outer:
        outer.watch(c)
        with jg.GradientTape() as inner:
            inner.watch(c)
            d = f(c) ** 4.0
        dd = inner.gradient(d, c)
    y = 11.0
    assert numbers(dd) == pytest.approx(4 * y**3 * -1.1, rel=1e-6)
    assert numbers(outer.gradient(dd, c)) == pytest.approx(12 * y**2 * 1.1**2 + 4 * y**3 * -2.1, rel=1e-6)


@expresses("testCustomGradientForwardprop")
@leakless
def test_gradient_of_the_rule_in_input_and_seed():
    @jg.custom_gradient
    def f(x):
        def rule(dz):
            @jg.custom_gradient
            def first(_x, _dz):
                return 2.1, lambda _: (2.2, 3.1)
            return first(x, dz)
        return 2.0 * x, rule

    with jg.GradientTape(persistent=True) as outer:
        with jg.GradientTape() as inner:
            c, seed = jg.constant(1.0), jg.ones(())
            outer.watch([c, seed])
            inner.watch(c)
            y = f(c)
        g = inner.gradient(y, c, output_gradients=seed)
    assert numbers(y) == 2.0
    assert numbers([g, outer.gradient(g, c), outer.gradient(g, seed)]) == pytest.approx([2.1, 2.2, 3.1])


@leakless
def test_custom_gradient_inside_another():
    @jg.custom_gradient
    def inner(x):
        return x * 2.0, lambda dy: dy * 100.0

    @jg.custom_gradient
    def outer(x):
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = inner(x) * x
        slope = tape.gradient(y, x)
        return y, lambda dy: dy * slope

    x = jg.constant(3.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = outer(x)
    assert numbers(tape.gradient(y, x)) == 306.0
