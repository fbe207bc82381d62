"""For pytest: kernels go to the emulator as PTX text, and a test fails of which the emulator complained."""

from __future__ import annotations

import contextlib
import ctypes as C
import os
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from jitgrad.execute.cuda import toolkit
from jitgrad.execute.cuda.kernel import Kernel

PATH = os.environ.get("JITGRAD_EMULATOR", "")


class Counts(NamedTuple):
    """How often the driver did what; `nodes` are of graphs that were recorded."""

    launches: int
    graph_launches: int
    nodes: int
    uploads: int
    downloads: int
    syncs: int
    products: int


def counts() -> Counts:
    """Since the process began."""
    found = (C.c_ulonglong * len(Counts._fields))()
    _library.emulator_counters(found)
    return Counts(*found)


def complaints() -> str:
    """What was done wrong since this was asked last; after a fault things work again."""
    text = C.create_string_buffer(1 << 16)
    _library.emulator_complaints(text, C.c_size_t(len(text)))
    return text.value.decode()


@contextlib.contextmanager
def room(nbytes: int) -> Iterator[None]:
    """Only so many bytes more can be allocated."""
    _library.emulator_room(C.c_size_t(nbytes))
    try:
        yield
    finally:
        _library.emulator_room(C.c_size_t(4 << 30))


def pytest_configure(config: pytest.Config) -> None:
    """Before anything asks for a driver: the library has its name, and so is the one that NVIDIA's packages load."""
    global _library
    _library = C.CDLL(PATH)
    _path = toolkit.library_path
    toolkit.library_path = lambda name: PATH if name == "cublas" else _path(name)
    Kernel.cubin = lambda self, arch: self.ptx().encode() + b"\0"


@pytest.fixture(autouse=True)
def nothing_wrong(request: pytest.FixtureRequest) -> Iterator[None]:
    """Threads take turns drawn anew for each test, and the same in each run."""
    _library.emulator_seed(C.c_uint64(zlib.crc32(request.node.name.encode())))
    yield
    said = complaints()
    assert not said, said
