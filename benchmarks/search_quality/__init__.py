"""Comparison of agents."""
