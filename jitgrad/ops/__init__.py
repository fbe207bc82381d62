"""The table. Derivative rules name other entries as `ops.name`, whichever file those stand in."""

from __future__ import annotations

import importlib
from typing import Any

from jitgrad.core.primitive import OPS, TABLE, Kind

_FILES = ("elementwise", "exponential", "trigonometric", "hyperbolic", "special", "rounding", "logic", "reduce",
          "movement", "contract", "index", "scan", "sort", "random", "effects", "composite")


def fill() -> None:
    """Import the entries; the backend that makes their ops is in place by now."""
    modules = [importlib.import_module(f"{__name__}.{name}") for name in _FILES]
    globals().update(OPS)
    globals()["sum_to"] = modules[-1].sum_to


def public() -> dict[str, Any]:
    """The ops that users may call: all but rows that hold Programs or Python rules, or that compute nothing."""
    return {p.name: OPS[p.name] for p in TABLE if p.kind not in (Kind.HIGHER, Kind.EFFECT)}


def __getattr__(name: str) -> Any:
    try:
        return OPS[name]
    except KeyError:
        raise AttributeError(f"the table has no entry named {name!r}") from None
