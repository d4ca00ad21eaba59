"""Search agents, each with a command line."""
