"""What asv imports when it looks for benchmarks: every module of every package."""

from __future__ import annotations

import pkgutil

import benchmarks


def test_asv_imports_no_library_that_may_be_absent() -> None:
    """Adapters of peers lie in folders that are no packages, where asv does not look."""
    found = [info.name for info in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")]
    assert "benchmarks.bench_engine" in found
    assert not [name for name in found if "use_" in name]
