"""Compare searched networks with a random forest on small image data sets.

    python -m benchmarks.small_images --data-dir cifar10 --output small_images.json

Each seed draws a small data set from an image folder. On it, a search with the defaults of an agent is followed by a final
training with the defaults of ``nases train``, by the commands of the README, and the network is tested once. The random
forest is trained on the pixels of the same training images. Seconds are CPU seconds of all processes.

All runs are in the directory ``--work-dir``; the same command resumes them. Several processes can share the directory, for
example one per agent.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common import statistics
from nases_env.atomic_io import write_atomically
from nases_env.command_line import run_command
from nases_env.errors import InputError
from nases_env.seeding import derive_seed, numpy_generator
from nases_env.training import load_images

FOREST_SIZE, FOREST_PIXELS = 500, 16
TABLE_WIDTH = 110  # characters of the table if the output is not a terminal


@dataclass
class Args:
    """Options of the benchmark."""

    data_dir: Path
    """Image folder with train/<class>/ and test/<class>/, from which the small data sets are drawn."""
    classes: tuple[str, ...] = ("automobile", "deer", "frog", "ship")
    """The classes. Settings were chosen on airplane, bird, dog and truck of CIFAR-10."""
    num_train_images: int = 60
    """Training images per class."""
    num_test_images: int = 250
    """Test images per class."""
    num_seeds: int = 5
    """Number of data sets; each is searched and trained with its own seed."""
    agents: tuple[str, ...] = ("elite_reinforce", "random_search")
    """Modules of nases_agents."""
    budget: int = 30
    """Children per search."""
    preset: str = "auto"
    """Preset of the search."""
    work_dir: Path = Path("runs/small_images")
    """Directory of the data sets and runs."""
    output: Path = Path("benchmarks/results/small_images.json")
    """JSON file for the measurements."""

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or self.num_seeds < 2 or not self.agents:
            raise InputError("small_images needs at least 2 --classes, 2 seeds (--num-seeds) and one of --agents")


def require_settings(args: Args) -> None:
    """Record the options that determine the results in the work directory, or check that they are those of its results.

    Raises:
        InputError: if its results have other options.
    """
    names = ("data_dir", "classes", "num_train_images", "num_test_images", "budget", "preset")
    settings = {name: str(getattr(args, name)) for name in names}
    path = args.work_dir / "settings.json"
    if not path.exists():
        write_atomically(path, json.dumps(settings).encode())
    elif changed := [name for name, value in json.loads(path.read_text()).items() if settings[name] != value]:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise InputError(f"{args.work_dir} has results with other values of {options}; pass another --work-dir")


def draw_dataset(args: Args, seed: int) -> Path:
    """Copy a random sample of the images to the work directory."""
    path = args.work_dir / f"images-{seed}"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=args.work_dir) as temporary:
        images = Path(temporary) / "images"
        for split, number in (("train", args.num_train_images), ("test", args.num_test_images)):
            for name in args.classes:
                files = sorted((args.data_dir / split / name).glob("*.*"))
                if len(files) < number:
                    raise InputError(f"{args.data_dir / split / name} has {len(files)} images; {number} are needed")
                rng = numpy_generator(seed, "small images", split, name)
                folder = images / split / name
                folder.mkdir(parents=True)
                for index in rng.choice(len(files), number, replace=False):
                    shutil.copy(files[index], folder)
        try:
            images.rename(path)
        except OSError:
            if not path.exists():  # otherwise another process has drawn the same sample
                raise
    return path


def test_forest(dataset: Path, seed: int) -> float:
    """Return the test accuracy of a random forest on the pixels, in [0, 1]."""
    from sklearn.ensemble import RandomForestClassifier

    train, test = (
        load_images("image_folder", train=is_train, data_dir=dataset, image_size=FOREST_PIXELS) for is_train in (True, False)
    )
    forest = RandomForestClassifier(FOREST_SIZE, random_state=derive_seed(seed, "random forest") % 2**32)
    forest.fit(train.images.flatten(1).numpy(), train.labels.numpy())
    return float(forest.score(test.images.flatten(1).numpy(), test.labels.numpy()))


def search_and_train(args: Args, agent: str, seed: int, dataset: Path) -> dict[str, Any]:
    """Run a search and a final training as commands; return the result, with CPU seconds."""
    run_dir = args.work_dir / f"{agent}-{seed}"
    result_file = run_dir / "benchmark.json"
    if result_file.exists():
        return dict(json.loads(result_file.read_text()))
    shutil.rmtree(run_dir, ignore_errors=True)  # the time of an interrupted run is not known
    start = _child_seconds()
    data = ("--data-dir", str(dataset), "--seed", str(seed))
    options = ("--budget", str(args.budget), "--preset", args.preset, "--run-dir", str(run_dir))
    _run(["-m", f"nases_agents.{agent}", "--env-id", "NASES-ImageFolder-v0", *data, *options])
    searched = _child_seconds()
    _run(["-c", "from nases_env.cli.main import main; main()", "train", str(run_dir), "--seed", str(seed)])
    final = json.loads((run_dir / "final" / f"seed-{seed}" / "result.json").read_text())
    result = {
        "test_accuracy": final["test_accuracy"],
        "num_params": final["num_params"],
        "num_epochs": final["num_epochs"],
        "search_seconds": searched - start,
        "training_seconds": _child_seconds() - searched,
    }
    write_atomically(result_file, json.dumps(result).encode())
    return result


def _run(options: list[str]) -> None:
    subprocess.run([sys.executable, *options], check=True, stdout=subprocess.DEVNULL)


def _child_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main(args: Args) -> None:
    """Compare searched networks with a random forest on small image data sets."""
    require_settings(args)
    datasets = [draw_dataset(args, seed) for seed in range(args.num_seeds)]
    forest = np.array([test_forest(dataset, seed) for seed, dataset in enumerate(datasets)])
    rng = numpy_generator(0, "small images", "bootstrap")
    content: dict[str, Any] = {
        "classes": list(args.classes),
        "num_train_images": args.num_train_images * len(args.classes),
        "num_test_images": args.num_test_images * len(args.classes),
        "budget": args.budget,
        "random_forest": {"test_accuracies": forest.tolist(), **statistics.mean(forest, rng)._asdict()},
        "agents": {},
    }
    table = Table(title=f"test accuracy in %, mean over {args.num_seeds} seeds (95%)", title_justify="left")
    for heading in ("method", "test accuracy", "minus random forest", "CPU s of search", "CPU s of training"):
        table.add_column(heading, justify="right")
    table.add_row("random forest", _percent(statistics.mean(forest, rng)), "", "", "")
    for agent in args.agents:
        results = [search_and_train(args, agent, seed, dataset) for seed, dataset in enumerate(datasets)]
        accuracies = np.array([result["test_accuracy"] for result in results])
        difference = statistics.mean(accuracies - forest, rng)
        seconds = [max(result[f"{stage}_seconds"] for result in results) for stage in ("search", "training")]
        content["agents"][agent] = {
            "results": results,
            **statistics.mean(accuracies, rng)._asdict(),
            "difference": difference._asdict(),
        }
        accuracy = statistics.mean(accuracies, rng)
        table.add_row(agent, _percent(accuracy), _percent(difference), *(f"at most {value:.0f}" for value in seconds))
    console = Console()
    Console(width=None if console.is_terminal else TABLE_WIDTH).print(table)
    write_atomically(args.output, (json.dumps(content, indent=2) + "\n").encode())


def _percent(estimate: statistics.Estimate) -> str:
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


if __name__ == "__main__":
    run_command(Args, main)
