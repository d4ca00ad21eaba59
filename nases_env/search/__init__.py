"""What every agent needs and none should write again: a budget, a run folder, the best so far, curves and a summary."""

from nases_env.search.args import ChildOptions, SearchArgs, make_env
from nases_env.search.command import run_search
from nases_env.search.recorded import RecordedSearch
from nases_env.search.search import Child, Search

__all__ = ["Child", "ChildOptions", "RecordedSearch", "Search", "SearchArgs", "make_env", "run_search"]
