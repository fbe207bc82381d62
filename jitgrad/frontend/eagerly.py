"""Functions as plain Python, for debugging: prints, breakpoints and step by step."""

from __future__ import annotations

from jitgrad.execute.cpu import layout
from jitgrad.execute.cpu import types as machine


def run_functions_eagerly(run_eagerly: bool) -> None:
    """Whether every `function` runs as plain Python from now on, in every thread; its traces stay for later.

    >>> import jitgrad as jg
    >>> from jitgrad.frontend.eagerly import run_functions_eagerly
    >>> f = jg.function(lambda x: print("called") or x)
    >>> run_functions_eagerly(True)
    >>> _ = f(1.0), f(1.0)
    called
    called
    >>> run_functions_eagerly(False)
    """
    machine.set_state(layout.S_EAGERLY, int(bool(run_eagerly)))


def functions_run_eagerly() -> bool:
    """What `run_functions_eagerly` said last."""
    return machine.get_state(layout.S_EAGERLY) != 0
