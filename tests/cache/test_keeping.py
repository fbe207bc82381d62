"""The object cache when all is well: what it keeps, under which names, where, and how much of it."""

import os
import stat
import subprocess
import sys
import time

import pytest

from cache_faults import LOAD, OBJECT, Build, calls_of_second_fetch, posix_only, stored, strays
from jitgrad.execute.cpu import cache


@pytest.mark.parametrize("payload", [OBJECT, b"", b"\0"])
def test_builds_once_and_keeps(place, payload):
    build = Build(payload)
    assert cache.fetch("f", "k", build) == payload
    assert cache.fetch("f", "k", build) == payload
    assert build.calls == 1
    assert strays(place) == []
    assert cache._private is None


@posix_only
def test_made_for_the_user_alone(place):
    old = os.umask(0)
    try:
        cache.fetch("f", "k", Build())
    finally:
        os.umask(old)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(stored(place).stat().st_mode) == 0o600


def test_names_and_keys_are_told_apart(place):
    titles = [("f", "k"), ("f", "l"), ("F", "k"), ("a/b", "k"), ("a_b", "k"), ("../f", "k"), ("f", "")]
    titles += [("é" * 300, "k"), (".tmp-", "k"), ("f" * 300, "k")]
    for n, (name, key) in enumerate(titles):
        cache.fetch(name, key, Build(b"%d" % n))
    for n, (name, key) in enumerate(titles):
        build = Build(b"wrong")
        assert cache.fetch(name, key, build) == b"%d" % n
        assert build.calls == 0
    assert len(list(place.iterdir())) == len(titles)
    assert sorted(p.name for p in place.parent.iterdir()) == ["cache"]


def test_digest_tells_parts_apart():
    parts = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        (b"abc",),
        ("abc", ""),
        (),
        ("",),
        ("\udcff",),
        ("asb",),
        ("a", "b"),
    ]
    assert len({cache.digest(*p) for p in parts}) == len(parts)
    assert cache.digest("a", b"b") == cache.digest("a", b"b")
    assert cache.digest("a").isalnum()
    with pytest.raises(TypeError):
        cache.digest(5)


def test_entries_size_and_clear(place):
    assert (cache.entries(), cache.size(), cache.clear()) == ([], 0, 0)
    assert not place.exists()
    for name in "ab":
        cache.fetch(name, "k", Build())
    a = next(place.glob("a-*"))
    os.utime(a, (1e9, 1e9))
    (place / "notes.txt").write_text("not ours")
    (place / ".tmp-1-dead").write_bytes(b"x")
    assert [name[0] for name, _, _ in cache.entries()] == ["b", "a"]
    assert cache.size() == sum(p.stat().st_size for p in place.glob("*.obj")) > 2 * len(OBJECT)
    assert cache.entries()[1] == (a.name, a.stat().st_size, 1e9)
    assert cache.clear() == 3
    assert [p.name for p in place.iterdir()] == ["notes.txt"]
    assert calls_of_second_fetch() == 1


def test_folder_is_read_from_the_environment(place, monkeypatch, tmp_path):
    assert cache.folder() == str(place)
    monkeypatch.setenv("JITGRAD_CACHE_DIR", "")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == str(tmp_path / "jitgrad")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the XDG specification
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.folder() == str(tmp_path / "home" / ".cache" / "jitgrad")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.folder() == str(tmp_path / "home" / "Library" / "Caches" / "jitgrad")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache.folder() == str(tmp_path / "local" / "jitgrad" / "cache")


def test_import_loads_nothing_heavy():
    before = "import importlib.util, os, sys; before = set(sys.modules)"
    command = [sys.executable, "-S", "-c", before + LOAD + "print(*set(sys.modules) - before)"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) <= {"__future__", "_blake2", "_stat", "atexit", "stat", "time"}


# ---- build ----


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_failing_build_propagates_and_stores_nothing(place, error):
    def build():
        raise error("no")

    with pytest.raises(error, match="no"):
        cache.fetch("f", "k", build)
    assert not place.exists()
    assert calls_of_second_fetch() == 1


def test_an_interrupted_write_leaves_nothing(place, monkeypatch):
    def interrupted(*args, **folders):
        raise KeyboardInterrupt

    for function in ("write", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, interrupted)
            with pytest.raises(KeyboardInterrupt):
                cache.fetch("f", "k", Build())
        assert os.listdir(place) == []


def test_a_build_may_fetch(place):
    assert cache.fetch("f", "k", lambda: cache.fetch("g", "k", Build(b"inner")) + b"outer") == b"innerouter"
    assert len(cache.entries()) == 2


# ---- bounded ----


def days_old(place, name, days):
    then = time.time() - days * 86400
    os.utime(next(place.glob(f"{name}-*")), (then, then))


def test_the_longest_unused_go_first(place, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 10_000)
    for n, name in enumerate("abc"):
        cache.fetch(name, "k", Build(b"x" * 3000))
        days_old(place, name, 9 - n)
    never = Build()
    cache.fetch("a", "k", never)  # the oldest is used again
    assert never.calls == 0
    cache.fetch("d", "k", Build(b"x" * 3000))
    assert sorted(name[0] for name, _, _ in cache.entries()) == ["a", "d"]  # 7/8 of the limit holds two
    cache.fetch("e", "k", Build(b"x" * 3000))
    assert len(cache.entries()) == 3


def test_many_stores_stay_within_the_limit(place, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 50_000)
    for n in range(60):
        cache.fetch("f", str(n), Build(b"x" * 3000))
        assert cache.size() <= 50_000
    assert cache.size() > 40_000


def test_a_new_process_bounds_what_others_filled(place, monkeypatch):
    for n in range(10):
        cache.fetch("f", str(n), Build(b"x" * 3000))
    (place / "notes.txt").write_bytes(b"x" * 10_000)
    monkeypatch.setattr(cache, "_room", {})
    monkeypatch.setattr(cache, "LIMIT", 10_000)
    cache.fetch("f", "new", Build(b"x" * 3000))
    assert cache.size() <= 10_000
    assert (place / "notes.txt").exists()


def test_more_than_the_limit_is_not_kept(place, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 100)
    assert calls_of_second_fetch() == calls_of_second_fetch() == 1
    assert not place.exists()


def test_a_warm_start_writes_nothing(place, monkeypatch):
    cache.fetch("f", "k", Build())
    monkeypatch.setattr(os, "utime", lambda *a, **k: pytest.fail("touched"))
    assert calls_of_second_fetch() == 0
