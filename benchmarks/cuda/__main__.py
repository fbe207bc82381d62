"""jitgrad and its peers on a GPU, side by side: ``python -m benchmarks.cuda``.

One process a library, all on one GPU; results are checked before anything is timed; rounds are interleaved. A library
that cannot be imported is printed as absent. Without a GPU it says what is missing and exits with 2, but for jitgrad's
own rows in Numba's simulator (NUMBA_ENABLE_CUDASIM=1 and --quick), and for --host, which measures the host alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys

from benchmarks import peers, side_by_side
from benchmarks.cuda import workloads
from benchmarks.cuda.ways import END
from benchmarks.cuda.workloads import TINY, Sizes
from benchmarks.engine import targets
from benchmarks.side_by_side import Worker
from jitgrad.execute.cuda import stream, toolkit

LIBRARIES = ["jitgrad", "torch", "jax"]
FULL, TF32 = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}, {
    "JITGRAD_TF32": "1", "BENCHMARKS_TF32": "1", "JAX_DEFAULT_MATMUL_PRECISION": "tensorfloat32"}
THREADS = 4                     # of every library on the CPU


def arguments(given: list[str] | None) -> argparse.Namespace:
    """The command line."""
    names = [row.name for row in workloads.rows(Sizes())]
    parser = side_by_side.options("benchmarks.cuda", __doc__, names, LIBRARIES, 0.03)
    parser.add_argument("--points", type=int, default=Sizes().points, help="of the expression (default %(default)s)")
    parser.add_argument("--side", type=int, default=Sizes().side, help="of the product (default %(default)s)")
    parser.add_argument("--sums", type=int, default=Sizes().sums, help="in a row (default %(default)s)")
    parser.add_argument("--host", action="store_true", help="time the host of replays alone; it needs no GPU")
    return side_by_side.parsed(parser, given)


def environment(sizes: Sizes) -> dict[str, str]:
    """What tells every library that it works on the GPU, and how much of its memory is not its own."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    simulator = {"CUDA_VISIBLE_DEVICES": "-1"} if toolkit.simulated() else {}
    return {"BENCHMARKS_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": visible, "JAX_PLATFORMS": "cuda",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false", **sizes.settings(), **simulator}


def measured(args: argparse.Namespace, sizes: Sizes) -> tuple[targets.Tables, dict[str, str]]:
    """Every table asked for, printed on the way; and which libraries are absent."""
    tables: targets.Tables = {}
    workers: dict[bool, list[Worker]] = {}
    absent: dict[str, str] = {}
    try:
        for row in workloads.rows(sizes):
            if row.name not in args.only:
                continue
            rounded = row.name.endswith("tf32")
            if rounded not in workers:
                started = [Worker(library, environment(sizes) | (TF32 if rounded else FULL), None, THREADS,
                                  "benchmarks.cuda") for library in args.libraries]
                workers[rounded], missing = side_by_side.ready(started)
                for library, why in missing.items():
                    print(f"{library}: absent ({why})")
                absent |= missing
            found, failed = side_by_side.compare(row, workers[rounded], args.rounds, args.seconds)
            tables[row.name] = found
            peers.show(row, found, failed, targets.best(found, "jitgrad", among=END))
    finally:
        for worker in (w for some in workers.values() for w in some):
            worker.close()
    return tables, absent


def main(given: list[str] | None = None) -> None:
    """Measure, print, write."""
    args = arguments(given)
    if args.host:
        from benchmarks.cuda import host
        return host.main(args.rounds)
    sizes = Sizes(args.points, args.side, args.sums)
    if toolkit.simulated() and args.quick:
        args.libraries, args.rounds, sizes = ["jitgrad"], 1, TINY
        workloads.shrink()
    elif toolkit.simulated() or stream.problem():
        why = stream.problem() or "Numba's simulator takes its place, which runs --quick only"
        print(f"benchmarks.cuda: there is no GPU to measure: {why}", file=sys.stderr)
        sys.exit(2)
    print(f"Python {platform.python_version()}, {platform.machine()}, {stream.driver().facts().name}, {args.rounds} "
          f"interleaved rounds of {1000 * args.seconds:g} ms, results checked first; products of float32 in float32 "
          "but where a row says so")
    tables, absent = measured(args, sizes)
    lines = [] if toolkit.simulated() else _lines(tables, sizes)
    print("\n### targets\n\n| target | measured | holds |\n|---|---|---|")
    for text, got, holds in lines:
        print(f"| {text} | {got} | {'' if holds is None else 'yes' if holds else 'NO'} |")
    if args.json:
        args.json.write_text(json.dumps({
            "tables": {name: [r.as_data() for r in rows] for name, rows in tables.items()}, "absent": absent,
            "targets": [{"target": t, "measured": m, "holds": h} for t, m, h in lines]}, indent=1))


def _lines(tables: targets.Tables, sizes: Sizes) -> list[targets.Line]:
    from benchmarks.cuda import arithmetic
    from benchmarks.cuda.targets import found
    known = arithmetic.counted(sizes.points) if tables.get("expression") else None
    return found(tables, sizes.points, known)


if __name__ == "__main__":
    main()
