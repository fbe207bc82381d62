"""Devices by name: where the numbers of Tensors are, and where new ones are made."""

from __future__ import annotations

import threading
from typing import Any

from jitgrad.core import backend
from jitgrad.core.errors import user_error
from jitgrad.core.recorder import Placement, active, carried, has_numbers, is_dry, is_elsewhere

NAMES = ("cpu", "cuda")
LOOSE = 4                      # mark of a Tensor that code of ours made of an array or list: it follows other operands


class _Entered(threading.local):
    def __init__(self) -> None:
        self.items: list[Placement | None] = []


_entered = _Entered()


class Device(str):
    """A device's name. As a ``with`` block it is where new Tensors and Variables are made.

    >>> import jitgrad as jg
    >>> jg.constant(1.0).device == jg.device("cpu")
    True
    """

    __slots__ = ()

    def __enter__(self) -> Device:
        _check(self)
        placement = Placement(str(self))
        placed = any(p is not None for p in _entered.items)
        _entered.items.append(placement.__enter__() if self != "cpu" or placed else None)
        return self

    def __exit__(self, *error: object) -> None:
        placement = _entered.items.pop()
        if placement is not None:
            placement.__exit__(*error)


def device(name: Any) -> Device:
    """A device by name: "cpu", or "cuda" (also "gpu"), the first GPU that the process sees.

    It equals its name and is what `Tensor.device` gives; a ``with`` block of it makes Tensors and Variables there.
    ValueError for another name; RuntimeError saying what is missing when a device that is not there is entered.

    >>> import jitgrad as jg
    >>> with jg.device("cpu"):
    ...     x = jg.zeros((2,))
    >>> x.device
    'cpu'
    """
    kind, colon, number = str(name).lower().partition(":")
    kind = "cuda" if kind == "gpu" else kind
    if kind not in NAMES or colon and not number.isdecimal():
        raise user_error(ValueError, f"device: there are {' and '.join(map(repr, NAMES))}, got {name!r}")
    if colon and int(number):
        raise user_error(ValueError, f"device: a process uses one {kind} device, \"{kind}:0\", got {name!r}"
                                     + ("; CUDA_VISIBLE_DEVICES says which GPU that is" if kind == "cuda" else ""))
    return Device(kind)


def devices() -> list[Device]:
    """The devices that can be used here.

    >>> import jitgrad as jg
    >>> jg.devices()[0]
    'cpu'
    """
    return [Device(name) for name in NAMES if not backend.current().missing(name)]


def _check(name: str) -> str:
    """The name, if the device can be used; RuntimeError saying why not."""
    missing = backend.current().missing(name)
    if missing:
        raise user_error(RuntimeError, f"there is no device {name} here: {missing}")
    return name


def device_of(t: Any) -> Device:
    """Where the numbers of a Tensor are; of a dry one, where the process began."""
    return Device("cpu" if t._data != 0 or is_dry(t) else t._owner.device)


def moved(t: Any, name: Any) -> Any:
    """A Tensor with the same numbers on a device that may be asked for by name."""
    return carried(t, _check(device(name)))


def placed(made: Any, name: Any = None) -> Any:
    """A new Tensor where it is asked for, or else where Tensors are made here."""
    if name is not None:
        return moved(made, name)
    recording = active()
    return made if recording is None else recording.place(made)


def beside(made: Any, t: Any) -> Any:
    """A new Tensor where another one is."""
    if is_elsewhere(made) or is_elsewhere(t):
        has_numbers(made)          # what waits to be computed is on the CPU
        has_numbers(t)
    if t._data != 0 and made._data != 0 or is_dry(t) or is_dry(made):
        return made
    return carried(made, device_of(t))


def along(made: Any, t: Any) -> Any:
    """`beside` for a Tensor of our own: it follows other operands where nobody knows where ``t`` will be."""
    if is_dry(t):
        made._tracked |= LOOSE
    return beside(made, t)
