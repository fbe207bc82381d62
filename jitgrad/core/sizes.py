"""Sizes in words."""

from __future__ import annotations


def bytes_in_words(n: int) -> str:
    """A size as people say it, in decimal units."""
    size, unit = float(n), "bytes"
    for larger in ("kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{n} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
