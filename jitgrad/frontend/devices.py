"""Moving Tensors between devices, as tapes see it: the gradient goes back."""

from __future__ import annotations

import importlib
from typing import Any

from jitgrad.core import backend
from jitgrad.core.device import Device, device_of, moved
from jitgrad.core.errors import user_error
from jitgrad.core.recorder import has_numbers, is_dry
from jitgrad.execute.cpu.types import Variable


def to_device(x: Any, name: Any) -> Any:
    """``x`` on a device; itself if it is there. Its gradient goes back to where it was."""
    t = backend.current().read(x) if type(x) is Variable else x
    if not has_numbers(t):
        raise user_error(TypeError, "to_device: inside of cond, loops and vmap values have no device yet; move them "
                                    "before, or after")
    return moved(t, name)


class DeviceMethods:
    """Attributes of Tensors and Variables that say where they are."""

    @property
    def device(self) -> Device:
        """Where the elements are: "cpu" or "cuda"."""
        return device_of(self._value if type(self) is Variable else self)  # type: ignore[attr-defined]

    def to_device(self, device: Any, stream: Any = None) -> Any:
        """The same elements on a device, as a Tensor; itself if it is there. The gradient goes back.

        RuntimeError where there is no such device, saying what is missing; ValueError for an unknown name.
        ``stream``, which the array API has, may be None only: all work is ordered on one.
        """
        if stream is not None:
            raise user_error(ValueError, "to_device: stream must be None, all work is ordered on one stream")
        return to_device(self, device)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        t: Any = backend.current().read(self) if type(self) is Variable else self
        if t._data != 0 or is_dry(t):
            raise AttributeError("__cuda_array_interface__: the Tensor is not on a GPU")
        return _exchange().interface(t)

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None,
                   copy: bool | None = None) -> Any:
        t = backend.current().read(self) if type(self) is Variable else self
        return _exchange().exported(t, stream, max_version, dl_device, copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _exchange().dlpack_device(self._value if type(self) is Variable else self)  # type: ignore[attr-defined]


def from_dlpack(x: Any, device: Any = None, copy: bool | None = None) -> Any:
    """A Tensor from an array of another library by DLPack (array API).

    An array on a GPU is taken as it is, without a copy: it must not change while the Tensor is in use. One on the CPU
    is copied. ``device`` moves it, ``copy=True`` asks for a copy, and ``copy=False`` for none: ValueError where that
    cannot be. TypeError for a dtype that jitgrad has not.

    >>> import jitgrad as jg, numpy as np
    >>> jg.from_dlpack(np.arange(3.0)).numpy()
    array([0., 1., 2.])
    """
    made = _exchange().imported(x, copy)
    return made if device is None else to_device(made, device)


def _exchange() -> Any:
    """Not before it is needed."""
    return importlib.import_module("jitgrad.execute.cuda.exchange")
