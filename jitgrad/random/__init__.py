"""Random Tensors from counters: the same numbers for the same seed on every machine.

The functions draw from a `Generator` that everybody shares, or with ``seed=`` from one of their own.
"""

from __future__ import annotations

from typing import Any

from jitgrad.core.record import tensor
from jitgrad.random.generator import Generator as Generator
from jitgrad.random.generator import Once

_default = Generator()


def set_seed(seed: int) -> None:
    """Make the draws from here on reproducible."""
    _default.reset(seed)


def global_generator() -> Generator:
    """The generator that the functions of this module draw from."""
    return _default


def _stream(seed: int | None) -> Generator:
    return _default if seed is None else Once(seed)


def bits(shape: Any = (), dtype: Any = "int32", seed: int | None = None) -> Any:
    """Integers whose bits are all random; see `Generator.bits`. ``seed`` gives the same ones every time."""
    return _stream(seed).bits(shape, dtype)


def uniform(shape: Any = (), minval: Any = 0.0, maxval: Any = None, dtype: Any = None, seed: int | None = None) -> Any:
    """Uniform numbers in [minval, maxval); see `Generator.uniform`. ``seed`` gives the same ones every time."""
    return _stream(seed).uniform(shape, minval, maxval, dtype)


def normal(shape: Any = (), mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: int | None = None) -> Any:
    """Normal numbers with a mean and standard deviation; ``seed`` gives the same ones every time.

    >>> import jitgrad as jg
    >>> scale = jg.Variable(2.0)
    >>> with jg.GradientTape() as tape:
    ...     x = jg.random.normal((3,), stddev=scale, seed=1)
    >>> bool(tape.gradient(x, scale) == jg.sum(x) / 2)      # a draw is differentiable in its parameters
    True
    """
    return _stream(seed).normal(shape, mean, stddev, dtype)


def truncated_normal(shape: Any = (), mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None,
                     seed: int | None = None) -> Any:
    """Normal numbers within two standard deviations of the mean; see `Generator.truncated_normal`."""
    return _stream(seed).truncated_normal(shape, mean, stddev, dtype)


def exponential(shape: Any = (), scale: Any = 1.0, dtype: Any = None, seed: int | None = None) -> Any:
    """Exponential numbers of mean ``scale``; see `Generator.exponential`."""
    return _stream(seed).exponential(shape, scale, dtype)


def integers(low: int, high: int | None = None, shape: Any = (), dtype: Any = None, seed: int | None = None) -> Any:
    """Integers in [low, high), or in [0, low), all equally likely; see `Generator.integers`.

    >>> import jitgrad as jg
    >>> jg.random.integers(1, 7, (5,), seed=3).dtype
    dtype('int32')
    """
    return _stream(seed).integers(low, high, shape, dtype)


randint = integers


def bernoulli(p: Any = 0.5, shape: Any = None, dtype: Any = "bool", seed: int | None = None) -> Any:
    """True with probability ``p``; see `Generator.bernoulli`."""
    return _stream(seed).bernoulli(p, shape, dtype)


def categorical(logits: Any, num_samples: int | None = None, dtype: Any = "int64", seed: int | None = None) -> Any:
    """Class numbers with the probabilities ``softmax(logits)``; see `Generator.categorical`.

    >>> import jitgrad as jg
    >>> jg.random.categorical([[0., float("-inf")], [float("-inf"), 0.]], 3).numpy()
    array([[0, 0, 0],
           [1, 1, 1]])
    """
    return _stream(seed).categorical(logits, num_samples, dtype)


def permutation(x: Any, axis: int = 0, seed: int | None = None) -> Any:
    """The numbers below ``x``, or a Tensor's slices, in random order; see `Generator.permutation`."""
    return _stream(seed).permutation(x, axis)


def shuffle(x: Any, axis: int = 0, seed: int | None = None) -> Any:
    """A Tensor's slices along an axis in random order, with gradient."""
    return _stream(seed).permutation(tensor(x), axis)


def choice(a: Any, shape: Any = (), replace: bool = True, p: Any = None, axis: int = 0,
           seed: int | None = None) -> Any:
    """Numbers below ``a``, or a Tensor's slices, drawn with or without putting back; see `Generator.choice`."""
    return _stream(seed).choice(a, shape, replace, p, axis)


def split(count: int = 2) -> list[Generator]:
    """Independent generators from the shared one."""
    return _default.split(count)
