"""Which Python numbers among a function's arguments are data, and which are keys.

A number is a key until a second value arrives in its place. Then the call is recorded with a `Number` in its place,
and what comes out is compared, bit for bit, with what the code that took it for a key gives for that key.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

Path = tuple[Any, ...]


class Place(Enum):
    """What is known of a number's place."""

    KEY = "key"                    # one value was seen
    DATA = "data"
    FIXED = "fixed"                # it was tried as data and differed


class Numbers:
    """The numbers of one function by their places."""

    def __init__(self) -> None:
        self._places: dict[tuple[Path, type], Place] = {}
        self._seen: dict[tuple[Path, type], Any] = {}
        self._together = True          # try all new places at once, until that has failed

    def is_data(self, path: Path, kind: type) -> bool:
        """Whether the number in a place is taken as data now."""
        return self._places.get((path, kind)) is Place.DATA

    def met(self, numbers: Mapping[Path, Any]) -> list[tuple[Path, type]]:
        """Notes the numbers of a call; the places to try as data, where another value was seen before."""
        new = []
        for path, x in numbers.items():
            key = (path, type(x))
            state = self._places.setdefault(key, Place.KEY)
            before = self._seen.setdefault(key, x)
            if state is Place.KEY and not _same(before, x):
                new.append(key)
        return new if self._together else new[:1]

    def settle(self, tried: list[tuple[Path, type]], data: bool) -> None:
        """How a trial went. One of several places that fail together may be the only bad one."""
        if not data and len(tried) > 1:
            self._together = False
            return
        for key in tried:
            self._places[key] = Place.DATA if data else Place.FIXED


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) and str(a) == str(b)       # 0.0 is not -0.0
