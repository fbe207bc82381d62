"""TensorFlow's functions, choices, loops, folds and maps: results and errors as TensorFlow 2.21 gives them."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import pytest

import jitgrad as jg
import jitgrad.interop.tensorflow as tf
from jitgrad.interop.tensorflow.contrib import eager as tfe
from tapes import leakless, numbers

c = tf.constant
XS = [1.0, 2.0, 4.0]


# ---- tf.function ---------------------------------------------------------------------------------

SIGNED = tf.function(lambda x, y=2.0: x * y, input_signature=[tf.TensorSpec([None], tf.float32)])


def test_arguments_become_what_the_signature_says() -> None:
    for x in (c([1.0, 2.0]), [1.0, 2.0], [1, 2], np.array([1.0, 2.0]), tf.Variable([1.0, 2.0])):
        found = SIGNED(x)
        assert found.numpy().tolist() == [2.0, 4.0] and found.dtype == tf.float32
    assert numbers(SIGNED(x=c([3.0]))) == [6.0] and numbers(SIGNED([3.0], 2.0)) == [6.0]
    nested = tf.function(lambda d: d["a"] + d["b"][0], input_signature=[{"a": tf.TensorSpec([]), "b": [tf.TensorSpec(2)]}])
    assert numbers(nested({"a": 1.0, "b": [[2.0, 3.0]]})) == [3.0, 4.0]
    assert SIGNED.input_signature == (tf.TensorSpec([None]),)


@pytest.mark.parametrize(("args", "kwargs", "words"), [
    ([[[1.0]]], {}, r"Can not cast TensorSpec\(shape=\(1, 1\).* to TensorSpec\(shape=\(None,\)"),
    ([c([1])], {}, "dtype=int32"), ([], {}, "missing a required argument: 'x'"), ([[1.0]], {"z": 1}, "'z'"),
    ([[1.0], 3.0], {}, "'y' is not in the input_signature")])
def test_what_does_not_fit_the_signature(args: Any, kwargs: Any, words: str) -> None:
    made = [c(x) if isinstance(x, list) else x for x in args]
    with pytest.raises(TypeError, match=f"Binding inputs to tf.function failed due to .*{words}"):
        SIGNED(*made, **kwargs)


def test_signatures_that_cannot_be() -> None:
    with pytest.raises(TypeError, match="input_signature missing type constraint for y"):
        tf.function(lambda x, y: x, input_signature=[tf.TensorSpec([])])
    with pytest.raises(TypeError, match="takes 1 positional"):
        tf.function(lambda x: x, input_signature=[tf.TensorSpec([]), tf.TensorSpec([])])
    with pytest.raises(TypeError, match="nested sequence of TensorSpec"):
        tf.function(lambda x: x, input_signature=[3.0])
    with pytest.raises(TypeError, match="must be either a tuple or a list"):
        tf.function(lambda x: x, input_signature=tf.TensorSpec([]))


def test_methods_with_a_signature() -> None:
    class Scaled:
        def __init__(self, by: float) -> None:
            self.by = tf.Variable(by)

        @tf.function(input_signature=[tf.TensorSpec([])])
        def call(self, x: Any) -> Any:
            return x * self.by

        @tf.function(autograph=False, jit_compile=True, reduce_retracing=True)
        def plain(self, x: Any) -> Any:
            return x * self.by

    two, three = Scaled(2.0), Scaled(3.0)
    assert [float(s.call(5)) for s in (two, three, two)] == [10.0, 15.0, 10.0]
    assert [float(s.plain(c(5.0))) for s in (two, three, two)] == [10.0, 15.0, 10.0]
    two.by.assign(4.0)
    assert [float(s.call(5)) for s in (two, three, two)] == [20.0, 15.0, 20.0]


def test_functions_run_eagerly_where_told() -> None:
    calls = []

    @tf.function
    def f(x: Any) -> Any:
        calls.append(float(x))
        return x + 1.0

    x = c(1.0)
    for on in (True, False, True, False):
        tf.config.run_functions_eagerly(on)
        try:
            assert tf.config.functions_run_eagerly() is on
            before = len(calls)
            assert [float(f(x)) for _ in range(4)] == [2.0] * 4
            assert len(calls) - before == 4 if on else True
        finally:
            tf.config.run_functions_eagerly(False)


def test_specs() -> None:
    spec = tf.TensorSpec([None, 2], tf.float32, name="x")
    assert repr(spec) == "TensorSpec(shape=(None, 2), dtype=float32, name='x')"
    assert repr(tf.TensorSpec(None)) == "TensorSpec(shape=<unknown>, dtype=float32, name=None)"
    assert tf.TensorSpec.from_tensor(c([1.0, 2.0])) == tf.TensorSpec([2]) == tf.TensorSpec(2, name="other")
    assert hash(tf.TensorSpec([2])) == hash(tf.TensorSpec((2,)))
    assert spec.is_compatible_with(jg.zeros((5, 2))) and not spec.is_compatible_with(jg.zeros((5, 3)))
    assert not spec.is_compatible_with(jg.zeros((2,))) and not spec.is_compatible_with(jg.zeros((5, 2), "float64"))
    assert tf.TensorSpec(None).is_compatible_with(spec) and tf.TensorSpec([3]).is_compatible_with(tf.TensorSpec([None]))


# ---- choices and loops ---------------------------------------------------------------------------

def both_ways(f: Any) -> list[Any]:
    """What a function gives, plain and recorded."""
    recorded = tf.function(f)
    plain = numbers(f())
    assert numbers(recorded()) == numbers(recorded()) == plain
    return plain


Pair = collections.namedtuple("Pair", "i x")


@pytest.mark.parametrize(("f", "want"), [
    (lambda: tf.cond(c(True), lambda: 1.0, lambda: 2.0), 1.0), (lambda: tf.cond(False, lambda: 1.0, lambda: 2.0), 2.0),
    (lambda: [tf.switch_case(c(i), [lambda: c(10.0), lambda: c(20.0), lambda: c(30.0)]) for i in (-1, 0, 1, 2, 7)],
     [30.0, 10.0, 20.0, 30.0, 30.0]),
    (lambda: [tf.switch_case(c(i), {1: lambda: 10.0, 0: lambda: 20.0}, default=lambda: -1.0) for i in (0, 1, 5)],
     [20.0, 10.0, -1.0]),
    (lambda: tf.switch_case(3, [lambda: {"a": 1.0}]), {"a": 1.0}),
    (lambda: tf.case([(c(False), lambda: 1.0), (c(True), lambda: 2.0), (c(True), lambda: 3.0)]), 2.0),
    (lambda: tf.case([(c(False), lambda: 1.0)], default=lambda: 5.0, exclusive=True), 5.0),
    (lambda: tf.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2), [c(0), c(1.0)]), [3, 8.0]),
    (lambda: tf.while_loop(lambda i, x: i < 3, lambda i, x: [i + 1, x * 2], Pair(c(0), c(1.0))), Pair(3, 8.0)),
    (lambda: tf.while_loop(lambda i: i < 3, lambda i: [i + 1], [c(0)]), [3]),
    (lambda: tf.while_loop(lambda i: i < 30, lambda i: (i + 1,), (c(0),), maximum_iterations=4), (4,)),
    (lambda: tf.while_loop(lambda i: i < 3, lambda i: (i + 1,), (c(0),), maximum_iterations=c(40)), (3,)),
    (lambda: tf.while_loop(lambda i, d: i < 3, lambda i, d: (i + 1, {"a": d["a"] * 2}), (c(0), {"a": c(1.0)})),
     (3, {"a": 8.0})),
    (lambda: tf.foldl(lambda a, x: a + x, c(XS)), 7.0), (lambda: tf.foldl(lambda a, x: a - x, XS, initializer=10.0), 3.0),
    (lambda: tf.foldr(lambda a, x: a - x, c(XS)), 1.0), (lambda: tf.foldl(lambda a, x: a, tf.zeros([0]), c(3.0)), 3.0),
    (lambda: tf.foldl(lambda a, x: a + x[0] * x[1], (c(XS), c(XS)), initializer=c(0.0)), 21.0),
    (lambda: tf.scan(lambda a, x: a + x, c(XS)), [1.0, 3.0, 7.0]),
    (lambda: tf.scan(lambda a, x: a + x, c(XS), reverse=True), [7.0, 6.0, 4.0]),
    (lambda: tf.scan(lambda a, x: a + x, c(XS), initializer=c(10.0)), [11.0, 13.0, 17.0]),
    (lambda: tf.scan(lambda a, x: (a[0] + x[0], a[1] * x[1]), (c(XS), c(XS))), ([1.0, 3.0, 7.0], [1.0, 2.0, 8.0])),
    (lambda: tf.map_fn(lambda x: x * x, c(XS)), [1.0, 4.0, 16.0]),
    (lambda: tf.map_fn(lambda x: (x[0] + x[1], x[0] > 1), (c(XS), c(XS)), fn_output_signature=(tf.float32, tf.bool)),
     ([2.0, 4.0, 8.0], [False, True, True])),
    (lambda: tf.map_fn(lambda x: x * 2, tf.zeros([0, 3])), []),
    (lambda: tf.vectorized_map(lambda x: (x[0] * x[1], x[0]), (c([1.0, 2.0]), c([3.0]))), ([3.0, 6.0], [1.0, 2.0])),
    (lambda: tf.vectorized_map(lambda x: c(1.0), c(XS)), [1.0, 1.0, 1.0])])
def test_results(f: Any, want: Any) -> None:
    assert both_ways(f) == want


@pytest.mark.parametrize(("f", "error", "words"), [
    (lambda: tf.cond(c(True), 1.0, 2.0), TypeError, "'true_fn' must be callable"),
    (lambda: tf.cond(c(True), lambda: 1.0, None), TypeError, "'false_fn' must be callable"),
    (lambda: tf.switch_case(c(1.0), [lambda: 1.0]), TypeError, "'branch_index' must be an integer Tensor"),
    (lambda: tf.switch_case(c(1), []), ValueError, "Must provide at least one item in 'branch_fns'"),
    (lambda: tf.switch_case(c(1), [1.0]), TypeError, "must be callable"),
    (lambda: tf.switch_case(c(1), {0: tf.zeros, 5: tf.zeros}), ValueError, r"contiguous range of \[0 to 2\) but found"),
    (lambda: tf.case([(c(False), lambda: 1.0)]), ValueError, "None of conditions evaluated as True"),
    (lambda: tf.case([(c(True), 1.0)]), TypeError, "case: pairs"),
    (lambda: tf.while_loop(lambda i: i < 3, lambda i: i + 1, c(0)), ValueError, "'loop_vars' must be provided"),
    (lambda: tf.while_loop(None, lambda i: i + 1, [c(0)]), TypeError, "'cond' must be callable"),
    (lambda: tf.while_loop(lambda i, x: i < 3, lambda i, x: i + 1, [c(0), c(1.0)]), ValueError, "takes 2 loop variables"),
    (lambda: tf.while_loop(lambda x: True, lambda x: [tf.concat([x, x], 0)], [c([1.0])]), TypeError, "shapes"),
    (lambda: tf.foldl(lambda a, x: a + x, tf.zeros([0])), ValueError, "at least one element"),
    (lambda: tf.scan(lambda a, x: a + x, tf.zeros([0])), ValueError, "at least one element"),
    (lambda: tf.map_fn(lambda x: x, c(1.0)), ValueError, r"1\+ dimensional Tensors, not scalars"),
    (lambda: tf.map_fn(lambda x: x, []), ValueError, "does not contain any Tensors"),
    (lambda: tf.map_fn(lambda x: x[0], (c([1.0]), c(XS))), ValueError, "one length"),
    (lambda: tf.map_fn(lambda x: x > 1, c(XS), dtype=tf.float32), TypeError, "returns bool where .* float32")])
def test_errors(f: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        f()


@pytest.mark.parametrize("f", [
    lambda x, **how: tf.while_loop(lambda i, y: i < 2, lambda i, y: (i + 1, y * x), [c(0), x], **how)[1],
    lambda x, **how: tf.foldl(lambda a, y: a * y, tf.stack([x, x, x]), **how),
    lambda x, **how: tf.foldr(lambda a, y: a * y, tf.stack([x, x, x]), **how),
    lambda x, **how: tf.scan(lambda a, y: a * y, tf.stack([x, x, x]), **how)[-1],
    lambda x, **how: tf.map_fn(lambda y: y ** 3, tf.stack([x]), **how)[0],
    lambda x: tf.vectorized_map(lambda y: y ** 3, tf.stack([x]))[0],
    lambda x: tf.switch_case(c(1), [lambda: x, lambda: x ** 3, lambda: x])], ids="while foldl foldr scan map vec switch".split())
@leakless
def test_gradients_go_through_unless_told(f: Any) -> None:
    x = c(2.0)
    for how in ({}, {"back_prop": False}):
        if how and f.__code__.co_flags & 8 == 0:              # takes no keywords
            continue
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = f(x, **how)
        assert float(y) == 8.0 and numbers(tape.gradient(y, x)) == (None if how else 12.0)


# ---- gradients of functions ----------------------------------------------------------------------

@leakless
def test_make_vjp() -> None:
    value, vjp = tfe.make_vjp(lambda x, y: (x * x * y, y), params=["x"])(c(3.0), 2.0)
    assert numbers(value) == (18.0, 2.0)
    assert [numbers(vjp()), numbers(vjp([10.0, 1.0])), numbers(vjp())] == [[12.0], [120.0], [12.0]]
    _, once = tfe.make_vjp(lambda x: x * x, persistent=False)(3.0)
    assert numbers(once(2.0)) == [12.0]
    with pytest.raises(RuntimeError, match="non-persistent"):
        once()


def test_names_of_backprop() -> None:
    v = tf.Variable(3.0)
    value, pairs = tfe.implicit_val_and_grad(lambda k: v * v * k)(2.0)
    assert float(value) == 18.0 and [(float(g), w is v) for g, w in pairs] == [(12.0, True)]
    assert float(tfe.implicit_grad(lambda: v * v)()[0][0]) == 6.0
    assert numbers(tfe.val_and_grad_function(lambda x, y: x * y)(3.0, 4.0)) == (12.0, [4.0, 3.0])
    assert tf.autodiff.ForwardAccumulator is jg.ForwardAccumulator and tf.recompute_grad is jg.recompute_grad
