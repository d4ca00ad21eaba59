"""Random search: uniform architectures, no embedding and no learning. The line that every other agent must beat.

python agents/random_search.py --env-id NASES-Digits-v0 --budget 40
"""

from __future__ import annotations

from nases_env.commands import run_command
from nases_env.search import Search, SearchArgs
from nases_env.seeding import numpy_generator


def main(args: SearchArgs) -> None:
    """Evaluate uniformly drawn architectures and keep the best."""
    rng = numpy_generator(args.seed, "random search")
    with Search(args, agent="random_search") as search:
        while not search.done:
            search.evaluate(search.nases.search_space.sample(rng))


if __name__ == "__main__":
    run_command(SearchArgs, main)
