"""The Python half of Tensor: what is not on the hot path, set on the machine-made type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.aval import AVALS
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.core.recorder import NO_NUMBER, has_numbers, no_number


class TensorMethods:
    """Attributes of `jitgrad.Tensor`: an immutable array whose operations tapes can record."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, as a tuple of ints."""
        return AVALS[self._aval].shape  # type: ignore[attr-defined]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type, as NumPy's dtype."""
        return AVALS[self._aval].dtype  # type: ignore[attr-defined]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return AVALS[self._aval].ndim  # type: ignore[attr-defined]

    @property
    def size(self) -> int:
        """Number of elements."""
        return AVALS[self._aval].size  # type: ignore[attr-defined]

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return AVALS[self._aval].nbytes  # type: ignore[attr-defined]

    def numpy(self) -> np.ndarray:
        """The elements as a read-only NumPy array that shares the Tensor's memory and keeps it alive.

        From another device they are copied. Raises TypeError in a dry recording, where there are no elements.
        """
        aval = AVALS[self._aval]  # type: ignore[attr-defined]
        if not has_numbers(self):
            raise no_number(NO_NUMBER)
        if self._data == 0:  # type: ignore[attr-defined]
            out: np.ndarray = backend.current().numbers(self).numpy()
            return out
        if aval.size == 0:
            out = np.empty(aval.shape, aval.dtype)
            out.flags.writeable = False
            return out
        return np.frombuffer(self, aval.dtype).reshape(aval.shape)  # type: ignore[call-overload]

    def item(self) -> Any:
        """The only element as a Python number; ValueError if there are several."""
        if self.size != 1:
            raise user_error(ValueError, f"item: only a Tensor with one element has an item, got shape {self.shape}")
        return self.numpy().item()

    def tolist(self) -> Any:
        """The elements as nested Python lists."""
        return self.numpy().tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and np.dtype(dtype) != array.dtype:
            if copy is False:
                raise ValueError(f"a Tensor of dtype {array.dtype} cannot become {np.dtype(dtype)} without a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __len__(self) -> int:
        if self.ndim == 0:
            raise user_error(TypeError, "a 0-d Tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        if self.ndim == 0:
            raise user_error(TypeError, "a 0-d Tensor has nothing to iterate over")
        return (self[i] for i in range(self.shape[0]))  # type: ignore[index]

    def __contains__(self, value: Any) -> bool:
        return bool((self.numpy() == np.asarray(value)).any())

    def __repr__(self) -> str:
        if not has_numbers(self):
            return f"<jg.Tensor: shape={self.shape}, dtype={self.dtype}, dry>"
        where = f"device={self.device}, " if self._data == 0 else ""  # type: ignore[attr-defined]
        return f"<jg.Tensor: shape={self.shape}, dtype={self.dtype}, {where}numpy={self.numpy()[()]!r}>"

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __reduce__(self) -> Any:
        return from_numpy, (np.array(self.numpy()),)

    def ref(self) -> Any:
        """A hashable stand-in for the Tensor, equal only to a reference to the same object (as in TensorFlow)."""
        return Reference(self)


class Reference:
    """Hashable identity of a Tensor or Variable; `deref` gives it back."""

    __slots__ = ("_object",)

    def __init__(self, value: Any) -> None:
        self._object = value

    def deref(self) -> Any:
        return self._object

    def __hash__(self) -> int:
        return id(self._object)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and other._object is self._object


def from_numpy(array: np.ndarray) -> Any:
    """A Tensor from a pickled array."""
    return tensor(array)


def install(methods: type, target: type) -> None:
    """Set the attributes of one class on another: how a machine-made type gets its Python half."""
    for name, value in vars(methods).items():
        if name not in ("__dict__", "__weakref__", "__module__", "__qualname__", "__firstlineno__",
                        "__static_attributes__"):
            setattr(target, name, value)
