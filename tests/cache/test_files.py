"""The object cache with bad files: each is rebuilt, whatever is in it or in its place."""

import os

import pytest

from cache_faults import (
    FAULTS,
    POSIX,
    POSIX_FAULTS,
    Build,
    a_link,
    belongs_to,
    calls_of_second_fetch,
    flip_in_the_payload,
    posix_only,
    stored,
    strays,
)
from jitgrad.execute.cpu import cache


@pytest.mark.parametrize("fault", FAULTS + POSIX_FAULTS * POSIX)
def test_a_bad_file_is_rebuilt_and_replaced(place, fault):
    cache.fetch("f", "k", Build())
    path = stored(place)
    good = path.read_bytes()
    fault(path)
    assert calls_of_second_fetch() == 1
    assert path.read_bytes() == good
    assert not path.is_symlink()
    assert calls_of_second_fetch() == 0
    assert strays(place) == []


def test_a_link_is_replaced_and_its_target_left_alone(place):
    cache.fetch("f", "k", Build(b"ours"))
    a_link(stored(place))
    (target,) = place.parent.glob("target-*")
    before = target.read_bytes()
    assert calls_of_second_fetch(b"new") == 1
    assert target.read_bytes() == before


def test_no_bit_may_flip(place):
    """Magic, digest, length and payload: every bit of a small object."""
    cache.fetch("f", "k", Build(b"sixteen bytes..."))
    path = stored(place)
    good = path.read_bytes()
    assert len(good) == 64
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        assert cache._load(str(place), "f-k") is None, bit
    path.write_bytes(good)
    assert cache._load(str(place), "f-k") == b"sixteen bytes..."


def test_no_length_but_the_right_one(place):
    """Cut anywhere, or followed by anything."""
    cache.fetch("f", "k", Build(b"sixteen bytes..."))
    path = stored(place)
    good = path.read_bytes()
    for data in [good[:n] for n in range(len(good))] + [good + b"\0", good + good, b"\0" + good]:
        path.write_bytes(data)
        assert cache._load(str(place), "f-k") is None
    assert calls_of_second_fetch(b"built anew") == 1


def test_an_object_of_another_version(place):
    """A sound file under the right name whose magic has another version; and a key of another version."""
    cache.fetch("f", "k", Build(b"new"))
    path = stored(place)
    magic, cache.MAGIC = cache.MAGIC, b"jitgrad0"
    try:
        old = cache._head("f-k", b"old") + b"old"
    finally:
        cache.MAGIC = magic
    path.write_bytes(old)
    assert calls_of_second_fetch(b"new") == 1 and path.read_bytes() != old
    assert cache.fetch("f", "k of a newer release", Build(b"newer")) == b"newer"


def test_an_object_under_anothers_name_is_refused(place):
    cache.fetch("f", "k", Build())
    cache.fetch("g", "k", Build(b"g"))
    os.replace(next(place.glob("g-*")), next(place.glob("f-*")))
    assert calls_of_second_fetch() == 1


@posix_only
def test_a_foreign_file_is_replaced(place, monkeypatch):
    cache.fetch("f", "k", Build(b"planted"))
    with monkeypatch.context() as patch:
        belongs_to(12345, stored(place), patch)
        assert calls_of_second_fetch() == 1
    assert stored(place).stat().st_uid == os.geteuid()
    assert calls_of_second_fetch() == 0


def test_a_folder_in_the_place_of_a_file_costs_only_time(place):
    cache.fetch("f", "k", Build())
    path = stored(place)
    path.unlink()
    path.mkdir()
    assert calls_of_second_fetch() == 1
    assert calls_of_second_fetch() == 0  # kept in the private folder
    assert strays(place) == []
    assert cache.entries() == []
    assert cache.clear() == 1
    assert path.is_dir()


# ---- a system without descriptors for folders, owners and O_NOFOLLOW (Windows) ----


@pytest.fixture
def by_path(monkeypatch):
    monkeypatch.setattr(cache, "_BY_DESCRIPTOR", False)
    for name in ("_NOFOLLOW", "_READ", "_WRITE"):
        monkeypatch.setattr(cache, name, getattr(cache, name) & ~getattr(os, "O_NOFOLLOW", 0))


def test_by_path(place, tmp_path, monkeypatch, by_path):
    monkeypatch.delattr(os, "geteuid", raising=False)
    cache.fetch("f", "k", Build())
    assert calls_of_second_fetch() == 0
    flip_in_the_payload(stored(place))
    assert calls_of_second_fetch() == 1
    a_link(stored(place))
    assert calls_of_second_fetch() == 1
    assert not stored(place).is_symlink()
    assert (cache.problem(), strays(place), cache.clear()) == (None, [], 1)
    place.rmdir()
    place.symlink_to(tmp_path)
    assert calls_of_second_fetch() == 1
    assert "a link" in cache.problem()


@posix_only
def test_by_path_modes_count_where_there_are_any(place, by_path):
    cache.fetch("f", "k", Build(b"planted"))
    place.chmod(0o777)
    assert calls_of_second_fetch() == 1
