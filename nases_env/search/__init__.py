"""Shared search infrastructure: the search loop, its callbacks, run directory, reporting and resume."""

from nases_env.search.agent import Agent, Proposal
from nases_env.search.callbacks import SearchCallback
from nases_env.search.environment import make_env
from nases_env.search.loop import SearchLoop
from nases_env.search.options import ChildOptions, SearchArgs
from nases_env.search.parsing import run_search
from nases_env.search.recorded_args import load_args
from nases_env.search.run import SearchRun
from nases_env.search.trials import Trial

__all__ = [
    "Agent",
    "ChildOptions",
    "Proposal",
    "SearchArgs",
    "SearchCallback",
    "SearchLoop",
    "SearchRun",
    "Trial",
    "load_args",
    "make_env",
    "run_search",
]
