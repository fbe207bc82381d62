"""Arrays shared with other libraries: DLPack, and the CUDA array interface. Memory on a GPU is copied only if elements
do not lie one behind the other, or not where kernels can read them.

Work on it is ordered with that of others by waiting: before memory is given to somebody for all work of ours, and
before memory that others know is let go for all work of everybody.
"""

from __future__ import annotations

import ctypes as C
import functools
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.aval import AVALS, aval
from jitgrad.core.dtypes import CODES, DTYPES, NAMES
from jitgrad.core.errors import user_error
from jitgrad.core.primitive import Index, contiguous_strides
from jitgrad.core.record import tensor as made_of
from jitgrad.core.recorder import NO_NUMBER, is_dry, no_number
from jitgrad.execute.cpu import llvm
from jitgrad.execute.cuda import memory, movement, stream, toolkit
from jitgrad.execute.cuda.tensors import alias, array_of, tensor

CPU, CUDA, MANAGED = 1, 2, 13              # device types of DLPack
_LETTERS = {0: "i", 1: "u", 2: "f", 6: "b"}     # its type codes
_CODES = {letter: code for code, letter in _LETTERS.items()}


# ---- the CUDA array interface ----------------------------------------------------------------------------

def interface(t: Any) -> dict[str, Any]:
    """Version 3; whoever takes it waits for our stream, but for those that never look whether there is one."""
    have = AVALS[t._aval]
    backend.current().was_read(t)
    t._owner.share()
    stream.driver().sync()
    return {"shape": have.shape, "typestr": have.dtype.str, "data": (_address(t) if have.size else 0, True),
            "strides": None, "version": 3, "stream": stream.driver().handle or None}


def _address(t: Any) -> int:
    return int(t._owner.address + t._number)


def taken(array: Any) -> Any:
    """A Tensor that shares the memory of an object with the interface, which must not change while it is in use.

    Elements that do not lie one behind the other are copied.
    """
    given = array.__cuda_array_interface__
    try:
        shape, dtype, address = tuple(map(int, given["shape"])), np.dtype(given["typestr"]), int(given["data"][0])
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise user_error(TypeError, f"asarray: the __cuda_array_interface__ of {type(array).__name__} is none, "
                                    f"{error!r}") from None
    if given.get("mask") is not None:
        raise user_error(TypeError, "asarray: an array with a mask has no counterpart")
    if given.get("stream") is not None:
        stream.driver().wait_for(int(given["stream"]))
    elif int(given.get("version", 0)) < 3:           # of which streams had no part: on any there may be work on it
        stream.driver().sync_all()
    return _taken(address, shape, given.get("strides"), dtype, array)


def _taken(address: int, shape: tuple[int, ...], strides: Any, dtype: np.dtype[Any], owner: Any) -> Any:
    """``strides`` in bytes, or None."""
    if dtype not in CODES:
        raise user_error(TypeError, f"an array of dtype {dtype} on a GPU has no counterpart; the dtypes are "
                                    f"{', '.join(NAMES)}")
    have = aval(CODES[dtype], shape)
    whole = tuple(n * dtype.itemsize for n in contiguous_strides(shape))
    if strides is None or have.size == 0 or all(
            n == 1 or s == w for n, s, w in zip(shape, strides, whole, strict=True)):
        return tensor(have, _aligned(_foreign(address, have.nbytes, owner), dtype))
    if any(s % dtype.itemsize for s in strides):
        raise user_error(TypeError, f"an array of {dtype} with strides of {tuple(strides)} bytes on a GPU cannot be "
                                    "taken; copy it first")
    ends = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    first, reach = sum(min(e, 0) for e in ends), sum(map(abs, ends)) + dtype.itemsize
    index = Index(shape, tuple(s // dtype.itemsize for s in strides), -first // dtype.itemsize)
    made, given = memory.empty(have.nbytes), _aligned(_foreign(address + first, reach, owner), dtype)
    stream.run(movement.walked("move", index, dtype), [(made.base, 0), (given.base, 0)])
    return tensor(have, made)


def _aligned(found: memory.Buffer, dtype: np.dtype[Any]) -> memory.Buffer:
    """The bytes at an address where kernels can read elements."""
    return memory.copied(found, 0, found.nbytes) if found.address % dtype.itemsize else found


def _foreign(address: int, nbytes: int, owner: Any) -> memory.Buffer:
    if not nbytes:
        return memory.empty(0)
    base: Any = address
    if toolkit.simulated():
        base = np.ctypeslib.as_array((C.c_uint8 * nbytes).from_address(address))
    return memory.foreign(base, owner, nbytes)


# ---- DLPack ----------------------------------------------------------------------------------------------

class _Device(C.Structure):
    _fields_ = [("kind", C.c_int32), ("number", C.c_int32)]


class _Type(C.Structure):
    _fields_ = [("code", C.c_uint8), ("bits", C.c_uint8), ("lanes", C.c_uint16)]


class _Array(C.Structure):
    _fields_ = [("data", C.c_void_p), ("device", _Device), ("ndim", C.c_int32), ("dtype", _Type),
                ("shape", C.POINTER(C.c_int64)), ("strides", C.POINTER(C.c_int64)), ("offset", C.c_uint64)]


class _Managed(C.Structure):
    """DLManagedTensor."""


_Deleter = C.CFUNCTYPE(None, C.POINTER(_Managed))
_Managed._fields_ = [("array", _Array), ("context", C.c_void_p), ("deleter", _Deleter)]


class _Versioned(C.Structure):
    """DLManagedTensorVersioned."""


_VersionedDeleter = C.CFUNCTYPE(None, C.POINTER(_Versioned))
_Versioned._fields_ = [("major", C.c_uint32), ("minor", C.c_uint32), ("context", C.c_void_p),
                       ("deleter", _VersionedDeleter), ("flags", C.c_uint64), ("array", _Array)]
_NAMES = {False: b"dltensor", True: b"dltensor_versioned"}
_USED = {False: b"used_dltensor", True: b"used_dltensor_versioned"}
READ_ONLY = 1
_api = C.pythonapi
_new = C.PYFUNCTYPE(C.py_object, C.c_void_p, C.c_char_p, C.c_void_p)(("PyCapsule_New", _api))
_pointer = C.PYFUNCTYPE(C.c_void_p, C.py_object, C.c_char_p)(("PyCapsule_GetPointer", _api))
_valid = C.PYFUNCTYPE(C.c_int, C.py_object, C.c_char_p)(("PyCapsule_IsValid", _api))
_rename = C.PYFUNCTYPE(C.c_int, C.py_object, C.c_char_p)(("PyCapsule_SetName", _api))
_raw_valid = C.PYFUNCTYPE(C.c_int, C.c_void_p, C.c_char_p)(("PyCapsule_IsValid", _api))
_raw_pointer = C.PYFUNCTYPE(C.c_void_p, C.c_void_p, C.c_char_p)(("PyCapsule_GetPointer", _api))
_given: dict[int, tuple[Any, ...]] = {}        # address of a struct -> it, and what it shares


def _forget(struct: Any) -> None:
    _given.pop(C.addressof(struct.contents), None)


_deleter, _versioned_deleter = _Deleter(_forget), _VersionedDeleter(_forget)


def _end(capsule: int) -> None:
    """The end of a capsule: what nobody took is forgotten."""
    for name in _NAMES.values():
        if _raw_valid(capsule, name):
            _given.pop(_raw_pointer(capsule, name), None)


_unused = C.PYFUNCTYPE(None, C.c_void_p)(_end)
_ASIDE = """
declare void @PyErr_Fetch(ptr, ptr, ptr)
declare void @PyErr_Restore(ptr, ptr, ptr)
declare void @capsule_ended(ptr)
define void @end_capsule(ptr %capsule) {
    %kind = alloca ptr
    %value = alloca ptr
    %trace = alloca ptr
    call void @PyErr_Fetch(ptr %kind, ptr %value, ptr %trace)
    call void @capsule_ended(ptr %capsule)
    %a = load ptr, ptr %kind
    %b = load ptr, ptr %value
    %c = load ptr, ptr %trace
    call void @PyErr_Restore(ptr %a, ptr %b, ptr %c)
    ret void
}
"""


@functools.cache
def _destructor() -> int:
    """Address of `_end` with the exception put aside that makes a taker drop what it does not take: Python would lose
    it.
    """
    callback = C.cast(_unused, C.c_void_p).value
    assert callback is not None
    return llvm.link(llvm.emit(_ASIDE), ["end_capsule"], {"capsule_ended": callback})["end_capsule"]


def dlpack_device(t: Any) -> tuple[int, int]:
    """The kind and number of the device that a Tensor is on."""
    return (CPU, 0) if t._data != 0 or is_dry(t) or toolkit.simulated() else (CUDA, 0)


def exported(t: Any, wanted: Any, max_version: Any, dl_device: Any, copy: bool | None) -> Any:
    """A capsule: of a copy from the CPU, which the taker may write to; on a GPU of the memory itself, to be read."""
    if is_dry(t):
        raise no_number(NO_NUMBER)
    if t._data != 0:
        keywords = {name: value for name, value in (("stream", wanted), ("max_version", max_version),
                                                    ("dl_device", dl_device)) if value is not None}
        return np.array(t.numpy()).__dlpack__(**keywords)
    if dl_device is not None and tuple(dl_device) != dlpack_device(t):
        if tuple(dl_device) != (CPU, 0) or copy is False:
            raise BufferError(f"a Tensor on cuda cannot be given to device {tuple(dl_device)} without a copy")
        return array_of(t).__dlpack__()
    have = AVALS[t._aval]
    if copy:
        t = tensor(have, memory.copied(t._owner, t._number, have.nbytes))
    backend.current().was_read(t)
    t._owner.share()
    if wanted != -1:                             # -1: the taker orders the work
        stream.driver().sync()
    shape = (C.c_int64 * max(have.ndim, 1))(*have.shape)
    strides = (C.c_int64 * max(have.ndim, 1))(*contiguous_strides(have.shape))
    kind, number = dlpack_device(t)
    array = _Array(_address(t) if have.size else None, _Device(kind, number), have.ndim,
                   _Type(_CODES[have.dtype.kind], 8 * have.dtype.itemsize, 1), shape, strides, 0)
    versioned = max_version is not None and tuple(max_version) >= (1, 0)
    struct: Any = _Versioned(1, 0, None, _versioned_deleter, 0 if copy else READ_ONLY, array) if versioned else \
        _Managed(array, None, _deleter)
    _given[C.addressof(struct)] = struct, shape, strides, t
    return _new(C.addressof(struct), _NAMES[versioned], _destructor())


class _Owner:
    """Holds what a capsule gave, and tells its producer at the end."""

    def __init__(self, struct: Any) -> None:
        self._struct = struct

    def __del__(self) -> None:
        if self._struct.deleter:
            self._struct.deleter(C.pointer(self._struct))


def imported(x: Any, copy: bool | None) -> Any:
    """A Tensor from an object with ``__dlpack__``; see `from_dlpack`."""
    try:
        kind, number = x.__dlpack_device__()
    except AttributeError:
        raise user_error(TypeError, f"from_dlpack: {type(x).__name__} has no __dlpack__") from None
    kind = int(kind)
    if kind == CPU:
        if copy is False:
            raise user_error(ValueError, "from_dlpack: an array on the CPU is copied, so copy=False cannot be")
        return made_of(np.from_dlpack(x), what="from_dlpack")
    if kind not in (CUDA, MANAGED) or int(number):
        raise user_error(ValueError, f"from_dlpack: there is no such device here as {kind}, {number}")
    made = unpacked(_capsule(x))
    return tensor(AVALS[made._aval], memory.copied(made._owner, made._number, AVALS[made._aval].nbytes)) if copy else \
        alias(made)


def _capsule(x: Any) -> Any:
    """What the producer gives for our stream."""
    handle = stream.driver().handle
    try:
        return x.__dlpack__(stream=handle, max_version=(1, 0))
    except TypeError:                            # of before version 1
        return x.__dlpack__(stream=handle)


def unpacked(capsule: Any) -> Any:
    """A Tensor on the GPU that shares the memory of a capsule, and takes it over."""
    versioned = bool(_valid(capsule, _NAMES[True]))
    if not versioned and not _valid(capsule, _NAMES[False]):
        raise user_error(ValueError, "from_dlpack: the capsule was taken already")
    layout = _Versioned if versioned else _Managed
    struct: Any = layout.from_address(_pointer(capsule, _NAMES[versioned]))
    array = struct.array
    letter = _LETTERS.get(array.dtype.code, "V")
    found = next((d for d in DTYPES if d.kind == letter and 8 * d.itemsize == array.dtype.bits), None)
    if found is None or array.dtype.lanes != 1:
        raise user_error(TypeError, f"from_dlpack: a dtype of {array.dtype.bits} bits and code {array.dtype.code} has "
                                    f"no counterpart; the dtypes are {', '.join(NAMES)}")
    _rename(capsule, _USED[versioned])
    shape = tuple(array.shape[i] for i in range(array.ndim))
    strides = tuple(array.strides[i] * found.itemsize for i in range(array.ndim)) if array.strides else None
    return _taken((array.data or 0) + array.offset, shape, strides, found, _Owner(struct))

