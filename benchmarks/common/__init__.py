"""Shared parts of the benchmarks: records of searches, statistics, regret curves, interleaving, identity."""
