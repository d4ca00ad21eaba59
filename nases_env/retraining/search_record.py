"""The search whose best architecture is trained, as its run directory records it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nases_env.errors import InputError
from nases_env.evaluation import ChildSettings, Evaluation, load_settings, settings_overrides
from nases_env.quantity import ACCURACY, REWARD
from nases_env.retraining.training import settings_without_effect
from nases_env.search.run_dir import BEST, CONFIG, best_record, read_config, read_finalists, read_trials
from nases_env.search.time_budget import limited_budget

OTHER_IMAGES = "The images are not those of the search."


@dataclass(frozen=True)
class SearchRecord:
    """What the report on a final training states about the search.

    Attributes:
        agent: name of the agent.
        budget: number of children that the search was to evaluate; None: it was stopped, and only its time was limited.
        num_children: number of evaluated children; less than ``budget`` if the search was stopped.
        seconds: wall time of the evaluations, summed.
        on_gpu: whether they ran on a GPU.
        reward: reward of the best child in the search, in [0, 1]; the child was chosen by it. The mean of two evaluations
            if the search had finalists.
        settings: settings of the children.
        has_same_images: whether the images of the final training are those of the search.
    """

    agent: str
    budget: int | None
    num_children: int
    seconds: float
    on_gpu: bool
    reward: float
    settings: ChildSettings
    has_same_images: bool = True

    def describe(self) -> str:
        """Describe how the architecture was chosen."""
        children = f"{self.num_children} {'child' if self.num_children == 1 else 'children'}"
        quantity, name = (ACCURACY, "validation accuracy") if self.settings.rewards_accuracy else (REWARD, "reward")
        text = f"The architecture is the best of {children} of {self.agent} by {name} ({quantity.format(self.reward)})."
        if self.budget is None:
            text += f" The search was stopped after {children}."
        elif self.num_children < self.budget:
            text += f" The search was stopped after {self.num_children} of {self.budget} children."
        return text


def read_search(run_dir: Path) -> SearchRecord:
    """Read the search in ``run_dir``.

    Raises:
        InputError: if it is not a run directory, or its children were not trained.
    """
    config = read_config(run_dir)
    trials = list(read_trials(run_dir))
    # A promoted child is listed once per rung; its last result includes the time of the lower rungs.
    last = {evaluation.key: evaluation for record, evaluation in trials if record["is_new"]}
    evaluations = [*last.values(), *(Evaluation.from_dict(record["second"]) for record in read_finalists(run_dir))]
    best = best_record(run_dir, [record for record, _ in trials])
    return SearchRecord(
        agent=str(config["agent"]),
        budget=limited_budget(config["arguments"]["budget"]),
        num_children=sum(not record["is_promotion"] for record, _ in trials),
        seconds=sum(evaluation.seconds for evaluation in evaluations),
        on_gpu=any(evaluation.device != "cpu" for evaluation in evaluations),
        reward=0.0 if best is None else best["mean_reward"],
        settings=searched_settings(run_dir),
    )


def searched_settings(run_dir: Path) -> ChildSettings:
    """Read the settings of the children of the search in ``run_dir``.

    Raises:
        InputError: if it is not a run directory, or its children were not trained.
    """
    configuration = read_config(run_dir)["configuration"]
    if configuration.get("evaluator") != "training":
        raise InputError(f"the search in {run_dir} did not train networks; pass {run_dir / BEST} and --dataset")
    if not isinstance(configuration.get("settings"), dict):
        raise InputError(f"{run_dir / CONFIG} is damaged (settings must be an object); restore it, or start a new search")
    return load_settings(configuration["settings"], ChildSettings())


def changed_settings(searched: ChildSettings, final: ChildSettings) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ between a search and a final training, by name.

    Returns:
        The value in the search and in the final training. Settings that have no effect on a final training are left out.
    """
    differing = settings_overrides(final, searched)
    for name in settings_without_effect(final):
        differing.pop(name, None)
    return {name: (getattr(searched, name), value) for name, value in differing.items()}


def describe_changes(changes: dict[str, tuple[Any, Any]]) -> str:
    """Describe the result of ``changed_settings``."""
    if not changes:
        return "All settings are those of the search."
    return f"Changed from the search: {', '.join(f'{name} {old} -> {new}' for name, (old, new) in changes.items())}."
