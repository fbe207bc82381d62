"""Plain functions over int64 arrays as machine code, through Numba once and the object cache ever after."""

from __future__ import annotations

import ctypes as C
import functools
import inspect
from collections.abc import Callable

import numpy as np

from jitgrad.execute.cpu import cache, fingerprint, llvm

_CALL = C.CFUNCTYPE(C.c_int64, C.c_void_p)


@functools.cache
def compiled(function: Callable[..., int]) -> Callable[..., int]:
    """``function(*int64 arrays) -> int`` compiled; it may call functions of its own module.

    The key is the source of the whole module, so that what the function calls counts too.
    """
    module = inspect.getmodule(function)
    assert module is not None
    names = list(inspect.signature(function).parameters)
    symbol = f"compiled_{function.__name__}"

    def build() -> bytes:
        from jitgrad.execute.cpu.native import build
        return llvm.emit(build.array_function(symbol, function, len(names)), optimise="branches")

    key = cache.digest(fingerprint.natives(), inspect.getsource(module), function.__name__)
    address = llvm.link(cache.fetch(symbol, key, build), [symbol])[symbol]
    call = _CALL(address)
    table = 2 * len(names)

    def run(*arrays: np.ndarray) -> int:
        words = np.empty(table, np.int64)
        for i, array in enumerate(arrays):
            if array.dtype != np.int64 or not array.flags.c_contiguous:
                raise TypeError(f"{function.__name__}: {names[i]} must be a contiguous int64 array")
            words[2 * i], words[2 * i + 1] = array.ctypes.data, array.size
        return int(call(words.ctypes.data))

    run.__name__ = function.__name__
    return run
