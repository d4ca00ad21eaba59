"""The agents: one file each, readable from top to bottom, each with a command line."""
