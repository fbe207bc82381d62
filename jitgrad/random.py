"""Random Tensors from counters: the same numbers for the same seed on every machine."""

from __future__ import annotations

import math
import secrets
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.aval import as_shape
from jitgrad.core.dtypes import NAMES, code_of, default_float, is_float
from jitgrad.core.errors import user_error
from jitgrad.core.lock import TABLES
from jitgrad.ops.creation import from_array

_INT64 = 2


class Generator:
    """A stream of random numbers: a seed and a counter that each draw advances.

    >>> import jitgrad as jg
    >>> a, b = jg.random.Generator(7), jg.random.Generator(7)
    >>> bool((a.uniform((3,)).numpy() == b.uniform((3,)).numpy()).all())
    True
    """

    def __init__(self, seed: int | None = None) -> None:
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Start the stream of ``seed`` again; without a seed, of one from the system's entropy."""
        self._seed = secrets.randbits(63) if seed is None else int(seed) & (2**63 - 1)
        self._counter = 0

    def _state(self, count: int) -> Any:
        with TABLES:
            state = from_array(np.array([self._seed, self._counter], np.int64), _INT64)
            self._counter += (count + 1) // 2
            return state

    def uniform(self, shape: Any = (), minval: float = 0.0, maxval: float | None = None, dtype: Any = None) -> Any:
        """Uniform numbers in [minval, maxval), of floats by default in [0, 1); integers need ``maxval``."""
        shape = as_shape(shape)
        code = default_float() if dtype is None else code_of(dtype)
        if maxval is None:
            if not is_float(code):
                raise user_error(ValueError, "random.uniform: integers need a maxval")
            maxval = 1.0
        wide = "float64" if not is_float(code) else NAMES[code]
        unit = ops.random_uniform(self._state(math.prod(shape)), shape=shape, dtype=wide)
        if is_float(code):
            return unit if (minval, maxval) == (0.0, 1.0) else unit * float(maxval - minval) + float(minval)
        low, high = int(minval), int(maxval)
        if high <= low:
            raise user_error(ValueError, f"random.uniform: maxval {high} must be above minval {low}")
        return ops.cast(ops.minimum(ops.floor_divide(unit * float(high - low), 1.0) + float(low), float(high - 1)),
                        dtype=NAMES[code])

    def normal(self, shape: Any = (), mean: float = 0.0, stddev: float = 1.0, dtype: Any = None) -> Any:
        """Normal numbers by the method of Box and Muller (1958)."""
        shape = as_shape(shape)
        code = default_float() if dtype is None else code_of(dtype)
        if not is_float(code):
            raise user_error(TypeError, f"random.normal: makes floats, not {NAMES[code]}")
        n = math.prod(shape)
        unit = ops.random_uniform(self._state(2 * n), shape=(2, *shape), dtype=NAMES[code])
        radius = ops.sqrt(ops.log(1.0 - unit[0]) * -2.0)
        out = radius * ops.cos(unit[1] * (2 * math.pi))
        return out if (mean, stddev) == (0.0, 1.0) else out * float(stddev) + float(mean)


_default = Generator()


def set_seed(seed: int) -> None:
    """Make the draws from here on reproducible."""
    _default.reset(seed)


def uniform(shape: Any = (), minval: float = 0.0, maxval: float | None = None, dtype: Any = None,
            seed: int | None = None) -> Any:
    """Uniform numbers in [minval, maxval); see `Generator.uniform`. ``seed`` gives the same ones every time."""
    return (_default if seed is None else Generator(seed)).uniform(shape, minval, maxval, dtype)


def normal(shape: Any = (), mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: int | None = None) -> Any:
    """Normal numbers with a mean and standard deviation; ``seed`` gives the same ones every time."""
    return (_default if seed is None else Generator(seed)).normal(shape, mean, stddev, dtype)
