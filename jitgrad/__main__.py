"""The command line: ``jitgrad info``, or ``python -m jitgrad info``, and so on."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from jitgrad._version import __version__

COMMANDS = {                   # name: (module, what it does)
    "info": ("jitgrad.commands.info", "versions, processor, BLAS, object cache, switches, CUDA"),
    "warmup": ("jitgrad.commands.warmup", "build what programs need into the object cache, before they ask"),
    "cache": ("jitgrad.commands.cache", "what the object cache holds; 'jitgrad cache clear' empties it"),
    "ops": ("jitgrad.commands.ops", "the table of operations; 'jitgrad ops NAME' for all about one"),
    "demo": ("jitgrad.demo", "train a classifier of handwritten digits, beside the same one in NumPy, and draw it"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    listed = "\n".join(f"  {name:<8} {what}" for name, (_, what) in COMMANDS.items())
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
    command = importlib.import_module(COMMANDS[args.command][0])   # a command imports what it needs, and no more
    try:
        status: int = command.main(args.options)
        sys.stdout.flush()
    except BrokenPipeError:                     # the reader of a pipe has seen enough: `jitgrad ops | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"\njitgrad: {args.command} was interrupted", file=sys.stderr)
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
