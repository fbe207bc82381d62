"""What is aimed at, what was measured, whether it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.engine.workloads import GEMMS, REVERSE, SIZES, UNROLLED
from benchmarks.side_by_side import Row

HUGE = ", huge pages"
CALL = 0.050                    # microseconds that a call from somebody's compiled code may take beyond its work
Tables = dict[str, list[Row]]
Line = tuple[str, str, bool | None]     # None: reported, with nothing to hold


@dataclass(frozen=True)
class Target:
    """jitgrad is so many times as fast as the fastest of some libraries' modes."""

    row: str
    factor: float | None        # None: to be reported
    libraries: tuple[str, ...]
    among: str = ""             # in the labels of their modes
    ours: str = ""              # in the labels of jitgrad's

    def sentence(self, theirs: Row) -> str:
        """In words."""
        whom = f"{theirs.library} ({theirs.label})"
        if self.factor is None:
            return f"{self.row}: against {whom}"
        if self.factor < 1:
            return f"{self.row}: at most {1 / self.factor:.3g}x the time of {whom}"
        return f"{self.row}: at least {self.factor:g}x faster than {whom}"


JAX, PEERS = ("jax", f"jax{HUGE}", "jax, 64 bits"), ("jax", "torch")
ASKED = [
    Target("mlp", 3, JAX), Target("mlp", 1.5, ("numba",)), Target("mlp", None, ("torch",)),
    Target("mlp-epoch", 2, JAX), Target("mlp-epoch", None, ("numba",)),
    Target("adam", 1, PEERS), Target("adam", 1 / 1.2, ("jitgrad",), GEMMS),
    Target("adam", None, ("numpy",), GEMMS), Target("adam", None, ("numba",)),
    *(target for size, factor in zip(SIZES, (6.0, 2.0, 2.5), strict=True) for target in (
        Target(f"expression-{size}", factor, (f"jax{HUGE}",)), Target(f"expression-{size}", None, ("jax",)),
        Target(f"expression-{size}", None, ("numba",)))),
    Target("lstm", 1.2, PEERS), Target("lstm", None, ("numba",)),
    Target("third-derivative", 4, JAX), Target("hessian", 2, JAX), Target("hvp", 2, JAX),
    Target("rk4", 20, JAX, REVERSE), Target("rk4", 0.5, ("numba",)),
    Target("chain", 10, JAX),
]


def best(rows: list[Row], *libraries: str, among: str = "", besides: str = "") -> Row | None:
    """The fastest of some libraries' modes; what is only a part of the work is asked for by its label."""
    fit = [r for r in rows if r.library in libraries and among in r.label and (GEMMS in r.label) == (among == GEMMS)
           and not (besides and besides in r.label)]
    return min(fit, key=lambda r: r.median, default=None)


def compared(tables: Tables, target: Target) -> Line | None:
    """One target's line."""
    rows = tables.get(target.row, [])
    ours, theirs = best(rows, "jitgrad", among=target.ours), best(rows, *target.libraries, among=target.among)
    if not ours or not theirs:
        return None
    times, least = theirs.median / ours.median, theirs.minimum / ours.minimum
    return (target.sentence(theirs), f"{times:.2f}x by medians, {least:.2f}x by minima ({ours.median:.3g} us against "
            f"{theirs.median:.3g})", None if target.factor is None else times >= target.factor)


def _others(tables: Tables) -> Iterator[Line]:
    """Targets that are no ratio."""
    if python := best(tables.get("rk4", []), "jitgrad", among=UNROLLED):
        yield f"rk4: {UNROLLED} under `function`", f"right; {python.median:,.0f} us", None
    calls = tables.get("njit-call", [])
    ours, own = best(calls, "jitgrad"), best(calls, "numba")
    if ours and own:
        above = ours.median - own.median
        yield (f"njit-call: at most {1000 * CALL:.0f} ns above the work, as written by hand",
               f"{1000 * above:.0f} ns by medians, {1000 * (ours.minimum - own.minimum):.0f} by minima "
               f"({1000 * ours.median:.0f} ns against {1000 * own.median:.0f})", above <= CALL)


def found(tables: Tables) -> list[Line]:
    """All lines that were measured."""
    return [line for target in ASKED if (line := compared(tables, target))] + list(_others(tables))
