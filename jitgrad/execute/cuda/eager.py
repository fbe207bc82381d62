"""Rows run at once on the GPU, and shown to the tapes that are open."""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Sequence
from typing import Any

from jitgrad.core import backend
from jitgrad.core.aval import AVALS
from jitgrad.core.device import LOOSE
from jitgrad.core.errors import user_error
from jitgrad.core.form import Form
from jitgrad.core.primitive import Index, Kind
from jitgrad.core.record import dispatch
from jitgrad.core.recorder import active, carried, is_elsewhere
from jitgrad.execute.cpu import layout, library, types
from jitgrad.execute.cpu.machine import _kernel_failed
from jitgrad.execute.cuda import blas, memory, ranges, rows, stream
from jitgrad.execute.cuda.kernel import STATUS
from jitgrad.execute.cuda.library import has_kernel, work_of
from jitgrad.execute.cuda.tensors import alias, place, tensor, to_host

_logger = logging.getLogger("jitgrad")
DEVICE = memory.Buffer.device


def run(made: Form, operands: Sequence[Any]) -> Any:
    """The outputs of a row; a single one as it is, several as a tuple."""
    machine = backend.current()
    if not any(is_elsewhere(t) and not t._tracked & LOOSE for t in operands) and any(
            t._data != 0 and AVALS[t._aval].ndim and not t._tracked & LOOSE for t in operands):
        return dispatch(made, [carried(t, "cpu") for t in operands])       # only what is loose was here
    if "device" in made.params:
        given, outs = operands, (_elsewhere(made, operands[0]),)
    elif made.prim.kind is Kind.HIGHER:
        given, outs = operands, _aside(made, operands)
    else:
        given = _together(made, operands)
        outs = _on_host(made, given) if _reason(made) else _launched(made, given)
    check = types.get_state(layout.S_CHECK)
    if check and outs:
        ctypes.cast(check, ctypes.py_object).value(made.id, *given, *outs)
    if (recording := active()) is not None:
        recording.elsewhere()
    machine.noted(made, given, outs)
    return outs[0] if len(outs) == 1 else outs


def _aside(made: Form, operands: Sequence[Any]) -> tuple[Any, ...]:
    """A row that holds Programs: tapes see it and not the rows of those."""
    machine = backend.current()
    tapes = machine.suspend()
    try:
        return rows.run(made, operands, DEVICE)
    finally:
        machine.resume(tapes)


def _elsewhere(made: Form, x: Any) -> Any:
    """A Tensor on the device that the row names, always a new one."""
    out = backend.current().moved(x, made.params["device"])
    return alias(x) if out is x else out


def _together(made: Form, operands: Sequence[Any]) -> list[Any]:
    """Operands on the GPU; single numbers on the CPU are taken along."""
    out = []
    for t in operands:
        if t._data != 0:
            if AVALS[t._aval].ndim and not t._tracked & LOOSE:
                raise user_error(ValueError, f"{made.prim.name}: operands are on different devices, "
                                             f"{' and '.join(map(_described, operands))}; to_device moves one")
            t = carried(t, DEVICE)
        out.append(t)
    return out


def _described(t: Any) -> str:
    return f"{AVALS[t._aval]!r} on {DEVICE if is_elsewhere(t) else 'cpu'}"


# ---- on the GPU ------------------------------------------------------------------------------------------

def _launched(made: Form, operands: Sequence[Any]) -> tuple[Any, ...]:
    if (index := _view(made)) is not None:
        (x,) = operands
        return (tensor(made.outs[0], x._owner, x._number + index.offset * made.outs[0].dtype.itemsize),)
    product = blas.gemm(made)
    if product is not None:
        out = tensor(made.outs[0], memory.empty(made.outs[0].nbytes))
        stream.driver().multiply(product, [*map(place, (out, *operands))])
        return (out,)
    work = work_of(made)
    outs = tuple([tensor(a, memory.empty(a.nbytes)) for a in made.outs])
    scratch = [memory.empty(n) for n in work.scratch]
    slots = [*map(place, outs), *map(place, operands), *((s.base, 0) for s in scratch)]
    known = [*map(ranges.of_tensor, operands)] if _has_to_know(made) else []
    wait = bool(known) and ranges.needs(ranges.indices(work.launches, [*[None] * len(outs), *known])) is None
    if code := stream.run(work.launches, slots, wait):
        _kernel_failed(made.id, code)
    if known and (found := ranges.of_result(made, known)):
        outs[0]._owner.span = found.span
    return outs


@functools.lru_cache(maxsize=4096)
def _has_to_know(made: Form) -> bool:
    """Whether it matters what is known of a row's operands."""
    return any(STATUS in launch.slots for launch in work_of(made).launches) or any(
        a.dtype.kind == "i" for a in made.outs)


@functools.lru_cache(maxsize=4096)
def _view(made: Form) -> Index | None:
    """Where a result lies within its operand, if all of it lies together there."""
    index = library._index(made)
    return index if index is not None and library._is_view(index) else None


# ---- on the host -----------------------------------------------------------------------------------------

@functools.lru_cache(maxsize=4096)
def _reason(made: Form) -> str:
    """Why rows of a form run on the host, or ''; said once."""
    if _view(made) is not None or has_kernel(made.prim) and not made.prim.host:
        return ""
    reason = made.prim.host or "there is no kernel for it yet"
    _logger.debug("%s runs on the host, with copies there and back: %s", made.prim.name, reason)
    return reason


def _on_host(made: Form, operands: Sequence[Any]) -> tuple[Any, ...]:
    """The row by the CPU's machine, on copies; tapes see it on the GPU only."""
    machine = backend.current()
    tapes = machine.suspend()
    try:
        found = machine.run(made, [to_host(t) for t in operands])
    finally:
        machine.resume(tapes)
    outs = found if isinstance(found, tuple) else (found,) if made.outs else ()
    return tuple(machine.moved(t, DEVICE) for t in outs)
