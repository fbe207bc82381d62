"""Fresh processes, with a warm object cache and with none."""

from __future__ import annotations

import tempfile

from benchmarks import own


def timeraw_import_numpy() -> str:
    return "import numpy"


def timeraw_import() -> str:
    return "import jitgrad"


def timeraw_first_gradient() -> str:
    return own.FIRST_GRADIENT


def track_import_above_numpy() -> float:
    return own.above_numpy("import jitgrad", 5)


def track_first_gradient_above_numpy() -> float:
    return own.above_numpy(own.FIRST_GRADIENT, 5)


def track_cold_first_gradient() -> float:
    """With an object cache that is empty: everything that a first gradient needs is built."""
    with tempfile.TemporaryDirectory() as folder:
        return own.process_seconds(own.FIRST_GRADIENT, folder)


track_import_above_numpy.unit = track_first_gradient_above_numpy.unit = track_cold_first_gradient.unit = "s"
