"""What the tests of the object cache share: a builder that counts, child processes, and faults to put on files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from jitgrad.execute.cpu import cache

OBJECT = bytes(range(256)) * 40
POSIX = hasattr(os, "geteuid")
posix_only = pytest.mark.skipif(not POSIX, reason="modes, owners and signals are POSIX's")

# A child loads the file alone: importing jitgrad would fill the folder under test with the op library.
LOAD = f"""
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("cache", {cache.__file__!r})
cache = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cache)
"""


class Build:
    """Counts its calls."""

    def __init__(self, payload=OBJECT):
        self.payload, self.calls = payload, 0

    def __call__(self):
        self.calls += 1
        return self.payload


def stored(place):
    """The one object file."""
    (path,) = place.glob("*.obj")
    return path


def strays(folder):
    return [name for name in os.listdir(folder) if name.startswith(".tmp-")]


def calls_of_second_fetch(payload=OBJECT):
    again = Build(payload)
    assert cache.fetch("f", "k", again) == payload
    return again.calls


def child(code, **environment):
    command = [sys.executable, "-c", LOAD + code]
    return subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)


# ---- faults ----


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def cut_in_the_head(path):
    path.write_bytes(path.read_bytes()[:20])


def empty(path):
    path.write_bytes(b"")


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def flip_in_the_payload(path):
    flip(path, 48 + 1000)


def flip_in_the_digest(path):
    flip(path, 20)


def flip_in_the_length(path):
    flip(path, 42)


def another_format(path):
    path.write_bytes(b"jitgrad0" + path.read_bytes()[8:])


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def writable_by_group(path):
    path.chmod(0o620)


def writable_by_all(path):
    path.chmod(0o602)


def a_link(path):
    target = path.parent.parent / f"target-{path.name}"
    os.rename(path, target)
    path.symlink_to(target)


def a_dangling_link(path):
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def a_fifo(path):
    path.unlink()
    os.mkfifo(path, 0o600)


def a_folder(path):
    path.unlink()
    path.mkdir()


def nothing(path):
    path.unlink()


def flip_in_the_magic(path):
    flip(path, 3)


FAULTS = [truncate, cut_in_the_head, empty, lengthen, another_format]
FAULTS += [flip_in_the_magic, flip_in_the_digest, flip_in_the_length, flip_in_the_payload]
POSIX_FAULTS = [writable_by_group, writable_by_all, a_link, a_dangling_link, a_fifo]


def belongs_to(number, path, monkeypatch):
    """In truth where this runs as root, else as `fstat` tells it."""
    if os.geteuid() == 0:
        os.chown(path, number, number)
        return
    real, wanted = os.fstat, os.stat(path)

    def fstat(fd):
        info = real(fd)
        fields = list(info)
        fields[stat.ST_UID] = number
        return os.stat_result(fields) if os.path.samestat(info, wanted) else info

    monkeypatch.setattr(os, "fstat", fstat)
