"""Names: of things given as strings, and of things that their user did not name."""

from __future__ import annotations

import inspect
import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from jitgrad.core.errors import user_error

_numbers: dict[str, itertools.count[int]] = defaultdict(itertools.count)


def snake(name: str) -> str:
    """``GlorotUniform`` as ``glorot_uniform``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def by_name(what: str, name: Any, module: Mapping[str, Any], kind: type | None = None,
            homes: Collection[str] = ()) -> Any:
    """The class below ``kind`` that a string names, or without a kind the function; ``module`` is its namespace.

    Functions count if they are written there, or in one of the modules ``homes``.

    Raises ValueError with the names there are.
    """
    if kind is None:
        known = {key: value for key, value in module.items()
                 if hasattr(value, "prim") or getattr(value, "__module__", None) in (homes or (module["__name__"],))}
    else:
        classes = {value for value in module.values() if inspect.isclass(value) and issubclass(value, kind)}
        known = {snake(c.__name__): c for c in classes if c is not kind}
    known = {key: value for key, value in known.items() if not key.startswith("_") and key != "get"}
    if isinstance(name, str):
        for spelling in (name, snake(name)):
            if spelling in known:
                return known[spelling]
    raise user_error(ValueError, f"there is no {what} {name!r}; the names are {', '.join(sorted(known))}")


def fresh(kind: str) -> str:
    """``dense``, then ``dense_1``, ``dense_2``..."""
    n = next(_numbers[kind])
    return f"{kind}_{n}" if n else kind
