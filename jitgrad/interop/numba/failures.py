"""What calls of recorded functions raise inside Numba: compiled code gives numbers, Python makes sentences of them."""

from __future__ import annotations

from typing import Any

from jitgrad.core.errors import user_error
from jitgrad.interop.numba.compiled import AT


def _said(error: Exception, sentence: str) -> None:
    Exception.__init__(error, str(user_error(Exception, sentence)))


class _Plain:
    """Pickled with its sentence, not with the numbers that it was made of."""

    def __reduce__(self) -> Any:
        return type(self).__mro__[2], self.args  # type: ignore[attr-defined]


class Misfit(_Plain, ValueError):
    """An argument has another shape or layout than was recorded."""

    def __init__(self, f: int, place: int, axis: int, found: int) -> None:
        _said(self, AT[f].misfit(place, axis, found))


class GuardFailed(_Plain, RuntimeError):
    """A number is not the one that Python went by when the call was recorded."""

    def __init__(self, f: int, instruction: int) -> None:
        _said(self, AT[f].guard(instruction))


class RowFailed(_Plain, IndexError):
    """An operation had operands that it cannot do with."""

    def __init__(self, f: int) -> None:
        _said(self, f"{AT[f].__name__}: an operation failed, an index that is out of range say")


class NoMemory(_Plain, MemoryError):
    """There is no memory to work in."""

    def __init__(self, f: int) -> None:
        _said(self, f"{AT[f].__name__}: no memory for intermediate values")


class NoThread(_Plain, RuntimeError):
    """Variables cannot be assigned here."""

    def __init__(self, f: int) -> None:
        _said(self, f"{AT[f].__name__}: it assigns Variables, which a thread of prange cannot")


class KernelRaised(_Plain, RuntimeError):
    """A function of the user's did."""

    def __init__(self, f: int) -> None:
        _said(self, f"{AT[f].__name__}: the function of a numba_op raised an exception; call it on NumPy arrays to see "
                    "which")
