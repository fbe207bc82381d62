"""``jitgrad ops``: the table of operations as a page; ``jitgrad ops --markdown`` is its documentation."""

from __future__ import annotations

import argparse
import difflib
import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import jitgrad as jg
from jitgrad import ops
from jitgrad.core.aval import aval
from jitgrad.core.dtypes import CODES, DTYPES
from jitgrad.core.primitive import ACCUMULATING, BY_NAME, Kind, Linear, Missing, Primitive, takes

SHAPES = {                     # shape rules in words, by kind; of the others: see `shape`
    Kind.ELEMENTWISE: "operands broadcast",
    Kind.REDUCE: "that of x, the reduced axes of length 1",
    Kind.SCAN: "that of x",
    Kind.MOVE: "follows from the shape of x and the parameters",
    Kind.PLACE: "given by the parameters",
    Kind.CONTRACT: "stacks of matrices (..., m, k) and (..., k, n) give (..., m, n)",
}
OF_THEIR_OWN = {"bool": "bool", "index": "int32 or int64"}       # dtypes of operands that do not share the others'


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="jitgrad ops", description=__doc__)
    parser.add_argument("name", nargs="?", help="one operation")
    parser.add_argument("--markdown", action="store_true", help="as a page of documentation")
    args = parser.parse_args(argv)
    if args.name is not None and args.name not in entries() and args.name not in composites():
        near = difflib.get_close_matches(args.name, [*entries(), *composites()], n=3)
        parser.error(f"there is no operation {args.name!r}" + (f"; there is {', '.join(near)}" if near else ""))
    if args.markdown:
        lines = page() if args.name is None else section(args.name)
    else:
        lines = table() if args.name is None else (line.replace("`", "").removeprefix("### ")
                                                   for line in section(args.name))
    for line in lines:
        print(line)
    return 0


# ---- what there is -------------------------------------------------------------------------------

def entries() -> dict[str, Primitive]:
    """Entries that users may call, in the order of the table."""
    return {name: BY_NAME[name] for name in ops.public()}


def composites() -> dict[str, Callable[..., Any]]:
    """Public functions made of operations, without an entry of their own (one may go by the name of an entry)."""
    return {name: f for name, f in vars(jg).items() if isinstance(f, types.FunctionType) and not name.startswith("_")
            and f.__module__.startswith(ops.__name__)}


# ---- an entry in words ---------------------------------------------------------------------------

def call(prim: Primitive) -> str:
    """How it is called."""
    defaults = prim.defaults or {}
    given = [f"{name}={defaults[name]!r}" if name in defaults else name for name in prim.params]
    return f"{prim.name}({', '.join([*prim.operands, *given])})"


def dtypes(prim: Primitive) -> str:
    """What the operands may be and what comes out."""
    data = [name for name, domain in zip(prim.operands, prim.domains, strict=True) if domain not in OF_THEIR_OWN]
    fixed = [f"{name} {OF_THEIR_OWN[domain]}" for name, domain in zip(prim.operands, prim.domains, strict=True)
             if domain in OF_THEIR_OWN]
    taken = [", ".join(d.name for d in DTYPES if takes(prim, d))] if data else []
    made = result(prim)
    return "; ".join([*taken, *fixed]) + (f" -> {made}" if made else "")


def result(prim: Primitive) -> str:
    """The dtype of the result in words, from the shape rule at the samples; '' where it is the operands' own."""
    if prim.samples is None:
        return ""
    if "dtype" in prim.params:
        return "dtype"
    arrays, params = prim.samples(np.random.default_rng(0))[0]
    given = [aval(CODES[a.dtype], a.shape) for a in map(np.asarray, arrays)]
    outs = prim.aval(*given, **params)
    made = outs if isinstance(outs, tuple) else (outs,)
    data = {a.code for a, domain in zip(given, prim.domains, strict=True) if domain not in OF_THEIR_OWN}
    return "" if all(out.code in data for out in made) else ", ".join(out.dtype.name for out in made)


def derivative(prim: Primitive) -> str:
    """Whether there is one, and what its rule may assume."""
    if isinstance(prim.vjp, Missing):
        return "missing: a gradient raises LookupError"
    if prim.vjp is None:
        return "none: the gradient is None"
    return {Linear.NO: "yes", Linear.EACH: "yes, linear", Linear.MULTI: "yes, linear in each operand"}[prim.linear]


def error(prim: Primitive) -> str:
    """The stated error of a float result."""
    made = result(prim)
    floats = "float" in made or made == "dtype" or not made and any(d.kind == "f" and takes(prim, d) for d in DTYPES)
    if prim.ulp == 0 or not floats:
        return "exact"
    return f"{prim.ulp:g} ulp" + (" of the sum of magnitudes" if prim.kind in ACCUMULATING else
                                  " of the result or the greater operand" if prim.cancels else
                                  " (correctly rounded)" if prim.ulp == 0.5 else "")


def shape(prim: Primitive) -> str:
    """The shape rule, in the rule's own words where it has some."""
    return first_line(prim.aval) or SHAPES.get(prim.kind, "follows from the operands' shapes and the parameters")


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """Without annotations, which say Any for whatever can be an operand."""
    whole = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in whole.parameters.values()]
    return whole.replace(parameters=bare, return_annotation=whole.empty)


def first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


# ---- pages ---------------------------------------------------------------------------------------

def table() -> Iterator[str]:
    """One line an entry, one line a composite."""
    rows = [(call(p), p.kind.value, derivative(p).partition(":")[0], error(p).partition(" ")[0],
             p.doc.partition("\n")[0]) for p in entries().values()]
    head = ("operation", "kind", "derivative", "ulp", "")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(4)]
    for row in (head, *rows):
        cells = [cell.rjust(w) if i == 3 else cell.ljust(w)
                 for i, (cell, w) in enumerate(zip(row[:4], widths, strict=True))]
        yield "  ".join([*cells, row[4].replace("`", "")]).rstrip()
    yield ""
    yield f"{len(rows)} entries; and functions made of them:"
    for name, f in sorted(composites().items()):
        yield f"  {name:<18}{first_line(f).replace('`', '')}".rstrip()


def page() -> Iterator[str]:
    """The documentation of all operations."""
    yield "# Operations"
    yield ""
    yield "*Written by `jitgrad ops --markdown` from the table; change the table, not this page.*"
    yield ""
    yield "| operation | kind | shape | dtypes | derivative | error |"
    yield "|---|---|---|---|---|---|"
    for prim in entries().values():
        cells = (f"[`{call(prim)}`](#{prim.name})", prim.kind.value, shape(prim), dtypes(prim), derivative(prim),
                 error(prim))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    for name in entries():
        yield ""
        yield from section(name)
    yield ""
    yield "## Functions made of operations"
    for name in sorted(composites().keys() - entries().keys()):
        yield ""
        yield from section(name)


def section(name: str) -> Iterator[str]:
    """All about one operation: the entry, the composite, or both where they share the name."""
    yield f"### {name}"
    prim, function = entries().get(name), composites().get(name)
    if function is not None:
        yield ""
        yield f"`jitgrad.{name}{_signature(function)}`"
        yield ""
        yield from (inspect.getdoc(function) or "").splitlines()
    if prim is not None:
        yield ""
        yield f"`{call(prim)}`" + (f" behind `{prim.symbol}`" if prim.symbol else "") + \
            (" (the entry of the table)" if function is not None else "")
        yield ""
        yield from prim.doc.splitlines()
        yield ""
        yield f"- kind: {prim.kind.value}"
        yield f"- shape: {shape(prim)}"
        yield f"- dtypes: {dtypes(prim)}"
        yield f"- derivative: {derivative(prim)}"
        yield f"- error: {error(prim)}"
        if prim.at:
            yield f"- tested at: {', '.join(f'{v:g}' for v in prim.at)}"
        for sentence in (prim.errors or {}).values():
            yield f"- IndexError: {sentence}"
