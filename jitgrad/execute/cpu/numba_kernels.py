"""Functions of the users' that Numba compiles, as kernels of rows: addresses in, arrays for their function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.errors import NumbaError, TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from numba.np.numpy_support import from_dtype

from jitgrad.core.aval import Aval
from jitgrad.core.errors import user_error
from jitgrad.core.form import Form
from jitgrad.core.primitive import KERNEL_RAISED
from jitgrad.execute.cpu.library import Kernel
from jitgrad.execute.cpu.lifetime import immortal

_WORD = ir.IntType(64)
_kept: list[Any] = immortal([])        # forms, and so their kernels, live as long as the process


def kernel(f: Form, part: Any = None) -> Kernel:
    """Address of what calls the function of a form; raises TypeError where Numba does not compile it."""
    op = f.params["op"]
    try:
        made = _compiled(op.kernel, f, read_only=True)
    except TypingError:
        if not getattr(op.kernel, "nopython_signatures", None):
            made = _or_why_not(op, f)
        else:
            made = _or_why_not(op, f, read_only=False)       # signatures that were given know no arrays to read only
    except NumbaError as error:
        raise _refused(op, f, error) from error
    _kept.append(made)
    return int(made.address), [0]


def _or_why_not(op: Any, f: Form, read_only: bool = True) -> Any:
    try:
        return _compiled(op.kernel, f, read_only)
    except NumbaError as error:
        raise _refused(op, f, error) from error


def _refused(op: Any, f: Form, error: Exception) -> Exception:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("Failed in nopython mode")]
    why = " ".join(said[:2] if said and said[0].endswith(":") else said[:1])
    given = ", ".join(map(repr, (*f.avals, *f.outs)))
    return user_error(TypeError, f"numba_op: Numba does not compile {op.__name__} for {given}: {why}")


def work(f: Form) -> int:
    """A rough count of elements touched."""
    return sum(a.size for a in (*f.avals, *f.outs))


def _compiled(function: Callable[..., Any], f: Form, read_only: bool) -> Any:
    given = _arrays(f.avals, f.outs, read_only)

    def entry(params, slots):  # type: ignore[no-untyped-def]
        try:
            function(*given(slots))
        except Exception:              # called by machine code, where none may go; Numba knows no narrower kind
            return KERNEL_RAISED
        return 0

    return numba.cfunc(types.int64(types.int64, types.int64))(entry)


def _arrays(operands: Sequence[Aval], outs: Sequence[Aval], read_only: bool) -> Any:
    """An intrinsic that makes what a function is given: operands, those without axes as numbers, then results."""
    kinds = [types.Array(from_dtype(a.dtype), a.ndim, "C", readonly=read_only) if a.ndim else from_dtype(a.dtype)
             for a in operands]
    kinds += [types.Array(from_dtype(a.dtype), a.ndim, "C") for a in outs]
    avals, first = (*operands, *outs), len(outs)
    result = types.Tuple(kinds)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        slots = builder.inttoptr(args[0], _WORD.as_pointer())
        values = []
        for k, (kind, value) in enumerate(zip(kinds, avals, strict=True)):
            slot = first + k if k < len(operands) else k - len(operands)
            address = builder.load(builder.gep(slots, [_WORD(slot)]))
            of = kind.dtype if isinstance(kind, types.Array) else kind
            data = builder.inttoptr(address, context.get_data_type(of).as_pointer())
            values.append(_array(context, builder, kind, value, data) if isinstance(kind, types.Array)
                          else context.unpack_value(builder, kind, data))
        return context.make_tuple(builder, result, values)

    @intrinsic
    def given(typing: Any, slots: Any) -> Any:
        return result(types.int64), emit

    return given


def _array(context: Any, builder: Any, kind: Any, value: Aval, data: Any) -> Any:
    array = context.make_array(kind)(context, builder)
    width = value.dtype.itemsize
    shape = [context.get_constant(types.intp, n) for n in value.shape]
    steps = [width * int(np.prod(value.shape[axis + 1:], dtype=np.int64)) for axis in range(value.ndim)]
    populate_array(array, data=data, shape=shape, strides=[context.get_constant(types.intp, n) for n in steps],
                   itemsize=context.get_constant(types.intp, width), meminfo=None)
    return array._getvalue()
