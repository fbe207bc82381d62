"""All that comes from NVIDIA's packages. This is the one module that imports them, when something is asked of it."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

HOW = "pip install 'jitgrad[cuda13]' (or 'jitgrad[cuda12]' for a driver of CUDA 12)"
PACKAGES = ("numba-cuda", "cuda-core", "cuda-bindings", "nvidia-nvvm", "nvidia-nvjitlink", "nvidia-cuda-nvrtc")
FAST_MATH = False              # kernels round as the CPU's do; approximate instructions only where somebody asks


def simulated() -> bool:
    """Whether Numba's simulator takes the place of a GPU: NUMBA_ENABLE_CUDASIM=1 before Numba is imported."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def simulated_array(array: np.ndarray) -> Any:
    """An array that the simulator's kernels work on as it is: of others they change a copy, and copy that back, which
    goes wrong where two overlap.
    """
    return importlib.import_module("numba.cuda.simulator.cudadrv.devicearray").FakeCUDAArray(array)


def missing() -> str:
    """What keeps kernels from being compiled here, in words, or ''."""
    absent = next((name for module, name in (("numba_cuda", "numba-cuda"), ("cuda.core", "cuda-core"))
                   if _absent(module)), "")
    return f"{absent} is not installed; {HOW}" if absent else ""


def _absent(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is None
    except ModuleNotFoundError:                      # of the package around it
        return True


@functools.cache
def cuda() -> Any:
    """Numba's CUDA target, or its simulator."""
    return importlib.import_module("numba.cuda")


@functools.cache
def core() -> Any:
    """NVIDIA's own bindings."""
    return importlib.import_module("cuda.core")


@functools.cache
def versions() -> str:
    """Of all that takes part in a compilation."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} -")
    return ", ".join(found)


def intrinsic(generate: Callable[..., Any]) -> Any:
    """A function whose lines are LLVM's, for Numba's CUDA target."""
    return importlib.import_module("numba.cuda.extending").intrinsic(generate)


def types() -> Any:
    """Numba's types."""
    return importlib.import_module("numba").types


def ptx(function: Callable[..., Any], pointers: Sequence[np.dtype[Any]], words: int, cc: tuple[int, int]) -> str:
    """PTX of a kernel of pointers to such elements, then int64 words; no GPU is needed."""
    kinds = types()
    elements = [kinds.uint8 if d.kind == "b" else getattr(kinds, d.name) for d in pointers]
    signature = kinds.void(*(kinds.CPointer(e) for e in elements), *[kinds.int64] * words)
    text, _ = cuda().compile(function, signature, device=False, abi="numba", cc=cc, output="ptx", fastmath=FAST_MATH)
    return str(text)


def cubin(text: str, arch: str) -> bytes:
    """Machine code of PTX for an architecture, ``sm_90`` say."""
    made = core()
    linker = made.Linker(made.ObjectCode.from_ptx(text.encode()), options=made.LinkerOptions(arch=arch))
    return bytes(linker.link("cubin").code)


def library_path(name: str) -> str:
    """Where a shared library of NVIDIA's is, or '' if it is nowhere to be found."""
    finder = importlib.import_module("cuda.pathfinder")
    try:
        return str(finder.load_nvidia_dynamic_lib(name).abs_path)
    except RuntimeError:                             # its own errors are of that class
        return ""


@functools.cache
def bindings() -> Any:
    """The driver's functions by their own names."""
    return importlib.import_module("cuda.bindings.driver")
