"""Searches with equal CPU seconds on real data, compared with networks without a search."""
