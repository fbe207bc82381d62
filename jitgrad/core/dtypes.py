"""The five element types, their codes, and how they mix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from jitgrad.core.errors import user_error
from jitgrad.core.versions import DEFAULTS, changed

BOOL, INT32, INT64, FLOAT32, FLOAT64 = range(5)
DTYPES = tuple(np.dtype(name) for name in ("bool", "int32", "int64", "float32", "float64"))
CODES = {dtype: code for code, dtype in enumerate(DTYPES)}
NAMES = tuple(dtype.name for dtype in DTYPES)

bool_, int32, int64, float32, float64 = DTYPES


class _Default:
    """The float dtype that Python floats become (`jg.set_default_dtype`)."""

    float_code = FLOAT32


def default_float() -> int:
    return _Default.float_code


def set_default_dtype(dtype: Any) -> None:
    """Set the dtype that Python floats (and the mean of integers) become: float32 at first, or float64.

    >>> import jitgrad as jg
    >>> jg.set_default_dtype("float64"); jg.constant(1.0).dtype.name
    'float64'
    >>> jg.set_default_dtype("float32")
    """
    code = code_of(dtype)
    if code not in (FLOAT32, FLOAT64):
        raise user_error(ValueError, f"set_default_dtype: the default must be float32 or float64, got {NAMES[code]}")
    if code != _Default.float_code:
        _Default.float_code = code
        changed(DEFAULTS)


def code_of(dtype: Any) -> int:
    """The code of anything that names one of the five dtypes; TypeError for the rest."""
    try:
        found = CODES.get(np.dtype(dtype))
    except TypeError:
        found = None
    if found is None:
        name = getattr(dtype, "name", None) or repr(dtype)
        raise user_error(TypeError, f"jitgrad has the dtypes {', '.join(NAMES)}; got {name}")
    return found


def is_float(code: int) -> bool:
    return code >= FLOAT32


def promote(codes: Iterable[int], weak: Iterable[type] = ()) -> int:
    """The dtype in which operands meet: the widest kind, within it the widest size; Python numbers give way.

    Codes are ordered so that bool < integers < floats and narrow < wide, hence the maximum is the array
    API's answer, and integer with float gives the float's dtype.
    """
    code = max(codes, default=BOOL)
    kinds = set(weak)
    if float in kinds and code < FLOAT32:
        return default_float()
    if int in kinds and code == BOOL:
        return INT32
    return code
