"""The command ``python -m benchmarks.size_limits``.

Its functions are in ``comparison.py``, because worker processes cannot import the module that is run as ``__main__``.
"""

from benchmarks.size_limits.comparison import Args, main
from nases_env.command_line import run_command

if __name__ == "__main__":
    run_command(Args, main)
