"""Runs every benchmark of asv's files once, without asv: ``python -m benchmarks.smoke``."""

from __future__ import annotations

import importlib
import inspect
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PREFIXES = ("time_", "track_", "timeraw_", "peakmem_")


def runs() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each benchmark, for each of its parameters."""
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        module = importlib.import_module(f"benchmarks.{path.stem}")
        for name, found in vars(module).items():
            if inspect.isclass(found) and found.__module__ == module.__name__ and not name.startswith("_"):
                yield from _methods(f"{path.stem}.{name}", found)
            elif inspect.isfunction(found) and name.startswith(PREFIXES):
                yield f"{path.stem}.{name}", found


def _methods(where: str, made: type) -> Iterator[tuple[str, Callable[[], Any]]]:
    params = getattr(made, "params", None)
    axes = params if params and isinstance(params[0], list) else [params] if params else []
    for given in itertools.product(*axes):
        for name in dir(made):
            if name.startswith(PREFIXES):
                yield f"{where}.{name}{given or ''}", _call(made, name, given)


def _call(made: type, name: str, given: tuple[Any, ...]) -> Callable[[], Any]:
    def call() -> Any:
        self = made()
        self.setup(*given)
        return getattr(self, name)(*given)
    return call


def main() -> None:
    """Raise what the first failing benchmark raises, naming it."""
    count = skipped = 0
    for name, call in runs():
        try:
            found = call()
            if name.rpartition(".")[2].startswith("timeraw_"):
                subprocess.run([sys.executable, "-c", found], check=True)
        except NotImplementedError as why:   # which is how a setup tells asv to skip: there is no GPU, say
            print(f"benchmarks.smoke: {name} skipped, {why}")
            skipped += 1
        except BaseException:
            print(f"benchmarks.smoke: {name} failed", file=sys.stderr)
            raise
        else:
            count += 1
    print(f"benchmarks.smoke: {count} benchmarks ran, {skipped} were skipped")


if __name__ == "__main__":
    main()
