"""The GPU by NVIDIA's packages: one stream, copies, launches, products, graphs."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jitgrad.core.collector import no_collection
from jitgrad.core.errors import user_error
from jitgrad.execute.cuda import blas, staging, toolkit
from jitgrad.execute.cuda.driver import Facts, Graph
from jitgrad.execute.cuda.kernel import Kernel


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
            with no_collection(), self._uploading:   # a finalizer that uploads would wait for itself
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
        with told("a recorded function cannot be started on the GPU"):
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
            words = str(error) or type(error).__name__
            full = "OUT_OF_MEMORY" in words          # which needs no explanation
            raise user_error(MemoryError if full else RuntimeError,
                             f"{self.what}: {words.partition(':')[0] if full else words}") from error
