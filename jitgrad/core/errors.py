"""Errors as sentences for users: what was asked for, with which shapes and dtypes, on which line of theirs."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TypeVar

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

_NOT_USERS = (PACKAGE, contextlib.__file__)

E = TypeVar("E", bound=BaseException)


def in_package(filename: str) -> bool:
    """Whether a file is this package's own."""
    return filename.startswith(PACKAGE)


def user_line() -> str:
    """FILE:LINE of the innermost frame outside this package, or '' at the interactive prompt's edge.

    contextlib calls what is behind a ``with`` block, so its frames are nobody's own.
    """
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_USERS):
        frame = frame.f_back  # type: ignore[assignment]
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""


def user_call() -> str:
    """The function of this package that the user called, by name."""
    frame = sys._getframe(1)
    name = frame.f_code.co_name
    while frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        name = frame.f_code.co_name
        frame = frame.f_back  # type: ignore[assignment]
    return name


def user_error(kind: type[E], message: str) -> E:
    """An exception of ``kind`` whose message is one line, also where it shows an array, and ends with the user's."""
    message, line = " ".join(filter(None, map(str.strip, message.splitlines()))), user_line()
    return kind(f"{message} (at {line})" if line else message)
