"""Valid files, which inputs are derived from."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

import nases_env.embedding.weights
from benchmarks.common.commands import run_here, script
from benchmarks.fault_injection.search_process import AGENTS
from nases_env.cli import main as cli
from nases_env.evaluation.nasbench201 import COLUMN_200, HEADER
from nases_env.networks.nasbench201 import OPERATORS

RUN, FINAL = "run", "final"
EMBEDDING = "embedding.safetensors"
MODEL = f"{FINAL}/seed-0/model.safetensors"
NUM_CHILDREN = 2


def make_samples(folder: Path) -> None:
    """Run a short search and a final training in ``folder``, which take a few seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = Path(next(iter(nases_env.embedding.weights.__path__)))
    shutil.copy(weights / "enas_micro.safetensors", folder / EMBEDDING)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / "image.png")
    before = Path.cwd()
    os.chdir(folder)
    try:
        search = ("--env-id", "NASES-Synthetic-v0", "--budget", str(NUM_CHILDREN), "--run-dir", RUN)
        _run(script(AGENTS / "random_search.py"), *search)
        training = ("--dataset", "digits", "--preset", "smoke", "--child.num-epochs", "1", "--output", FINAL)
        _run(cli.main, "train", f"{RUN}/best.json", *training)
    finally:
        os.chdir(before)


def _run(main: Callable[[], object], *options: str) -> None:
    result = run_here(main, *options)
    if result.returncode:
        raise RuntimeError(f"cannot make the valid files: {result.stderr}")


@lru_cache(maxsize=1)
def table_lines() -> tuple[str, ...]:
    """Return the lines of a complete table of NAS-Bench-201 with five columns and invented accuracies."""
    cells = itertools.product(OPERATORS, repeat=6)
    texts = ("|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*cell) for cell in cells)
    accuracies = (
        f"{number / 200:.3f},{number / 300:.2f},{number / 400:.2f},{number / 180:.2f}" for number in itertools.count()
    )
    return (",".join((*HEADER, COLUMN_200)), *(f"{text},{values}" for text, values in zip(texts, accuracies, strict=False)))
