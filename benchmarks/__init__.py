"""Figures: `python -m benchmarks.peers` measures the peers side by side, asv measures jitgrad across commits."""
