"""The latency of the best children of a search, for the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from nases_env.cpu import cpu_name
from nases_env.errors import InputError
from nases_env.evaluation import TrainingEvaluator, measure_latencies
from nases_env.report import Latency, Run
from nases_env.search.environment import make_env
from nases_env.search.options import SearchArgs
from nases_env.search.recorded_args import load_args
from nases_env.search.run_dir import changed_configuration, read_config, read_trials
from nases_env.search_spaces import get_search_space

NUM_CHILDREN = 5
OTHER_MACHINE = {"device", "num_threads"}  # settings that do not change the networks


def with_latencies(run: Run, run_dir: Path, data_dir: str | None = None) -> Run:
    """Return ``run`` with the latency of its best children, measured on this machine; finalists precede the others.

    The networks are built as the search built them, which reads the data set and, with ``import_recorded_module``, imports
    the modules that the run directory names.

    Args:
        run: the search.
        run_dir: its run directory.
        data_dir: the directory of the data set; None: that of the search.

    Raises:
        InputError: if the children are not trained networks, none has a result, or the networks cannot be built.
    """
    if not run.is_trained:
        raise InputError(f"--latency is for searches that train networks, which the one in {run_dir} does not; omit it")
    best = run.ranking()[:NUM_CHILDREN]
    if not best:
        raise InputError(f"no child of {run_dir} has a result, so --latency has nothing to measure; omit it")
    evaluator = _evaluator(run_dir, data_dir)
    space, numbers = get_search_space(evaluator.search_space), {child.number for child in best}
    models = {
        record["child"]: evaluator.build(space.from_genotype(record["genotype"]), evaluation.seed)
        for record, evaluation in read_trials(run_dir)
        if record["child"] in numbers
    }
    train, _ = evaluator.images()
    measured = measure_latencies([models[child.number] for child in best], train.image_shape)
    latencies = [
        Latency(child.number, each.low, each.median, each.high, each.num_passes)
        for child, each in zip(best, measured, strict=True)
    ]
    return dataclasses.replace(run, latencies=latencies, processor=cpu_name())


def _evaluator(run_dir: Path, data_dir: str | None) -> TrainingEvaluator:
    """Return the evaluator of the search, which downloads no data set."""
    args = load_args(SearchArgs, run_dir)
    env = make_env(args if data_dir is None else dataclasses.replace(args, data_dir=data_dir))
    try:
        assert isinstance(env.evaluator, TrainingEvaluator)
        evaluator = dataclasses.replace(env.evaluator, device="cpu", download=False)
    finally:
        env.close()
    changed = set(changed_configuration(read_config(run_dir), evaluator)) - OTHER_MACHINE
    if changed:
        raise InputError(
            f"these settings differ from those of {run_dir}: {', '.join(sorted(changed))}; restore them, or omit --latency"
        )
    return evaluator
