"""Gradient programs of every size, replayed by jitgrad and run by its peers: ``python -m benchmarks.engine``."""
