"""What a form does on a GPU: its launches, by the kind of its entry, or by the module that the entry names."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from jitgrad.core.form import Form
from jitgrad.core.primitive import Kind, Primitive
from jitgrad.execute.cuda.kernel import Work

_MODULES = {Kind.ELEMENTWISE: "elementwise", Kind.REDUCE: "reductions", Kind.SCAN: "scans", Kind.MOVE: "movement",
            Kind.PLACE: "movement"}


def has_kernel(prim: Primitive) -> bool:
    """Whether rows of the entry run on the GPU, by kernels of their own or of its kind."""
    return bool(prim.cuda) or prim.kind in _MODULES


@functools.lru_cache(maxsize=4096)
def work_of(f: Form) -> Work:
    """The launches of a form."""
    made: Work = _module(f.prim.cuda or _MODULES[f.prim.kind]).work(f)
    return made


def _module(name: str) -> Any:
    return importlib.import_module(f"jitgrad.execute.cuda.{name}")
