"""Every test of the object cache has a folder of its own, which does not exist yet."""

import tempfile

import pytest

from jitgrad.execute.cpu import cache


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder that does not exist yet, and a private one that would land in tmp_path too."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(cache, "_private", None)
    monkeypatch.setattr(cache, "_room", {})
    monkeypatch.setenv("JITGRAD_CACHE_DIR", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"
