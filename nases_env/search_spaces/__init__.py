"""Search spaces, architectures, and their encoding as vectors."""

from nases_env.search_spaces.base import Architecture, SearchSpace, search_space_of
from nases_env.search_spaces.cell_paths import count_paths
from nases_env.search_spaces.enas_micro import EnasMicro
from nases_env.search_spaces.enas_micro_sized import EnasMicroSized
from nases_env.search_spaces.registry import SEARCH_SPACES, get_search_space, importable_name, parse_architecture

__all__ = [
    "SEARCH_SPACES",
    "Architecture",
    "EnasMicro",
    "EnasMicroSized",
    "SearchSpace",
    "count_paths",
    "get_search_space",
    "importable_name",
    "parse_architecture",
    "search_space_of",
]
