"""What every agent needs and none should write again: a budget, a run folder, the best so far, curves and a summary."""

from nases_env.search.command import run_search
from nases_env.search.loop import SearchLoop, Trial
from nases_env.search.options import ChildOptions, SearchArgs, make_env
from nases_env.search.run import SearchRun

__all__ = ["ChildOptions", "SearchArgs", "SearchLoop", "SearchRun", "Trial", "make_env", "run_search"]
