"""Small matrix products bit for bit: the kernel and the text for known shapes, cut for three widths of vectors, against
the scalar body as Numba builds it. All memory ends where an operand does, so that a stray access ends the process.
"""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.aval import aval
from jitgrad.core.dtypes import CODES
from jitgrad.core.form import form
from jitgrad.core.primitive import BY_NAME
from jitgrad.execute.cpu import blas, llvm, products, tiles
from jitgrad.execute.cpu.lanes import Text, module
from jitgrad.execute.cpu.library import kernel_of
from jitgrad.execute.cpu.products import Cut, Spec
from jitgrad.execute.cpu.tiles import Machine
from table import call
from tolerance import assert_same_bits

MACHINES = Machine(64, 32), Machine(32, 16), Machine(16, 16)
SIZES = 0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 12, 15, 16, 17, 20, 31, 32, 33, 47, 64
DTYPES = np.dtype("float32"), np.dtype("float64")
ODD = 0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 1e30, -1e30
EDGES = ((1, 1, 1, 1), (0, 2, 3, 4), (2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 4, 0), (1, 1, 1, 0), (3, 1, 5, 1), (3, 5, 1, 9),
         (2, 7, 1, 1), (1, 8, 16, 256), (1, 1, 130, 3), (1, 130, 1, 3))
FENCES = os.name == "posix"
pytestmark = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def fenced(values, above):
    """A copy with memory that nobody may touch behind it, or before it."""
    if not FENCES:
        return np.array(values)
    page, libc = mmap.PAGESIZE, ctypes.CDLL(None)
    pages = max(1, -(-values.nbytes // page))
    room = mmap.mmap(-1, (pages + 2) * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(room))
    for place in (base, base + (pages + 1) * page):
        assert libc.mprotect(ctypes.c_void_p(place), ctypes.c_size_t(page), 0) == 0
    start = page + (pages * page - values.nbytes if above else 0)
    found = np.frombuffer(room, values.dtype, values.size, start).reshape(values.shape)
    found[...] = values
    return found


def specs(rng, dtype, count):
    """Edges with each transposition, then drawn shapes."""
    flags = [(ta, tb) for ta in (False, True) for tb in (False, True)]
    for edge in EDGES:
        for ta, tb in flags:
            yield Spec(*edge, ta, tb, dtype)
    for i in range(count):
        m, n, k = (int(rng.choice(SIZES)) for _ in range(3))
        yield Spec(int(rng.integers(1, 4)), m, n, k, *flags[i % 4], dtype)


def row(spec):
    """The row of the table with that product."""
    code = CODES[spec.dtype]
    x = aval(code, (spec.batch, *((spec.k, spec.m) if spec.ta else (spec.m, spec.k))))
    y = aval(code, (spec.batch, *((spec.n, spec.k) if spec.tb else (spec.k, spec.n))))
    return form(BY_NAME["matmul"], [x, y], {"ta": spec.ta, "tb": spec.tb})


def operands(made, rng, odd):
    """Numbers, among them such as make a chain stick to NaN or inf."""
    out = []
    for a in made.avals:
        x = rng.normal(size=a.shape).astype(a.dtype)
        if odd:
            with np.errstate(over="ignore"):
                x[rng.random(x.shape) < 0.05] = np.array(rng.choice(ODD)).astype(a.dtype)
        out.append(x)
    return out


def agree(found, made, rng, monkeypatch):
    """A kernel (address and params) with the body as Numba builds it, at both ends of memory."""
    with monkeypatch.context() as m:
        m.setenv("JITGRAD_KERNELS", "numba")
        body, words = kernel_of(made)
    assert body != found[0]
    for above in (False, True):
        x, y = operands(made, rng, above)
        out, want = (np.full(made.outs[0].shape, 7, made.outs[0].dtype) for _ in range(2))
        out = fenced(out, above)
        call(*found, out, fenced(x, above), fenced(y, above))
        call(body, words, want, x, y)
        assert_same_bits(out, want)


def sizes_and_words(made):
    return [*(a.size for a in (*made.outs, *made.avals)), *made.prim.words(*made.avals, **made.params)]


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_kernel(dtype, machine, rng, monkeypatch):
    name = f"tested_{dtype}_{machine.width}"
    address = llvm.link(llvm.emit(products.ir(name, "matmul", dtype, machine)), [name])[name]
    for spec in specs(rng, dtype, 200):
        made = row(spec)
        agree((address, sizes_and_words(made)), made, rng, monkeypatch)


def pointers(text):
    for i, name in enumerate(("out", "x", "y")):
        place = text.set(f"getelementptr ptr, ptr %slots, i64 {i}")
        text.set(f"load ptr, ptr {place}, align 8", name)


def known(name, spec, machine, cut):
    """A kernel of one shape."""
    text = Text(name)
    pointers(text)
    products.emit_product(text, spec, "%x", "%y", products.storing(text, "%out", spec), machine=machine, cut=cut)
    text.do("ret i64 0")
    return text.finish()


@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_known_shapes(dtype, machine, rng, monkeypatch):
    """The same bits whatever the tiles are."""
    chosen, texts = {}, []
    for i, spec in enumerate(specs(rng, dtype, 40)):
        name = f"known_{dtype}_{machine.width}_{i}"
        cut = Cut(int(rng.integers(1, 7)), int(rng.integers(1, 4))) if i % 3 == 0 else None
        texts.append(known(name, spec, machine, cut))
        chosen[name] = spec
    addresses = llvm.link(llvm.emit(module(texts)), list(chosen))
    for name, spec in chosen.items():
        made = row(spec)
        agree((addresses[name], [0]), made, rng, monkeypatch)


def test_working_memory_is_what_room_says(dtype, rng, monkeypatch):
    """Of a y given transposed; the caller's own, fenced."""
    for i, (m, n, k) in enumerate(((5, 33, 7), (8, 8, 8), (3, 1, 9), (1, 20, 64), (40, 3, 2))):
        spec, text = Spec(2, m, n, k, False, True, dtype), Text(f"room_{dtype}_{i}")
        room = fenced(np.zeros(products.room(spec), np.uint8), above=True)
        pointers(text)
        scratch = text.set(f"inttoptr i64 {room.ctypes.data} to ptr")
        products.emit_product(text, spec, "%x", "%y", products.storing(text, "%out", spec), scratch=scratch)
        text.do("ret i64 0")
        assert not any("i8]" in line for line in text.entry)
        agree((llvm.link(llvm.emit(text.finish()), [text.name])[text.name], [0]), row(spec), rng, monkeypatch)


def test_epilogue(dtype, rng):
    """max(x @ y + b, 0) with what the store callback is given, one pass; the tiles' own product is the reference."""
    for i, (m, n, k) in enumerate(((32, 32, 32), (7, 33, 5), (9, 1, 4))):
        spec, text = Spec(1, m, n, k, False, False, dtype), Text(f"epilogue_{dtype}_{i}")
        pointers(text)
        place = text.set("getelementptr ptr, ptr %slots, i64 3")
        bias = text.set(f"load ptr, ptr {place}, align 8")
        plain = products.storing(text, "%out", spec)

        def store(row, column, value, mask, n=n, text=text, bias=bias, plain=plain):
            kind = text.vector("float" if dtype.itemsize == 4 else "double")
            at = text.at(bias, "0" if n == 1 else str(column), dtype)
            if n == 1:                       # columns of the transposed result are rows of this one, with one bias
                lane = kind.split(" x ")[1][:-1]
                b = text.broadcast(text.set(f"load {lane}, ptr {at}, align {dtype.itemsize}"), lane)
            else:
                b = text.load_some(at, mask, "zeroinitializer", dtype) if mask else text.load(at, dtype)
            total = text.set(f"fadd {kind} {value}, {b}")
            positive = text.set(f"fcmp ogt {kind} {total}, zeroinitializer")
            value = text.set(f"select {text.vector('i1')} {positive}, {kind} {total}, {kind} zeroinitializer")
            plain(row, column, value, mask)
        products.emit_product(text, spec, "%x", "%y", store)
        text.do("ret i64 0")
        address = llvm.link(llvm.emit(text.finish()), [text.name])[text.name]
        x, y = operands(row(spec), rng, False)
        b = rng.normal(size=n).astype(dtype)
        out = fenced(np.full((m, n), 7, dtype), above=True)
        call(address, [0], out, fenced(x, True), fenced(y, True), fenced(b, True))
        product = jg.matmul(x[0], y[0]).numpy()
        assert products.small(row(spec))
        assert_same_bits(out, np.maximum(product + b, dtype.type(0)))


def test_plans_have_a_function_for_each_shape(dtype, rng, monkeypatch):
    """And give the bits of the sweep, forward and backward, with transposes, batches and a column."""
    made, original = [], products.function

    def counted(name, spec):
        made.append(spec)
        return original(name, spec)
    monkeypatch.setattr(products, "function", counted)
    x, w, v, many = (jg.constant(rng.normal(size=s).astype(dtype)) for s in ((16, 32), (32, 32), (32, 1), (3, 16, 8)))

    def step(x, w, v, many):
        with jg.GradientTape() as tape:
            for t in (x, w, v, many):
                tape.watch(t)
            h = jg.tanh(jg.tanh(x @ w) @ w)
            each = jg.matmul(many, many, transpose_a=True)
            y = jg.sum((h @ v) ** 2) + jg.sum(each * each)
        return [y, h, each, *tape.gradient(y, (x, w, v, many))]
    found = {}
    for mode in ("0", "1"):
        monkeypatch.setenv("JITGRAD_MACHINE_CODE", mode)
        assert not made
        found[mode] = [t.numpy() for t in jg.function(step)(x, w, v, many)]
    assert len(made) == len(set(made)) >= 4
    assert Spec(1, 16, 32, 32, False, False, dtype) in made
    for one, other in zip(found["0"], found["1"], strict=True):
        assert_same_bits(one, other)


def test_which_products_are_ours(dtype, rng, monkeypatch):
    """Those of a small network, forward and backward; large ones and ones that BLAS is faster for are BLAS's."""
    ours = [(32, 32, 64, False, False), (64, 32, 32, True, False), (32, 32, 10, False, True), (8, 8, 4, True, True),
            (1, 10, 10, False, True)]
    if dtype.itemsize == 4:
        ours += [(32, 10, 32, False, False), (32, 10, 32, True, False)]
    theirs = [(128, 512, 784, False, False), (128, 128, 128, False, True), (1, 1, 10_000, False, True),
              (2, 2, 4096, False, False)]
    gemms = set(blas.functions().values())
    for m, n, k, ta, tb in ours + theirs if gemms else ours:
        made = row(Spec(1, m, n, k, ta, tb, dtype))
        address, words = kernel_of(made)
        assert products.small(made) == (words[0] not in gemms)
        if (m, n, k, ta, tb) in theirs:
            assert words[0] in gemms
        elif tiles.host().width == 64:
            assert words[0] not in gemms
            agree((address, words), made, rng, monkeypatch)


def test_every_small_product_fits_the_kernel(dtype):
    """Its transposed copy has room for so long an inner axis, and BLAS would not use threads for it."""
    lengths = (0, 1, 4, 8, 16, 33, 64, 200, 255, 256, 257, 300, 1000, 70_000)
    found = [spec for batch in (1, 3) for m in lengths for n in lengths for k in lengths for ta in (False, True)
             for tb in (False, True) if products.small(row(spec := Spec(batch, m, n, k, ta, tb, dtype)))]
    assert len(found) > 1000
    for spec in found:
        spec, _ = products.turned(spec)
        assert spec.m * spec.n * spec.k <= products.LARGEST
        assert not spec.tb or spec.k <= products.DEPTH


def test_kernel_of_integers_is_as_it_was(dtype):
    whole = np.dtype(f"int{8 * dtype.itemsize}")
    assert not products.small(row(Spec(1, 8, 8, 8, False, False, whole)))
    x = np.arange(64, dtype=whole).reshape(8, 8)
    np.testing.assert_array_equal(jg.matmul(x, x).numpy(), x @ x)
