"""Where in the user's code a row was made, noted as the row is appended."""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import (
    attribute,
    current_frame,
    decref,
    error_clear,
    frame_back,
    frame_code,
    frame_position,
    incref,
    list_append,
    load,
    long_new,
    starts_with,
    state,
)

FAR = 1 << 40                  # longer than any file name
FROM_START = -1


def in_package(code):
    """A code object is this package's own."""
    st = state()
    name = attribute(code, load(st + lay.S_FILENAME))
    inside = name != 0 and starts_with(name, load(st + lay.S_PACKAGE), 0, FAR, FROM_START) == 1
    decref(name)
    return inside


def note_frame(frames):
    """Append code and position of the innermost frame outside this package to a list."""
    frame = current_frame()
    if frame == 0:
        return
    incref(frame)
    code = frame_code(frame)
    while in_package(code):
        outer = frame_back(frame)
        if outer == 0:
            break
        decref(frame)
        decref(code)
        frame = outer
        code = frame_code(frame)
    position = long_new(frame_position(frame))
    if position != 0:
        list_append(frames, code)
        list_append(frames, position)
    else:
        error_clear()
    decref(position)
    decref(code)
    decref(frame)
