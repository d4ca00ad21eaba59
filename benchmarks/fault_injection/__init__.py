"""Fault-injection benchmark: search spaces that fail on request, the fault injector, and the checks."""
