"""The object cache under faults: whatever a folder holds or refuses, `fetch` gives what `build` gives."""

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time

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


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder that does not exist yet, and a private one that would land in tmp_path too."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(cache, "_private", None)
    monkeypatch.setattr(cache, "_room", {})
    monkeypatch.setenv("JITGRAD_CACHE_DIR", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


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


# ---- what it does when all is well ----


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


# ---- bad files ----


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
    target = path.parent.parent / "target"
    os.rename(path, target)
    path.symlink_to(target)


def a_dangling_link(path):
    path.unlink()
    path.symlink_to(path.parent / "nowhere")


def a_fifo(path):
    path.unlink()
    os.mkfifo(path, 0o600)


FAULTS = [truncate, cut_in_the_head, empty, lengthen, another_format]
FAULTS += [flip_in_the_payload, flip_in_the_digest, flip_in_the_length]
POSIX_FAULTS = [writable_by_group, writable_by_all, a_link, a_dangling_link, a_fifo]


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
    target = place.parent / "target"
    before = target.read_bytes()
    assert calls_of_second_fetch(b"new") == 1
    assert target.read_bytes() == before


def test_an_object_under_anothers_name_is_refused(place):
    cache.fetch("f", "k", Build())
    cache.fetch("g", "k", Build(b"g"))
    os.replace(next(place.glob("g-*")), next(place.glob("f-*")))
    assert calls_of_second_fetch() == 1


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


# ---- bad folders ----


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


# ---- several at once, and killed ----


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
