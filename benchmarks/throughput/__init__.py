"""What the benchmark of training throughput measures, and the plain code that it compares with."""
