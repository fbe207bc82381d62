"""The one stream of a process on which all work of the GPU is ordered: memory, copies, launches.

Two drivers have the same methods: `Gpu` calls NVIDIA's packages, `Simulator` runs kernels by Numba's simulator over
NumPy arrays. Memory is (base, offset): a base is an address of the GPU's, or for the simulator an array of bytes.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np

from jitgrad.core.collector import no_collection
from jitgrad.core.errors import user_error
from jitgrad.execute.cuda import blas, staging, toolkit
from jitgrad.execute.cuda.kernel import STATUS, Kernel, Launch

ALIGNED = 256                  # bytes of which allocations are multiples


class Facts(NamedTuple):
    """What is known of a GPU: its name, ``sm_90`` and the like, bytes of its memory and of what is free."""

    name: str
    arch: str
    total: int
    free: int


class Graph(Protocol):
    """Work that was recorded, to be asked for at once."""

    def launch(self) -> None: ...


class Driver(Protocol):
    """What is asked of a GPU. All of it happens in the order in which it is asked for."""

    handle: int                # of the stream, for others who want to wait for it

    def facts(self) -> Facts: ...

    def allocate(self, nbytes: int) -> tuple[Any, Any]:
        """A base, and the object whose end frees it, once all that was asked before is done."""

    def upload(self, base: Any, offset: int, array: np.ndarray) -> None:
        """Copy a C-contiguous array's elements there; it may change afterwards."""

    def download(self, base: Any, offset: int, array: np.ndarray) -> None:
        """Copy bytes from there into a C-contiguous array, and wait for that."""

    def copy(self, to: Any, to_offset: int, base: Any, offset: int, nbytes: int) -> None: ...

    def fill(self, base: Any, offset: int, nbytes: int) -> None:
        """Write zeros."""

    def launch(self, kernel: Kernel, pointers: Sequence[tuple[Any, int]], words: Sequence[int], blocks: int,
               threads: int) -> None: ...

    def multiply(self, product: blas.Gemm, pointers: Sequence[tuple[Any, int]]) -> None:
        """A matrix product by cuBLAS."""

    def record(self, ask: Callable[[], None]) -> Graph:
        """What is asked for in a call of ``ask`` is not done but kept."""

    def sync(self) -> None:
        """Wait until all that was asked for is done."""

    def sync_all(self) -> None:
        """The same for the streams of others in this process."""

    def let_go(self, keeper: Any) -> None:
        """Wait like `sync_all` before the caller frees what this keeps; where that cannot be now, keep it for a while.
        """

    def wait_for(self, handle: int) -> None:
        """What is asked from here on comes after what another stream was asked until now."""


# ---- a GPU -----------------------------------------------------------------------------------------------

class Gpu:
    """The first GPU of this process, by `cuda.core`; copies by the driver's own functions."""

    def __init__(self) -> None:
        self._core, self._calls = toolkit.core(), toolkit.bindings()
        self._threads = threading.local()
        self._pid = os.getpid()
        self._blas: tuple[blas.Handle, int] | None = None
        self._multiplying, self._uploading = threading.Lock(), threading.Lock()
        self._recording = threading.Lock()           # nobody may wait for all streams while one records
        self._late: list[Any] = []                   # what was let go meanwhile
        with told("the GPU cannot be used"):
            self._device = self._core.Device(0)
            self._device.set_current()
            self.stream = self._device.create_stream()
            self.handle = int(self.stream.handle)
            self._arch = f"sm_{self._device.arch}"
            pinned, = self._checked(self._calls.cuMemHostAlloc(2 * staging.HALF, 0))
            self._staging = staging.Staging(int(pinned), lambda: self.stream.record().sync)

    def _ready(self) -> None:
        """This thread may call the driver."""
        pid = os.getpid()
        if getattr(self._threads, "ready_in", 0) != pid:
            if pid != self._pid:
                raise user_error(RuntimeError, "a forked process cannot use the GPU that its parent used: start it "
                                               "with multiprocessing's spawn")
            self._device.set_current()
            self._threads.ready_in = pid

    def facts(self) -> Facts:
        self._ready()
        free, total = self._checked(self._calls.cuMemGetInfo())
        return Facts(self._device.name, self._arch, int(total), int(free))

    def allocate(self, nbytes: int) -> tuple[int, Any]:
        self._ready()
        with told(f"no memory for {nbytes} bytes on the GPU"):
            block = self._device.allocate(nbytes, stream=self.stream)
            return int(block.handle), block

    def upload(self, base: int, offset: int, array: np.ndarray) -> None:
        self._ready()
        if array.nbytes > staging.HALF:
            self._copy_up(base + offset, array.ctypes.data, array.nbytes)
            self.sync()
        elif array.nbytes:
            with self._uploading:
                self._copy_up(base + offset, self._staging.copied(array), array.nbytes)

    def _copy_up(self, to: int, source: int, nbytes: int) -> None:
        self._checked(self._calls.cuMemcpyHtoDAsync(to, source, nbytes, self.handle))

    def download(self, base: int, offset: int, array: np.ndarray) -> None:
        self._ready()
        if array.nbytes:
            self._checked(self._calls.cuMemcpyDtoHAsync(array.ctypes.data, base + offset, array.nbytes, self.handle))
        self.sync()

    def copy(self, to: int, to_offset: int, base: int, offset: int, nbytes: int) -> None:
        self._ready()
        if nbytes:                                   # a graph has no node for nothing
            self._checked(self._calls.cuMemcpyDtoDAsync(to + to_offset, base + offset, nbytes, self._now()[1]))

    def fill(self, base: int, offset: int, nbytes: int) -> None:
        self._ready()
        if nbytes:
            self._checked(self._calls.cuMemsetD8Async(base + offset, 0, nbytes, self._now()[1]))

    def launch(self, kernel: Kernel, pointers: Sequence[tuple[int, int]], words: Sequence[int], blocks: int,
               threads: int) -> None:
        self._ready()
        with told(f"the kernel {kernel.name} cannot be started"):
            loaded = self._loaded(kernel)
            if (kernels := getattr(self._threads, "kernels", None)) is not None:
                kernels.append(loaded)
            self._core.launch(self._now()[0], self._shape(blocks, threads), loaded,
                              *[base + offset for base, offset in pointers], *words)

    @functools.lru_cache(maxsize=8192)  # noqa: B019  (there is one, for the life of the process)
    def _shape(self, blocks: int, threads: int) -> Any:
        return self._core.LaunchConfig(grid=blocks, block=threads)

    @functools.lru_cache(maxsize=8192)  # noqa: B019  (there is one, for the life of the process)
    def _loaded(self, kernel: Kernel) -> Any:
        return self._core.ObjectCode.from_cubin(kernel.cubin(self._arch)).get_kernel(kernel.name)

    def multiply(self, product: blas.Gemm, pointers: Sequence[tuple[int, int]]) -> None:
        self._ready()
        with self._multiplying:                      # one handle, which is on one stream at a time
            if self._blas is None:
                workspace, self._workspace = self.allocate(blas.WORKSPACE)
                self._blas = blas.Handle(self.handle, workspace), workspace
            handle, workspace = self._blas
            recording = self._now()[1]
            if recording != self.handle:
                handle.use(recording, workspace)
            try:
                handle.run(product, [base + offset for base, offset in pointers])
            finally:
                if recording != self.handle:
                    handle.use(self.handle, workspace)

    def _now(self) -> tuple[Any, int]:
        """Where this thread's work goes, for `cuda.core` and for the driver's own functions: the stream, or a graph."""
        return getattr(self._threads, "recording", None) or (self.stream, self.handle)

    def record(self, ask: Callable[[], None]) -> Graph:
        self._ready()
        try:
            with self._recording, no_collection(), told("work on the GPU cannot be recorded"):
                return self._recorded(ask)
        finally:
            if self._late:
                self.let_go(None)

    def _recorded(self, ask: Callable[[], None]) -> Graph:
        builder = self._device.create_graph_builder()
        builder.begin_building("thread_local")
        self._threads.recording, self._threads.kernels = (builder, int(builder.stream.handle)), []
        try:
            ask()
        finally:
            kernels = self._threads.kernels
            self._threads.recording = self._threads.kernels = None
            builder.end_building()
        return _Recorded(builder.complete(), self.stream, self._ready, kernels)

    def sync(self) -> None:
        self._ready()
        with told("work on the GPU failed"):
            self.stream.sync()

    def sync_all(self) -> None:
        self._ready()
        with self._recording:
            self._checked(self._calls.cuCtxSynchronize())

    def let_go(self, keeper: Any) -> None:
        if os.getpid() != self._pid:
            return
        if not self._recording.acquire(blocking=False):      # by this thread or another, which may wait for this one
            self._late.append(keeper)
            return
        try:
            self._ready()
            self._checked(self._calls.cuCtxSynchronize())
            self._late.clear()
        finally:
            self._recording.release()

    def wait_for(self, handle: int) -> None:
        self._ready()
        with told("the stream of another library cannot be waited for"):
            defaults = {1: self._core.LEGACY_DEFAULT_STREAM, 2: self._core.PER_THREAD_DEFAULT_STREAM}
            self.stream.wait(defaults.get(handle) or self._core.Stream.from_handle(handle))

    def _checked(self, answer: tuple[Any, ...]) -> tuple[Any, ...]:
        """What a function of the driver gives besides its status."""
        if int(answer[0]) != 0:
            name = getattr(answer[0], "name", str(answer[0]))
            raise user_error(MemoryError if "OUT_OF_MEMORY" in name else RuntimeError, f"the GPU's driver says {name}")
        return answer[1:]


class _Recorded(NamedTuple):
    """A graph of `cuda.core`, and the kernels in it, which have to stay loaded."""

    graph: Any
    stream: Any
    ready: Callable[[], None]
    kernels: list[Any]

    def launch(self) -> None:
        self.ready()
        self.graph.launch(self.stream)


class told:
    """Errors of NVIDIA's packages in the block as sentences."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        """Nothing is to be prepared."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):             # of their many classes; it stays as the cause
            raised = MemoryError if "OUT_OF_MEMORY" in str(error) else RuntimeError
            raise user_error(raised, f"{self.what}: {error or type(error).__name__}") from error


# ---- the simulator ---------------------------------------------------------------------------------------

class Simulator:
    """NumPy arrays for memory, and kernels run by Numba's simulator, one thread after the other."""

    handle = 0
    _threads = threading.local()
    _turn = threading.Lock()   # the simulator knows one kernel at a time

    def facts(self) -> Facts:
        return Facts("Numba's simulator", "simulator", 0, 0)

    def allocate(self, nbytes: int) -> tuple[np.ndarray, Any]:
        made = np.full(nbytes, 77, np.uint8)         # kernels write all that is read
        return made, made

    def upload(self, base: np.ndarray, offset: int, array: np.ndarray) -> None:
        base[offset: offset + array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)

    def download(self, base: np.ndarray, offset: int, array: np.ndarray) -> None:
        array.reshape(-1).view(np.uint8)[:] = base[offset: offset + array.nbytes]

    def copy(self, to: np.ndarray, to_offset: int, base: np.ndarray, offset: int, nbytes: int) -> None:
        if not self._kept(functools.partial(self.copy, to, to_offset, base, offset, nbytes)):
            to[to_offset: to_offset + nbytes] = base[offset: offset + nbytes]

    def fill(self, base: np.ndarray, offset: int, nbytes: int) -> None:
        if not self._kept(functools.partial(self.fill, base, offset, nbytes)):
            base[offset: offset + nbytes] = 0

    def launch(self, kernel: Kernel, pointers: Sequence[tuple[np.ndarray, int]], words: Sequence[int], blocks: int,
               threads: int) -> None:
        if self._kept(functools.partial(self.launch, kernel, pointers, words, blocks, threads)):
            return
        arrays = [toolkit.simulated_array(base[offset:].view(np.uint8 if dtype.kind == "b" else dtype))
                  for (base, offset), dtype in zip(pointers, kernel.pointers, strict=True)]
        with self._turn:
            _function(kernel)[blocks, threads](*arrays, *words)

    def multiply(self, product: blas.Gemm, pointers: Sequence[tuple[np.ndarray, int]]) -> None:
        raise AssertionError("there is no cuBLAS in the simulator")

    def record(self, ask: Callable[[], None]) -> Graph:
        work: list[Callable[[], None]] = []
        self._threads.work = work
        try:
            ask()
        finally:
            self._threads.work = None
        return _Listed(work)

    def _kept(self, work: Callable[[], None]) -> bool:
        """Whether this thread records; then the work is kept."""
        kept = getattr(self._threads, "work", None)
        if kept is not None:
            kept.append(work)
        return kept is not None

    def sync(self) -> None:
        """All is done at once."""

    sync_all = sync

    def let_go(self, keeper: Any) -> None:
        """Nobody else works here."""

    def wait_for(self, handle: int) -> None:
        """Nobody else has a stream here."""


class _Listed(NamedTuple):
    """Calls, one after the other."""

    work: list[Callable[[], None]]

    def launch(self) -> None:
        for call in self.work:
            call()


@functools.lru_cache(maxsize=4096)
def _function(kernel: Kernel) -> Any:
    return toolkit.cuda().jit(kernel.function())


# ---- the driver in use -----------------------------------------------------------------------------------

@functools.cache
def problem() -> str:
    """Why there is no GPU to use here, in words, or ''."""
    if toolkit.simulated():
        return ""
    if toolkit.missing():
        return toolkit.missing()
    try:
        count = len(toolkit.core().Device.get_all_devices())
    except Exception as error:               # whatever a broken installation raises
        words = " ".join(str(error).split())
        return f"NVIDIA's driver cannot be used: {words or type(error).__name__}"
    return "" if count else "NVIDIA's driver finds no GPU"


_made = threading.Lock()
_in_use: list[Driver] = []     # the one, once it is made


def driver() -> Driver:
    """The GPU's driver; RuntimeError where there is none, saying what is missing."""
    return _in_use[0] if _in_use else _first()


def _first() -> Driver:
    if problem():
        raise user_error(RuntimeError, f"there is no device cuda here: {problem()}")
    with _made:
        if not _in_use:
            _in_use.append(Simulator() if toolkit.simulated() else Gpu())
    return _in_use[0]


# ---- launches --------------------------------------------------------------------------------------------

_checking = threading.Lock()


def run(launches: Sequence[Launch], slots: Sequence[tuple[Any, int]], wait: bool = True) -> int:
    """Launch kernels on (base, offset) of outputs, operands and scratch; the error code that they leave, or 0.

    Where one may be left, it waits for that, unless told that none will be.
    """
    gpu, wait = driver(), wait and any(STATUS in launch.slots for launch in launches)
    with _checking if wait else nullcontext():
        flag, _ = _status()
        if wait:
            gpu.fill(flag, 0, 4)
        for launch in launches:
            pointers = [(flag, 0) if s == STATUS else slots[s] for s in launch.slots]
            gpu.launch(launch.kernel, pointers, launch.words, launch.blocks, launch.threads)
        if not wait:
            return 0
        code = np.zeros(1, np.int32)
        gpu.download(flag, 0, code)
    return int(code[0])


@functools.cache
def _status() -> tuple[Any, Any]:
    """Four bytes for the error codes of kernels, and what keeps them."""
    return driver().allocate(ALIGNED)
