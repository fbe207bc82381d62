"""The object cache: a folder of compiled objects, one file each, kept between processes.

What is read here is run as machine code, so a folder or file counts only if it belongs to us (or root) and
no one else may write it, which is asked of the open descriptor, never of a path. Nothing the cache meets can
fail a call: it costs a rebuild.

A file: magic (8 bytes), blake2b of title and payload (32), the payload's length (8, little endian), payload.
"""

from __future__ import annotations

import atexit
import os
import stat
import sys
import time

try:  # hashlib's own, 0.15 ms; hashlib loads OpenSSL, 2.3 ms (the standard `random` takes `_sha2` likewise)
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

TYPE_CHECKING = False  # `typing` and `collections.abc` are 3 ms that a bare interpreter has not paid
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 512 << 20  # bytes in the folder; a plan is some ten or hundred kB, so this is thousands of them
STRAY_AGE = 3600.0  # seconds; a write takes milliseconds, the rest is for clocks that differ over a network
TOUCH_AGE = 3600.0  # seconds between two notes of "used", so that a warm start writes nothing
MAGIC = b"jitgrad1"  # the last character is the version of the format: a file of another is rebuilt
SUFFIX, TEMPORARY = ".obj", ".tmp-"

_BY_DESCRIPTOR = (  # not on Windows, where every call goes by path
    {os.open, os.stat, os.unlink, os.rename} <= os.supports_dir_fd and os.listdir in os.supports_fd
)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_COMMON = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | _NOFOLLOW
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _COMMON  # nonblocking: a FIFO must not stop us
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _COMMON

_private: str | None = None  # this process's temporary folder, made when the configured one cannot be written
built, seconds = 0, 0.0  # objects that this process built, and the time it took
_room: dict[str, int] = {}  # folder -> bytes that may yet be written before it is looked through again


def fetch(name: str, key: str, build: Callable[[], bytes]) -> bytes:
    """The object stored under `name-key`; if none can be trusted, `build()`, kept for the next time."""
    title = f"{name}-{key}"
    for place in (folder(), _private):
        payload = _load(place, title) if place else None
        if payload is not None:
            return payload
    payload = _built(build)
    if len(payload) <= LIMIT and not _store(folder(), title, payload):
        _store(_private_folder(), title, payload)
    return payload


def _built(build: Callable[[], bytes]) -> bytes:
    global built, seconds
    before, start = seconds, time.perf_counter()
    payload = build()
    built += 1
    seconds = before + time.perf_counter() - start  # a build may fetch: its own builds are in this time
    return payload


def digest(*parts: str | bytes) -> str:
    """A key from all that an object depends on; it counts where a part ends, and if it is text or bytes."""
    state = blake2b(digest_size=32)
    for part in parts:
        kind, data = ("s", part.encode("utf-8", "surrogatepass")) if isinstance(part, str) else ("b", part)
        state.update(f"{kind}{len(data)}:".encode())
        state.update(data)
    return state.hexdigest()


def folder() -> str:
    """The configured folder, whether or not it exists and may be used (`problem` says)."""
    chosen = os.environ.get("JITGRAD_CACHE_DIR")
    if chosen:
        path = os.path.expanduser(chosen)
    elif sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
        path = os.path.join(local, "jitgrad", "cache")
    elif sys.platform == "darwin":
        path = os.path.expanduser("~/Library/Caches/jitgrad")
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        path = os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.cache"), "jitgrad")
    if path.startswith(
        "~"
    ):  # no such home: left as it is, and so refused, rather than a folder named "~" here
        return path
    try:
        return os.path.abspath(path)  # also drops a trailing slash, through which a link would be followed
    except OSError:  # a relative path, and the working directory is gone
        return path


def problem() -> str | None:
    """Why `folder()` cannot keep objects, in one line, or None. Found out by writing an empty file."""
    try:
        with _Folder(folder(), create=True) as opened:
            opened.remove(opened.write(b""))
    except OSError as error:
        return f"{folder()}: {error.strerror or error}"
    return None


def entries() -> list[tuple[str, int, float]]:
    """(file, bytes, time of last use) of every object in `folder()`, the latest used first."""
    try:
        with _Folder(folder()) as opened:
            found = [(name, i.st_size, i.st_mtime) for name, i in opened.files() if name.endswith(SUFFIX)]
    except OSError:  # missing, or not trusted: then nothing in it is used
        return []
    return sorted(found, key=lambda entry: -entry[2])


def size() -> int:
    """Bytes of all objects in `folder()`."""
    return sum(length for _, length, _ in entries())


def clear() -> int:
    """Remove every object, and what interrupted writers left; other files stay. How many files went."""
    removed = 0
    _room.clear()
    for place in (folder(), _private):
        try:
            with _Folder(place or "") as opened:
                removed += sum(opened.remove(name) for name, _ in list(opened.files()))
        except OSError:
            pass  # missing or not ours: nothing in it to clear
    return removed


class _Folder:
    """An open, trusted folder; files are reached through its descriptor, whatever becomes of the path."""

    def __init__(self, path: str, create: bool = False):
        if not os.path.isabs(path):
            raise FileNotFoundError("not an absolute path")
        self.path = path
        self.fd: int | None = None
        try:
            self._open()
        except FileNotFoundError:
            if not create:
                raise
            _make(path)
            self._open()

    def _open(self) -> None:
        if not _BY_DESCRIPTOR:
            info = os.lstat(self.path)
            if not stat.S_ISDIR(info.st_mode) or getattr(info, "st_reparse_tag", 0) != 0:
                raise NotADirectoryError("not a folder, or a link")
            _check(info)
            return
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | _COMMON)
        try:
            _check(os.fstat(self.fd))
        except BaseException:
            os.close(self.fd)
            raise

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.fd is not None:
            os.close(self.fd)

    def _at(self, name: str) -> str:
        return name if self.fd is not None else os.path.join(self.path, name)

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """Our objects and temporary files; what else lies in the folder is not ours to count or remove."""
        for name in os.listdir(self.path if self.fd is None else self.fd):
            if name.endswith(SUFFIX) or name.startswith(TEMPORARY):
                try:
                    info = os.stat(self._at(name), dir_fd=self.fd, follow_symlinks=False)
                except FileNotFoundError:  # another process was quicker
                    continue
                if not stat.S_ISDIR(info.st_mode):
                    yield name, info

    def read(self, name: str) -> bytes:
        if not _NOFOLLOW and os.path.islink(self._at(name)):
            raise OSError("a link")
        fd = os.open(self._at(name), _READ, dir_fd=self.fd)
        try:
            info = os.fstat(fd)
            _check(info)
            if not stat.S_ISREG(info.st_mode) or info.st_size > LIMIT + 4096:
                raise OSError("not an object file")
            if time.time() - info.st_mtime > TOUCH_AGE:
                self._touch(name, fd)
            return os.read(fd, info.st_size)
        finally:
            os.close(fd)

    def _touch(self, name: str, fd: int) -> None:
        try:
            os.utime(fd if os.utime in os.supports_fd else self._at(name))
        except OSError:
            pass  # a read-only folder has no order of use to keep

    def write(self, data: bytes) -> str:
        """A new temporary file; the name. Not synced: what a power cut tears, the digest finds."""
        name = f"{TEMPORARY}{os.getpid()}-{os.urandom(8).hex()}"
        fd = os.open(self._at(name), _WRITE, 0o600, dir_fd=self.fd)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
        except BaseException:
            os.close(fd)
            self.remove(name)
            raise
        os.close(fd)
        return name

    def rename(self, old: str, new: str) -> None:
        try:
            os.replace(self._at(old), self._at(new), src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except BaseException:
            self.remove(old)
            raise

    def remove(self, name: str) -> bool:
        try:
            os.unlink(self._at(name), dir_fd=self.fd)
        except OSError:
            return False
        return True


def _check(info: os.stat_result) -> None:
    effective = getattr(os, "geteuid", None)
    if effective is None:  # Windows: the profile's access list is the guard
        return
    if info.st_uid not in (effective(), 0):
        raise PermissionError(f"belongs to user {info.st_uid}, not to user {effective()} or root")
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"may be written by others (mode {stat.S_IMODE(info.st_mode):04o})")


def _make(path: str) -> None:
    parent = os.path.dirname(path)
    if parent == path:
        raise FileNotFoundError(f"{path} is missing")
    if not os.path.isdir(parent):
        _make(parent)
    owner, effective = os.stat(parent).st_uid, getattr(os, "geteuid", None)
    if owner and effective and effective() == 0:  # `sudo python` must not shut users out of their own cache
        raise PermissionError(f"not made by root, because user {owner} owns {parent}")
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass  # another process was quicker; or it is no folder, which opening it tells


def _private_folder() -> str:
    global _private
    if _private is None:
        import tempfile  # 10 ms that a process with a sound cache never pays

        try:
            made = tempfile.mkdtemp(prefix="jitgrad-")
        except OSError:
            return ""
        atexit.register(_remove_private, made, os.getpid())
        _private = made
    return _private


def _remove_private(path: str, owner: int) -> None:
    if os.getpid() != owner:  # a forked child still shares it with its parent
        return
    try:
        with _Folder(path) as opened:
            for name, _ in list(opened.files()):
                opened.remove(name)
        os.rmdir(path)
    except OSError:
        pass  # someone cleaned up before us


def _file(title: str) -> str:
    """A legible file name; its digest keeps apart what differs in odd characters or in case only."""
    legible = "".join(c if c.isascii() and (c.isalnum() or c in "_-.") else "_" for c in title[:64])
    return f"{legible}-{digest(title)[:32]}{SUFFIX}"


def _head(title: str, payload: bytes | memoryview) -> bytes:
    state = blake2b(f"{len(title)}:{title}".encode("utf-8", "surrogatepass"), digest_size=32)
    state.update(payload)
    return MAGIC + state.digest() + len(payload).to_bytes(8, "little")


def _load(path: str, title: str) -> bytes | None:
    try:
        with _Folder(path) as opened:
            data = opened.read(_file(title))
    except OSError:
        return None
    payload = memoryview(data)[48:]
    return bytes(payload) if data[:48] == _head(title, payload) else None


def _store(path: str, title: str, payload: bytes) -> bool:
    if not path:
        return False
    try:
        with _Folder(path, create=path != _private) as opened:
            data = _head(title, payload) + payload
            opened.rename(opened.write(data), _file(title))
            _room[path] = _room.get(path, -1) - len(data)
            if _room[path] < 0:
                _room[path] = _tidy(opened)
    except OSError:
        return False
    return True


def _tidy(opened: _Folder) -> int:
    """Remove old strays and, over the limit, the objects longest unused, down to 7/8 of it; the room left."""
    now, total, objects = time.time(), 0, []
    for name, info in opened.files():
        if name.endswith(SUFFIX):
            objects.append((info.st_mtime, info.st_size, name))
            total += info.st_size
        elif now - info.st_mtime > STRAY_AGE:
            opened.remove(name)
    if total > LIMIT:
        for _, length, name in sorted(objects):
            if total <= LIMIT // 8 * 7:
                break
            total -= length if opened.remove(name) else 0
    return LIMIT - total
