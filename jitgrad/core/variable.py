"""The Python half of Variable: a place that holds a Tensor."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from jitgrad.core import backend, dtypes
from jitgrad.core.aval import AVALS, aval
from jitgrad.core.device import beside, device_of, moved, placed
from jitgrad.core.errors import user_error
from jitgrad.core.primitive import OPS
from jitgrad.core.record import tensor
from jitgrad.core.recorder import active, has_numbers, is_dry, is_elsewhere, no_number
from jitgrad.core.tensor import Reference

TRAINABLE, WATCHED = 1, 2
_serials = itertools.count()


class VariableMethods:
    """Attributes of `jitgrad.Variable`; see `__new__` for making one."""

    _serial: int

    def __new__(cls, initial_value: Any = None, trainable: bool = True, name: str | None = None,
                dtype: Any = None, device: Any = None) -> Any:
        """A variable with an initial value, watched by tapes when read if ``trainable``.

        ``initial_value``: anything that holds numbers, or a function that returns it. The dtype and shape are fixed
        from then on, and the ``device``: by default that of a `jitgrad.device` block around, else that of the value.
        Raises ValueError without an initial value, TypeError for what holds no numbers.

        >>> import jitgrad as jg
        >>> w = jg.Variable([1., 2.], name="w")
        >>> w.assign_add([1., 1.]).numpy()
        array([2., 3.], dtype=float32)
        """
        if initial_value is None:
            raise user_error(ValueError, "Variable: initial_value must be specified")
        if callable(initial_value):
            initial_value = initial_value()
        value = tensor(initial_value, None if dtype is None else dtypes.code_of(dtype), "Variable")
        if not is_dry(value):
            value = placed(value, device)
        self = object.__new__(cls)
        self._value = copied(value) if active() is None and value._data else OPS["stop_gradient"](value)
        if not has_numbers(self._value):
            raise no_number("Variable: made of a Tensor of a dry recording, which has no numbers; make Variables "
                            "outside of cond, loops and vmap")
        self._flags = TRAINABLE if trainable else 0
        self._serial = next(_serials)
        self.name = "Variable:0" if name is None else str(name)
        recording = active()
        if recording:
            recording.created(self)
        return self

    # ---- reading ----

    def read_value(self) -> Any:
        """The present value as a Tensor of its own; tapes that watch the variable see the read."""
        value = backend.current().read(self)
        return OPS["reshape"](value, AVALS[value._aval].shape)

    value = read_value

    def numpy(self) -> np.ndarray:
        """The present value as a read-only NumPy array."""
        out: np.ndarray = self._held().numpy()
        return out

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return AVALS[self._value._aval].shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return AVALS[self._value._aval].dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return AVALS[self._value._aval].ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return AVALS[self._value._aval].size

    @property
    def trainable(self) -> bool:
        """Whether tapes watch the variable when it is read."""
        return bool(self._flags & TRAINABLE)

    # ---- assigning ----

    def assign(self, value: Any) -> Any:
        """Hold ``value`` from now on, in the variable's dtype; returns the variable.

        Raises ValueError for another shape. What was recorded with the old value is unchanged.
        """
        value = tensor(value, what="assign")
        if is_elsewhere(self._value):
            has_numbers(value)     # what waits to be computed is on the CPU
        return self._set("assign", value if is_dry(value) else moved(value, device_of(self._value)))

    def _held(self) -> Any:
        """The present value; no tape takes note."""
        recording = active()
        return recording.read(self) if recording else self._value

    def _assign_add(self, delta: Any) -> Any:
        """`assign_add` in general: what is no Tensor of the variable's aval, or is recorded."""
        return self._set("assign_add", self._held() + self._like("assign_add", delta))

    def _assign_sub(self, delta: Any) -> Any:
        """`assign_sub` in general."""
        return self._set("assign_sub", self._held() - self._like("assign_sub", delta))

    def _like(self, what: str, delta: Any) -> Any:
        kind = type(delta)
        if kind is int or kind is float:
            return delta
        if kind is backend.Current.Tensor and delta._aval == self._value._aval:
            return delta if AVALS[delta._aval].ndim else beside(delta, self._value)      # a single number comes along
        made = tensor(delta, AVALS[self._value._aval].code, what)
        return made if made is delta else beside(made, self._value)

    def _set(self, what: str, value: Any) -> Any:
        if value._aval != self._value._aval:
            have, new = AVALS[self._value._aval], AVALS[value._aval]
            if new.shape != have.shape:
                raise user_error(ValueError, f"{what}: a value of shape {new.shape} does not fit the variable "
                                             f"{self.name!r} of shape {have.shape}")
            value = tensor(value, have.code)
        # a Tensor of its own, though not memory: two variables, or a variable and a Tensor, are different sources
        self._hold(OPS["stop_gradient"](value))
        return self

    def _hold(self, value: Any) -> None:
        """Hold a Tensor of the variable's aval that is nobody else's."""
        recording = active()
        if recording:
            recording.assign(self, value)
        else:
            backend.current().assign_now(self, value)

    # ---- the rest ----

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        out: np.ndarray = self._held().__array__(dtype, copy)
        return out

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Iterator[Any]:
        return iter(backend.current().read(self))

    def __getitem__(self, key: Any) -> Any:
        return backend.current().read(self)[key]

    def __repr__(self) -> str:
        where = f"device={device_of(self._value)}, " if self._value._data == 0 else ""
        return (f"<jg.Variable {self.name!r} shape={self.shape} dtype={self.dtype}, {where}"
                f"numpy={self.numpy()[()]!r}>")

    def __format__(self, spec: str) -> str:
        return format(self._held(), spec) if spec else str(self)

    def __deepcopy__(self, memo: Any) -> Any:
        return type(self)(self._held(), self.trainable, self.name, device=device_of(self._value))

    def __reduce__(self) -> Any:
        return type(self), (np.array(self.numpy()), self.trainable, self.name)

    def ref(self) -> Any:
        """A hashable stand-in for the variable."""
        return Reference(self)

    item = property(lambda self: self._held().item, doc="See `Tensor.item`.")

    _value: Any
    _flags: int
    _epoch: int
    name: str


def copied(value: Any) -> Any:
    """A Tensor of its own with the same elements: no tape knows it."""
    like = AVALS[value._aval]
    array = np.ascontiguousarray(value.numpy()).reshape(like.shape)
    return backend.current().tensor(array, aval(like.code, like.shape))
