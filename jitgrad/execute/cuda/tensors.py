"""Tensors on the GPU: without elements to the CPU's machine code, owned by a `Buffer`, at an offset in it."""

from __future__ import annotations

import ctypes as C
import weakref
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.aval import AVALS, Aval
from jitgrad.execute.cpu import layout, types
from jitgrad.execute.cuda import memory
from jitgrad.execute.cuda.memory import Buffer

types.set_state(layout.S_ELSEWHERE, id(Buffer))
_READ = 0x100                  # PyBUF_READ
_bytes_at = C.PYFUNCTYPE(C.py_object, C.c_void_p, C.c_ssize_t, C.c_int)(("PyMemoryView_FromMemory", C.pythonapi))


def tensor(value: Aval, buffer: Buffer, offset: int = 0) -> Any:
    """A Tensor of the elements at a byte offset."""
    return backend.current().dry(value, offset, buffer)


def place(t: Any) -> tuple[Any, int]:
    """Where the elements of a Tensor on the GPU are, as a launch takes it."""
    return t._owner.base, t._number


def alias(t: Any) -> Any:
    """Another Tensor of the same elements, which no tape knows."""
    return tensor(AVALS[t._aval], t._owner, t._number)


def array_of(t: Any) -> np.ndarray:
    """The elements, copied."""
    have = AVALS[t._aval]
    return memory.downloaded(t._owner, t._number, have.shape, have.dtype)


def to_host(t: Any) -> Any:
    """A Tensor on the CPU with the same elements."""
    return backend.current().tensor(array_of(t), AVALS[t._aval])


def from_host(t: Any) -> Any:
    """A Tensor on the GPU with the elements of one on the CPU."""
    have = AVALS[t._aval]
    return tensor(have, memory.uploaded(np.frombuffer(_bytes_at(t._data, have.nbytes, _READ), have.dtype)))


_constants: dict[int, tuple[Any, Any]] = {}      # id of a Tensor -> weak reference to it, the same on the GPU


def constant(t: Any) -> Any:
    """The same, made once in the life of a Tensor on the CPU."""
    found = _constants.get(id(t))
    if found is None or found[0]() is not t:
        key = id(t)
        found = _constants[key] = weakref.ref(t, lambda _: _constants.pop(key, None)), from_host(t)
    return found[1]
