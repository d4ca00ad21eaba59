"""What the benchmark of execution measures: one module a part, each with a function ``measure``."""
