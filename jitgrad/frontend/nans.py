"""Where the first NaN came from: `debug_nans`.

While it is on, the machine hands what each operation made to `_made` below, a gradient is computed row by row in
ops (as through rows with Python rules), and a Program that an optimizer or an outer tape runs is first run row by
row. Within a derivative rule or a Program a NaN that a `where` throws away is no fault: only what comes out counts,
and the operation to blame is the one in which the NaN began.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from jitgrad import config
from jitgrad.core import backend
from jitgrad.core.aval import AVALS
from jitgrad.core.errors import user_line
from jitgrad.core.form import FORMS, Form
from jitgrad.core.recorder import is_dry
from jitgrad.execute.cpu import layout, library
from jitgrad.execute.cpu import types as machine
from jitgrad.execute.cpu.plans import AT
from jitgrad.frontend import lines
from jitgrad.frontend.log import aside
from jitgrad.transform.higher import inlined


class _Mode(NamedTuple):
    on: bool = False
    inf: bool = False          # infinities count too
    lines: bool = False        # whether lines were noted before


class _Switch:
    """What `debug_nans` returns: the end of a ``with`` block restores what was before."""

    mode = _Mode()             # of the process

    def __init__(self, on: bool, inf: bool) -> None:
        before = self._before = _Switch.mode
        noted = before.lines if before.on else lines.noting()
        _set(_Mode(on, on and inf, noted))

    def __enter__(self) -> _Switch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        _set(self._before if self._before.on else _Switch.mode._replace(on=False, inf=False))


def debug_nans(on: bool = True, inf: bool = False) -> _Switch:
    """Raise FloatingPointError at the first operation whose result has a NaN (with ``inf``, also an infinity).

    The error names the operation, shapes and dtypes, what the operands held, and your line; for a NaN born in a
    gradient also the recorded operation that it belongs to, and the line of that. A switch for the process, or for the
    block of a ``with``; the environment variable JITGRAD_DEBUG_NANS=1 (or =inf) turns it on from the start. It turns
    `debug_lines` on too. While on, an operation costs some microseconds more; when off, nothing.

    >>> import jitgrad as jg
    >>> with jg.debug_nans():
    ...     try:
    ...         jg.log(jg.constant([1.0, -2.0]))
    ...     except FloatingPointError as error:
    ...         print(str(error).partition(" (at")[0])
    log: the result (float32[2]) has 1 NaN; x (float32[2]) held numbers from -2 to 1
    >>> jg.log(jg.constant(-2.0))
    <jg.Tensor: shape=(), dtype=float32, numpy=np.float32(nan)>
    """
    return _Switch(on, inf)


def checking() -> bool:
    """Whether `debug_nans` is on."""
    return machine.get_state(layout.S_CHECK) != 0


def _set(mode: _Mode) -> None:
    _Switch.mode = mode
    lines.debug_lines(mode.on or mode.lines)
    machine.set_state(layout.S_CHECK, id(_made) if mode.on else 0)
    machine.set_state(layout.S_CHECK_PLAN, id(_about_to_run) if mode.on else 0)


# ---- what the machine made -----------------------------------------------------------------------

class _Fault(NamedTuple):
    """An operation that made a NaN."""

    form: Form
    operands: tuple[Any, ...]
    outs: tuple[Any, ...]
    line: str


class _Block(threading.local):
    """The rule or Program that this thread is inside of, if any: its faults by the Tensors they made."""

    faults: dict[int, _Fault] | None = None
    where: str = ""


_block = _Block()


def _made(form_id: int, *tensors: Any) -> None:
    """The machine ran a form: raise, or within a block take note."""
    made = FORMS[form_id]
    n = len(made.avals)
    operands, outs = tensors[:n], tensors[n:]
    if not any(map(_bad, outs)):
        return
    fault = _Fault(made, operands, outs, user_line())
    if _block.faults is not None:
        _block.faults.update((id(t), fault) for t in outs)
    elif not machine.peek(library.noted(made) + layout.F_FLAGS) & layout.VIEW:
        raise _error(fault)                      # a view makes no numbers: assignment is one


def _elements(t: Any) -> np.ndarray:
    """Not by ``numpy()``, which would be noted as a read of the user's."""
    aval = AVALS[t._aval]
    if not aval.size or is_dry(t):
        return np.zeros(aval.shape, aval.dtype)
    if t._data == 0:
        copied: np.ndarray = backend.current().moved(t, "cpu").numpy()
        return copied
    memory = (ctypes.c_char * aval.nbytes).from_address(t._data)
    return np.frombuffer(memory, aval.dtype).reshape(aval.shape)


def _bad(t: Any) -> bool:
    x = _elements(t)
    if x.dtype.kind != "f":
        return False
    return not bool(np.isfinite(x).all()) if _Switch.mode.inf else bool(np.isnan(x).any())


# ---- rules and Programs --------------------------------------------------------------------------

@contextmanager
def backward_pass() -> Iterator[None]:
    """What goes wrong in the block, outside of rules, is the adding up of cotangents."""
    before, _block.where = _block.where, ", in the backward pass,"
    try:
        yield
    finally:
        _block.where = before


@contextmanager
def rule_of(made: Form, outs: Sequence[Any]) -> Iterator[Callable[[Sequence[Any]], None]]:
    """A derivative rule of a recorded row runs in the block, which ends by giving its cotangents to what is yielded."""
    if not checking():
        yield _nothing
        return
    line = lines.made_at(outs[0])
    recorded = f"recorded at {line}" if line else "recorded before debug_nans was on"
    with _within(f", in the backward pass of {_form_in_words(made)} {recorded},") as check:
        yield check


def _nothing(results: Sequence[Any]) -> None:
    """Nobody asked for a check."""


def _about_to_run(address: int, values: tuple[Any, ...]) -> None:
    """The machine is about to run a plan: run it row by row first."""
    plan = AT.get(address)
    if plan is None:
        return
    flat = inlined(plan.program)
    known: dict[int, Any] = {**dict(zip(flat.inputs.tolist(), values, strict=True)), **flat.constants}
    with aside(), _within(f", in a program of {len(flat)} rows,") as check:
        for made, operands, outs in flat.rows():
            results = machine.run_form(made.address or library.realise(made), *(known[v] for v in operands))
            known.update(zip(outs, results if isinstance(results, tuple) else (results,), strict=True))
        check([known[v] for v in flat.results.tolist() if v >= 0])


@contextmanager
def _within(where: str) -> Iterator[Callable[[Sequence[Any]], None]]:
    """A block that only takes note of faults; what it yields raises for those that its results come from."""
    before = _block.faults, _block.where
    faults: dict[int, _Fault] = {}
    _block.faults, _block.where = faults, where

    def check(results: Sequence[Any]) -> None:
        for t in results:
            if t is not None and id(t) in faults:
                fault = faults[id(t)]
                while True:                     # back to where it began
                    earlier = [faults[id(o)] for o in fault.operands if id(o) in faults]
                    if not earlier:
                        raise _error(fault)
                    fault = earlier[0]
    try:
        yield check
    finally:
        _block.faults, _block.where = before


# ---- in words ------------------------------------------------------------------------------------

def _error(fault: _Fault) -> FloatingPointError:
    made = fault.form
    names = made.prim.operands
    if len(names) != len(fault.operands):
        names = tuple(f"operand {i}" for i in range(len(fault.operands)))
    said = [f"{made.prim.name}{_block.where or ':'} the result ({_shape(fault.outs[0])}) has "
            + " and ".join(_specials(np.concatenate([_elements(t).ravel() for t in fault.outs])))]
    held = [f"{name} ({_shape(t)}) held {_content(t)}" for name, t in zip(names, fault.operands, strict=True)]
    said += [", ".join(held)] if held else []
    return FloatingPointError("; ".join(said) + (f" (at {fault.line})" if fault.line else ""))


def _shape(t: Any) -> str:
    return repr(AVALS[t._aval])


def _form_in_words(made: Form) -> str:
    return f"{made.prim.name}({', '.join(map(repr, made.avals))})"


def _specials(x: np.ndarray) -> list[str]:
    """Counts of NaNs and infinities."""
    counts = (("NaN", "NaNs", np.isnan(x)), ("inf", "infs", x == np.inf), ("-inf", "-infs", x == -np.inf))
    found = [(one, many, int(np.count_nonzero(hit))) for one, many, hit in counts]
    return [f"{n} {one if n == 1 else many}" for one, many, n in found if n]


def _content(t: Any) -> str:
    """What an operand held: special numbers and zeros, and the range of the rest."""
    x = _elements(t)
    if not x.size:
        return "nothing"
    if x.dtype.kind != "f":
        return _range(x)
    if x.size == 1:
        return "NaN already" if np.isnan(x).any() else _range(x)
    said = [f"{words} already" if "NaN" in words else words for words in _specials(x)]
    zeros = int(np.count_nonzero(x == 0))
    if zeros:
        said.append("1 zero" if zeros == 1 else f"{zeros} zeros")
    rest = x[np.isfinite(x) & (x != 0)]
    if rest.size:
        said.append(("numbers " if rest.min() < rest.max() else "") + _range(rest))
    return " and ".join(said)


def _range(x: np.ndarray) -> str:
    low, high = (f"{v:g}" if x.dtype.kind == "f" else str(v) for v in (x.min(), x.max()))
    return low if low == high else f"from {low} to {high}"


if config.debug_nans():
    debug_nans(inf=config.debug_nans() == "inf")
