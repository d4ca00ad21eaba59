"""Search spaces: what an architecture is, and how a vector of numbers means one."""

from nases_env.search_spaces.base import Architecture, SearchSpace
from nases_env.search_spaces.enas_micro import EnasMicro
from nases_env.search_spaces.registry import make_search_space

__all__ = ["Architecture", "EnasMicro", "SearchSpace", "make_search_space"]
