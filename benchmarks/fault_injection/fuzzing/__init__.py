"""Random inputs for commands and the Python API; each must end with a result or an error of one line."""
