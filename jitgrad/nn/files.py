"""Named arrays in one ``.npz`` file, without pickle."""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
from collections.abc import Mapping

import numpy as np

from jitgrad.core.errors import user_error


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], overwrite: bool) -> None:
    """Write arrays to ``path``; an old file stays until the new one is complete and on the disk."""
    path = os.fspath(path)
    if not overwrite and os.path.exists(path):
        raise user_error(FileExistsError, f"save_weights: {path} exists, and overwrite is False")
    handle, fresh = tempfile.mkstemp(prefix=os.path.basename(path) + ".", dir=os.path.dirname(path) or ".")
    try:
        with os.fdopen(handle, "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                for key, array in arrays.items():
                    with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(fresh, _mode(path))
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


def _mode(path: str) -> int:
    """The permissions of the old file, or of any new file of this process."""
    try:
        return os.stat(path).st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a file that `write` made. Raises ValueError for a file that is none."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, EOFError, ValueError, AttributeError, TypeError) as error:
        raise user_error(ValueError, f"{os.fspath(path)} is no complete .npz file of arrays: {error}") from None
