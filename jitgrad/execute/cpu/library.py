"""The op library: a native kernel for each form, made on demand and kept in the object cache."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jitgrad import config
from jitgrad.core.aval import Aval
from jitgrad.core.dtypes import DTYPES
from jitgrad.core.form import Form
from jitgrad.core.lock import TABLES
from jitgrad.core.primitive import BY_NAME, Index, Kind, Primitive, contiguous_strides, takes
from jitgrad.execute.cpu import blas, cache, fingerprint, layout, llvm, pieces
from jitgrad.execute.cpu.lifetime import immortal
from jitgrad.execute.cpu.types import NATIVE
from jitgrad.ops import scalar

Kernel = tuple[int, list[int]]       # address, params words

# Above about 50 us of work other Python threads may run meanwhile: elements of cheap maths, multiply-adds of a product.
LONG_ELEMENTS, LONG_PRODUCTS = 1 << 16, 1 << 22

_BODIES = (Kind.ELEMENTWISE, Kind.REDUCE, Kind.SCAN)     # in the scalar language: two builds of each

_addresses: dict[tuple[Any, ...], int] = {}
_noted: dict[int, int] = {}                    # form -> its struct without a kernel
_structs: list[np.ndarray] = immortal([])      # params and form structs live as long as the process


def realise(f: Form) -> int:
    """Address of the form's struct, with its kernel compiled or loaded."""
    if not f.address:
        with TABLES:               # a fork waits for the compiler
            f.address = f.address or _struct(f)
    return f.address


def noted(f: Form) -> int:
    """Address of a struct of the form for rows that are noted, not run: it may be one without a kernel."""
    if f.address:
        return f.address
    with TABLES:
        if f.id not in _noted:
            _noted[f.id] = _form_words(f, _flags(f, _index(f)), (0, []))
        return _noted[f.id]


def keep(words: Sequence[int]) -> int:
    """Words at an address that stays."""
    block = np.array(words or [0], np.int64)
    _structs.append(block)
    return int(block.ctypes.data)


def _index(f: Form) -> Index | None:
    return f.prim.body(*f.avals, **f.params) if f.prim.kind is Kind.MOVE else None


def _flags(f: Form, index: Index | None) -> int:
    flags = 0
    if f.differentiable:
        flags |= layout.GUARDED if f.missing else layout.DIFFERENTIABLE
    return flags | layout.VIEW if index is not None and _is_view(index) else flags


def _struct(f: Form) -> int:
    index = _index(f)
    flags = _flags(f, index)
    if f.prim.kind is Kind.HIGHER and not f.prim.runner:
        return _form_words(f, flags, (0, []))
    if index is not None and flags & layout.VIEW:
        # eager calls read the byte offset only; a Plan that cannot alias copies with the rest
        words = _strided_words(f.outs[0], index)
        kernel: Kernel = (NATIVE["move"], [index.offset * f.outs[0].dtype.itemsize, *words])
    else:
        kernel = kernel_of(f, index)
    if work(f) >= LONG_ELEMENTS:
        flags |= layout.LONG
    return _form_words(f, flags, kernel)


def _form_words(f: Form, flags: int, kernel: Kernel) -> int:
    dtypes = [a.code for a in f.avals[: layout.MAX_ARGS]]
    dtypes += [0] * (layout.MAX_ARGS - len(dtypes))
    outs = [word for a in f.outs for word in (a.id, a.nbytes, a.size, a.code)]
    return keep([kernel[0], keep(kernel[1]), len(f.avals), len(f.outs), flags, f.id, *dtypes, *outs])


def _is_view(index: Index) -> bool:
    """Contiguous in the operand; a result without elements is made fresh."""
    return math.prod(index.shape) > 0 and all(
        n == 1 or s == c for n, s, c in
        zip(index.shape, index.strides, contiguous_strides(index.shape), strict=True))


@functools.cache
def work(f: Form) -> int:
    """A rough count of elements touched."""
    if f.prim.runner:
        runs: int = cpu_module(f.prim.runner).work(f)
        return runs
    size = sum(a.size for a in (*f.avals, *f.outs))
    if f.prim.kind is Kind.CONTRACT and size:
        products = math.isqrt(f.avals[0].size * f.avals[1].size * f.outs[0].size)
        return products * LONG_ELEMENTS // LONG_PRODUCTS
    return size


def kernel_of(f: Form, index: Index | None = None) -> Kernel:
    """Address and params of a form's kernel, by kind."""
    kind = f.prim.kind
    if f.prim.runner:
        made: Kernel = cpu_module(f.prim.runner).kernel(f)
        return made
    if kind is Kind.ELEMENTWISE:
        return _elementwise(f)
    if kind is Kind.REDUCE:
        (x,), axes = f.avals, f.params["axes"]
        first = axes[0] if axes else x.ndim
        last = first + len(axes)
        shape = [math.prod(x.shape[:first]), math.prod(x.shape[first:last]), math.prod(x.shape[last:])]
        return pieces.rows(f, (_reduction(f.prim, x.dtype), shape), shape[2])
    if kind is Kind.SCAN:
        words = _scan_words(f.outs[0], **f.params)
        return pieces.rows(f, (_scan(f.prim, f.outs[0].dtype), words), words[1] * words[2])
    if kind is Kind.MOVE:
        assert index is not None
        return NATIVE["move"], _strided_words(f.outs[0], index)
    if kind is Kind.PLACE:
        return NATIVE["place"], [f.outs[0].nbytes, *_strided_words(f.avals[0], f.prim.body(*f.avals, **f.params))]
    if kind is Kind.CONTRACT and not config.numba_kernels() and vectors(f) is None:
        found = blas.gemm(f)
        if found is not None:
            return found
    return _own(f)


def _strided_words(dense: Aval, index: Index) -> list[int]:
    width = dense.dtype.itemsize
    return [width, len(index.shape), index.offset * width, *index.shape, *(s * width for s in index.strides)]


# ---- elementwise: the inner kernel walks a line, a driver walks the rest ----------------------------

def lines(shape: tuple[int, ...], operands: Sequence[tuple[int, ...]]) -> tuple[list[int], list[list[int]]]:
    """Dims of a broadcast walk with neighbours merged, and per operand its strides in elements."""
    strides = [contiguous_strides(shape)]
    for given in operands:
        own = dict(zip(range(len(shape) - len(given), len(shape)),
                       zip(given, contiguous_strides(given), strict=True), strict=True))
        strides.append(tuple(own[i][1] if i in own and own[i][0] != 1 else 0 for i in range(len(shape))))
    dims: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis in reversed(range(len(shape))):
        n = shape[axis]
        if n == 1:
            continue
        if dims and all(s[axis] == t[0] * dims[0] for s, t in zip(strides, steps, strict=True)):
            dims[0] *= n
            continue
        dims.insert(0, n)
        for s, t in zip(strides, steps, strict=True):
            t.insert(0, s[axis])
    return dims, steps


def _elementwise(f: Form) -> Kernel:
    inner = _elementwise_kernel(f.prim, tuple(a.dtype for a in f.avals), tuple(f.params.items()))
    out = f.outs[0]
    if out.size <= 1:
        return inner, [out.size, *([1] * len(f.avals))]
    dims, steps = lines(out.shape, [a.shape for a in f.avals])
    line = [dims[-1], *(s[-1] for s in steps[1:])]
    widths = [out.dtype.itemsize, *(a.dtype.itemsize for a in f.avals)]
    strides = [[step * width for step in s] for s, width in zip(steps, widths, strict=True)]
    nodes = _nodes(f.prim, tuple(a.dtype for a in f.avals), tuple(f.params.items())) if out.size >= pieces.LEAST else 0
    if len(dims) == 1:
        return pieces.line((inner, line), nodes, [s[0] for s in strides])
    outer = [step for s in strides for step in s[:-1]]
    words = [inner, len(dims) - 1, len(widths), *dims[:-1], *outer, *line]
    return pieces.lines((NATIVE["broadcast"], words), nodes, dims, strides)


@functools.cache
def _nodes(prim: Primitive, dtypes: tuple[np.dtype[Any], ...], params: tuple[tuple[str, Any], ...]) -> int:
    """Operations in a body."""
    return sum(node.op not in ("const", "argument") for node in elementwise_trace(prim, dtypes, dict(params)).nodes)


def _elementwise_kernel(prim: Primitive, dtypes: tuple[np.dtype[Any], ...], params: tuple[tuple[str, Any], ...]) -> int:
    def text(symbol: str) -> str:
        from jitgrad.execute.cpu import codegen
        return codegen.elementwise_ir(symbol, elementwise_trace(prim, dtypes, dict(params)))
    return _kernel(prim, dtypes, params, text)


def elementwise_trace(prim: Primitive, dtypes: Sequence[Any], params: dict[str, Any]) -> scalar.Trace:
    return scalar.trace(functools.partial(prim.body, **params) if params else prim.body, dtypes)


def _reduction(prim: Primitive, dtype: np.dtype[Any]) -> int:
    def text(symbol: str) -> str:
        from jitgrad.execute.cpu import reductions
        return reductions.reduction_ir(symbol, scalar.trace(prim.body, (dtype, dtype)), prim.init, dtype)
    return _kernel(prim, (dtype,), (), text)


def _scan(prim: Primitive, dtype: np.dtype[Any]) -> int:
    def text(symbol: str) -> str:
        from jitgrad.execute.cpu import scans
        return scans.scan_ir(symbol, scans.widened(prim, dtype), prim.init, dtype)
    return _kernel(prim, (dtype,), (), text)


def _scan_words(x: Aval, axis: int, exclusive: bool, reverse: bool) -> list[int]:
    n = x.shape[axis]
    first, step = (n - 1, -1) if reverse else (0, 1)
    return [math.prod(x.shape[:axis]), n, math.prod(x.shape[axis + 1:]), first, step, int(exclusive)]


def _own(f: Form) -> Kernel:
    dtypes = tuple(a.dtype for a in (*f.outs, *f.avals))
    words = f.prim.words(*f.avals, **f.params) if f.prim.words else ()
    sizes = [a.size for a in (*f.outs, *f.avals)]
    room = [f.prim.scratch(*f.avals, **f.params)] if f.prim.scratch else []

    written = vectors(f)
    if written is not None:
        made = _kernel(f.prim, (f.prim.vectors, *dtypes), (),
                       lambda symbol: written.ir(symbol, f.prim.name, dtypes[-1]))
        return made, [*sizes, *words]

    def text(symbol: str) -> str:
        from jitgrad.execute.cpu.native import build
        return build.own_kernel(symbol, f.prim, dtypes, len(words))
    return _kernel(f.prim, (*dtypes, len(words)), (), text, optimise="loops"), [*sizes, *words, *room]


def vectors(f: Form) -> Any:
    """The module with vector text in the place of the entry's own kernel, if there is one for such operands."""
    found = cpu_module(f.prim.vectors) if f.prim.vectors and not config.numba_kernels() else None
    return found if found and found.applies(f) else None


def cpu_module(name: str) -> Any:
    """A module beside this one, by the name that an entry has for it."""
    return importlib.import_module(f"jitgrad.execute.cpu.{name}")


# ---- one kernel: Numba's or the vector build --------------------------------------------------------

def _kernel(prim: Primitive, dtypes: tuple[Any, ...], params: tuple[tuple[str, Any], ...],
            text: Callable[[str], str], optimise: str = "") -> int:
    key = (prim.name, dtypes, params, config.numba_kernels())
    address = _addresses.get(key)
    if address is None:
        symbol = "_".join(["kernel", prim.name, *(str(d) for d in dtypes)])

        def build() -> bytes:
            if config.numba_kernels() and prim.kind in _BODIES:
                return llvm.emit(numba_kernel(prim, dtypes, dict(params)).standalone(symbol), optimise="loops")
            return llvm.emit(text(symbol), optimise=optimise)
        obj = cache.fetch(symbol, _key(prim, dtypes, params), build)
        address = _addresses[key] = llvm.link(obj, [symbol])[symbol]
    return address


def numba_kernel(prim: Primitive, dtypes: Sequence[Any], params: dict[str, Any]) -> Any:
    """The Numba build of an elementwise or reducing entry (imports numba)."""
    from jitgrad.execute.cpu import loops
    name = "_".join([prim.name, *(str(d) for d in dtypes)])
    if prim.kind is Kind.ELEMENTWISE:
        return loops.elementwise_kernel(name, elementwise_trace(prim, dtypes, params))
    if prim.kind is Kind.SCAN:
        from jitgrad.execute.cpu import scans
        return loops.scan_kernel(name, scans.widened(prim, dtypes[0]), prim.init, dtypes[0])
    return loops.reduction_kernel(name, scalar.trace(prim.body, (dtypes[0], dtypes[0])), prim.init, dtypes[0])


def _key(prim: Primitive, dtypes: Sequence[Any], params: Sequence[Any]) -> str:
    return cache.digest(fingerprint.kernels(), prim.name, repr(dtypes), repr(params),
                        fingerprint.meaning((prim.body, prim.init)))


def kernels(name: str) -> dict[str, Any]:
    """The Numba kernels of an entry, by the dtype its operands share: compiled now, each with ``.source``, ``.ir`` and
    ``.address``. Raises KeyError for a name that is not in the table.

    >>> import jitgrad as jg
    >>> sorted(jg.kernels("exp"))
    ['float32', 'float64']
    """
    prim = BY_NAME[name]
    return {dtype.name: _numba_kernel_for(prim, dtype) for dtype in DTYPES if takes(prim, dtype)}


def _numba_kernel_for(prim: Primitive, dtype: np.dtype[Any]) -> Any:
    if prim.kind in _BODIES:
        params = prim.samples(np.random.default_rng(0))[0][1] if prim.params and prim.samples else {}
        dtypes = tuple(DTYPES[0] if domain == "bool" else dtype for domain in prim.domains)
        return numba_kernel(prim, dtypes, params if prim.kind is Kind.ELEMENTWISE else {})
    from jitgrad.execute.cpu import loops
    return loops.own_kernel(prim, dtype)
