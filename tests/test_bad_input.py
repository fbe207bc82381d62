"""Bad input: the right result, or one sentence that names the operation, the shapes and the user's line."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

import jitgrad as jg

X = jg.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
V = jg.constant([1.0, 2.0])
I = jg.constant([1, 2])  # noqa: E741
NAN = float("nan")
BIG = 10**6


def sentence(error, *phrases):
    """One line, naming each phrase, that ends with the line of this file that asked."""
    text = str(error)
    assert "\n" not in text and len(text) < 400, text
    assert re.search(rf" \(at {re.escape(__file__)}:\d+\)$", text), text
    for phrase in phrases:
        assert phrase in text, text
    line = int(text[:-1].rsplit(":", 1)[1])
    with open(__file__) as file:
        assert "lambda" in file.read().splitlines()[line - 1]


CASES = {
    "shapes": [
        (ValueError, "add: shapes (2, 3) and (2,)", lambda: X + V),
        (ValueError, "subtract: shapes (2,) and (2, 3)", lambda: jg.subtract(V, X)),
        (ValueError, "add: shapes (2,) and (2, 3)", lambda: jg.Variable([1.0, 2.0]) + X),
        (ValueError, "where: shapes (2, 3) and (2, 3) and (2,)", lambda: jg.where(X > 0, X, V)),
        (ValueError, "matmul: shapes (2, 3) and (2, 3) do not match: inner lengths 3 and 2", lambda: X @ X),
        (ValueError, "matmul: operands need at least one axis, got shapes (2, 3) and ()", lambda: X @ 1.0),
        (ValueError, "matmul: shapes (2, 3, 4) and (3, 4, 2)", lambda: jg.matmul(jg.zeros((2, 3, 4)), jg.zeros((3, 4, 2)))),
        (ValueError, "reshape: 6 elements of shape (2, 3) do not fill shape (4,)", lambda: jg.reshape(X, (4,))),
        (ValueError, "shape must not be negative, got (-2, 3)", lambda: jg.reshape(X, (-2, 3))),
        (ValueError, "reshape: shape (2, 3) does not fit (-1, -1)", lambda: jg.reshape(X, (-1, -1))),
        (ValueError, "broadcast_to: shape (2, 3) does not broadcast to (3, 2)", lambda: jg.broadcast_to(X, (3, 2))),
        (ValueError, "concat: shapes (2, 3) and (2,)", lambda: jg.concat([X, V])),
        (ValueError, "concat: needs at least one Tensor", lambda: jg.concat([])),
        (ValueError, "stack: needs Tensors of one shape, got [(2,), (2, 3)]", lambda: jg.stack([X, V])),
        (ValueError, "squeeze: axis 0 of shape (2, 3)", lambda: jg.squeeze(X, axis=0)),
        (ValueError, "constant: 3 elements do not fill shape (2, 2)", lambda: jg.constant([1.0, 2, 3], shape=(2, 2))),
        (ValueError, "matrix_transpose: shape (2,)", lambda: V.mT),
        (ValueError, "assign: a value of shape (3,) does not fit", lambda: jg.Variable([1.0, 2.0]).assign([1.0, 2, 3])),
        (ValueError, "shapes (2,) and (3,)", lambda: jg.Variable([1.0, 2.0]).assign_add([1.0, 2, 3])),
        (TypeError, "shape must be an int or a tuple of ints, got (nan,)", lambda: jg.reshape(X, (NAN,))),
        (TypeError, "shape must be an int or a tuple of ints, got (nan, 2)", lambda: jg.zeros((NAN, 2))),
        (TypeError, "shape must be an int or a tuple of ints, got None", lambda: jg.zeros(None)),
        (TypeError, "shape must be an int or a tuple of ints, got None", lambda: jg.reshape(X, None)),
        (TypeError, "shape must be an int or a tuple of ints", lambda: jg.random.uniform("a")),
        (ValueError, "shape must not be negative", lambda: jg.ones((-1,))),
        (ValueError, "one_hot: depth must not be negative", lambda: jg.one_hot(I, -3)),
    ],
    "dimensions": [
        (ValueError, "at most 16 dimensions, got 17", lambda: jg.zeros((1,) * 17)),
        (ValueError, "at most 16 dimensions, got 17", lambda: jg.asarray(np.zeros((1,) * 17))),
        (ValueError, "at most 16 dimensions, got 19", lambda: jg.broadcast_to(X, (1,) * 17 + (2, 3))),
        (ValueError, "at most 16 dimensions, got 17", lambda: jg.expand_dims(jg.zeros((1,) * 16), 0)),
        (ValueError, "at most 16 dimensions, got 18", lambda: jg.reshape(X, (1,) * 16 + (2, 3))),
    ],
    "axes": [
        (ValueError, "sum: axis 2 is out of range for 2 dimensions", lambda: jg.sum(X, axis=2)),
        (ValueError, "max: axis -3 is out of range", lambda: jg.max(X, axis=-3)),
        (ValueError, "sum: axis (0, 0) names an axis twice", lambda: jg.sum(X, axis=(0, 0))),
        (ValueError, "sum: axis", lambda: jg.sum(X, axis=2**70)),
        (TypeError, "sum: axis must be an int, a tuple of ints or None, got 0.5", lambda: jg.sum(X, axis=0.5)),
        (TypeError, "mean: axis must be an int", lambda: jg.mean(X, axis="a")),
        (ValueError, "argmax: axis 5", lambda: jg.argmax(X, axis=5)),
        (ValueError, "permute_dims: axes (0, 0) are not a permutation", lambda: jg.permute_dims(X, (0, 0))),
        (ValueError, "permute_dims: axes (0,)", lambda: jg.permute_dims(X, (0,))),
        (ValueError, "concat: axis 3", lambda: jg.concat([X, X], axis=3)),
        (ValueError, "take: axis 9", lambda: jg.take(X, I, axis=9)),
        (ValueError, "expand_dims: axis 5", lambda: jg.expand_dims(X, 5)),
        (TypeError, "reduce_sum: axes must be a tuple of ints, got 1", lambda: jg.reduce_sum(X, 1)),
        (TypeError, "vecdot: axis must be an int, got [1]", lambda: jg.vecdot(X, X, [1])),
        (ValueError, "tensordot: axes must be a count or two lists of axes, got None", lambda: jg.tensordot(X, X, None)),
        (ValueError, "tensordot: axes must be a count or two lists", lambda: jg.tensordot(X, X, [[0], [1], [1]])),
        (TypeError, "concat: an axis must be an int, got <jg.Tensor", lambda: jg.concat(X, X)),
        (ValueError, "slice: the spans 1 (first element", lambda: jg.slice(X, 1)),
        (ValueError, "expand_dims: axis (1, -3) names an axis twice", lambda: jg.expand_dims(X, (1, -3))),
    ],
    "parameters": [
        (TypeError, "tril: k must be an int, got 0.5", lambda: jg.tril(X, 0.5)),
        (TypeError, "diagonal: offset must be an int, got 'a'", lambda: jg.trace(X, "a")),
        (TypeError, "diag: k must be an int, got None", lambda: jg.diag(I, None)),
        (TypeError, "top_k: k must be an int, got (2, 2)", lambda: jg.top_k(X, (2, 2))),
        (ValueError, "top_k: k must not be negative, got -1", lambda: jg.top_k(X, -1)),
        (TypeError, "one_hot: depth must be an int, got ()", lambda: jg.one_hot(I, ())),
        (TypeError, "random.categorical: num_samples must be an int", lambda: jg.random.categorical(X, (1, 2))),
        (TypeError, "random.integers: a bound must be an integer, got 'a'", lambda: jg.random.integers("a")),
        (TypeError, "concat: needs a sequence of Tensors, got float", lambda: jg.concat(0.5)),
        (TypeError, "stack: needs a sequence of Tensors, got int", lambda: jg.stack(1, 2)),
        (ValueError, "einsum: needs subscripts as a string", lambda: jg.einsum([X], "ij")),
        (ValueError, "integer_power: n must be an int of 64 bits", lambda: jg.integer_power(X, 2.5)),
        (ValueError, "integer_power: n must be an int of 64 bits", lambda: jg.integer_power(X, 10**400)),
        (TypeError, "shape must be an int or a tuple of ints, got array([1.5])", lambda: jg.zeros(np.array([1.5]))),
        (TypeError, "quantile: cannot make a Tensor of str 'a'", lambda: jg.quantile(X, "a")),
        (ValueError, "integer_power: -1 is negative, and int32 has no fractions", lambda: jg.integer_power(I, -1)),
        (ValueError, "MeanSquaredError: reduction must be one of", lambda: jg.nn.losses.MeanSquaredError(X, X)),
        (ValueError, "Hinge: reduction must be one of", lambda: jg.nn.losses.Hinge(np.zeros((2, 2)))),
        (TypeError, "Sequential: takes a list of layers, got Dense", lambda: jg.nn.Sequential(jg.nn.layers.Dense(3))),
    ],
    "no numbers": [
        (TypeError, "asarray: cannot make a Tensor of a NumPy array of dtype object", lambda: jg.asarray(np.array([{}]))),
        (TypeError, "asarray: cannot make a Tensor of object", lambda: jg.asarray(object())),
        (TypeError, "sin: cannot make a Tensor of NoneType None", lambda: jg.sin(None)),
        (TypeError, "constant: cannot make a Tensor of str 'abc'", lambda: jg.constant("abc")),
        (TypeError, "add: cannot make a Tensor of str 'a'", lambda: jg.add(X, "a")),
        (TypeError, "mean: cannot make a Tensor of str 'a'", lambda: jg.mean("a")),
        (TypeError, "matmul: cannot make a Tensor of str 'a'", lambda: jg.matmul(X, "a")),
        (TypeError, "dtype <U1", lambda: jg.asarray(np.array(["a"]))),
        (TypeError, "asarray: cannot make a Tensor of dict", lambda: jg.asarray({"a": 1})),
        (TypeError, "asarray: cannot make a Tensor of bytes", lambda: jg.asarray(b"ab")),
        (ValueError, "asarray: cannot make a Tensor of list: setting an array", lambda: jg.asarray([[1, 2], [3]])),
        (ValueError, "sin: cannot make a Tensor of list: setting an array", lambda: jg.sin([[1.0, 2.0], [3.0]])),
        (TypeError, "dtype datetime64[D]", lambda: jg.asarray(np.array(["2020-01-01"], "M8[D]"))),
        (TypeError, "dtype timedelta64[s]", lambda: jg.asarray(np.array([1], "m8[s]"))),
        (TypeError, "('f0', '<i4')", lambda: jg.asarray(np.zeros(2, "i4,f4"))),
        (TypeError, "Variable: cannot make a Tensor of str", lambda: jg.Variable("a")),
        (ValueError, "Variable: initial_value must be specified", lambda: jg.Variable()),
        (TypeError, "assign: cannot make a Tensor of NoneType", lambda: jg.Variable(1.0).assign(None)),
    ],
    "dtypes": [
        (TypeError, "cannot make a Tensor of complex 1j", lambda: jg.asarray(1j)),
        (TypeError, "multiply: cannot make a Tensor of a NumPy array of dtype complex128", lambda: X * np.ones(3, complex)),
        (TypeError, "dtype uint64 has no counterpart", lambda: jg.asarray(np.zeros(2, np.uint64))),
        (TypeError, "jitgrad has the dtypes bool, int32, int64, float32, float64; got 'float16'",
         lambda: jg.constant(1.0, dtype="float16")),
        (TypeError, "jitgrad has the dtypes", lambda: jg.zeros(2, dtype="nope")),
        (TypeError, "jitgrad has the dtypes", lambda: jg.astype(X, object)),
        (TypeError, "bitwise_and: takes integers or booleans, got float32", lambda: X & X),
        (TypeError, "constant: cannot make int32 of Python floats", lambda: jg.constant(1.5, dtype="int32")),
        (TypeError, "indices must be integers, got float32", lambda: jg.take(X, V, axis=1)),
        (TypeError, "one_hot: indices must be integers, got float32", lambda: jg.one_hot(V, 3)),
        (TypeError, "random.normal: makes floats, not int32", lambda: jg.random.normal((2,), dtype="int32")),
        (ValueError, "set_default_dtype: the default must be float32 or float64", lambda: jg.set_default_dtype("int32")),
    ],
    "huge numbers": [
        (OverflowError, "constant: 1180591620717411303424 does not fit int64", lambda: jg.constant(2**70)),
        (OverflowError, "constant: an integer of 16610 bits does not fit int64", lambda: jg.constant(10**5000)),
        (OverflowError, "add: an integer of 16610 bits does not fit float32", lambda: X + 10**5000),
        (OverflowError, "add: 1099511627776 does not fit int32", lambda: I + 2**40),
        (OverflowError, "do not fit int32", lambda: jg.constant(2**40, dtype="int32")),
        (TypeError, "constant: cannot make a Tensor of list", lambda: jg.constant([10**5000])),
        (MemoryError, "cannot fit in memory", lambda: jg.zeros((2**70,))),
        (IndexError, "index: 1180591620717411303424 is out of range for axis 0 of shape (2, 3)", lambda: X[2**70]),
    ],
    "indices": [
        (IndexError, "index: 5 is out of range for axis 0 of shape (2, 3)", lambda: X[5]),
        (IndexError, "index: 3 indices for shape (2, 3)", lambda: X[0, 0, 0]),
        (IndexError, "got dtype float32", lambda: X[1.0]),
        (IndexError, "got dtype float64", lambda: X[np.array([1.5])]),
        (TypeError, "index: cannot make a Tensor of str 'a'", lambda: X["a"]),
        (IndexError, "out of range", lambda: X[jg.constant([7])]),
        (IndexError, "out of range", lambda: jg.take(X, jg.constant([0, -4]), axis=1)),
        (IndexError, "out of range", lambda: jg.take(X, np.array([2**40]), axis=1)),
        (IndexError, "a mask of shape (1,)", lambda: X[np.array([True])]),
        (IndexError, "only one ...", lambda: X[..., ...]),
        (ValueError, "the step of a slice must not be 0", lambda: X[::0]),
        (TypeError, "a slice is made of ints or None, got 1.5", lambda: X[1.5:]),
        (TypeError, "only an integer Tensor can be an index, got float32", lambda: [1][jg.constant(0.0)]),
    ],
    "numbers that are not one": [
        (ValueError, "bool: the truth of a Tensor of shape (2, 3) is ambiguous", lambda: bool(X)),
        (ValueError, "shape (0,)", lambda: bool(jg.zeros(0))),
        (TypeError, "float: only a Tensor with one element", lambda: float(X)),
        (TypeError, "int: only a Tensor with one element", lambda: int(V)),
        (ValueError, "item: only a Tensor with one element has an item, got shape (2, 3)", lambda: X.item()),
        (TypeError, "a 0-d Tensor has no length", lambda: len(jg.constant(1.0))),
        (TypeError, "a 0-d Tensor has nothing to iterate over", lambda: list(jg.constant(1.0))),
    ],
    "arguments": [
        (TypeError, "sin: takes x, got y", lambda: jg.sin(y=X)),
        (TypeError, "sin: takes x, got 2 positional", lambda: jg.sin(X, X)),
        (TypeError, "add: takes x, y, got x", lambda: jg.add(X)),
        (ValueError, "max: no elements to choose from in shape (0,)", lambda: jg.max(jg.zeros(0))),
        (ValueError, "linspace: Number of samples, -5", lambda: jg.linspace(0, 1, -5)),
        (ValueError, "linspace: could not convert", lambda: jg.linspace("a", 1)),
        (ZeroDivisionError, "arange: division by zero", lambda: jg.arange(0, 1, 0)),
        (TypeError, "arange: ", lambda: jg.arange("a")),
        (ValueError, "eye: negative dimensions", lambda: jg.eye(-1)),
        (ValueError, "random.uniform: integers need a maxval", lambda: jg.random.uniform((2,), dtype="int32")),
    ],
    "watch": [
        (ValueError, "numpy.ndarray", lambda: jg.GradientTape().watch(np.zeros(2))),
        (ValueError, "float", lambda: jg.GradientTape().watch(1.0)),
        (ValueError, "NoneType", lambda: jg.GradientTape().watch([X, None])),
        (ValueError, "str", lambda: jg.GradientTape().watch("x")),
    ],
    "memory": [
        (MemoryError, "add: no memory for a result of shape (1000000, 1000000) and dtype float64 (7450.6 GiB)",
         lambda: jg.zeros((BIG, 1), "float64") + jg.zeros(BIG, "float64")),
        (MemoryError, "broadcast_to: no memory for a result of shape", lambda: jg.broadcast_to(V[:1], (BIG, BIG))),
        (MemoryError, "matmul: no memory", lambda: jg.zeros((BIG, 1)) @ jg.zeros((1, BIG))),
        (MemoryError, "shape (1000000, 1000000)", lambda: jg.zeros((BIG, BIG))),
        (MemoryError, "full: Unable to allocate", lambda: jg.full((BIG, BIG), 1.0)),
        (MemoryError, "eye: Unable to allocate", lambda: jg.eye(BIG)),
        (MemoryError, "arange: Unable to allocate", lambda: jg.arange(10**13)),
        (MemoryError, "linspace: Unable to allocate", lambda: jg.linspace(0, 1, 10**13)),
        (MemoryError, "no memory", lambda: jg.random.uniform((BIG, BIG))),
        (MemoryError, "no memory", lambda: jg.one_hot(jg.zeros(BIG, "int32"), 10**7)),
        (MemoryError, "cannot fit in memory", lambda: jg.broadcast_to(V[:1], (2**40, 2**40))),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_one_sentence_with_the_line(kind):
    for expected, phrase, ask in CASES[kind]:
        for _ in range(2):                  # the second call meets whatever the first left in the caches
            try:
                answer = ask()
            except Exception as error:
                assert type(error) is expected, (phrase, repr(error))
                sentence(error, phrase)
            else:
                pytest.fail(f"{phrase}: no error but {answer!r}")


@pytest.mark.parametrize("kind", CASES)
def test_a_failed_operation_leaves_the_tape_whole(kind):
    x = jg.constant([1.0, 2.0])
    with jg.GradientTape() as tape:
        tape.watch([x, X, V])
        y = jg.sum(x * x)
        for expected, _, ask in CASES[kind]:
            with pytest.raises(expected):
                ask()
        z = y * 3.0
    assert tape.gradient(z, x).numpy().tolist() == [6.0, 12.0]


def test_operators_give_way_to_the_other_side():
    """What is no operand makes Python's own TypeError, after the other object had its turn."""
    class Other:
        def __radd__(self, left): return "its turn"
        def __lt__(self, right): return "mirrored"
    assert X + Other() == "its turn" and (Other() < X) == "mirrored"
    for ask in (lambda: X + None, lambda: "a" * X, lambda: X @ object(), lambda: X + 1j, lambda: X << 1, lambda: 1 >> I,
                lambda: X < "a", lambda: {X}):
        with pytest.raises(TypeError, match=r"Tensor"):
            ask()
    assert (X == "a") is False and (X != None) is True  # noqa: E711


def test_tensors_are_immutable():
    with pytest.raises(TypeError, match="item assignment"):
        X[0] = 1.0
    for name in ("shape", "dtype", "foo", "_data", "_aval"):
        with pytest.raises(AttributeError):
            setattr(X, name, 1)
    with pytest.raises(ValueError, match="read-only"):
        X.numpy()[0] = 1.0
    with pytest.raises((TypeError, BufferError)):
        memoryview(X).cast("B")[0] = 1
    with pytest.raises(TypeError, match="cannot create"):
        jg.Tensor()


# ---- arrays of any make --------------------------------------------------------------------------

def test_any_layout_gives_the_same_tensor(rng):
    base = rng.normal(size=(4, 6))
    readonly = base.copy()
    readonly.flags.writeable = False
    views = {"read-only": readonly, "transposed": np.ascontiguousarray(base.T).T, "fortran": np.asfortranarray(base),
             "backwards": base[::-1, ::-1].copy()[::-1, ::-1], "byte-swapped": base.astype(">f8"),
             "unaligned": np.frombuffer(b"x" + base.tobytes(), np.uint8)[1:].view("f8").reshape(4, 6),
             "every second": np.repeat(base, 2, axis=1)[:, ::2], "subclass": base.view(np.matrix),
             "memory map like": np.lib.stride_tricks.as_strided(base.copy(), base.shape, base.strides)}
    for name, view in views.items():
        made = jg.asarray(view)
        assert made.dtype == "float64" and made.shape == (4, 6), name
        np.testing.assert_array_equal(made.numpy(), base, err_msg=name)
        np.testing.assert_array_equal((jg.constant(1.0) * view).numpy(), base)
    assert jg.asarray(np.broadcast_to(np.float32(2), (2, 3))).numpy().tolist() == [[2.0] * 3] * 2


@pytest.mark.parametrize("dtype, becomes", [("int8", "int32"), ("uint8", "int32"), ("int16", "int32"), ("uint16", "int32"),
                                            ("uint32", "int64"), ("float16", "float32"), (">i4", "int32"), ("?", "bool")])
def test_narrow_dtypes_widen(dtype, becomes):
    assert jg.asarray(np.array([0, 1], dtype)).dtype == becomes


def test_zero_size_and_0d_are_welcome_everywhere():
    for shape in ((), (0,), (3, 0), (0, 2, 0)):
        x = jg.zeros(shape, "float64")
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = jg.sum(jg.tanh(x * 2.0 + 1.0)) + jg.mean(jg.reshape(x, (-1,) if x.size else (0,)) * 1.0)
        g = tape.gradient(y, x)
        assert g.shape == shape and y.shape == ()
    assert (jg.zeros((3, 0)) @ jg.zeros((0, 2))).numpy().tolist() == [[0, 0]] * 3
    assert jg.zeros((0, 3))[:, 1:].shape == (0, 2) and jg.concat([jg.zeros((0, 3)), X]).shape == (2, 3)
    assert jg.take(X, np.zeros((0, 2), np.int64), axis=1).shape == (2, 0, 2)


def test_numpy_is_copied_when_it_goes_in():
    """Changing an array afterwards changes nothing that was made of it or recorded."""
    a = np.array([1.0, 2.0, 3.0])
    x, v = jg.asarray(a), jg.Variable(a)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = x * a + v * a
    a[:] = 100.0
    assert x.numpy().tolist() == [1, 2, 3] and v.numpy().tolist() == [1, 2, 3] and y.numpy().tolist() == [2, 8, 18]
    gx, gv = tape.gradient(y, [x, v])
    assert gx.numpy().tolist() == [1, 2, 3] and gv.numpy().tolist() == [1, 2, 3]


def test_an_arrays_view_outlives_its_tensor():
    view = (jg.asarray(np.arange(100_000.0)) + 1.0).numpy()
    noise = [jg.zeros(100_000, "float64") for _ in range(20)]
    assert view[0] == 1.0 and view[-1] == 100_000.0 and noise


def test_numbers_out_of_range_become_infinite_quietly():
    assert np.isinf(jg.constant(1e40).numpy()) and np.isinf((jg.constant([1.0]) * 1e40).numpy()).all()
    assert np.isnan(jg.log(jg.constant(-1.0)).numpy()) and (jg.constant(1) // jg.constant(0)).numpy() == 0


def test_any_integer_may_be_an_exponent():
    """Small ones multiply out, large ones are numbers, again and again: the second call is answered by the machine."""
    x, i = jg.constant([1.5, 2.0], "float64"), jg.constant([2, 4])
    for n in (0, 1, -1, 64, 65, 100, -100, 300):
        for _ in range(3):
            np.testing.assert_allclose((x**n).numpy(), x.numpy() ** float(n), rtol=1e-13)
    for _ in range(3):
        assert (i**2).numpy().tolist() == [4, 16] and (i**0).dtype == "int32" and (i**-1).numpy().tolist() == [0.5, 0.25]


def test_floats_of_numpy_saturate_as_integers():
    assert jg.asarray(np.array([np.nan, 1e30, -1e30, -5.7]), dtype="int32").numpy().tolist() == [0, 2**31 - 1, -(2**31), -5]


def test_the_line_is_the_users_also_behind_a_helper():
    def helper():
        return X + V
    with pytest.raises(ValueError) as caught:
        helper()
    line = helper.__code__.co_firstlineno + 1
    assert str(caught.value).endswith(f"(at {__file__}:{line})")
    assert sys.getrecursionlimit() > 0
