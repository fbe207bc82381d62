"""The emulator's library, compiled by the system's C++ compiler and kept in the cache of compiled objects."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from jitgrad.execute.cpu import cache
from jitgrad.execute.cuda import toolkit

HERE = Path(__file__).parent
# float32 and float64 must round as they do on a GPU: nothing is fused but what says so
FLAGS = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden", "-shared",
         "-Wl,-soname,libcuda.so.1"]
_building = threading.Lock()


@functools.cache
def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


@functools.cache
def _header() -> Path | None:
    """NVIDIA's own, as its packages bring it."""
    found = importlib.util.find_spec("nvidia")
    places = (Path(place) / "cu13/include/cuda.h" for place in (found and found.submodule_search_locations or ()))
    return next(filter(Path.is_file, places), None)


def missing() -> str:
    """What keeps the emulator from being used here, in words, or ''."""
    if toolkit.missing():
        return toolkit.missing()
    if not sys.platform.startswith("linux"):
        return "the emulator of a GPU is for Linux"
    if _compiler() is None:
        return "no C++ compiler is found (c++, g++ or clang++)"
    return "" if _header() else "cuda.h is not found; nvidia-cuda-runtime brings it"


def library() -> Path:
    """Where it is, compiled at the first use of such sources."""
    header, compiler = _header(), _compiler()
    assert header is not None and compiler is not None, missing()
    sources = sorted(path for path in HERE.iterdir() if path.suffix in (".cpp", ".hpp"))
    key = cache.digest(compiler, str(header), *FLAGS, *(path.read_text() for path in sources))
    made = Path(cache.folder()) / f"emulator-{key[:32]}" / "libcuda.so.1"
    with _building:
        if not made.exists():
            made.parent.mkdir(parents=True, exist_ok=True)
            unfinished = made.with_suffix(f".{os.getpid()}")
            units = [str(path) for path in sources if path.suffix == ".cpp"]
            done = subprocess.run([compiler, *FLAGS, f"-I{header.parent}", *units, "-o", str(unfinished)],
                                  capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"the emulator does not compile:\n{done.stderr}")
            unfinished.replace(made)
    return made
