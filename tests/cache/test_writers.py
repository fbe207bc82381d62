"""The object cache with several writers at once, and with writers that are killed."""

import os
import signal
import threading
import time

import pytest

from cache_faults import Build, calls_of_second_fetch, child, posix_only, strays
from jitgrad.execute.cpu import cache


def test_processes_filling_one_folder(place, tmp_path):
    code = """
import time
while not os.path.exists(os.environ["GO"]):
    time.sleep(0.001)
wrong = 0
for round in range(5):
    for n in range(20):
        wrong += cache.fetch("f", str(n), lambda: b"%d" % n * 5000) != b"%d" % n * 5000
    cache.clear() if round == 2 else None
print(wrong, cache._private)
"""
    processes = [child(code, GO=str(tmp_path / "go")) for _ in range(4)]
    time.sleep(0.2)
    (tmp_path / "go").touch()
    outputs = [process.communicate()[0].split()[0] for process in processes]
    assert outputs == ["0"] * 4
    assert [process.returncode for process in processes] == [0] * 4
    assert len(cache.entries()) == 20
    assert strays(place) == []


def test_threads_filling_one_folder(place):
    wrong = []

    def work():
        for n in range(30):
            payload = b"%d" % n * 1000
            if cache.fetch("f", str(n), lambda p=payload: p) != payload:
                wrong.append(n)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(cache.entries()) == 30
    assert strays(place) == []


HALF_WRITTEN = """
import signal
real = os.write
def write(fd, data):
    real(fd, data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
os.write = write
"""
BEFORE_RENAME = "import signal; os.replace = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"


@posix_only
@pytest.mark.parametrize("where", [HALF_WRITTEN, BEFORE_RENAME], ids=["half written", "before the rename"])
def test_killed_while_writing(place, where):
    process = child(where + "cache.fetch('f', 'k', lambda: b'x' * 10_000)")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    (stray,) = strays(place)
    assert cache.entries() == []
    assert calls_of_second_fetch() == 1
    assert strays(place) == [stray]  # it may be a living writer's
    old = time.time() - cache.STRAY_AGE - 10
    os.utime(place / stray, (old, old))
    cache._room.clear()  # as in a new process
    cache.fetch("g", "k", Build())
    assert strays(place) == []
    assert len(cache.entries()) == 2


FILL = """
import time
open(os.environ["STARTED"], "x").close()
for round in range(1000):
    for n in range(50):
        cache.fetch("f", f"{round % 3} {n}", lambda: b"%d" % n * 20_000)
    if round % 3 == 2:
        cache.clear()
"""


@posix_only
def test_killed_at_any_moment(place, tmp_path):
    """Whatever a writer was doing, the next process finds whole objects or none."""
    for turn, delay in enumerate((0.0, 0.003, 0.011, 0.02, 0.037, 0.05, 0.08, 0.13)):
        started = tmp_path / f"started{turn}"
        writer = child(FILL, STARTED=str(started))
        while not started.exists():
            time.sleep(0.001)
        time.sleep(delay)
        writer.kill()
        writer.communicate()
        assert writer.returncode == -signal.SIGKILL
        for name in os.listdir(place) if place.exists() else []:
            assert name.endswith(".obj") or name.startswith(".tmp-")
        for n in range(50):
            for r in range(3):
                right = b"%d" % n * 20_000
                found = cache._load(str(place), f"f-{r} {n}")
                assert found is None or found == right
        cache.fetch("f", "after", Build(b"all is well"))
        assert cache.fetch("f", "after", Build(b"wrong")) == b"all is well"


@posix_only
def test_the_folder_is_swapped_during_a_store(place, monkeypatch, tmp_path):
    """What was checked is what is written to, even if the path leads elsewhere by then."""
    place.mkdir(parents=True, mode=0o700)
    (tmp_path / "trap").mkdir()
    real = os.write

    def write(fd, data):
        if place.exists() and not place.is_symlink():
            place.rename(tmp_path / "moved")
            place.symlink_to(tmp_path / "trap")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    cache.fetch("f", "k", Build())
    assert os.listdir(tmp_path / "trap") == []
    assert len(os.listdir(tmp_path / "moved")) == 1
