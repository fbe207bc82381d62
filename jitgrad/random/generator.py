"""A generator: a key, and a counter that each draw advances.

A number depends on the generator's key and stream and on its place there, on nothing else: the numbers are the same in
whatever shapes and portions they are drawn. The three are a Variable, read and assigned by operations, so that what
was recorded once draws on.
"""

from __future__ import annotations

import functools
import math
import operator
import os
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core import backend
from jitgrad.core.aval import AVALS, as_length, as_shape, aval, broadcast_shapes, stands_for_int
from jitgrad.core.device import placed
from jitgrad.core.dtypes import BOOL, FLOAT32, INT32, INT64, NAMES, code_of, default_float, is_float
from jitgrad.core.errors import user_error
from jitgrad.core.lock import TABLES
from jitgrad.core.record import tensor
from jitgrad.ops import composite
from jitgrad.ops.axes import axis_index
from jitgrad.ops.random import TWO_SIGMA, WORDS, pairs, philox

_CHILDREN = 2**63              # blocks from here on make the keys of children; draws never get there, nor can a place


class Generator:
    """A stream of random numbers that each draw advances.

    ``seed`` (an int; by default from the system's entropy) is the key of a Philox cipher. `split` makes independent
    generators, `state` is what to save so that a run can go on.

    >>> import jitgrad as jg
    >>> a, b = jg.random.Generator(7), jg.random.Generator(7)
    >>> whole, parts = a.uniform((5,)), jg.concat([b.uniform((2,)), b.uniform((3,))])
    >>> bool((whole == parts).numpy().all())
    True
    """

    def __init__(self, seed: int | None = None) -> None:
        self._state = backend.current().Variable(_state(_key(seed)), trainable=False, name="random state")
        self._children = 0                      # generators split off

    def reset(self, seed: int | None = None) -> None:
        """Start the stream of ``seed`` again; without a seed, of one from the system's entropy."""
        self._state.assign(_state(_key(seed)))
        self._children = 0

    @property
    def state(self) -> dict[str, int]:
        """Key, stream, place and number of children: set it again, in this or another generator, to draw the same."""
        key, stream, place = self._state.numpy().tolist()
        return {"key": key % 2**64, "stream": stream % 2**64, "place": place, "children": self._children}

    @state.setter
    def state(self, state: dict[str, int]) -> None:
        try:
            found = {name: operator.index(state[name]) for name in ("key", "stream", "place", "children")}
        except (TypeError, KeyError):
            raise user_error(ValueError, "random: a state is a dict of the ints key, stream, place and children, got "
                                         f"{state!r}") from None
        self._state.assign(_state(found["key"], found["stream"], found["place"]))
        self._children = found["children"]

    def split(self, count: int = 2) -> list[Generator]:
        """Generators of their own streams: independent of one another, of this one and of what it draws later."""
        count = as_length(count, "random.split: count")
        with TABLES:
            first, self._children = self._children, self._children + count
        blocks = np.uint64(_CHILDREN + first) + np.arange(count, dtype=np.uint64)
        made = []
        for key, stream in pairs(philox(self.state["key"], self.state["stream"], blocks)).tolist():
            made.append(Generator(key))
            made[-1]._state.assign(_state(key, stream))
        return made

    def __repr__(self) -> str:
        return f"<Generator {self.state}>"

    def bits(self, shape: Any = (), dtype: Any = "int32") -> Any:
        """Integers whose bits are all random, int32 or int64."""
        shape, name = as_shape(shape), NAMES[code_of(dtype)]
        if name not in ("int32", "int64"):
            raise user_error(TypeError, f"random.bits: makes int32 or int64, not {name}")
        return self._bits(shape, name)

    def _bits(self, shape: tuple[int, ...], dtype: str) -> Any:
        """The next words of the stream, in a float dtype as uniform numbers; 64 bits begin at an even one."""
        size, shape = _sized(shape, dtype)
        out = ops.random_bits(placed(self._taken(size, dtype)), size, dtype)
        return out if len(shape) == 1 else ops.reshape(out, shape)

    def _taken(self, size: int, dtype: str) -> Any:
        """The state from which to draw; the generator goes on behind that draw."""
        with TABLES:
            state = backend.current().read(self._state)
            self._state._hold(ops.random_next(state, _UNITS[dtype], size))
        return state

    def _floats(self, op: Any, shape: tuple[int, ...], code: int, *params: Any) -> Any:
        return op(self._bits(shape, "int32" if code == FLOAT32 else "int64"), *params)

    # ---- floats ----------------------------------------------------------------------------------

    def uniform(self, shape: Any = (), minval: Any = 0.0, maxval: Any = None, dtype: Any = None) -> Any:
        """Uniform numbers in [minval, maxval), of floats by default in [0, 1); integers need ``maxval``.

        Floats never reach ``maxval``, not by rounding either. Bounds may be Tensors, which get gradients: a number is
        ``minval + u (maxval - minval)``.
        """
        code = _code_for(dtype, minval, maxval)
        if not is_float(code):
            if maxval is None:
                raise user_error(ValueError, "random.uniform: integers need a maxval")
            return self._integers("uniform: maxval {} must be above minval {}", shape, minval, maxval, code)
        shape = as_shape(shape)
        unit = self._bits(shape, NAMES[code])
        if maxval is None and type(minval) in (int, float) and minval == 0:
            return unit
        low, high = _params("uniform", shape, code, minval=minval, maxval=1.0 if maxval is None else maxval)
        if type(low) is float and type(high) is float:
            if not low <= high:
                raise user_error(ValueError, f"random.uniform: maxval {high} must not be below minval {low}")
            if not high - low <= float(np.finfo(NAMES[code]).max):
                raise user_error(OverflowError, f"random.uniform: from {low} to {high} is too far for {NAMES[code]}")
        out = low + unit * (high - low)
        return ops.where(out < high, out, low)      # what rounds to the end is half a step, which the beginning lacks

    def normal(self, shape: Any = (), mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None) -> Any:
        """Normal numbers ``mean + stddev z``; both may be Tensors that broadcast to ``shape``, and get gradients."""
        return self._normal("normal", shape, mean, stddev, dtype, 1.0)

    def truncated_normal(self, shape: Any = (), mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None) -> Any:
        """Normal numbers of those within two standard deviations of the mean (their own is 0.88 ``stddev``)."""
        return self._normal("truncated_normal", shape, mean, stddev, dtype, TWO_SIGMA)

    def _normal(self, name: str, shape: Any, mean: Any, stddev: Any, dtype: Any, share: float) -> Any:
        shape, code = as_shape(shape), _float_code(name, dtype, mean, stddev)
        out = self._floats(ops.random_normal, shape, code, share)
        if share != 1.0:
            out = composite.clip(out, -2.0, 2.0)       # not an ulp beyond
        mean, stddev = _params(name, shape, code, mean=mean, stddev=stddev)
        out = out if type(stddev) is float and stddev == 1.0 else out * stddev
        return out if type(mean) is float and mean == 0.0 else out + mean

    def exponential(self, shape: Any = (), scale: Any = 1.0, dtype: Any = None) -> Any:
        """Exponential numbers of mean ``scale``, which may be a Tensor and gets a gradient; none is 0."""
        shape, code = as_shape(shape), _float_code("exponential", dtype, scale)
        out = self._floats(ops.random_exponential, shape, code)
        (scale,) = _params("exponential", shape, code, scale=scale)
        return out if type(scale) is float and scale == 1.0 else out * scale

    # ---- choices ---------------------------------------------------------------------------------

    def integers(self, low: int, high: int | None = None, shape: Any = (), dtype: Any = None) -> Any:
        """Integers in [low, high), or in [0, low): int32 where the bounds fit, else int64.

        All are equally likely to one part in 2^64 (of ranges up to 2^32: one in 2^32).
        """
        low, high = (_whole("integers", v) for v in ((0, low) if high is None else (low, high)))
        code = INT32 if low >= -2**31 and high <= 2**31 else INT64
        return self._integers("integers: high {} must be above low {}", shape, low, high,
                              code if dtype is None else code_of(dtype))

    def _integers(self, sentence: str, shape: Any, low: Any, high: Any, code: int) -> Any:
        shape = as_shape(shape)
        name = sentence.partition(":")[0]
        if code not in (INT32, INT64):
            raise user_error(TypeError, f"random.{name}: integers are int32 or int64, not {NAMES[code]}")
        low, high = _whole(name, low), _whole(name, high)
        if high <= low:
            raise user_error(ValueError, "random." + sentence.format(high, low))
        top = 2**31 if code == INT32 else 2**63
        if low < -top or high > top:
            raise user_error(OverflowError, f"random.{name}: [{low}, {high}) does not fit {NAMES[code]}")
        span = high - low
        if span < 2**32:
            out = ops.random_integer(self._bits(shape, "int64"), 0, tensor(span, INT64), False)
        else:
            both = self._bits((*shape, 2), "int64")
            wrapped = (span + 2**63) % 2**64 - 2**63         # an int64 read as unsigned; 2^64 is 0
            out = ops.random_integer(both[..., 0], both[..., 1], tensor(wrapped, INT64), True)
        out = composite.astype(out, NAMES[code])
        return out + low if low else out

    def bernoulli(self, p: Any = 0.5, shape: Any = None, dtype: Any = "bool") -> Any:
        """True (or 1) with probability ``p``, a number or a Tensor of probabilities; it has no gradient.

        ``shape`` is that of ``p`` by default. At 0 and 1 the answer is certain.
        """
        if type(p) in (int, float):
            wide, shape = default_float(), () if shape is None else as_shape(shape)
        else:
            p = composite.as_float(p)
            wide = AVALS[p._aval].code
            shape = AVALS[p._aval].shape if shape is None else as_shape(shape)
            _check_shapes("bernoulli", shape, p=p)
        hit = self._bits(shape, NAMES[wide]) < p
        code = code_of(dtype)
        return hit if code == BOOL else ops.cast(hit, NAMES[code])

    def categorical(self, logits: Any, num_samples: int | None = None, dtype: Any = "int64") -> Any:
        """Class numbers, drawn with the probabilities ``softmax(logits)`` along the last axis; they have no gradient.

        Without ``num_samples`` one for each row: shape (..., classes) gives (...). With it, as in TensorFlow,
        (..., num_samples). A logit of -inf is never drawn. Each row is a race of exponential clocks: time and memory
        grow with samples times classes.
        """
        logits = ops.stop_gradient(composite.as_float(logits))
        have = AVALS[logits._aval]
        if have.ndim == 0 or have.shape[-1] == 0:
            raise user_error(ValueError, f"random.categorical: logits of shape {have.shape} name no classes, the last "
                                         "axis")
        shape = have.shape
        if num_samples is not None:
            count = as_length(num_samples, "random.categorical: num_samples")
            shape = (*shape[:-1], count, shape[-1])
            logits = composite.expand_dims(logits, -2)
        clocks = ops.log(self._floats(ops.random_exponential, shape, have.code)) - logits
        return composite.astype(ops.argmin(clocks, len(shape) - 1), dtype)

    def permutation(self, x: Any, axis: int = 0) -> Any:
        """The numbers 0 to x - 1 (int64) in random order, or the slices of a Tensor along an axis, with gradient."""
        if stands_for_int(x):
            return ops.random_permutation(self._bits(as_shape(x, "random.permutation: n"), "int64"))
        x = tensor(x)
        at = axis_index("random.permutation", axis, AVALS[x._aval].ndim)
        return ops.gather(x, self.permutation(AVALS[x._aval].shape[at]), at)

    def choice(self, a: Any, shape: Any = (), replace: bool = True, p: Any = None, axis: int = 0) -> Any:
        """Numbers below ``a``, or slices of a Tensor along an axis, drawn with or without putting back.

        ``p`` are their probabilities (not negative; they are divided by their sum), for draws with putting back.
        """
        shape = as_shape(shape)
        whole = stands_for_int(a)
        if whole:
            n = _whole("choice", a)
        else:
            a = tensor(a)
            axis = axis_index("random.choice", axis, AVALS[a._aval].ndim)
            n = AVALS[a._aval].shape[axis]
        size = math.prod(shape)
        if p is not None:
            p = composite.as_float(p)
            if not replace or AVALS[p._aval].shape != (n,):
                raise user_error(ValueError, f"random.choice: p is one probability for each of the {n}, and needs "
                                             f"replace=True; got shape {AVALS[p._aval].shape}")
            found = composite.reshape(self.categorical(ops.log(p), size), shape)
        elif replace:
            found = self._integers("choice: {} things to choose from", shape, 0, n, INT64)
        elif size > n:
            raise user_error(ValueError, f"random.choice: {size} of {n} needs replace=True")
        else:
            found = composite.reshape(self.permutation(n)[:size], shape)
        return found if whole else ops.gather(a, found, axis)


class Once(Generator):
    """A stream for one call with a seed of its own: no Variable, since nobody draws from it again."""

    def __init__(self, seed: int) -> None:
        self._next = _state(_key(seed))

    def _taken(self, size: int, dtype: str) -> Any:
        state, self._next = self._next, ops.random_next(self._next, _UNITS[dtype], size)
        return state


def _key(seed: int | None) -> int:
    try:
        return int.from_bytes(os.urandom(8), "little") if seed is None else operator.index(seed)
    except TypeError:
        raise user_error(TypeError, f"random: a seed is an int, got {seed!r}") from None


def _state(key: int, stream: int = 0, place: int = 0) -> Any:
    """Key, stream and the 32-bit words drawn as a Tensor; they wrap to 64 bits."""
    words = np.array([v % 2**64 for v in (key, stream, place)], np.uint64)
    return backend.current().tensor(words.view(np.int64), aval(INT64, (3,)))


_UNITS = {dtype: tensor([0, 0, 4 // each], INT64) for dtype, each in WORDS.items()}       # words of an element


@functools.lru_cache(maxsize=4096)
def _sized(shape: tuple[int, ...], dtype: str) -> tuple[int, tuple[int, ...]]:
    """How many elements a draw has, and its shape: out of a cache, so that the machine meets the same objects again."""
    return aval(code_of(dtype), shape).size, shape


# ---- arguments -----------------------------------------------------------------------------------

def _code_for(dtype: Any, *params: Any) -> int:
    """The dtype asked for, else that of the float arrays among the parameters, else the default."""
    if dtype is not None:
        return code_of(dtype)
    codes = [AVALS[tensor(p)._aval].code for p in params if hasattr(p, "dtype")]
    return max((c for c in codes if is_float(c)), default=default_float())


def _float_code(name: str, dtype: Any, *params: Any) -> int:
    code = _code_for(dtype, *params)
    if not is_float(code):
        raise user_error(TypeError, f"random.{name}: makes floats, not {NAMES[code]}")
    return code


def _params(name: str, shape: tuple[int, ...], code: int, **given: Any) -> list[Any]:
    """Parameters as Python floats or Tensors that broadcast to the shape of the draw."""
    found = {key: float(v) if isinstance(v, int | float) else tensor(v, code, key) for key, v in given.items()}
    _check_shapes(name, shape, **found)
    return list(found.values())


def _check_shapes(name: str, shape: tuple[int, ...], **params: Any) -> None:
    for key, v in params.items():
        if type(v) is not float and broadcast_shapes(shape, v.shape) != shape:
            raise user_error(ValueError, f"random.{name}: {key} of shape {v.shape} does not broadcast to shape {shape}")


def _whole(name: str, value: Any) -> int:
    """A bound as an int; whole floats will do."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    try:
        return operator.index(value)
    except TypeError:
        raise user_error(TypeError, f"random.{name}: a bound must be an integer, got {value!r}") from None
