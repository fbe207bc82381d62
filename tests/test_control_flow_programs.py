"""Programs that users write with loops, eagerly and recorded, against the same in plain Python."""

from __future__ import annotations

import signal

import numpy as np
import pytest

import jitgrad as jg
from replays import close, told

PLAIN_OR_RECORDED = pytest.mark.parametrize("wrap", [lambda f: f, jg.function], ids=["plain", "recorded"])
DRIVERS = pytest.mark.parametrize("loop", ["by_ints", "by_tensors", "by_condition", "by_slices"])


def python(body, n, init):
    for i in range(n):
        init = body(jg.constant(i), init)
    return init


def by_ints(body, n, init):
    return jg.fori_loop(0, n, body, init)


def by_tensors(body, n, init):
    return jg.fori_loop(jg.constant(0), jg.constant(n), body, init)


def by_condition(body, n, init):
    return jg.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, body(*c)), (jg.constant(0), init))[1]


def by_slices(body, n, init):
    return jg.scan(lambda c, i: (body(i, c), None), init, jg.constant(np.arange(n, dtype=np.int32)))[0]


# ---- an ordinary differential equation -----------------------------------------------------------------

def slope(y, p):
    """Of hares and lynxes (Lotka and Volterra)."""
    hares, lynxes = y[0], y[1]
    return jg.stack([hares * (p[0] - p[1] * lynxes), lynxes * (p[2] * hares - p[3])])


def runge_kutta(y, p, h=0.05):
    a = slope(y, p)
    b = slope(y + 0.5 * h * a, p)
    c = slope(y + 0.5 * h * b, p)
    return y + h / 6.0 * (a + 2.0 * b + 2.0 * c + slope(y + h * c, p))


def path_by_hand(y, p):
    path = []
    for _ in range(40):
        y = runge_kutta(y, p)
        path.append(y)
    return jg.sum(jg.stack(path) ** 2) + y[0]


def path_by_scan(y, p):
    def step(y, x):
        y = runge_kutta(y, p)
        return y, y
    y, path = jg.scan(step, y, length=40)
    return jg.sum(path ** 2) + y[0]


def path_by_fori(y, p):
    y, total = jg.fori_loop(0, 40, lambda i, c: (new := runge_kutta(c[0], p), c[1] + jg.sum(new ** 2)),
                            (y, jg.constant(0.0, dtype="float64")))
    return total + y[0]


@PLAIN_OR_RECORDED
@pytest.mark.parametrize("path", [path_by_scan, path_by_fori])
def test_an_equation_solved_in_one_row(path, wrap):
    """Values, gradients and Hessians in parameters and the initial state, as arguments and as Variables."""
    both = wrap(jg.value_and_grad(path, argnums=(0, 1)))
    w, v = jg.Variable(np.zeros(4)), jg.Variable(np.zeros(2))

    def by_tape():
        with jg.GradientTape() as tape:
            loss = path(v, w)
        return loss, tape.gradient(loss, (v, w))
    taped, curved = wrap(by_tape), wrap(jg.hessian(path, argnums=1))
    for k in range(3):
        rng = np.random.default_rng(k)
        y, p = jg.asarray(rng.uniform(0.5, 2.0, 2)), jg.asarray(rng.uniform(0.5, 1.5, 4))
        v.assign(y)
        w.assign(p)
        want = jg.value_and_grad(path_by_hand, argnums=(0, 1))(y, p)
        close(both(y, p), want, 1e-11)
        close(taped(), want, 1e-11)
        if k == 2:
            close(curved(y, p), jg.hessian(path_by_hand, argnums=1)(y, p), 1e-9)


# ---- Variables and tapes in bodies ---------------------------------------------------------------------

def reads(w, n):
    return lambda i, x: jg.sin(x) * w + n


def assigns(w, n):
    def body(i, x):
        w.assign(0.9 * w + 0.1 * x)
        n.assign_add(1.0)
        x = x * w
        n.assign_sub(0.25 * x)
        return x
    return body


def descends(w, n):
    """A training step, with a tape of its own."""
    def body(i, x):
        with jg.GradientTape() as tape:
            loss = (w * x - 1.0) ** 2
        w.assign_sub(0.1 * tape.gradient(loss, w))
        n.assign_add(jg.cast(i, "float64"))
        return x + 0.1 * loss
    return body


def bends(w, n):
    """Second derivatives: a tape in a tape."""
    def body(i, x):
        with jg.GradientTape() as outer:
            with jg.GradientTape() as inner:
                y = jg.sin(w * x)
            g = inner.gradient(y, w)
        n.assign_add(g)
        return x + 0.1 * outer.gradient(g, w)
    return body


def ran(body_of, driver, wrap, rounds):
    """What three calls return, what Variables hold, and the gradients of a tape around: not in the Variables that are
    assigned, of which a loop counts the reads of what they held before, plain Python every read."""
    w, n = jg.Variable(np.float64(0.7), name="w"), jg.Variable(np.float64(0.0), name="n")
    f = wrap(lambda x: driver(body_of(w, n), rounds, x))
    said = []
    for start in (0.5, 0.8, -0.4):
        x = jg.constant(start, dtype="float64")
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = f(x) * 2.0
        sources = [x, *([] if body_of in (assigns, descends) else [w]), *([n] if body_of is reads else [])]
        said.append((y, tape.gradient(y, sources, unconnected_gradients="zero"), w.numpy(), n.numpy()))
    return said


@PLAIN_OR_RECORDED
@DRIVERS
@pytest.mark.parametrize("body", [reads, assigns, descends, bends])
def test_variables_in_bodies(body, loop, wrap):
    for rounds in (0, 1, 4):
        close(ran(body, globals()[loop], wrap, rounds), ran(body, python, lambda f: f, rounds))


def test_an_assigned_variable_has_the_gradient_of_what_it_held_before():
    """Through the reads of that alone; assigning cuts."""
    w, x = jg.Variable(2.0), jg.constant(3.0)

    def body(i, y):
        y = y * w
        w.assign(w * 0.5)
        return y
    with jg.GradientTape() as tape:
        y = jg.fori_loop(0, 2, body, x)
    assert (float(y), float(tape.gradient(y, w)), float(w)) == (6.0, 3.0, 0.5)


@PLAIN_OR_RECORDED
@DRIVERS
def test_draws_in_bodies_go_on(loop, wrap):
    """The numbers of the plain loop, also those drawn afterwards, and gradients through them."""
    def drawn(driver, wrap):
        jg.random.set_seed(5)
        generator = jg.random.Generator(3)

        def body(i, x):
            return x * jg.random.uniform((2,), dtype="float64") + generator.normal((2,), dtype="float64")
        f = wrap(lambda x: driver(body, 3, x))
        said = []
        for _ in range(3):
            x = jg.constant([1.0, 2.0], dtype="float64")
            with jg.GradientTape() as tape:
                tape.watch(x)
                y = f(x)
            said.append((y, tape.gradient(y, x), jg.random.normal((3,)), generator.uniform(())))
        return said
    close(drawn(globals()[loop], wrap), drawn(python, lambda f: f))


# ---- Ctrl-C ----------------------------------------------------------------------------------------------

@PLAIN_OR_RECORDED
@pytest.mark.parametrize("loop", [by_ints, by_tensors, by_condition])
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals here")
def test_ctrl_c_leaves_variables_as_they_were(loop, wrap):
    """In the first call and in a later one; the same loop runs afterwards, and a tape is usable."""
    w, x, ever = jg.Variable(1.0), jg.constant([1.0, -2.0]), 2**31 - 1

    def body(i, y):
        w.assign(0.5 * w + 1.0)
        return jg.tanh(y) * w
    f = wrap(lambda n: loop(body, n, x))
    few, many = (5, ever) if loop is by_ints else (jg.constant(5), jg.constant(ever))
    want, before = None, signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        for _ in range(3):
            held = w.numpy()
            with jg.GradientTape() as tape:
                tape.watch(x)
                y = x * x
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                with pytest.raises(KeyboardInterrupt):
                    f(many)
            assert w.numpy() == held and tape.gradient(y, x).numpy().tolist() == [2.0, -4.0]
            w.assign(1.0)
            got = told([f(few), w])
            assert want in (None, got)
            want = got
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


# ---- errors ----------------------------------------------------------------------------------------------

ONE = jg.constant(1.0)
WRONG = [
    (lambda: jg.fori_loop(0.5, 2, lambda i, x: x, ONE), r"fori_loop: the bounds must be integers, got float32\[\]"),
    (lambda: jg.fori_loop(0, jg.constant(2.0), lambda i, x: x, ONE), r"fori_loop: .* integers, got float32\[\]"),
    (lambda: jg.fori_loop(False, 2, lambda i, x: x, ONE), r"fori_loop: .* integers, got bool\[\]"),
    (lambda: jg.fori_loop(0, jg.constant([1, 2]), lambda i, x: x, ONE), r"fori_loop: .* integers, got int32\[2\]"),
    (lambda: jg.fori_loop(0, 2, lambda i, x: jg.stack([x, x]), ONE), r"fori_loop: .* as float32\[\], .* float32\[2\]"),
    (lambda: jg.fori_loop(0, jg.constant(2), lambda i, x: (x, i), ONE), r"fori_loop: .* as \*, one round makes \(\*, \*\)"),
    (lambda: jg.fori_loop(0, 2, lambda i, x: 0.5, 1), r"fori_loop: .* as int32\[\], one round makes float32\[\]"),
    (lambda: jg.scan(lambda c, x: (0.5, x), 1, length=2), r"scan: .* as int32\[\], one round makes float32\[\]"),
    (lambda: jg.cond(True, lambda: True, lambda: 2), r"one gives bool\[\], the other int32\[\]"),
    (lambda: jg.while_loop(lambda x: (x < 2, x < 3), lambda x: x, ONE), r"the condition must .* one bool, got \(\*, \*\)"),
    (lambda: jg.while_loop(lambda x: None, lambda x: x, ONE), "while_loop: the condition must return one bool, got None"),
    (lambda: jg.while_loop(lambda x: {"a": x < 2}, lambda x: x, ONE), r"one bool, got \{'a': \*\}"),
    (lambda: jg.while_loop(lambda x: jg.stack([x, x]) < 2, lambda x: x, ONE), r"the condition must be one bool, got shape"),
]


@PLAIN_OR_RECORDED
@pytest.mark.parametrize(("wrong", "words"), WRONG, ids=range(len(WRONG)))
def test_bounds_and_conditions_that_are_refused(wrong, words, wrap):
    with pytest.raises(TypeError, match=words) as said:
        wrap(wrong)()
    assert "test_control_flow_programs.py:" in str(said.value)


def test_numbers_that_bodies_return_have_the_dtype_of_what_they_replace():
    x, n = jg.constant(1.0, dtype="float64"), jg.constant(1, dtype="int64")
    found = [jg.fori_loop(0, 2, lambda i, c: (None, 0.5, 3), (None, x, n))[1:],
             jg.while_loop(lambda c: c[1] < 1.5, lambda c: (None, 2, 3), (None, x, n))[1:],
             jg.scan(lambda c, _: ((None, 0.5, True), 7), (None, x, n), length=2)[0][1:],
             jg.cond(False, lambda: (None, x, n), lambda: (None, 0.5, 3))[1:]]
    assert [[(str(t.dtype), float(t)) for t in pair] for pair in found] == [
        [("float64", y), ("int64", k)] for y, k in ((0.5, 3.0), (2.0, 3.0), (0.5, 1.0), (0.5, 3.0))]


@PLAIN_OR_RECORDED
def test_nothing_carried(wrap):
    """As in JAX, of which these are the answers."""
    xs = jg.constant([1.0, 2.0, 3.0])
    for every in (None, 2):
        f = wrap(lambda xs, every=every: jg.scan(lambda c, x: (None, {"a": x * x, "b": None}), None, xs, reverse=True,
                                                 checkpoint_every=every))
        for _ in range(2):
            carry, ys = f(xs)
            assert carry is None and ys["a"].numpy().tolist() == [1.0, 4.0, 9.0] and ys["b"] is None
    assert wrap(lambda: jg.scan(lambda c, x: (c, x), None, length=4))() == (None, None)
    assert jg.grad(lambda xs: jg.sum(jg.scan(lambda c, x: (c, x * x), None, xs)[1]))(xs).numpy().tolist() == [2.0, 4.0, 6.0]
