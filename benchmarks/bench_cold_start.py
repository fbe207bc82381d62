"""Fresh processes with a warm object cache."""

from __future__ import annotations

from benchmarks import own


def timeraw_import_numpy() -> str:
    return "import numpy"


def timeraw_import() -> str:
    return "import jitgrad"


def timeraw_first_gradient() -> str:
    return own.FIRST_GRADIENT


def track_import_above_numpy() -> float:
    return own.above_numpy("import jitgrad", 5)


track_import_above_numpy.unit = "s"
