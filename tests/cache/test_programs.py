"""Whole programs over a faulty object cache: the gradient is right, and what is lost is time."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

import jitgrad
from cache_faults import (
    FAULTS,
    POSIX_FAULTS,
    a_fifo,
    a_folder,
    a_link,
    belongs_to,
    flip_in_the_payload,
    nothing,
    posix_only,
    truncate,
)

pytestmark = posix_only
ROOT = os.path.dirname(os.path.dirname(jitgrad.__file__))
PROGRAM = """
import jitgrad as jg, os, sys
x = jg.Variable([[0.5, 1.0], [1.5, 2.0]])
w = jg.Variable([[1.0, -1.0], [0.5, 2.0]])
with jg.GradientTape() as tape:
    y = jg.mean(jg.tanh(x @ w) * jg.exp(-x * x) + jg.log1p(x * x))
found = tape.gradient(y, [x, w])
if os.environ.get("CHECKED"):
    jg.testing.check_grads(lambda x, w: jg.mean(jg.tanh(x @ w) * jg.exp(-x * x) + jg.log1p(x * x)), (x, w), order=1)
print([g.numpy().tobytes().hex() for g in found])
"""
ANNOUNCED = "jitgrad: compiling the machine code of Tensors and tapes, once for this machine\n"


def start(folder, tmp_path, before="", **environment):
    """The program as a process whose cache is ``folder``."""
    (tmp_path / "private").mkdir(exist_ok=True)
    given = {**os.environ, "JITGRAD_CACHE_DIR": str(folder), "TMPDIR": str(tmp_path / "private"), "PYTHONPATH": ROOT,
             **environment}
    given.pop("JITGRAD_KERNELS", None)
    return subprocess.Popen([sys.executable, "-c", before + PROGRAM], env=given, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def run(folder, tmp_path, before="", **environment):
    """What it prints, and what it says on stderr."""
    process = start(folder, tmp_path, before, **environment)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out, err


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A full cache, the right answer (checked against finite differences), and what a cold start said."""
    place = tmp_path_factory.mktemp("warm")
    out, err = run(place / "cache", place)
    shutil.copytree(place / "cache", place / "checked")
    assert run(place / "checked", place, CHECKED="1") == (out, "")
    return place / "cache", out, err


@pytest.fixture
def copy(warm, tmp_path):
    """A full cache of this test's own."""
    return shutil.copytree(warm[0], tmp_path / "cache")


def objects(folder):
    """File names with what changes when a file is written anew."""
    return {entry.name: entry.inode() for entry in os.scandir(folder) if entry.name.endswith(".obj")}


def assert_as_good_as_new(folder, warm, tmp_path):
    """The next process gets the right answer without building anything."""
    before = objects(folder)
    assert run(folder, tmp_path) == (warm[1], "")
    assert objects(folder) == before and os.listdir(tmp_path / "private") == []


# ---- one line on stderr --------------------------------------------------------------------------

def test_a_build_is_announced_in_one_line(warm):
    """However many objects it builds; a warm process says nothing."""
    assert len(objects(warm[0])) > 10 and warm[2] == ANNOUNCED


def test_a_warm_start_builds_and_says_nothing(warm, tmp_path):
    assert_as_good_as_new(warm[0], warm, tmp_path)


# ---- faulty files --------------------------------------------------------------------------------

ALL = [*FAULTS, *POSIX_FAULTS, nothing]


def put(faults, folder):
    """A fault on each object, in turn."""
    paths = sorted(folder.glob("*.obj"), key=lambda path: (not path.name.startswith("native"), path.name))
    for path, fault in zip(paths, itertools.cycle(faults), strict=False):
        fault(path)


@pytest.mark.parametrize("first", [truncate, flip_in_the_payload, a_link, a_fifo])
def test_every_file_is_bad(copy, warm, tmp_path, first):
    """All faults at once, ``first`` on the machine code of Tensors and tapes."""
    at = ALL.index(first)
    assert len(objects(copy)) >= len(ALL) - 1
    put(ALL[at:] + ALL[:at], copy)
    assert run(copy, tmp_path) == (warm[1], ANNOUNCED)
    assert_as_good_as_new(copy, warm, tmp_path)


@pytest.mark.parametrize("fault", ALL)
def test_kernels_are_bad(copy, warm, tmp_path, fault):
    """One fault on all kernels: they are built in a moment, and nothing is said."""
    for path in copy.glob("kernel_*.obj"):
        fault(path)
    assert run(copy, tmp_path) == (warm[1], "")
    assert_as_good_as_new(copy, warm, tmp_path)


def test_folders_in_the_place_of_files(copy, warm, tmp_path):
    """They are not ours to remove: each process builds anew."""
    for path in copy.glob("kernel_*.obj"):
        a_folder(path)
    for _ in range(2):
        assert run(copy, tmp_path) == (warm[1], "")
    assert os.listdir(tmp_path / "private") == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away to a process of its own; test_files has the same within one, for everyone")
def test_files_of_another_user(copy, warm, tmp_path, monkeypatch):
    for path in copy.glob("kernel_*.obj"):
        belongs_to(12345, path, monkeypatch)
    assert run(copy, tmp_path) == (warm[1], "")
    assert_as_good_as_new(copy, warm, tmp_path)


def test_objects_exchanged(copy, warm, tmp_path):
    """Sound files under one another's names: running them would be wrong, or worse."""
    paths = sorted(copy.glob("kernel_*.obj"))
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)
    assert run(copy, tmp_path) == (warm[1], "")
    assert_as_good_as_new(copy, warm, tmp_path)


# ---- faulty folders and full disks ---------------------------------------------------------------

def shared(folder):
    folder.chmod(0o777)


def linked(folder):
    real = folder.with_name("real")
    os.rename(folder, real)
    folder.symlink_to(real)


def a_file(folder):
    shutil.rmtree(folder)
    folder.write_text("mine")


@pytest.mark.parametrize("fault", [shared, linked, a_file])
def test_a_folder_that_is_not_used(copy, warm, tmp_path, fault):
    fault(copy)
    listed = None if fault is a_file else objects(copy)
    assert run(copy, tmp_path) == (warm[1], ANNOUNCED)
    assert os.listdir(tmp_path / "private") == []           # the private folder goes with the process
    assert listed == (None if fault is a_file else objects(copy))
    assert fault is not a_file or copy.read_text() == "mine"


def test_a_missing_folder(warm, tmp_path):
    assert run(tmp_path / "not" / "there", tmp_path) == (warm[1], ANNOUNCED)
    assert_as_good_as_new(tmp_path / "not" / "there", warm, tmp_path)


READ_ONLY = """
import errno, os
real = os.open
def refusing(path, flags, mode=0o777, *, dir_fd=None):     # a mode would not stop root
    if flags & os.O_CREAT and dir_fd is not None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
    return real(path, flags, mode, dir_fd=dir_fd)
os.open = refusing
"""
FULL_DISK = """
import errno, os
real, left = os.write, [5000]
def write(fd, data):
    if fd > 2:
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = data[: left[0]]
        left[0] -= len(data)
    return real(fd, data)
os.write = write
"""
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))\n"


@pytest.mark.parametrize("before", [READ_ONLY, FULL_DISK, LIMITED], ids=["read-only", "full disk", "file size limit"])
def test_nothing_can_be_written(copy, warm, tmp_path, before):
    """A good half of a cache that cannot grow is still used, and what was half written is gone."""
    for path in sorted(copy.glob("kernel_*.obj"))[::2]:
        path.unlink()
    copy.chmod(0o500 if before is READ_ONLY else 0o700)
    assert run(copy, tmp_path, before) == (warm[1], "")
    copy.chmod(0o700)
    assert not [name for name in os.listdir(copy) if name.startswith(".tmp-")]
    assert run(copy, tmp_path) == (warm[1], "")
    assert_as_good_as_new(copy, warm, tmp_path)


# ---- several at once, and killed -----------------------------------------------------------------

def test_four_processes_fill_an_empty_cache(warm, tmp_path):
    processes = [start(tmp_path / "cache", tmp_path) for _ in range(4)]
    for process in processes:
        assert process.communicate() == (warm[1], ANNOUNCED) and process.returncode == 0
    assert not [name for name in os.listdir(tmp_path / "cache") if name.startswith(".tmp-")]
    assert set(objects(tmp_path / "cache")) == set(objects(warm[0]))
    assert_as_good_as_new(tmp_path / "cache", warm, tmp_path)


def test_killed_at_any_moment_of_the_fill(warm, tmp_path):
    folder = tmp_path / "cache"
    began = time.perf_counter()
    assert run(folder, tmp_path)[0] == warm[1]
    whole = time.perf_counter() - began
    shutil.rmtree(folder)
    for share in (0.4, 0.6, 0.75, 0.9):
        process = start(folder, tmp_path)
        time.sleep(share * whole)
        process.kill()
        process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0)       # 0: it was quicker
    assert run(folder, tmp_path)[0] == warm[1]
    assert_as_good_as_new(folder, warm, tmp_path)
