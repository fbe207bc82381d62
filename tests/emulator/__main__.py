"""``python tests/emulator ...`` is ``pytest ...`` with the emulator in the place of a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent


def settings() -> tuple[list[str], dict[str, str]]:
    """A command to which pytest's arguments are added, and the environment for it."""
    from emulator import build
    paths = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "JITGRAD_EMULATOR": str(build.library())}
    return [sys.executable, "-m", "pytest", "-p", "emulator.plugin"], environment


def main(given: Sequence[str]) -> int:
    """The exit code of the tests."""
    command, environment = settings()
    return subprocess.run([*command, *given], env=environment).returncode


if __name__ == "__main__":
    sys.path[:0] = [str(TESTS), str(TESTS.parent)]
    sys.exit(main(sys.argv[1:]))
