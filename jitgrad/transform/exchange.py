"""Products whose transpose is wanted, as the product of the transposed operands in the other order."""

from __future__ import annotations

from collections import Counter

from jitgrad.core.exact import swaps
from jitgrad.core.form import Form, form
from jitgrad.core.primitive import BY_NAME
from jitgrad.core.program import Program
from jitgrad.transform.rows import Rows


def exchanged(program: Program) -> Program:
    """The Program with ``transpose(x @ y)`` as ``y' @ x'``, which reads both as they lie, wherever nobody else reads
    the product. It is the same Program where there is no such row.

    Calls are gone, and dead rows too, which would count as readers.
    """
    if not (program.op == BY_NAME["permute_dims"].code).any():
        return program
    found = _products(program)
    if not found:
        return program
    rows = Rows()
    known = [-1] * len(program.avals)
    for v in program.inputs.tolist():
        known[v] = rows.value(int(program.avals[v]))
    for v, t in program.constants.items():
        known[v] = rows.constant(t)
    lines = program.lines or ("",) * len(program)
    gone = {r for r, _, _ in found.values()}
    for r, ((made, operands, outs), line) in enumerate(zip(program.rows(), lines, strict=True)):
        if r in gone:
            continue
        if r in found:
            _, made, operands = found[r]
        first = rows.row(made.id, [known[v] for v in operands], line)
        for k, v in enumerate(outs):
            known[v] = first + k
    return rows.program(range(len(program.inputs)), [known[v] if v >= 0 else -1 for v in program.results.tolist()])


def _products(program: Program) -> dict[int, tuple[int, Form, tuple[int, ...]]]:
    """For the row of each such transpose: the product's row, and the form and operands of what stands for both."""
    matmul = BY_NAME["matmul"]
    reads = Counter([*program.operands.tolist(), *program.results.tolist()])
    products: dict[int, int] = {}
    found: dict[int, tuple[int, Form, tuple[int, ...]]] = {}
    for r, (made, operands, outs) in enumerate(program.rows()):
        if made.prim is matmul and made.outs[0].dtype.kind == "f" and reads[outs[0]] == 1:
            products[outs[0]] = r
        elif swaps(made) and operands[0] in products:
            at = products[operands[0]]
            product, (x, y), _ = program.row(at)
            turned = {"ta": not product.params["tb"], "tb": not product.params["ta"]}
            found[r] = at, form(matmul, product.avals[::-1], {**product.params, **turned}), (y, x)
    return found
