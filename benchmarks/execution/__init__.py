"""Benchmark of executors, the store and resuming; one module per part, each with a function ``measure``."""
