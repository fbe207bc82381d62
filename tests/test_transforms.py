"""Function transforms over nests: arguments, structures, closures, orders, and errors in words."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest

import jitgrad as jg

X = jg.constant([0.3, -1.2, 2.0], "float64")
ONES = jg.ones(3, dtype="float64")
Pair = namedtuple("Pair", "left right")


def plain(nest):
    """A nest with numbers in the place of Tensors."""
    if isinstance(nest, dict):
        return {k: plain(v) for k, v in nest.items()}
    if isinstance(nest, tuple | list):
        return type(nest)(*map(plain, nest)) if hasattr(nest, "_fields") else type(nest)(map(plain, nest))
    return nest.numpy().tolist() if hasattr(nest, "numpy") else nest


def close(got, want):
    np.testing.assert_allclose(np.asarray(got), want, rtol=1e-12, atol=1e-14)


# ---- arguments and structures --------------------------------------------------------------------

def test_nests_of_every_kind():
    v = jg.Variable([1.0, 2.0])
    p = {"w": np.ones(2, np.float32), "b": (1.0, jg.constant(2.0)), "x": [v, 3.0], "p": Pair(2.0, None)}

    def f(p):
        return jg.sum(p["w"] * p["x"][0]) + p["b"][1] * p["x"][1] * p["p"].left
    found = jg.grad(f)(p)
    assert plain(found) == {"w": [1.0, 2.0], "b": (0.0, 6.0), "x": [[1.0, 1.0], 4.0], "p": Pair(6.0, None)}
    t = {"w": np.zeros(2), "b": (1.0, 1.0), "x": [jg.zeros(2), 0.0], "p": Pair(1.0, None)}
    assert [plain(part) for part in jg.jvp(f, (p,), (t,))] == [15.0, 12.0]
    assert plain(jg.jvp(lambda q: {"a": None, "y": q["b"]}, (p,), (t,))[1]) == {"a": None, "y": (1.0, 1.0)}
    value, pull = jg.vjp(lambda q: [q["b"], None, q["p"]], p)
    assert plain(value) == [(1.0, 2.0), None, Pair(2.0, None)]
    assert plain(pull([(None, 5.0), None, Pair(7.0, None)]))[0] == {
        "w": [0.0, 0.0], "b": (0.0, 5.0), "x": [[0.0, 0.0], 0.0], "p": Pair(7.0, None)}
    blocks = jg.jacrev(lambda q: {"y": q["w"] * q["b"][0]})(p)
    assert blocks["y"]["w"].shape == (2, 2) and plain(blocks["y"]["b"][0]) == [1.0, 1.0] and blocks["y"]["p"].right is None


@pytest.mark.parametrize(("argnums", "want"), [(0, 12.0), (-1, 9.0), (np.int64(1), 9.0), ((1, 0), (9.0, 12.0)),
                                               ([0], (12.0,))])
def test_argnums(argnums, want):
    f = lambda a, b, *, k: a * b * k                                # noqa: E731
    assert plain(jg.grad(f, argnums)(3.0, 4.0, k=3.0)) == want
    assert plain(jg.value_and_grad(f, argnums)(3.0, 4.0, k=3.0)) == (36.0, want)
    assert plain(jg.jacfwd(f, argnums)(3.0, 4.0, k=3.0)) == want
    assert plain(jg.jacrev(f, argnums)(3.0, 4.0, k=3.0)) == want


def test_aux():
    f = lambda a: (jg.sum(a * a), {"twice": a * 2, "word": "kept"})  # noqa: E731
    for transform, want in ((jg.grad, 2 * X.numpy()), (jg.jacrev, 2 * X.numpy()), (jg.jacfwd, 2 * X.numpy()),
                            (jg.hessian, 2 * np.eye(3))):
        found, aux = transform(f, has_aux=True)(X)
        close(found, want)
        close(aux["twice"], 2 * X.numpy())
        assert aux["word"] == "kept"
    (value, aux), g = jg.value_and_grad(f, has_aux=True)(X)
    close(g, 2 * value.numpy() * 0 + 2 * X.numpy())
    assert jg.vjp(f, X, has_aux=True)[2]["word"] == jg.jvp(f, (X,), (X,), has_aux=True)[2]["word"] == aux["word"]


def test_shapes_and_dtypes():
    empty = jg.zeros((0, 3))
    square = lambda a: a * a                                        # noqa: E731
    assert jg.grad(lambda a: jg.sum(a * a))(empty).shape == jg.vmap(square)(empty).shape == (0, 3)
    for jacobian in (jg.jacrev, jg.jacfwd):
        assert jacobian(square)(empty).shape == (0, 3, 0, 3)
        assert jacobian(square)(2.0).shape == ()
        assert jacobian(jg.sum)(empty).shape == (0, 3)
    assert jg.hessian(lambda a: jg.sum(a * a))(empty).shape == (0, 3, 0, 3)
    single, double = np.ones(2, np.float32), np.ones(2)
    found = jg.grad(lambda a, b: jg.sum(a * b), (0, 1))(single, double)
    assert [g.dtype.name for g in found] == ["float32", "float64"]
    assert jg.jvp(jg.multiply, (single, double), (double, single))[1].dtype == np.float64
    blocks = jg.jacfwd(lambda a, b: (a * 2, a * b), (0, 1))(single, double)
    assert [[b.dtype.name for b in row] for row in blocks] == [["float32", "float32"], ["float64", "float64"]]
    assert [[b.dtype.name for b in row] for row in jg.jacrev(lambda a, b: (a * 2, a * b), (0, 1))(single, double)] == [
        ["float32", "float64"], ["float32", "float64"]]


def test_integers_among_results_have_no_tangent():
    (where, _), (none, t) = jg.jvp(lambda a: (jg.argmax(a), a * 2), (X,), (ONES,))
    assert plain([where, none, t]) == [2, 0, [2.0] * 3] and none.dtype == where.dtype


# ---- orders --------------------------------------------------------------------------------------

def test_perturbations_are_not_confused():
    """Each derivative knows its own variable."""
    for inner in (jg.grad, lambda f: lambda b: jg.jvp(f, (b,), (1.0,))[1]):
        for outer in (jg.grad, lambda f: lambda b: jg.jvp(f, (b,), (1.0,))[1]):
            assert float(outer(lambda a, inner=inner: inner(lambda b: a * b)(a))(3.0)) == 1.0
            assert float(outer(lambda a, inner=inner: a * inner(lambda b: a + b)(1.0))(3.0)) == 1.0
            assert float(outer(lambda a, inner=inner: a * inner(lambda b: a * b)(2.0))(3.0)) == 6.0


def test_orders():
    for first in (jg.grad, jg.jacfwd, jg.jacrev):
        for second in (jg.grad, jg.jacfwd, jg.jacrev):
            assert float(first(second(first(lambda a: a ** 4)))(2.0)) == 48.0


def test_all_jacobians_agree():
    w = np.random.default_rng(0).normal(size=(2, 3))
    f = lambda x: jg.tanh(w @ x) * x[0]                             # noqa: E731
    with jg.GradientTape() as tape:
        tape.watch(X)
        y = f(X)
    want = tape.jacobian(y, X).numpy()
    for transform in (jg.jacrev, jg.jacfwd, jg.jacobian):
        close(transform(f)(X), want)
        close(jg.function(transform(f))(X), want)
        close(jg.vmap(transform(f))(jg.stack([X, X * 2]))[0], want)
    g = lambda x: jg.sum(f(x) ** 2)                                 # noqa: E731
    hessian = jg.hessian(g)(X).numpy()
    for outer in (jg.jacrev, jg.jacfwd):
        for inner in (jg.grad, jg.jacrev, jg.jacfwd):
            close(outer(inner(g))(X), hessian)
    close(jg.hvp(g, (X,), (ONES,)), hessian @ np.ones(3))


def test_hessians_of_several_arguments():
    f = lambda a, b: jg.sum(a["k"] ** 2) * b                        # noqa: E731
    three, one = jg.constant(3.0, "float64"), jg.constant(1.0, "float64")
    of_a, of_b = jg.hessian(f, (0, 1))({"k": X}, three)
    (aa, ab), (ba, bb) = ((row[0]["k"], row[1]) for row in (of_a["k"], of_b))
    close(aa, 6 * np.eye(3))
    close(ab, 2 * X.numpy())
    close(ba, 2 * X.numpy())
    assert float(bb) == 0.0
    along_a, along_b = jg.hvp(f, ({"k": X}, three), ({"k": ONES}, one))
    close(along_a["k"], 6 + 2 * X.numpy())
    close(along_b, 2 * X.numpy().sum())


def test_linear_maps_are_used_again():
    calls = []

    def f(x):
        calls.append(x)
        return jg.sin(x) * x
    slope = np.cos(X.numpy()) * X.numpy() + np.sin(X.numpy())
    _, push = jg.linearize(f, X)
    _, pull = jg.vjp(f, X)
    for k in (1.0, 2.0, 3.0):
        close(push(ONES * k), k * slope)
        close(pull(ONES * k)[0], k * slope)
    close(jg.vmap(push)(jg.eye(3, dtype="float64")), np.diag(slope))
    close(jg.vmap(pull)(jg.eye(3, dtype="float64"))[0], np.diag(slope))
    close(jg.jvp(lambda t: push(t * t), (X,), (ONES,))[1], slope * 2 * X.numpy())
    assert len(calls) == 2


def test_stopped_gradients():
    f = lambda x: jg.sum(x * jg.stop_gradient(x * x))               # noqa: E731
    close(jg.grad(f)(X), X.numpy() ** 2)
    close(jg.jvp(f, (X,), (ONES,))[1], np.sum(X.numpy() ** 2))
    close(jg.hessian(f)(X), np.zeros((3, 3)))
    close(jg.vmap(jg.grad(f))(jg.stack([X, X]))[1], X.numpy() ** 2)


# ---- closures ------------------------------------------------------------------------------------

AROUND = {
    "grad": lambda v: jg.sum(jg.grad(lambda a: jg.sum(a * v * v))(X)),
    "jvp": lambda v: jg.sum(jg.jvp(lambda a: a * v * v, (X,), (ONES,))[1]),
    "vmap": lambda v: jg.sum(jg.vmap(lambda a: jg.sum(a * v * v))(jg.eye(3, dtype="float64"))),
    "jacfwd": lambda v: jg.sum(jg.jacfwd(lambda a: a * v * v)(X)),
    "hessian": lambda v: jg.sum(jg.hessian(lambda a: jg.sum(a * a * v * v))(X)) / 2,
    "cond": lambda v: jg.cond(jg.sum(X) > 0, lambda: jg.sum(v * v), lambda: jg.sum(v)),
    "scan": lambda v: jg.scan(lambda c, k: (c + jg.sum(v * v) * k, None), jg.constant(0.0, "float64"),
                              jg.constant([0.25, 0.75], "float64"))[0],
    "while": lambda v: jg.while_loop(lambda c: c[0] < 1, lambda c: (c[0] + 1, c[1] + jg.sum(v * v)),
                                     (0, jg.constant(0.0, "float64")))[1],
    "function": lambda v: jg.function(lambda: jg.sum(v * v))(),
    "checkpoint": lambda v: jg.checkpoint(lambda: jg.sum(v * v))(),
}


@pytest.mark.parametrize("name", AROUND)
def test_outer_tapes_see_what_closures_take(name):
    """The sum of squares, made through each transform from a Variable and from a watched Tensor around it."""
    f = AROUND[name]
    for v in (jg.Variable(X), X):
        with jg.GradientTape() as second:
            with jg.GradientTape() as tape:
                tape.watch(v)
                second.watch(v)
                y = f(v)
            g = tape.gradient(y, v)
        close(g, 2 * X.numpy())
        close(second.jacobian(g, v), 2 * np.eye(3))
    close(jg.jvp(jg.grad(f), (X,), (ONES,))[1], 2 * np.ones(3))
    close(jg.vmap(jg.grad(f))(jg.stack([X, X * 2]))[1], 4 * X.numpy())


# ---- vmap ----------------------------------------------------------------------------------------

def test_axes():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(4.0)
    close(jg.vmap(jg.sum, 1)(a), a.sum(0))
    close(jg.vmap(jg.sum, -1)(a), a.sum(0))
    close(jg.vmap(lambda x, y: x[:, None] * y, (1, None), 2)(a, b), a[:, None, :] * b[:, None])
    close(jg.vmap(lambda x, y: x[:, None] * y, [1, None], -1)(a, b), a[:, None, :] * b[:, None])
    out = jg.vmap(lambda p, k: {"s": p["x"] + k, "c": [jg.sum(p["y"]), None]}, ({"x": 0, "y": None}, 0),
                  {"s": 1, "c": [None, None]})({"x": a, "y": b}, jg.constant([1.0, 2.0], "float64"))
    close(out["s"], (a + np.array([[1.0], [2.0]])).T)
    assert plain(out["c"]) == [6.0, None]
    close(jg.vmap(lambda x, *, k: x * k)(a, k=a), a * a)
    nested = jg.vmap(jg.vmap(lambda x, y: x * y, (0, None)), (None, 0))(a[0], b)
    close(nested, np.outer(b, a[0]))
    close(jg.vmap(lambda x: 3.0)(a), np.full(2, 3.0))
    close(jg.vmap(lambda x, y: jg.where(x > y, x, y), (0, None))(a, np.float64(2.5)), np.maximum(a, 2.5))


def test_examples_draw_their_own_numbers():
    draw = jg.vmap(lambda x: x + jg.random.uniform((4,)))
    f = jg.function(draw)
    drawn = [g(jg.zeros(3)).numpy() for g in (draw, f, f, f)]
    flat = np.concatenate([d.ravel() for d in drawn])
    assert len(np.unique(flat)) == flat.size == 48 and f.cache_info().hits == 2
    jg.random.set_seed(3)
    first = [f(jg.zeros(3)).numpy() for _ in range(2)]
    jg.random.set_seed(3)
    np.testing.assert_array_equal([draw(jg.zeros(3)).numpy() for _ in range(2)], first)


# ---- errors --------------------------------------------------------------------------------------

HELD = jg.Variable(1.0, dtype="float64")
WRONG = [
    (lambda: jg.grad(lambda a: a * 2)(3), TypeError, r"grad: differentiates in floats, got int32"),
    (lambda: jg.jvp(lambda a: a * 2, (3,), (1,)), TypeError, "jvp: differentiates in floats, got int32"),
    (lambda: jg.grad(lambda a: a * 2)(X), TypeError, r"one float number, got a Tensor of shape \(3,\)"),
    (lambda: jg.grad(jg.argmax)(X), TypeError, "one float number, got .* dtype int64"),
    (lambda: jg.grad(lambda a: None)(X), TypeError, "grad: the result of the function: .* NoneType"),
    (lambda: jg.grad(lambda a: a)("abc"), TypeError, "grad: cannot make a Tensor of str"),
    (lambda: jg.jacrev(jg.argmax)(X), TypeError, "jacrev: results must be floats, got int64"),
    (lambda: jg.grad(lambda a, b: a, 2)(1.0, 2.0), ValueError, "argnums 2 for 2 positional"),
    (lambda: jg.grad(lambda a, b: a, (0, -2))(1.0, 2.0), ValueError, "name an argument twice"),
    (lambda: jg.grad(lambda a, b: a, "b")(1.0, 2.0), TypeError, "argnums are positions of arguments, got 'b'"),
    (lambda: jg.grad(lambda a: a * a, has_aux=True)(1.0), TypeError, r"must return a pair \(result, anything\), got Te"),
    (lambda: jg.jvp(lambda a: (a, a, a), (X,), (X,), has_aux=True), TypeError, "jvp: with has_aux"),
    (lambda: jg.jacfwd(lambda a: a, has_aux=True)(X), TypeError, "jacfwd: with has_aux"),
    (lambda: jg.jvp(lambda a: a, X, X), TypeError, "tuples or lists, one for each argument; got Tensor and Tensor"),
    (lambda: jg.jvp(lambda a: a, (X,), (jg.ones(2),)), ValueError, r"tangent of shape \(2,\) .* primal of shape \(3,\)"),
    (lambda: jg.jvp(lambda a: a, (X,), (X, X)), ValueError, r"leaves are it\[0\], it\[1\], theirs are it\[0\]"),
    (lambda: jg.jvp(lambda a: a["k"], ({"k": X},), ({"j": X},)), ValueError, r"it\[0\]\['j'\], .*it\[0\]\['k'\]"),
    (lambda: jg.vjp(lambda a: (a, a), X)[1]((X,)), ValueError, "vjp: cotangents must be a nest like the results"),
    (lambda: jg.vjp(lambda a: a, X)[1](jg.ones(2)), ValueError, r"shape \(2,\) does not fit .* shape \(3,\)"),
    (lambda: jg.vmap(lambda a, b: a)(jg.ones(2), jg.ones(3)), ValueError, r"different lengths, \[2, 3\]"),
    (lambda: jg.vmap(lambda a: a, None)(X), ValueError, "no argument has an axis"),
    (lambda: jg.vmap(lambda a: a)(1.0), ValueError, r"vmap: in_axes"),
    (lambda: jg.vmap(lambda a: a, 1)(X), ValueError, r"vmap: in_axes"),
    (lambda: jg.vmap(lambda a: a, 0, 1)(X), ValueError, "vmap: out_axes"),
    (lambda: jg.vmap(lambda a: a, (0, 0))(X), ValueError, "vmap: in_axes .* does not fit the structure"),
    (lambda: jg.vmap(lambda a: (a, a), 0, (0, 0, 0))(X), ValueError, "vmap: out_axes .* does not fit the structure"),
    (lambda: jg.vmap(lambda a: a, 0, None)(X), ValueError, "differs between examples, but its out_axes is None"),
    (lambda: jg.vmap(lambda a: a if a > 0 else -a)(X), TypeError, "cond"),
    (lambda: jg.vmap(lambda a: float(a))(X), TypeError, "where"),
    (lambda: jg.vmap(HELD.assign)(X), TypeError, "would be assigned another value by each example"),
]


@pytest.mark.parametrize(("wrong", "kind", "words"), WRONG, ids=range(len(WRONG)))
def test_errors_say_what_is_wrong_and_where(wrong, kind, words):
    with pytest.raises(kind, match=f"(?s){words}") as said:
        wrong()
    assert "test_transforms.py:" in str(said.value)
