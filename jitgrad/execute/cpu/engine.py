"""Tier 1: a Program as one machine-code function of a table and an arena, as the sweep calls it.

Its nests are loops written for their shapes; rows with a kernel of their own call it. Memory is laid out as for the
sweep, over steps instead of rows, so what lives inside a nest has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jitgrad.core.form import Form
from jitgrad.core.primitive import BY_NAME, Kind
from jitgrad.core.program import Program
from jitgrad.execute.cpu import blas, cache, layout, library, llvm, products
from jitgrad.execute.cpu.control import KEPT, Part
from jitgrad.execute.cpu.followed import Blocks, followed, outs_of, walk_on_blocks
from jitgrad.execute.cpu.lanes import Text, module
from jitgrad.execute.cpu.nests import Writer
from jitgrad.execute.cpu.places import over_inputs
from jitgrad.execute.cpu.shared import write_shared
from jitgrad.execute.cpu.straight import StraightWriter
from jitgrad.execute.cpu.types import NATIVE, peek
from jitgrad.execute.cpu.walks import Walk, walk_of
from jitgrad.plan import laid as placing
from jitgrad.plan.fuse import Accumulate, Call, Copy, Followed, Nest, Operand, Step, Straight, read_later, steps_of

SYMBOL = "plan"
ARGUMENTS = "ptr %table, ptr %arena"
STEPS = 100                    # of one function of a longer plan: LLVM's time for loops grows with the square
_DECLARED = {"kernel": "declare i64 @{}(ptr, ptr)", "params": "@{} = external global i8",
             "parallel": "declare i64 @{}(i64, i64, i64)"}


class Machine(NamedTuple):
    """Machine code of a Program: where it is, the bytes of arena that it works in, what keeps it, and where results
    may be written over inputs (see `places`)."""

    address: int
    arena: int
    held: list[llvm.Code]
    places: list[int]


@dataclass
class Laid:
    """Steps with what they write, and where everything lies: an arena offset, or -1 - i for entry i of the table."""

    steps: list[Step]
    walks: dict[int, Walk]
    written: list[list[int]]
    places: list[dict[int, int]]
    copies: list[tuple[int, int, int]]
    arena: int
    over: list[int]


def machine_code(program: Program, first_result: int, first_const: int, guards: Sequence[int]) -> Machine:
    """Compile a Program without calls; ``guards``: the status word's number for each guard row, in order.

    The table of pointers begins with the inputs; results and constants stand where told.
    """
    laid = lay_out(program, first_result, first_const)
    text, imports, held = write(laid, guards)
    key = cache.digest(llvm.host(), text)
    addresses, code = llvm.load(cache.fetch(SYMBOL, key, lambda: llvm.emit(text)), [SYMBOL], imports)
    return Machine(addresses[SYMBOL], laid.arena, [*held, code], laid.over)


def lay_out(program: Program, first_result: int, first_const: int) -> Laid:
    """The steps, and where their values lie."""
    found, lies = steps_of(program, _adds)
    steps = followed(found, lambda f: blas.divided(f) if _adds(f) else None)
    steps, results, sizes = placing.with_results(program, steps, lies)
    free = len(sizes)
    kept = {*results}
    written, walks, over = [], {}, dict[int, int]()
    for k, (step, others) in enumerate(zip(steps, read_later(steps), strict=True)):
        outs = [v for m in step.members for v in m.outs]
        if isinstance(step, Nest | Straight):
            outs = [v for v in outs if v in others or v in kept]
        if isinstance(step, Followed):
            walks[k] = walk_on_blocks(step.nest)
            outs, lies_in = outs_of(step, others, kept)
            if lies_in is not None:
                over[k] = lies_in
        elif isinstance(step, Nest):
            walks[k] = walk_of(step, {*outs})
            for v, nbytes in _room(walks[k], free):  # for the nest's own use
                outs.append(v)
                sizes[v] = nbytes
                free = max(free, v + 1)
        written.append(outs)
    reads = [placing.reads_of(step) for step in steps]
    places, copies, arena = placing.lay_out(program, written, reads, results, sizes, first_result, first_const)
    for k, v in over.items():
        places[k][steps[k].members[0].outs[0]] = places[k][v]
    return Laid(steps, walks, written, places, copies, arena,
                over_inputs(steps, walks, program.inputs.tolist(), results))


def _adds(f: Form) -> bool:
    """Whether BLAS makes a row's product."""
    return f.prim.kind is Kind.CONTRACT and library.vectors(f) is not products and blas.gemm(f) is not None and all(
        a.size for a in f.avals)


def _room(walk: Walk, free: int) -> Iterator[tuple[int, int]]:
    """Values that a nest keeps for itself, and their bytes; new ones are numbered from ``free`` on."""
    for v, a in walk.kept:
        yield v, a.dtype.itemsize * walk.nest.length * (walk.share.tasks if walk.share else 1)
    if walk.share and walk.share.chunks:
        for m in walk.nest.members:
            if m.fold:
                walk.partial[m.outs[0]] = free
                yield free, m.form.outs[0].dtype.itemsize * walk.share.extent
                free += 1


# ---- text ------------------------------------------------------------------------------------------

def write(laid: Laid, guards: Sequence[int]) -> tuple[str, dict[str, int], list[llvm.Code]]:
    """The text of the function, the addresses of what it names, and the code there that nothing else keeps."""
    made = _Function(guards, len(laid.steps) > STEPS)
    for k, step in enumerate(laid.steps):
        if k and k % STEPS == 0:
            made.cut()
        made.step(step, laid.places[k], laid.walks.get(k), laid.written[k])
    for to, source, nbytes in laid.copies:
        made.copy(made.pointer(to), made.pointer(source), nbytes)
    return made.finish(), made.imports, made.held


def _pointer(text: Text, slot: int) -> str:
    """Address of a place."""
    if slot >= 0:
        return text.set(f"getelementptr i8, ptr %arena, i64 {slot}")
    word = text.set(f"getelementptr ptr, ptr %table, i64 {-1 - slot}")
    return text.set(f"load ptr, ptr {word}, align 8")


class _Function:
    """The function under construction; of a long plan, the part that is."""

    def __init__(self, guards: Sequence[int], long: bool) -> None:
        self.imports: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.guards = iter(guards)
        self.held: list[llvm.Code] = []
        self.parts: dict[str, str] = {}
        self._begin(Text(f"{SYMBOL}.part0" if long else SYMBOL, ARGUMENTS))
        self.tasks: list[str] = []
        self.products: dict[str, str] = {}
        self.columns: dict[str, str] = {}            # functions that sum columns of matrices

    def _begin(self, text: Text) -> None:
        self.text = text
        self.slots = text.stack("ptr", 1)
        self.most = 1
        self.failures: list[tuple[str, str]] = []
        self.informed = False

    def cut(self) -> None:
        """The part ends here, and the next begins: values between steps lie in memory."""
        self._end()
        self.parts[self.text.name] = self.text.function("internal")
        self._begin(self.text.aside(f"{SYMBOL}.part{len(self.parts)}", ARGUMENTS))

    def _end(self) -> None:
        text = self.text
        text.do("ret i64 0")
        if self.failures:
            text.label("failed")
            text.set("phi i64 " + ", ".join(f"[{status}, %{block}]" for status, block in self.failures), "status")
            text.do("ret i64 %status")
        text.entry[0] = text.entry[0].replace("[1 x ptr]", f"[{self.most} x ptr]")

    def pointer(self, slot: int) -> str:
        return _pointer(self.text, slot)

    def context(self) -> str:
        """What tasks of other threads know: where the table and the arena are; and a word that they may set."""
        if not self.informed:
            self.informed = True
            self.text.entry += ["  %context = alloca [3 x ptr]", "  store ptr %table, ptr %context",
                                "  %context.arena = getelementptr ptr, ptr %context, i64 1",
                                "  store ptr %arena, ptr %context.arena"]
        return "%context"

    def step(self, step: Step, places: dict[int, int], walk: Walk | None, written: list[int]) -> None:
        if isinstance(step, Followed):
            assert walk is not None
            self.followed(step, places, walk, written)
        elif walk is not None:
            if walk.share:
                self.tasks.append(write_shared(self.text, walk, lambda text, v: _pointer(text, places[v]), written,
                                               self.context(), self.name("parallel", NATIVE["parallel"])))
            else:
                Writer(self.text, walk, lambda v: self.pointer(places[v]), written).all_rows()
        elif isinstance(step, Straight):
            StraightWriter(self.text, step, lambda v: self.pointer(places[v]), written).all_rows()
        elif isinstance(step, Accumulate):
            self.accumulate(step, places)
        elif isinstance(step, Copy):
            (o,), (v,) = step.operands, step.outs
            self.copy(self.pointer(places[v]), self.address(o, places), o.aval.nbytes)
        else:
            assert isinstance(step, Call)
            (self.product if library.vectors(step.form) is products else self.call)(step, places)

    def address(self, o: Operand, places: dict[int, int]) -> str:
        pointer = self.pointer(places[o.value])
        return self.text.set(f"getelementptr i8, ptr {pointer}, i64 {o.offset}") if o.offset else pointer

    def copy(self, to: str, source: str, nbytes: int) -> None:
        self.text.declare("void", "llvm.memmove.p0.p0.i64", "ptr", "ptr", "i64", "i1")
        self.text.do(f"call void @llvm.memmove.p0.p0.i64(ptr {to}, ptr {source}, i64 {nbytes}, i1 false)")

    def call(self, step: Call, places: dict[int, int]) -> None:
        """A row by its own kernel; what does not return 0 ends the run."""
        self._give([self.pointer(places[v]) for v in step.outs] + [self.address(o, places) for o in step.operands])
        if step.form.prim.runner:
            address, words = library.cpu_module(step.form.prim.runner).kernel(step.form, self.part)
            kernel, params = self.name("kernel", address), self.name("params", library.keep(words))
        else:
            struct = library.realise(step.form)
            kernel = self.name("kernel", peek(struct + layout.F_KERNEL))
            view = layout.WORD if peek(struct + layout.F_FLAGS) & layout.VIEW else 0     # where that lies, first
            params = self.name("params", peek(struct + layout.F_PARAMS) + view)
        status = self.text.set(f"call i64 @{kernel}(ptr @{params}, ptr {self.slots})")
        guard = step.form.prim is BY_NAME["guard"]
        self._go_on(status, str(layout.GUARD_FAILED + (next(self.guards) << layout.ORDINAL)) if guard else "")

    def _give(self, given: Sequence[str]) -> None:
        """Pointers for a kernel, in its slots."""
        self.most = max(self.most, len(given))
        for k, pointer in enumerate(given):
            at = self.text.set(f"getelementptr ptr, ptr {self.slots}, i64 {k}")
            self.text.do(f"store ptr {pointer}, ptr {at}, align 8")

    def accumulate(self, step: Accumulate, places: dict[int, int]) -> None:
        """A product by BLAS, added to what is there."""
        made = blas.gemm(step.form, add=True)
        assert made is not None
        x, y, onto = (self.address(o, places) for o in step.operands)
        self._give([onto, x, y])
        kernel, params = self.name("kernel", made[0]), self.name("params", library.keep(made[1]))
        self.text.do(f"call i64 @{kernel}(ptr @{params}, ptr {self.slots})")

    def followed(self, step: Followed, places: dict[int, int], walk: Walk, written: list[int]) -> None:
        """A product in blocks, with what follows each."""
        made = blas.gemm(step.product.form, followed=True)
        assert made is not None
        text, context = self.text, self.context()
        blocks = Blocks(step, walk, lambda text, v: _pointer(text, places[v]), written, self.columns)
        task = blocks.task(text)
        self.tasks.append(task.function("internal"))
        if step.sums:
            text.do(f"store ptr null, ptr {text.set(f'getelementptr ptr, ptr {context}, i64 2')}, align 8")
        operands = [self.address(o, places) for o in step.product.operands]
        self._give([self.pointer(places[step.product.outs[0]]), *operands, f"@{task.name}", context])
        kernel, params = self.name("kernel", made[0]), self.name("params", library.keep(made[1]))
        text.do(f"call i64 @{kernel}(ptr @{params}, ptr {self.slots})")
        if step.sums:
            blocks.rest(text, context)

    def product(self, step: Call, places: dict[int, int]) -> None:
        """A small matrix product, by one function for all of its shapes."""
        (v,), spec = step.outs, products.spec_of(step.form)
        name = "_".join(["product", *map(str, spec)])
        if name not in self.products:
            self.products[name] = products.function(name, spec)
        given = [self.pointer(places[v]), *(self.address(o, places) for o in step.operands)]
        self.text.do(f"call void @{name}({', '.join(f'ptr {pointer}' for pointer in given)})")

    def part(self, program: Program, first_result: int, first_const: int) -> Part:
        """What a choice or loop runs, as machine code of its own; why its guards fail, nobody asks."""
        guards = [0] * int((program.op == BY_NAME["guard"].code).sum())
        made = machine_code(program, first_result, first_const, guards)
        self.held += made.held
        constants = [*program.constants.values()]
        KEPT.append(constants)
        return Part(made.address, -1, made.arena, [t._data for t in constants])

    def name(self, stem: str, address: int) -> str:
        """A symbol for an address, numbered as met, so that the text is the same in every process."""
        if address not in self.names:
            self.names[address] = f"{stem}{len(self.names)}"
            self.imports[self.names[address]] = address
        return self.names[address]

    def finish(self) -> str:
        if self.parts:
            self.cut()
            self._begin(self.text.aside(SYMBOL, ARGUMENTS))
            for name in self.parts:
                self._go_on(self.text.set(f"call i64 @{name}(ptr %table, ptr %arena)"))
        self._end()
        declared = [_DECLARED[name.rstrip("0123456789")].format(name) for name in self.imports]
        texts = [self.text.finish(), *self.parts.values(), *self.tasks, *self.products.values(),
                 *self.columns.values()]
        return module(texts) + "\n".join([*declared, ""])

    def _go_on(self, status: str, failure: str = "") -> None:
        """End the run, with a status or what stands for it, unless that is 0."""
        text, after = self.text, self.text.fresh("after")
        self.failures.append((failure or status, text.block))
        text.branch(text.set(f"icmp eq i64 {status}, 0"), after, "failed")
        text.label(after)
