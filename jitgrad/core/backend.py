"""What the layers above execution ask of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from jitgrad.core.aval import Aval
    from jitgrad.core.form import Form
    from jitgrad.core.primitive import Primitive


class Backend(Protocol):
    """A machine that makes Tensors and runs forms."""

    Tensor: Any
    Variable: Any

    def op(self, prim: Primitive) -> Callable[..., Any]:
        """The callable for an entry; its operator slot too where the entry has a symbol."""

    def tensor(self, array: np.ndarray, value: Aval) -> Any:
        """A Tensor with a copy of a C-contiguous array's elements."""

    def dry(self, value: Aval, number: int, recorder: Any) -> Any:
        """A Tensor without elements: value ``number`` of a dry recording."""

    def give(self, t: Any, value: Any) -> None:
        """Let a Tensor without elements have those of another, whose aval is the same."""

    def run(self, form: Form, operands: Sequence[Any]) -> Any:
        """Compute (and record, where this thread records): a Tensor, or a tuple of them."""

    def remember(self, op: Any, args: tuple[Any, ...], form: Form) -> None:
        """Fill the op's inline cache: calls like this one need no Python from now on."""

    def read(self, variable: Any) -> Any:
        """The Tensor a Variable holds for the innermost recording of this thread; its tapes note the read."""

    def read_now(self, variable: Any) -> Any:
        """The Tensor a Variable holds; the tapes of this thread note the read."""

    def assign_now(self, variable: Any, value: Any) -> None:
        """Let a Variable hold a Tensor."""

    def recordings(self, change: int) -> None:
        """So many more threads' recordings see Variables from now on."""

    def tapes(self) -> int:
        """How many tapes of this thread record."""

    def suspend(self) -> Sequence[Any]:
        """Stop the tapes of this thread; which they were."""

    def resume(self, tapes: Sequence[Any]) -> None:
        """Let suspended tapes record again."""

    def noted(self, form: Form, operands: Sequence[Any], outs: Sequence[Any]) -> None:
        """Append a row of dry Tensors where this thread's tapes record."""

    def moved(self, t: Any, device: str) -> Any:
        """A Tensor with the same numbers on a device; itself if it is there. No tape sees it."""

    def was_read(self, t: Any) -> None:
        """Somebody outside gets to know the numbers of a Tensor on another device: recordings want to know."""

    def numbers(self, t: Any) -> Any:
        """A Tensor on the CPU with the numbers of one on another device, for Python, which goes by them from now on."""

    def moved_constant(self, t: Any, device: str) -> Any:
        """The same for a Tensor that is moved again and again."""

    def missing(self, device: str) -> str:
        """What keeps a device from being used here, in words, or ''."""

    def taken(self, array: Any) -> Any:
        """A Tensor that shares the memory of another library's array on a GPU."""

    def compiled(self, function: Callable[..., int]) -> Callable[..., int]:
        """A plain function over int64 arrays as machine code."""


class Current:
    """The machine in use, and its Tensor type for checks on warm paths."""

    backend: Backend | None = None
    Tensor: Any = None


def current() -> Backend:
    assert Current.backend is not None, "jitgrad/__init__.py sets the backend before it imports the ops"
    return Current.backend


def use(machine: Backend) -> None:
    Current.backend = machine
    Current.Tensor = machine.Tensor
