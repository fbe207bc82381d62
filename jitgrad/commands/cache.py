"""``jitgrad cache``: the folder of compiled objects, what it holds, and how to empty it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from jitgrad.core.sizes import bytes_in_words
from jitgrad.execute.cpu import cache


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="jitgrad cache", description=__doc__)
    parser.add_argument("action", nargs="?", choices=["clear"], help="remove every object")
    if parser.parse_args(argv).action == "clear":
        return clear()
    for line in described():
        print(line)
    return 0


def clear() -> int:
    """Remove the objects; 1 where some stay."""
    before = cache.entries()
    removed = cache.clear()
    left = len(cache.entries())
    print(f"removed {_files(removed)} ({bytes_in_words(sum(size for _, size, _ in before))} of objects) "
          f"from {cache.folder()}")
    if left:
        print(f"{_files(left)} could not be removed")
    return 1 if left else 0


def described() -> list[str]:
    """The folder, its objects and their ages, and why it cannot be used if it cannot."""
    found, now = cache.entries(), time.time()
    lines = [f"folder    {cache.folder()}",
             f"objects   {len(found)}, {bytes_in_words(sum(size for _, size, _ in found))} "
             f"(kept below {bytes_in_words(cache.LIMIT)})"]
    if found:
        lines.append(f"used      the latest {_ago(now - found[0][2])}, the oldest {_ago(now - found[-1][2])}")
    problem = cache.problem()
    if problem:
        lines.append(f"problem   {problem}; each process builds what it needs in a temporary folder")
    return lines


def _files(n: int) -> str:
    return "1 file" if n == 1 else f"{n} files"


def _ago(seconds: float) -> str:
    """An age in the largest unit of which there is at least one."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        n = int(seconds // length)
        if n:
            return f"{n} {unit}{'s' if n > 1 else ''} ago"
    return "less than a minute ago"
