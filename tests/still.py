"""Nothing goes on beside a test that counts references or objects."""

from __future__ import annotations

import contextlib

import pytest

from jitgrad.execute.cpu import compiling


@contextlib.contextmanager
def still():
    """No plan becomes machine code inside: a thread at work moves counts, and linking leaves cycles of ctypes types."""
    compiling.wait()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JITGRAD_MACHINE_CODE", "0")
        patch.setattr(compiling, "request", lambda address: None)        # of older plans, which become hot inside
        yield
