"""When plans become machine code: in the background once they have run a few times, or at once where asked.

One thread compiles, and starts when there is work. Until its code is swapped in, and if it cannot be made, a plan runs
on the sweep.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
from typing import Any

from jitgrad.execute.cpu import engine, layout, plans, types
from jitgrad.execute.cpu.lifetime import immortal

_logger = logging.getLogger("jitgrad")


def compiled(plan: plans.Plan) -> bool:
    """Give a plan its machine code now, if it has none; whether it has."""
    with _compiler.lock:
        if plan.machine is None:
            flat = plan.flat
            first = len(flat.inputs)
            try:
                plan.swap(engine.machine_code(flat, first, first + len(flat.results), plan.guards))
            except Exception as error:               # whatever it is, the sweep gives the same answers
                _compiler.failed(error)
    return plan.machine is not None


class _Compiler:
    """The thread, what waits for it, and the lock that a fork takes."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.fresh()
        self.warned = False

    def fresh(self) -> None:
        """As at the start, and in the child of a fork."""
        self.waiting: queue.SimpleQueue[int | threading.Event | None] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None

    def request(self, item: int | threading.Event) -> None:
        """A plan, by the address of its struct; or an event, to be set when all before it is done."""
        self.waiting.put(item)
        if self.thread is None or not self.thread.is_alive():          # it dies if memory runs out
            self.thread = threading.Thread(target=self.work, args=(self.waiting,), name="jitgrad compiler", daemon=True)
            self.thread.start()

    def forked(self) -> None:
        """In the child of a fork: the thread is not there."""
        self.fresh()
        types.set_state(layout.S_OURS, 0)
        self.lock.release()

    @staticmethod
    def work(waiting: queue.SimpleQueue[int | threading.Event | None]) -> None:
        types.set_state(layout.S_OURS, types.get_state(layout.S_OURS) + 1)
        try:
            while (item := waiting.get()) is not None:
                if isinstance(item, threading.Event):
                    item.set()
                elif (plan := plans.AT.get(item)) is not None:
                    compiled(plan)
                    del plan
        finally:
            types.set_state(layout.S_OURS, types.get_state(layout.S_OURS) - 1)

    def finish(self) -> None:
        """Wait for what is being compiled, and drop the rest: the interpreter ends."""
        thread, waiting = self.thread, self.waiting
        self.fresh()
        if thread is not None:
            while not waiting.empty():
                waiting.get()
            waiting.put(None)
            thread.join()

    def failed(self, error: Exception) -> None:
        if not self.warned:
            self.warned = True
            _logger.warning("a recorded program could not be compiled and runs on the interpreter of its rows, "
                            "with the same answers: %s: %s", type(error).__name__, " ".join(str(error).split())[:200])


_compiler: Any = immortal(_Compiler())


def request(address: int) -> None:
    """Compile a plan, named by the address of its struct, in the background."""
    _compiler.request(address)


def wait() -> None:
    """Until all that has been asked for so far is compiled."""
    done = threading.Event()
    _compiler.request(done)
    done.wait()


atexit.register(_compiler.finish)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_compiler.lock.acquire, after_in_parent=_compiler.lock.release,
                        after_in_child=_compiler.forked)
