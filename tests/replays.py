"""Compares a `jitgrad.function` with the plain Python function that it is made of, bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import jitgrad as jg


def told(x: Any) -> Any:
    """A value in plain Python, with the bits of its numbers."""
    if isinstance(x, list | tuple):
        return type(x).__name__, [told(v) for v in x]
    if isinstance(x, dict):
        return type(x).__name__, [(key, told(v)) for key, v in x.items()]
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return type(x).__name__, [told(getattr(x, field.name)) for field in dataclasses.fields(x)]
    if isinstance(x, jg.Tensor | jg.Variable | np.ndarray):
        array = np.asarray(x)
        return type(x).__name__, str(array.dtype), array.shape, array.tobytes()
    return type(x).__name__, repr(x)


def done(function: Callable[..., Any], args: Iterable[Any]) -> Any:
    """What a call returned, or raised."""
    try:
        return told(function(*args))
    except Exception as error:               # whatever it is, both ways must raise it
        return type(error).__name__, str(error).partition(" (at ")[0]


def assert_alike(make: Callable[[Callable[..., Any]], Callable[..., Any]], calls: Iterable[Any]) -> None:
    """``make(wrap)`` builds a function out of wrapped ones, with state of its own; each call is a tuple of arguments."""
    replayed, plain = make(jg.function), make(lambda f: f)
    for n, args in enumerate(calls):
        assert done(replayed, args) == done(plain, args), f"call {n}: {args}"


def close(got: Any, want: Any, tolerance: float = 1e-12) -> None:
    """Nests of equal structure, of nearly equal numbers; None where there is None."""
    if isinstance(want, list | tuple):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            close(a, b, tolerance)
    elif want is None:
        assert got is None
    else:
        np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=tolerance, atol=tolerance)
