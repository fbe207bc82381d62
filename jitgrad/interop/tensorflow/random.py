"""`tf.random`: jitgrad's own numbers under TensorFlow's names. A ``seed`` gives the same numbers at every call."""

from __future__ import annotations

from typing import Any

import jitgrad as jg
from jitgrad.random import Generator as Generator
from jitgrad.random import global_generator as get_global_generator  # noqa: F401
from jitgrad.random import set_seed as set_seed


def normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = jg.float32, seed: int | None = None,
           name: str | None = None) -> Any:
    """`jg.random.normal`."""
    return jg.random.normal(shape, mean, stddev, dtype, seed)


def truncated_normal(shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = jg.float32, seed: int | None = None,
                     name: str | None = None) -> Any:
    """`jg.random.truncated_normal`."""
    return jg.random.truncated_normal(shape, mean, stddev, dtype, seed)


def uniform(shape: Any, minval: Any = 0, maxval: Any = None, dtype: Any = jg.float32, seed: int | None = None,
            name: str | None = None) -> Any:
    """`jg.random.uniform`: floats or, with ``maxval``, integers."""
    return jg.random.uniform(shape, minval, maxval, dtype, seed)


def categorical(logits: Any, num_samples: int, dtype: Any = jg.int64, seed: int | None = None,
                name: str | None = None) -> Any:
    """`jg.random.categorical`: shape (batch, num_samples)."""
    return jg.random.categorical(logits, num_samples, dtype, seed)


def shuffle(value: Any, seed: int | None = None, name: str | None = None) -> Any:
    """`jg.random.shuffle` along the first axis; it has a gradient."""
    return jg.random.shuffle(value, 0, seed)
