"""Compare agents."""
