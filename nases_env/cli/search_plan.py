"""What a search will do, on which data, and how long it takes on this machine."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from nases_env.console import Console
from nases_env.devices import device_name, resolve_device
from nases_env.envs import NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import TrainingEvaluator
from nases_env.report.text import count
from nases_env.retraining.timing import NUM_NETWORKS, count_concurrent, time_search
from nases_env.search.feasibility import check_feasibility
from nases_env.search.options import SearchArgs
from nases_env.search.run import require_budget, resolve_num_finalists
from nases_env.search.run_dir import count_trials
from nases_env.search.time_budget import format_budget, format_duration, limited_budget
from nases_env.training import ImageSet, load_images, resolve_data_dir
from nases_env.training.image_table import list_table
from nases_env.training.own_images import measure_own_images

MAX_NAMES = 10  # classes whose numbers of images are listed
IMBALANCE = 3.0  # ratio of the largest to the smallest class that is worth a note
FEW_VALID_IMAGES = 200
PHOTOGRAPH_PIXELS = 96  # shorter side of RGB images that may be photographs


def print_plan(env: NASESEnv, args: SearchArgs, agent: str) -> None:
    """Print what is known about the data, what the search will do, and an estimate of its duration.

    Raises:
        InputError: if the data or the resumed search cannot be read, an option of the finalists, the execution or the
            budget is invalid, or no sampled child meets the limits on exact costs; nothing is printed in these cases.
    """
    print_line = functools.partial(Console().print, soft_wrap=True)
    evaluator = env.evaluator
    resolve_num_finalists(args, evaluator)
    num_concurrent = count_concurrent(evaluator, args)
    recorded: Mapping[int | None, int] = {} if args.resume is None else count_trials(args.resume)
    num_recorded = recorded.get(env.rungs[0] if env.rungs else None, 0)
    if args.resume is not None:
        require_budget(args.budget, num_recorded, args.resume)
    elif evaluator.limits.max_latency is None:  # the search checks it again, and measuring latencies takes long
        check_feasibility(env, args.seed)
    budget = format_budget(args.budget, args.time)
    if num_recorded and limited_budget(args.budget) is not None:
        budget += f" ({num_recorded} of them recorded)"
    if not isinstance(evaluator, TrainingEvaluator):
        print_line(f"plan: {agent} evaluates {budget} in {args.env_id}, which trains no networks")
        return
    evaluator.prepare()
    for line in _describe_data(evaluator):
        print_line(line)
    train, valid = evaluator.images()
    rungs = evaluator.rungs or (evaluator.settings.total_epochs(len(train)),)
    epochs = [f"each is trained for {count(rungs[0], 'epoch')}"]
    for index, rung in enumerate(rungs[1:], start=1):
        epochs.append(f"the best 1 of {args.reduction_factor**index:,} for {count(rung, 'epoch')}")
    _, height, width = train.image_shape
    print_line(
        f"plan: {agent} evaluates {budget}, {num_concurrent} at a time; {', '.join(epochs)} on "
        f"{count(len(train), 'image')} of {width}x{height} pixels and measured on {count(len(valid), 'other')}"
    )
    if limits := evaluator.limits.describe():
        print_line(f"limits: {limits}; other children are not trained")
    try:
        where = device_name(resolve_device(args.device))
    except InputError:  # the children are trained on other machines; see ``SearchArgs.check``
        print_line(f"estimate: none, because this machine does not have the device {args.device}")
        return
    timed = time_search(evaluator, args)
    per_child = timed.per_child(args.budget)
    if math.isnan(per_child):
        print_line(f"estimate: none, because the training of {NUM_NETWORKS} random networks failed on {where}")
        return
    if limited_budget(args.budget) is None:
        more = "more children" if num_recorded else "children"
        num_children = timed.num_children(args.time or 0)
        print_line(f"estimate: {per_child:.1f} s per child on {where}, so about {num_children:,} {more}")
        return
    duration = format_duration(timed.estimate(args.budget, recorded))
    at_most = "" if args.time is None else f", at most {format_duration(args.time)}"
    print_line(
        f"estimate: {per_child:.1f} s per child on {where}, about {duration} in all{at_most} (from a few batches of "
        f"{NUM_NETWORKS} random networks)"
    )


def _describe_data(evaluator: TrainingEvaluator) -> list[str]:
    images = load_images(
        evaluator.dataset,
        train=True,
        data_dir=evaluator.data_dir,
        image_size=evaluator.settings.image_size,
        download=evaluator.download,
    )
    counts = _counts(images)
    listed = ", ".join(f"{name} {count:,}" for name, count in counts[:MAX_NAMES])
    more = f" and {len(counts) - MAX_NAMES} other classes" if len(counts) > MAX_NAMES else ""
    channels = images.image_shape[0]
    color = {1: "grayscale", 3: "RGB"}.get(channels, f"{channels}-channel")
    sizes: list[tuple[int, int]] = []
    path: Path | None = None
    if evaluator.dataset == "image_folder":
        path = resolve_data_dir(evaluator.data_dir)
        assert path is not None, "checked when the images were read"
        sizes = measure_own_images(path)
        lines = [f"data: {path}, {len(counts)} classes, {len(images):,} {color} training images{_describe_sizes(sizes)}"]
    else:
        lines = [f"data: {evaluator.dataset}, {len(counts)} classes, {len(images):,} {color} training images"]
    lines.append(f"classes: {listed}{more}")
    if path is not None and (path / "train").is_dir() and not (path / "test").is_dir():
        lines.append(f"note: {path / 'test'} does not exist; nases train needs its images to test the final network")
    if path is not None and path.suffix.lower() == ".csv":
        try:
            list_table(path, train=False)
        except InputError as error:  # the training images were read, so test images are missing
            lines.append(f"note: {error}, because nases train tests the final network with them")
    if images.value_range is not None:
        low, high = min(images.value_range.low), max(images.value_range.high)
        lines.append(f"note: values from {low:g} to {high:g} are converted to 8 bits")
    (largest, most), (smallest, fewest) = counts[0], counts[-1]
    if most > IMBALANCE * fewest:
        lines.append(
            f"note: {largest} has {most / fewest:.0f} times as many images as {smallest}; the reward depends "
            "mostly on the large classes"
        )
    num_valid = len(evaluator.images()[1])
    if num_valid < FEW_VALID_IMAGES:
        lines.append(
            f"note: with {count(num_valid, 'validation image')}, one image is {100 / num_valid:.1f} points of accuracy; "
            "small differences between networks are noise"
        )
    if color == "RGB" and sizes and sorted(map(min, sizes))[len(sizes) // 2] >= PHOTOGRAPH_PIXELS:
        lines.append(
            "note: if these are natural photographs, fine-tuning a pretrained network (torchvision.models) is usually more "
            'accurate; see "When not to use it" in the README'
        )
    return lines


def _counts(images: ImageSet) -> list[tuple[str, int]]:
    """Return the classes and their numbers of images, largest first."""
    by_label = Counter(images.labels.tolist())
    return sorted(((name, by_label[label]) for label, name in enumerate(images.class_names)), key=lambda item: -item[1])


def _describe_sizes(sizes: list[tuple[int, int]]) -> str:
    smallest, largest = min(sizes), max(sizes)
    pixels = [f"{width}x{height}" for width, height in (smallest, largest)]
    return f" of {pixels[0]} pixels" if smallest == largest else f" of {pixels[0]} to {pixels[1]} pixels"
