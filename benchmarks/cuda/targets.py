"""What is aimed at on a GPU, what was measured, whether it holds."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.cuda.arithmetic import Arithmetic
from benchmarks.cuda.ways import END, ISSUED
from benchmarks.cuda.workloads import COPY
from benchmarks.engine.targets import Line, Tables, Target, best, compared

EAGER, COMPILED = f"{END}: eager", f"{END}: torch.compile"
HOST, NODE = 15.0, 2.0          # microseconds of a replayed graph on the host, and of one of its nodes on the GPU
BANDWIDTH, PRODUCT = 0.6, 1.05
ASKED = [
    *(Target(row, factor, libraries, among, END) for row in ("mlp", "adam") for factor, libraries, among in (
        (2.0, ("torch",), EAGER), (1.0, ("jax",), END), (None, ("torch",), COMPILED))),
    *(Target(row, None, (library,), END, END) for row in ("chain", "sums", "expression")
      for library in ("torch", "jax")),
    *(Target(row, 1 / PRODUCT, ("torch",), END, END) for row in ("matmul", "matmul-tf32")),
]


def _graphs(tables: Tables) -> Iterator[Line]:
    for name in ("chain", "sums"):
        rows = tables.get(name, [])
        host, whole = best(rows, "jitgrad", among=ISSUED), best(rows, "jitgrad", among=END)
        if host and whole:
            each = whole.median / host.nodes
            yield (f"{name}: at most {HOST:g} us of host time for a replay of {host.nodes} nodes",
                   f"{host.median:.2f} us", host.median <= HOST)
            yield (f"{name}: at most {NODE:g} us for a node, by the time of many replays",
                   f"{each:.2f} us ({whole.median:.1f} us for all)", each <= NODE)
    for name in ("mlp", "adam"):
        if host := best(tables.get(name, []), "jitgrad", among=ISSUED):
            yield f"{name}: host time of a step", f"{host.median:.2f} us", None


def _bandwidth(tables: Tables, points: int, counted: Arithmetic | None) -> Iterator[Line]:
    rows = tables.get("expression", [])
    copy, ours = best(rows, "jitgrad", among=COPY), best(rows, "jitgrad", among=END, besides=COPY)
    if not copy or not ours:
        return
    part = copy.median / ours.median
    yield (f"expression: at least {100 * BANDWIDTH:g} % of the bandwidth of {COPY}",
           f"{100 * part:.0f} % ({8e-3 * points / ours.median:,.0f} GB/s of x and gradient against "
           f"{8e-3 * points / copy.median:,.0f})", part >= BANDWIDTH)
    if counted is not None:
        limit = counted.limit(points)
        yield ("expression: its arithmetic limit, an estimate from PTX", f"{counted.sentence()}: {limit:,.0f} us, "
               f"{100 * limit / ours.median:.0f} % of what it takes", None)


def found(tables: Tables, points: int, counted: Arithmetic | None) -> list[Line]:
    """All lines that were measured."""
    return [*(line for target in ASKED if (line := compared(tables, target))), *_graphs(tables),
            *_bandwidth(tables, points, counted)]
