"""Programs on a GPU, replayed by jitgrad and run by its peers: ``python -m benchmarks.cuda``."""
