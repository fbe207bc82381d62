"""jitgrad's engine and its peers side by side: ``python -m benchmarks.engine``.

One process a library, equal threads; results are checked before anything is timed; rounds are interleaved. A library
that cannot be imported is printed as absent.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict
from typing import Any

from benchmarks import peers, side_by_side
from benchmarks.engine import fresh, targets
from benchmarks.engine.workloads import ROWS, Row
from benchmarks.side_by_side import Worker

LIBRARIES = ["jitgrad", "jax", "torch", "numba", "numpy"]
HUGE = {"jax": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, "torch": {"THP_MEM_ALLOC_ENABLE": "1"}}
PAUSE = 0.05                    # seconds before each round: threads of the round before spin for a while
DOUBLE = {"jax": {"JAX_ENABLE_X64": "1"}}


def arguments(given: list[str] | None) -> argparse.Namespace:
    """The command line."""
    names = [*(row.name for row in ROWS), *fresh.NAMES]
    parser = side_by_side.options("benchmarks.engine", __doc__, names, LIBRARIES, 0.03)
    parser.add_argument("--threads", type=int, default=2, help="of every library (default %(default)s)")
    return side_by_side.parsed(parser, given)


class Workers:
    """Processes, started when a row first needs them."""

    def __init__(self, libraries: list[str], threads: int) -> None:
        self.libraries, self.threads = libraries, threads
        self.absent: dict[str, str] = {}
        self._kept: dict[str, Worker | None] = {}

    def of(self, row: Row) -> list[Worker]:
        """Those that run a row, where it asks for that with other settings too."""
        wanted: dict[str, tuple[str, dict[str, str]]] = {}
        for library in self.libraries:
            double = row.double and library in DOUBLE
            wanted[f"{library}, 64 bits" if double else library] = library, DOUBLE[library] if double else {}
            if row.large and library in HUGE:
                wanted[f"{library}{targets.HUGE}"] = library, HUGE[library]
        missing = [Worker(module, settings, name, self.threads, "benchmarks.engine")
                   for name, (module, settings) in wanted.items() if name not in self._kept]
        here, absent = side_by_side.ready(missing)
        self._kept |= {worker.library: worker for worker in here} | dict.fromkeys(absent)
        for library, why in absent.items():
            print(f"{library}: absent ({why})")
        self.absent |= absent
        return [worker for name in wanted if (worker := self._kept[name])]

    def close(self) -> None:
        """End them all."""
        for worker in self._kept.values():
            if worker:
                worker.close()


def measured(args: argparse.Namespace) -> tuple[targets.Tables, dict[str, str]]:
    """Every table asked for, printed on the way; and which libraries are absent."""
    tables: targets.Tables = {}
    workers = Workers(args.libraries, args.threads)
    try:
        for row in ROWS:
            if row.name in args.only:
                found, failed = side_by_side.compare(row, workers.of(row), args.rounds, args.seconds, PAUSE)
                tables[row.name] = found
                peers.show(row, found, failed, targets.best(found, "jitgrad"))
    finally:
        workers.close()
    return tables, workers.absent


def main(given: list[str] | None = None) -> None:
    """Measure, print, write."""
    args = arguments(given)
    print(f"Python {platform.python_version()}, {platform.machine()}, {args.threads} threads a library, {args.rounds} "
          f"interleaved rounds of {1000 * args.seconds:g} ms, results checked first; the machine's load before: "
          f"{os.getloadavg()[0]:.1f}")
    tables, absent = measured(args)
    processes = fresh.measure([n for n in fresh.NAMES if n in args.only], args.libraries, args.threads,
                              min(args.rounds, 5))
    if processes:
        fresh.show(processes)
    lines = [*targets.found(tables), *fresh.targets(processes)]
    print("\n### targets\n\n| target | measured | holds |\n|---|---|---|")
    for text, got, holds in lines:
        print(f"| {text} | {got} | {'' if holds is None else 'yes' if holds else 'NO'} |")
    if args.json:
        data: dict[str, Any] = {
            "tables": {name: [r.as_data() for r in rows] for name, rows in tables.items()},
            "processes": [asdict(p) for p in processes], "absent": absent,
            "targets": [{"target": t, "measured": m, "holds": h} for t, m, h in lines]}
        args.json.write_text(json.dumps(data, indent=1))


if __name__ == "__main__":
    main()
