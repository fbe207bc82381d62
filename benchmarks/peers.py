"""jitgrad and its peers side by side: ``python -m benchmarks.peers``.

One process a library with one thread each; results are checked against NumPy before anything is timed; rounds are
interleaved. A library that cannot be imported is printed as absent.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from typing import Any

from benchmarks import kernels, own, processes, replays, side_by_side
from benchmarks.side_by_side import LIBRARIES, Row
from benchmarks.workloads import SCANNED, WORKLOADS, Workload

OWN = ("ratio", "lengths", "replay", "kernels", "processes")
ENTRY = 0.25                   # microseconds
Tables = dict[str, list[Row]]
Target = tuple[str, str, bool]


def arguments(given: list[str] | None) -> argparse.Namespace:
    """The command line."""
    names = [*(w.name for w in WORKLOADS), *OWN]
    parser = side_by_side.options("benchmarks.peers", __doc__, names, LIBRARIES, 0.02)
    return side_by_side.parsed(parser, given)


# ---- printing ------------------------------------------------------------------------------------

def reference(rows: list[Row]) -> Row | None:
    """The row that ratios are taken to: jitgrad's first."""
    return next((r for r in rows if r.library == "jitgrad"), None)


def show(workload: Workload, rows: list[Row], failed: list[str], base: Row | None = None) -> None:
    """One table, as markdown; times are taken to jitgrad's first row unless told."""
    print(f"\n### {workload.name}: {workload.title}\n\nIn: {workload.goes_in}.  \nOut: {workload.comes_out}.\n")
    print("| library | how | median us | min us | x jitgrad |\n|---|---|--:|--:|--:|")
    base = base or reference(rows)
    for r in sorted(rows, key=lambda r: r.median):
        times = f"{r.median / base.median:.2f}" if base else ""
        print(f"| {r.library} {r.version} | {r.label} | {r.median:.3f} | {r.minimum:.3f} | {times} |")
    for why in failed:
        print(f"\nNot timed: {why}")
    sys.stdout.flush()


def show_own(name: str, f: dict[str, float]) -> None:
    """One of jitgrad's own figures."""
    print(f"\n### {name}\n")
    if name == "ratio":
        print(f"The MLP loss as one plan run by the sweep: {f['primal']:.2f} us ({f['primal_rows']:.0f} rows). The "
              f"primal rows that the gradient needs and the backward rows as one plan: {f['gradient']:.2f} us "
              f"({f['gradient_rows']:.0f} rows). Gradient/primal ratio: {f['ratio']:.2f}.")
    else:
        print(f"A tape of a new length (about {own.ROWS} rows) whose pieces were seen before, us a row: first gradient "
              f"{f['first']:.2f}, second gradient of the same tape {f['again']:.2f}; making the backward program and "
              f"its plan {f['made']:.2f}.")
    sys.stdout.flush()


def show_summary(tables: Tables) -> None:
    """Every library's fastest mode, the README's table; jitgrad's replays stand beside its eager runs."""
    here = [name for name in LIBRARIES if any(r.library == name for rows in tables.values() for r in rows)]
    columns = [(name, name, False) for name in here]
    if "jitgrad" in here:
        columns.insert(here.index("jitgrad"), ("jitgrad.function", "jitgrad", True))
    print("\n### summary: median us of each library's fastest mode\n")
    print(f"| workload | {' | '.join(title for title, *_ in columns)} |\n|---|{'--:|' * len(columns)}")
    for name, rows in tables.items():
        found = [fastest(rows, library, replayed) for _, library, replayed in columns]
        print(f"| {name} | {' | '.join(_three_digits(r.median) if r else '-' for r in found)} |")


def _three_digits(figure: float) -> str:
    return f"{figure:.3g}" if figure < 100 else f"{figure:,.0f}"


# ---- targets -------------------------------------------------------------------------------------

def fastest(rows: list[Row], library: str, replayed: bool = False, scanned: bool = False) -> Row | None:
    """A library's fastest mode: recorded ones where it has them; one call a turn, or ``scanned``, one for many."""
    fit = [r for r in rows if r.library == library and r.replayed == replayed and (SCANNED in r.label) == scanned]
    return min([r for r in fit if r.recorded] or fit, key=lambda r: r.median, default=None)


def at_least(tables: Tables, workload: str, library: str, factor: float, replayed: bool = False,
             scanned: bool = False, among: str = "") -> Target | None:
    """jitgrad, eager or replayed, is so many times faster than a library's best mode, or best of those that say so."""
    rows = tables.get(workload, [])
    ours = fastest(rows, "jitgrad", replayed, scanned)
    theirs = fastest([r for r in rows if among in r.label], library, scanned=scanned)
    if not ours or not theirs:
        return None
    times, least = theirs.median / ours.median, theirs.minimum / ours.minimum
    how = f"{workload}, {ours.label}" if replayed else workload
    return (f"{how}: at least {factor:g}x faster than {library} ({theirs.label})",
            f"{times:.1f}x by medians, {least:.1f}x by minima ({ours.median:.3g} us against {theirs.median:.3g})",
            times >= factor)


def entered(tables: Tables) -> list[Target]:
    """A replay is entered and left in so many microseconds."""
    rows = [r for r in tables.get("entry", []) if r.replayed]
    return [(f"entry, {r.label}: at most {ENTRY} us in all", f"{r.median:.3f} us, the loop included",
             r.median <= ENTRY) for r in rows]


def targets(tables: Tables, figures: dict[str, dict[str, float]]) -> list[Target]:
    """What is aimed at, what was measured, whether it holds."""
    found: list[Target] = []
    ours, theirs = (fastest(tables.get("op", []), library) for library in ("jitgrad", "numpy"))
    if ours and theirs:
        part = ours.median / theirs.median
        found.append((f"op: recorded, at most 1/4 of NumPy's own call ({theirs.label})",
                      f"{ours.median:.3f} us against {theirs.median:.3f}: {part:.2f}", part <= 0.25))
    asked = [("chain", "torch", 20), ("chain", "tensorflow", 200), ("mlp", "torch", 6), ("mlp-layers", "torch", 6),
             ("mlp", "jax", 1), ("tutorial", "torch", 30), ("tutorial", "tensorflow", 200)]
    found += [line for a in asked if (line := at_least(tables, *a))]
    replayed: list[tuple[str, str, float, dict[str, Any]]] = [
        ("partials", "jax", 50, {"among": "each call"}), ("partials", "jax", 50, {}), ("partials", "numba", 1, {}),
        ("chain-value", "jax", 5, {}), ("mlp", "jax", 1, {}), ("mlp", "jax", 1, {"scanned": True}),
        ("mlp-layers", "torch", 6, {})]
    found += [line for *a, how in replayed if (line := at_least(tables, *a, replayed=True, **how))]
    found += entered(tables)
    limits = [("ratio", "ratio", 3.0, "gradient/primal ratio of the MLP loss at most 3", "{:.2f}"),
              ("lengths", "first", 3.0, "new tape of 1,000 rows: first gradient at most 3 us a row", "{:.2f} us")]
    found += [(f"{name}: {text}", form.format(figures[name][key]), figures[name][key] <= limit)
              for name, key, limit, text, form in limits if name in figures]
    return found


# ---- the run -------------------------------------------------------------------------------------

def measured(args: argparse.Namespace) -> tuple[Tables, dict[str, dict[str, float]], dict[str, str]]:
    """Every table and figure asked for, printed on the way; and which libraries are absent."""
    tables: Tables = {}
    wanted = [w for w in WORKLOADS if w.name in args.only]
    workers, absent = side_by_side.start(args.libraries) if wanted else ([], {})
    for library, why in absent.items():
        print(f"{library}: absent ({why})")
    try:
        for workload in wanted:
            tables[workload.name], failed = side_by_side.compare(workload, workers, args.rounds, args.seconds)
            show(workload, tables[workload.name], failed)
    finally:
        for worker in workers:
            worker.close()
    runs = {"ratio": lambda: own.gradient_ratio(args.rounds, args.seconds),
            "lengths": lambda: own.new_lengths(args.rounds)}
    figures = {}
    for name, run in runs.items():
        if name in args.only:
            figures[name] = run()
            show_own(name, figures[name])
    return tables, figures, absent


def ran(args: argparse.Namespace) -> Tables:
    """Kernels on large arrays, if they are asked for."""
    if "kernels" not in args.only:
        return {}
    workers, _ = side_by_side.start(args.libraries)
    try:
        tables, failed = kernels.measure(kernels.NAMES, workers, min(args.rounds, 15), args.seconds)
    finally:
        for worker in workers:
            worker.close()
    kernels.show(tables, failed)
    return tables


def replayed(args: argparse.Namespace) -> list[replays.Replays]:
    """jitgrad's functions against eager runs, if they are asked for."""
    if "replay" not in args.only:
        return []
    found = replays.measure(min(args.rounds, 15), args.seconds, args.quick)
    replays.show(found)
    return [found]


def started(args: argparse.Namespace) -> list[processes.Start]:
    """Fresh processes, if they are asked for."""
    if "processes" not in args.only:
        return []
    starts = processes.measure(min(args.rounds, 9), args.libraries)
    processes.show(starts)
    return starts


def main(given: list[str] | None = None) -> None:
    """Measure, print, write."""
    args = arguments(given)
    print(f"Python {platform.python_version()}, {platform.machine()}, one thread a library, {args.rounds} "
          f"interleaved rounds of {1000 * args.seconds:g} ms; results checked against NumPy first")
    tables, figures, absent = measured(args)
    if tables:
        show_summary(tables)
    found = replayed(args)
    large = ran(args)
    starts = started(args)
    lines = [*targets(tables, figures), *(line for r in found for line in replays.targets(r)), *kernels.targets(large),
             *(processes.targets(starts) if starts else [])]
    print("\n### targets\n\n| target | measured | holds |\n|---|---|---|")
    for text, got, holds in lines:
        print(f"| {text} | {got} | {'yes' if holds else 'NO'} |")
    if args.json:
        data: dict[str, Any] = {
            "tables": {name: [r.as_data() for r in rows] for name, rows in tables.items()}, "figures": figures,
            "kernels": {name: [r.as_data() for r in rows] for name, rows in large.items()},
            "replay": [asdict(r) for r in found], "processes": [asdict(s) for s in starts], "absent": absent,
            "targets": [{"target": t, "measured": m, "holds": h} for t, m, h in lines]}
        args.json.write_text(json.dumps(data, indent=1))


if __name__ == "__main__":
    main()
