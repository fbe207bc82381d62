"""The object cache with bad folders, or none: objects are kept in a private folder, or nowhere."""

import errno
import os
import stat
import tempfile

import pytest

from cache_faults import OBJECT, POSIX, Build, belongs_to, calls_of_second_fetch, child, posix_only, stored
from jitgrad.execute.cpu import cache


def falls_back(place, tmp_path):
    """Nothing of ours goes to `place`; the object is kept in a private folder of mode 0700."""
    build = Build()
    assert cache.fetch("f", "k", build) == OBJECT
    assert cache.fetch("f", "k", build) == OBJECT
    assert build.calls == 1
    (private,) = (tmp_path / "tmp").iterdir()
    assert cache._private == str(private)
    assert len(list(private.iterdir())) == 1
    assert not POSIX or stat.S_IMODE(private.stat().st_mode) == 0o700
    assert not place.is_dir() or not list(place.glob("[.f]*"))
    assert cache.problem().startswith(str(place))


@posix_only
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_may_write(place, tmp_path, mode):
    place.mkdir(parents=True)
    place.chmod(mode)
    falls_back(place, tmp_path)


@posix_only
def test_planted_objects_in_such_a_folder_are_not_read(place, tmp_path):
    cache.fetch("f", "k", Build(b"planted"))
    place.chmod(0o777)
    assert calls_of_second_fetch() == 1
    assert (cache.entries(), cache.clear(), os.listdir(tmp_path / "tmp") != []) == ([], 1, True)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_linked_folder(place, tmp_path, monkeypatch, slash):
    (tmp_path / "real").mkdir(0o700)
    place.parent.mkdir()
    place.symlink_to(tmp_path / "real")
    monkeypatch.setenv("JITGRAD_CACHE_DIR", str(place) + slash)
    assert calls_of_second_fetch() == 1
    assert os.listdir(tmp_path / "real") == []
    assert calls_of_second_fetch() == 0


def test_a_linked_parent_is_fine(place, tmp_path):
    (tmp_path / "real").mkdir(0o700)
    place.parent.symlink_to(tmp_path / "real")
    cache.fetch("f", "k", Build())
    assert calls_of_second_fetch() == 0
    assert cache._private is None


def test_the_path_is_a_file(place, tmp_path):
    place.parent.mkdir()
    place.write_text("mine")
    falls_back(place, tmp_path)
    assert place.read_text() == "mine"


def test_a_parent_is_a_file(place, tmp_path):
    place.parent.write_text("mine")
    falls_back(place, tmp_path)


def test_no_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JITGRAD_CACHE_DIR")
    monkeypatch.setattr(cache.sys, "platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert calls_of_second_fetch() == 1
    assert "not an absolute path" in cache.problem()
    assert os.listdir(tmp_path) == ["tmp"]


@posix_only
def test_a_foreign_folder(place, tmp_path, monkeypatch):
    place.mkdir(parents=True)
    belongs_to(12345, place, monkeypatch)
    falls_back(place, tmp_path)
    assert "belongs to user 12345" in cache.problem()


@posix_only
def test_another_effective_user(place, monkeypatch):
    """The private folder, made by the real user, is as foreign as the configured one."""
    cache.fetch("f", "k", Build(b"planted"))
    for path in (place, stored(place)):
        os.chown(path, os.geteuid() or 12345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert calls_of_second_fetch() == 1
    assert len(list(place.iterdir())) == 1


@posix_only
def test_what_root_owns_is_read(place, monkeypatch):
    cache.fetch("f", "k", Build())
    real = os.fstat

    def by_root(fd):
        fields = list(real(fd))
        fields[stat.ST_UID] = 0
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", by_root)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert calls_of_second_fetch() == 0


@posix_only
def test_root_makes_no_folder_in_anothers_home(place, tmp_path, monkeypatch):
    place.parent.mkdir()
    if os.geteuid() == 0:
        os.chown(place.parent, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert calls_of_second_fetch() == 1
    assert not place.exists()
    assert "not made by root" in cache.problem()


def refuse_writing(monkeypatch, place, number):
    """Creating a file in `place` fails; a mode would not stop root."""
    real = os.open

    def refusing(path, flags, mode=0o777, *, dir_fd=None):
        if flags & os.O_CREAT and os.path.samestat(os.fstat(dir_fd), os.stat(place)):
            raise OSError(number, os.strerror(number), path)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refusing)


@posix_only
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_folder_that_takes_no_new_file(place, tmp_path, monkeypatch, number):
    place.mkdir(parents=True)
    refuse_writing(monkeypatch, place, number)
    falls_back(place, tmp_path)
    assert os.strerror(number) in cache.problem()


@posix_only
def test_a_read_only_folder_is_still_read(place, monkeypatch):
    cache.fetch("f", "k", Build())
    os.utime(stored(place), (1e9, 1e9))
    refuse_writing(monkeypatch, place, errno.EROFS)
    monkeypatch.setattr(os, "utime", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only")))
    place.chmod(0o500)
    assert calls_of_second_fetch() == 0


@posix_only
def test_the_disk_fills_during_a_write(place, monkeypatch):
    real, left = os.write, [1000]

    def write(fd, data):
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        n, left[0] = min(left[0], len(data)), 0
        return real(fd, data[:n])

    monkeypatch.setattr(os, "write", write)
    assert calls_of_second_fetch() == calls_of_second_fetch() == 1
    assert os.listdir(place) == []
    assert os.listdir(cache._private) == []


def test_short_writes_are_continued(place, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:100]))
    cache.fetch("f", "k", Build())
    assert calls_of_second_fetch() == 0


@posix_only
def test_a_file_size_limit(place, tmp_path):
    """The system itself refuses the write; the call goes on and leaves nothing behind."""
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
print(cache.fetch("f", "k", lambda: b"x" * 10_000) == b"x" * 10_000, os.listdir(cache._private))
"""
    process = child(code, TMPDIR=str(tmp_path / "tmp"))
    assert process.communicate()[0].split() == ["True", "[]"]
    assert process.returncode == 0
    assert os.listdir(place) == []
    assert os.listdir(tmp_path / "tmp") == []


def test_no_folder_at_all(place, monkeypatch):
    place.parent.write_text("")
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **k: (_ for _ in ()).throw(FileNotFoundError("no tmp")))
    assert calls_of_second_fetch() == calls_of_second_fetch() == 1
    assert (cache.entries(), cache.size(), cache.clear()) == ([], 0, 0)


@posix_only
def test_the_private_folder_goes_at_exit_and_not_with_a_fork(place, tmp_path):
    place.parent.write_text("")
    code = """
cache.fetch("f", "k", lambda: b"x")
print(os.path.isdir(cache._private), oct(os.stat(cache._private).st_mode & 0o777))
if os.fork() == 0:
    sys.exit()
os.wait()
print(cache.fetch("f", "k", lambda: b"rebuilt"))
"""
    process = child(code, TMPDIR=str(tmp_path / "tmp"))
    assert process.communicate()[0].split() == ["True", "0o700", "b'x'"]
    assert os.listdir(tmp_path / "tmp") == []


def test_the_private_folder_is_cleaned_away(place, tmp_path):
    """Someone else may hold its name by then, so it is not made again."""
    place.parent.write_text("")
    assert calls_of_second_fetch() == 1
    cache.clear()
    os.rmdir(cache._private)
    assert calls_of_second_fetch() == calls_of_second_fetch() == 1
    assert os.listdir(tmp_path / "tmp") == []


def test_the_working_directory_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    monkeypatch.setenv("JITGRAD_CACHE_DIR", "relative")
    assert cache.folder() == str(tmp_path / "gone" / "relative")
    os.rmdir(tmp_path / "gone")
    assert calls_of_second_fetch() == 1
    assert calls_of_second_fetch() == 0
