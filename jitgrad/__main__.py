"""The command line: ``jitgrad demo``, or ``python -m jitgrad demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jitgrad._version import __version__

COMMANDS = {"demo": "train a classifier of handwritten digits, beside the same one in NumPy, and draw the result"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    listed = "\n".join(f"  {name:<8} {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="jitgrad", description="Automatic differentiation for fast CPU training loops.",
        epilog=f"commands:\n{listed}\n\n'jitgrad COMMAND --help' tells the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"jitgrad {__version__}")
    parser.add_argument("command", nargs="?", help="what to do; see below")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of the command")
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    if args.command not in COMMANDS:
        parser.exit(2, f"jitgrad: there is no command {args.command!r}; the commands are {', '.join(COMMANDS)}\n")
    from jitgrad import demo  # a command imports what it needs, and no more

    return demo.main(args.options)


if __name__ == "__main__":
    sys.exit(main())
