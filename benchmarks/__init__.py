"""Benchmarks: every claim of speed or quality comes from one of these."""
