"""The code of a call inside Numba: check the arguments, take memory for the results, call the machine.

It is emitted and not written as Python for Numba, which would count references of every array on the way. It knows
dtypes and numbers of axes from the type; all else it reads from the struct it is given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing import signature
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from jitgrad.core.primitive import KERNEL_RAISED
from jitgrad.execute.cpu import layout
from jitgrad.interop.numba.failures import GuardFailed, KernelRaised, Misfit, NoMemory, NoThread, RowFailed
from jitgrad.interop.numba.leaves import LAYOUT, OVERLAPS, Leaf, flat

_WORD = ir.IntType(64)
_INT = types.int64


@intrinsic
def leave_if(typing: Any, condition: Any) -> tuple[Any, Callable[..., Any]]:
    """Return from the function with the Python exception that is set."""
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        with builder.if_then(args[0], likely=False):
            context.call_conv.return_exc(builder)
        return context.get_dummy_value()
    return types.void(types.boolean), emit


@njit
def fail(f, status, place, axis, found):  # type: ignore[no-untyped-def]
    """Raise what a status of the machine means; with 0, that an argument does not fit."""
    leave_if(status == layout.INTERRUPTED)
    if status == 0:
        raise Misfit(f, place, axis, found)
    if status == layout.NO_MEMORY:
        raise NoMemory(f)
    if status > 0 and status & ((1 << layout.ORDINAL) - 1) == layout.GUARD_FAILED:
        raise GuardFailed(f, status >> layout.ORDINAL)
    if status == layout.NO_THREAD:
        raise NoThread(f)
    if status == KERNEL_RAISED:
        raise KernelRaised(f)
    raise RowFailed(f)


@functools.cache
def _empty(dtype: str) -> Callable[..., Any]:
    kind = np.dtype(dtype).type

    def empty(shape):  # type: ignore[no-untyped-def]
        return np.empty(shape, kind)
    return empty


def type_of(nest: Any) -> Any:
    """Numba's type of nested tuples of leaves."""
    if isinstance(nest, Leaf):
        scalar = from_dtype(np.dtype(nest.dtype))
        return types.Array(scalar, nest.ndim, "C") if nest.ndim else scalar
    return types.none if nest is None else types.BaseTuple.from_types([type_of(item) for item in nest])


class Emitter:
    """Emits one call of the struct at ``f``."""

    def __init__(self, context: Any, builder: Any, f: Any) -> None:
        self.context, self.builder, self.f = context, builder, f
        self.shapes = self.word(f, layout.Z_SHAPES)

    def call(self, kind: Any, types_: Sequence[Any], args: Sequence[Any]) -> Any:
        """The result of a call with arguments of these types."""
        inputs, outputs = flat(kind.arguments), sorted(flat(kind.results))
        self.lengths = np.cumsum([0, *(leaf.ndim for leaf in (*inputs, *outputs))]).tolist()
        self.count = len(inputs)
        self.written = kind.written()
        self.taken: list[tuple[Any, Any]] = []       # where arrays of the caller's begin and end
        self.results: dict[int, Any] = {}
        self.made: list[tuple[Any, Any]] = []        # those of them that are new arrays
        self.table = self.frame(self.count + len(outputs))
        self.cells = self.frame(2 * (self.count + len(outputs)))
        self.end = self.builder.append_basic_block("end")
        returned = self.context.get_value_type(type_of(kind.results))
        answer = cgutils.alloca_once(self.builder, returned)
        self.builder.store(ir.Constant(returned, None), answer)
        self.run(kind, outputs, types_, args)
        self.builder.store(self.answer(kind.results), answer)
        self.builder.branch(self.end)
        self.builder.position_at_end(self.end)
        return self.builder.load(answer)

    def run(self, kind: Any, outputs: Sequence[Leaf], types_: Sequence[Any], args: Sequence[Any]) -> None:
        """Call the machine, or go to the end."""
        n = len(kind.arguments)
        for nest, given, value in zip(kind.arguments, types_[:n], args[:n], strict=True):
            self.take(nest, given, value)
        memory = dict(zip((leaf.place for leaf in self.written), zip(types_[n:], args[n:], strict=True), strict=True))
        for leaf in outputs:
            self.results[leaf.place] = self.result(leaf, memory.get(leaf.place))
        if self.made:
            missing = [cgutils.is_null(self.builder, self.array(*new).data) for new in self.made]
            with self.builder.if_then(functools.reduce(self.builder.or_, missing), likely=False):
                self.free()                          # a MemoryError that is raised once its `try` ends
                self.builder.branch(self.end)
        status = self.builder.call(
            self.builder.inttoptr(self.word(self.f, layout.Z_RUN), ir.FunctionType(_WORD, [_WORD] * 2).as_pointer()),
            [self.f, self.builder.ptrtoint(self.table, _WORD)])
        with self.builder.if_then(self.builder.icmp_signed("!=", status, _WORD(0)), likely=False):
            self.fail(status, -1, 0, _WORD(0))
        for leaf in self.written:
            self.context.nrt.incref(self.builder, type_of(leaf), self.results[leaf.place])

    def fail(self, status: Any, place: int, axis: int, found: Any) -> None:
        """Raise. In a `try`, Numba lets the code run on, so it goes to the end, with a result that nobody reads."""
        self.free()
        kind = types.Dispatcher(fail)
        given = signature(types.none, *[_INT] * 5)
        kind.get_call_type(self.context.typing_context, given.args, {})
        self.context.get_function(kind, given)(self.builder, [self.f, status, _WORD(place), _WORD(axis), found])
        self.builder.branch(self.end)

    def free(self) -> None:
        """Let go of the results."""
        for kind, value in self.made:
            self.context.nrt.decref(self.builder, kind, value)

    # ---- memory ----

    def word(self, address: Any, offset: int) -> Any:
        at = self.builder.add(address, _WORD(offset))
        return self.builder.load(self.builder.inttoptr(at, _WORD.as_pointer()))

    def frame(self, words: int) -> Any:
        return cgutils.alloca_once(self.builder, ir.ArrayType(_WORD, max(words, 1)))

    def at(self, frame: Any, k: int) -> Any:
        return self.builder.gep(frame, [_WORD(0), _WORD(k)])

    def point(self, k: int, pointer: Any) -> None:
        """Entry k of the table."""
        self.builder.store(self.builder.ptrtoint(pointer, _WORD), self.at(self.table, k))

    def length(self, k: int, axis: int) -> Any:
        """What was recorded as the length of an axis of argument or result k."""
        return self.word(self.shapes, 8 * (self.lengths[k] + axis))

    def refuse_if(self, condition: Any, place: int, axis: int, found: Any) -> None:
        with self.builder.if_then(condition, likely=False):
            self.fail(_WORD(0), place, axis, found)

    # ---- arguments ----

    def take(self, nest: Any, given: Any, value: Any) -> None:
        """Put the addresses of an argument, or of what is in a tuple, into the table."""
        if not isinstance(nest, Leaf):
            for k, item in enumerate(nest):
                self.take(item, given.types[k], self.builder.extract_value(value, k))
        elif nest.ndim:
            data = self.fitting(nest.place, nest, given, value)
            self.point(nest.place, data)
            if self.written:
                self.taken.append(self.span(nest.place, nest, data))
        else:
            scalar = from_dtype(np.dtype(nest.dtype))
            if isinstance(given, types.Buffer):
                value = self.context.unpack_value(self.builder, given.dtype, self.array(given, value).data)
                given = given.dtype
            number = self.context.cast(self.builder, value, given, scalar)
            stored = self.context.data_model_manager[scalar].as_data(self.builder, number)
            cell = self.at(self.cells, nest.place)
            self.builder.store(stored, self.builder.bitcast(cell, stored.type.as_pointer()))
            self.point(nest.place, cell)

    def array(self, kind: Any, value: Any) -> Any:
        return self.context.make_array(kind)(self.context, self.builder, value)

    def fitting(self, k: int, leaf: Leaf, kind: Any, value: Any) -> Any:
        """The first element of an array that is as was recorded; raises otherwise."""
        array, builder = self.array(kind, value), self.builder
        lengths = [self.length(k, axis) for axis in range(leaf.ndim)]
        for axis, (n, want) in enumerate(zip(cgutils.unpack_tuple(builder, array.shape), lengths, strict=True)):
            self.refuse_if(builder.icmp_signed("!=", n, want), k, axis, n)
        width = np.dtype(leaf.dtype).itemsize
        low = builder.and_(builder.ptrtoint(array.data, _WORD), _WORD(width - 1))
        wrong = [builder.icmp_signed("!=", low, _WORD(0))]       # Numba calls every array aligned
        if kind.layout != "C":
            step = _WORD(width)
            strides = cgutils.unpack_tuple(builder, array.strides)
            for n, stride in reversed([*zip(lengths, strides, strict=True)]):
                wrong.append(builder.and_(builder.icmp_signed(">", n, _WORD(1)),
                                          builder.icmp_signed("!=", stride, step)))
                step = builder.mul(step, n)
        for condition in wrong:
            self.refuse_if(condition, k, LAYOUT, _WORD(0))
        return array.data

    def span(self, k: int, leaf: Leaf, data: Any) -> tuple[Any, Any]:
        """Where an array begins and ends."""
        size: Any = _WORD(np.dtype(leaf.dtype).itemsize)
        for axis in range(leaf.ndim):
            size = self.builder.mul(size, self.length(k, axis))
        first = self.builder.ptrtoint(data, _WORD)
        return first, self.builder.add(first, size)

    def apart(self, k: int, leaf: Leaf, data: Any) -> None:
        """Memory for a result is not that of an argument, which is read as late as the plan likes."""
        compare, (first, end) = self.builder.icmp_unsigned, self.span(k, leaf, data)
        for other, other_end in self.taken:
            both = self.builder.and_(compare("<", first, other_end), compare("<", other, end))
            self.refuse_if(both, k, OVERLAPS, _WORD(0))
        self.taken.append((first, end))

    # ---- results ----

    def result(self, leaf: Leaf, given: Any) -> Any:
        """Memory for a result: an array of the caller's or a new one, or a cell."""
        k = self.count + leaf.place
        if not leaf.ndim:
            cell = self.at(self.cells, k)
            self.point(k, cell)
            return cell
        if given is not None:
            data = self.fitting(k, leaf, *given)
            self.point(k, data)
            self.apart(k, leaf, data)
            return given[1]
        kind = type_of(leaf)
        shape = self.context.make_tuple(self.builder, types.UniTuple(_INT, leaf.ndim),
                                        [self.length(k, axis) for axis in range(leaf.ndim)])
        made = self.context.compile_internal(self.builder, _empty(leaf.dtype),
                                             signature(kind, types.UniTuple(_INT, leaf.ndim)), [shape])
        self.point(k, self.array(kind, made).data)
        self.made.append((kind, made))
        return made

    def answer(self, nest: Any) -> Any:
        """What the call returns."""
        if nest is None:
            return self.context.get_dummy_value()
        if not isinstance(nest, Leaf):
            return self.context.make_tuple(self.builder, type_of(nest), [self.answer(item) for item in nest])
        if nest.ndim:
            return self.results[nest.place]
        model = self.context.data_model_manager[from_dtype(np.dtype(nest.dtype))]
        at = self.builder.bitcast(self.results[nest.place], model.get_data_type().as_pointer())
        return model.from_data(self.builder, self.builder.load(at))
