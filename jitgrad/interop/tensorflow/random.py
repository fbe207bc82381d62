"""`tf.random`: jitgrad's own numbers under TensorFlow's names."""

from __future__ import annotations

from typing import Any

import jitgrad as jg
from jitgrad.random import set_seed as set_seed


def normal(shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = jg.float32, seed: int | None = None,
           name: str | None = None) -> Any:
    """`jg.random.normal`; with ``seed`` the same numbers at every call."""
    return jg.random.normal(shape, mean, stddev, dtype, seed)


def uniform(shape: Any, minval: Any = 0, maxval: Any = None, dtype: Any = jg.float32, seed: int | None = None,
            name: str | None = None) -> Any:
    """`jg.random.uniform`: floats or, with ``maxval``, integers; with ``seed`` the same numbers at every call."""
    return jg.random.uniform(shape, minval, maxval, dtype, seed)
