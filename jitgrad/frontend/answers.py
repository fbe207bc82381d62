"""What a recorded function returned, as instructions that make the like of it from the results of a replay.

They are a postfix program: leaves, then containers of the last so many items. What it cannot say, a function of the
leaves does.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jitgrad.core import nest
from jitgrad.core.number import Number
from jitgrad.execute.cpu.types import Tensor, Variable

Instruction = tuple[Any, ...]
_FIXED = (bool, int, float, complex, str, bytes, type(None), type, enum.Enum, range, slice, np.dtype, type(Ellipsis))


def _itself(x: Any) -> Any:
    return x


class NotRebuilt(Exception):
    """Something was returned that a replay cannot make again."""


class Answer:
    """Takes a returned nest apart. ``registers``: id of a Tensor that stands for an argument -> the argument's
    register; ``known``: ids of objects that were there before the call.
    """

    def __init__(self, answer: Any, registers: Mapping[int, int], known: set[int]) -> None:
        self.leaves: list[Any] = []                  # Tensors that the replay has to make
        self.instructions: list[Instruction] = []
        self._places: dict[int, int] = {}            # what is returned twice is one result
        self._registers = registers
        self._known = known
        if not self._take(answer):
            self.leaves, self.instructions = [], []
            self._exotic(answer)

    def _take(self, x: Any) -> bool:
        """Instructions for a value; False if they cannot say it."""
        kind = type(x)
        if kind is Number:
            x, kind = x.tensor, Tensor
        if kind is Tensor:
            register = self._registers.get(id(x))
            if register is None:
                k = self._places.setdefault(id(x), len(self.leaves))
                if k == len(self.leaves):
                    self.leaves.append(x)
                self.instructions.append(("result", k))
            else:
                self.instructions.append(("argument", register))
            return True
        if kind is tuple or kind is list or kind is dict:
            fine = all(map(self._take, x.values() if kind is dict else x))
            self.instructions.append((kind.__name__, tuple(x) if kind is dict else len(x)))
            return fine
        if kind is Variable or isinstance(x, _FIXED) or id(x) in self._known:
            self.instructions.append(("const", x))
            return True
        return False

    def _exotic(self, answer: Any) -> None:
        """A function of the Tensors does what instructions cannot: other containers, arrays."""
        leaves, structure = nest.flatten(answer)
        fixed: list[Callable[[], Any] | None] = []
        for x in leaves:
            if type(x) is Number:
                x = x.tensor
            if type(x) is Tensor:
                self.leaves.append(x)
                fixed.append(None)
            elif isinstance(x, np.ndarray):
                fixed.append(x.copy)
            elif type(x) is Variable or isinstance(x, (*_FIXED, np.generic)) or id(x) in self._known:
                fixed.append(functools.partial(_itself, x))
            else:
                raise NotRebuilt(type(x).__name__)

        def rebuild(tensors: list[Any]) -> Any:
            given = iter(tensors)
            return nest.rebuild(structure, [next(given) if make is None else make() for make in fixed])
        self.instructions = [("result", i) for i in range(len(self.leaves))]
        self.instructions.append(("call", rebuild, len(self.leaves)))

