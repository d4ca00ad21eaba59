"""Training-throughput benchmark: its measurements, and the conventional implementation that it compares with."""
