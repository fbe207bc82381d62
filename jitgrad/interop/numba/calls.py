"""The type of recorded calls in Numba, and the code of a call: checks, memory for results, one call of the machine.

That code knows dtypes and numbers of axes from the type. All else it reads from the struct it is given: nothing of a
process is in it, so that Numba may keep it in a file.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.errors import TypingError
from numba.core.imputils import lower_constant
from numba.core.typing import signature
from numba.extending import NativeValue, box, lower_builtin, models, register_model, typeof_impl, unbox
from numba.np.numpy_support import from_dtype

from jitgrad.core.aval import Aval
from jitgrad.execute.cpu import fingerprint, layout
from jitgrad.execute.cpu.function_type import Function
from jitgrad.execute.cpu.lifetime import immortal
from jitgrad.frontend.example import Nest
from jitgrad.interop.numba.compiled import Compiled
from jitgrad.interop.numba.emitter import Emitter, type_of
from jitgrad.interop.numba.leaves import Leaf, flat, shown


def _leaves(nest: Nest, avals: Sequence[Aval]) -> Nest:
    if isinstance(nest, tuple):
        return tuple(_leaves(item, avals) for item in nest)
    return None if nest is None else Leaf(nest, avals[nest].dtype.name, avals[nest].ndim)


class CompiledType(types.Callable):
    """Recorded calls of one signature. Shapes are no part of it: they are compared when a call runs."""

    def __init__(self, arguments: Nest, results: Nest, out: bool) -> None:
        self.arguments, self.results, self.out = arguments, results, out
        # in the name, and so in the key of what Numba keeps: code for other structs is not for these
        super().__init__(f"jitgrad{shown(arguments)} -> {shown(results)}{', out' * out} #{_version()}")

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        if kws:
            raise TypingError("a recorded jitgrad function takes its arguments by position")
        nests, outs = self.arguments, self.written()
        if len(args) != len(nests) + len(outs):
            raise TypingError(f"a recorded jitgrad function takes {len(nests) + len(outs)} arguments {shown(nests)}"
                              f"{f' and {shown(outs)} for results' if outs else ''}, not {len(args)}")
        for i, (nest, given) in enumerate(zip((*nests, *outs), args, strict=True)):
            _check(nest, given, f"argument {i}", mutable=i >= len(nests))
        return signature(type_of(self.results), *args, recvr=self)

    def written(self) -> tuple[Leaf, ...]:
        """The results that the caller gives memory for."""
        return tuple(leaf for leaf in flat(self.results) if leaf.ndim) if self.out else ()

    def get_call_signatures(self) -> tuple[list[Any], bool]:
        return [], True

    def get_impl_key(self, sig: Any) -> Any:
        return CompiledType


@functools.cache
def _version() -> str:
    return fingerprint.natives()[:12]


_ACCEPTED = {"b": (types.Boolean,), "i": (types.Integer, types.Boolean),
             "f": (types.Float, types.Integer, types.Boolean)}


def _check(nest: Nest, given: Any, which: str, mutable: bool = False) -> None:
    """Raises a typing error for what cannot be this argument."""
    given = types.unliteral(given)
    if not isinstance(nest, Leaf):
        if not isinstance(given, types.BaseTuple) or len(given.types) != len(nest):
            raise TypingError(f"{which} of a recorded jitgrad function is a tuple {shown(nest)}, not {given}")
        for k, (item, kind) in enumerate(zip(nest, given.types, strict=True)):
            _check(item, kind, f"{which}[{k}]")
        return
    if nest.ndim or isinstance(given, types.Buffer):
        fine = (isinstance(given, types.Buffer) and given.ndim == nest.ndim
                and given.dtype == from_dtype(np.dtype(nest.dtype)) and (given.mutable or not mutable))
    else:
        fine = isinstance(given, _ACCEPTED[np.dtype(nest.dtype).kind])
    if not fine:
        kind = "a writable" if mutable else "a C-contiguous" if nest.ndim else "a"
        what = f"array of {nest.dtype} with {nest.ndim} axes" if nest.ndim else f"number, {nest.dtype}"
        raise TypingError(f"{which} of a recorded jitgrad function is {kind} "
                          f"{what}, not {given}")


# ---- objects of the type -----------------------------------------------------------------------------

@functools.cache
def _type(arguments: Nest, results: Nest, out: bool) -> CompiledType:
    return CompiledType(arguments, results, out)


@typeof_impl.register(Compiled)
def typeof(made: Compiled, context: Any = None) -> CompiledType:
    """What Numba has seen lives until the process ends: nothing tells when code that knows its address is gone."""
    if not made.immortal:
        made.immortal = True
        immortal(made)
    example = made.example
    return _type(tuple(_leaves(n, example.inputs) for n in example.arguments),
                 _leaves(example.results, example.outputs), made.out)


@typeof_impl.register(Function)
def _function(f: Any, context: Any) -> Any:
    raise TypingError(f"{f!r} runs Python: give Numba {f.__name__}.njit(*example_args)")


@register_model(CompiledType)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.IntType(64))


@unbox(CompiledType)
def _unboxed(kind: Any, obj: Any, c: Any) -> NativeValue:
    number = c.pyapi.object_getattr_string(obj, "address")
    address = c.pyapi.long_as_longlong(number)
    c.pyapi.decref(number)
    return NativeValue(address, is_error=c.pyapi.c_api_error())


@box(CompiledType)
def _boxed(kind: Any, value: Any, c: Any) -> Any:
    pointer = c.builder.inttoptr(value, ir.IntType(64).as_pointer())
    at = c.builder.gep(pointer, [ir.IntType(64)(layout.Z_OBJECT // 8)])
    obj = c.builder.inttoptr(c.builder.load(at), c.pyapi.pyobj)
    c.pyapi.incref(obj)
    return obj


@lower_constant(CompiledType)
def _constant(context: Any, builder: Any, kind: Any, made: Compiled) -> Any:
    """As Numba has ctypes functions: it does not cache code that knows an address."""
    return builder.ptrtoint(context.add_dynamic_addr(builder, made.address, info=made.__name__), ir.IntType(64))


# ---- calls -------------------------------------------------------------------------------------------

@lower_builtin(CompiledType, CompiledType, types.VarArg(types.Any))
def _lowered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return Emitter(context, builder, args[0]).call(sig.args[0], sig.args[1:], args[1:])


@njit
def _call(f, args):  # type: ignore[no-untyped-def]
    return f(*args)


def call(made: Compiled, args: tuple[Any, ...]) -> Any:
    """A call from Python, which goes the same way."""
    return _call(made, args)
