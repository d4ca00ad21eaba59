"""Search on your own images: write an image folder, then search for a network that classifies it.

    python examples/image_folder.py --data-dir stripes
    python agents/local_search.py --env-id NASES-ImageFolder-v0 --data-dir stripes    # the same with a run directory

The images are stripes in four directions with noise. Replace ``write_stripes`` by your own images: an image folder holds
train/<class>/ and test/<class>/ with PNG or JPEG files of any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np
import tyro
from nases_agents.local_search import Args as AgentArgs
from nases_agents.local_search import LocalSearch
from PIL import Image

import nases_env  # noqa: F401 - registers the environments
from nases_env.search import SearchLoop

DIRECTIONS = {"horizontal": (0, 1), "vertical": (1, 0), "rising": (1, 1), "falling": (1, -1)}


@dataclass
class Args:
    """Search on an image folder."""

    data_dir: Path = Path("stripes")
    num_train_images: int = 60  # per class
    num_test_images: int = 20  # per class
    preset: str = "auto"
    budget: int = 10
    seed: int = 0


def write_stripes(args: Args) -> None:
    """Write images of 24x24 pixels to ``args.data_dir``."""
    rng = np.random.default_rng(args.seed)
    x, y = np.meshgrid(np.arange(24), np.arange(24))
    for split, num_images in (("train", args.num_train_images), ("test", args.num_test_images)):
        for name, (along_x, along_y) in DIRECTIONS.items():
            folder = args.data_dir / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(num_images):
                phase, frequency = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.0)
                stripes = np.sin(frequency * (along_x * x + along_y * y) + phase)
                pixels = 128 + 40 * stripes + rng.normal(0, 40, stripes.shape)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")


def main(args: Args) -> None:
    """Write the images, search, and print the best architecture."""
    write_stripes(args)
    env = gymnasium.make("NASES-ImageFolder-v0", data_dir=str(args.data_dir), preset=args.preset, render_mode="ansi")
    env.reset(seed=args.seed)
    with SearchLoop(env, args.budget) as loop:
        loop.run(LocalSearch(env, AgentArgs(seed=args.seed)))
    best = loop.best
    assert best is not None
    print(f"best of {len(loop.trials)}: validation accuracy {best.evaluation.valid_accuracy:.1%}")
    print(loop.env.search_space.to_json(best.architecture))


if __name__ == "__main__":
    main(tyro.cli(Args))
