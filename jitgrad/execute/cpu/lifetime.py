"""What machine code reads lives until the process has ended: longer than the modules that hold it."""

from __future__ import annotations

import ctypes as C
from typing import TypeVar

T = TypeVar("T")


def immortal(held: T) -> T:
    """An object that is never freed. Tapes and Tensors may die after the modules, and the machine works for them."""
    C.pythonapi.Py_IncRef(C.py_object(held))
    return held
