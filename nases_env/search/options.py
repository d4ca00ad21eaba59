"""What every search is told on the command line, and the environment that it names."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union

import gymnasium as gym
import tyro

from nases_env.envs import Action, NASESEnv, Observation
from nases_env.errors import InputError, one_line
from nases_env.evaluation import ChildSettings
from nases_env.execution import ExecutionSettings
from nases_env.registration import ENV_IDS
from nases_env.user_modules import import_user_module

ENV_OPTIONS = (
    "preset",
    "data_dir",
    "device",
    "num_threads",
    "search_space",
    "landscape_seed",
    "table",
    "operator_permutation_seed",
    "embedding",
)
"""What is handed to the environment if it is given."""

ChildOptions: Any = dataclasses.make_dataclass(
    "ChildOptions",
    [
        (
            option.name,
            Annotated[
                Union[Literal["preset"], typing.get_type_hints(ChildSettings)[option.name]],  # noqa: UP007 - built at run time
                tyro.conf.arg(help=option.metadata["help"]),
            ],
            "preset",
        )
        for option in dataclasses.fields(ChildSettings)
    ],
)
"""Every field of `ChildSettings` as an option of the command line; "preset" leaves it as the preset has it."""


@dataclass
class SearchArgs:
    """What every search is told."""

    agent_presets: ClassVar[tuple[str, ...]] = ()
    """The presets that say something about the agent too."""

    env_id: str = "NASES-Digits-v0"
    """The environment, by its id: NASES-Digits-v0, NASES-CIFAR10-v0, and so on."""
    budget: int = 30
    """Children to evaluate. One that is met again is not trained again, but counts."""
    seed: int = 0
    """Everything random descends from it, the validation split included."""
    num_envs: int = 1
    """Children in flight at once: the next is chosen before the last so many are known. Results are learned from in the
    order in which the children were chosen, so that the search does not depend on which of them is ready first."""
    ask_batch_size: int = 1
    """Children chosen together: what an agent learns from one of them cannot help to choose the others."""
    run_dir: Path | None = None
    """New folder for everything that the search writes; unset: runs/ENVIRONMENT-AGENT-seedSEED-TIME."""
    resume: Path | None = None
    """A run folder to go on with, as if it had not ended. All options are the run's own; a larger --budget, and where
    children are evaluated, may be given anew."""
    preset: str = "auto"
    """Size and training of the children: paper, gpu, cpu or smoke; auto: gpu where there is one, else cpu."""
    data_dir: str | None = None
    """The folder with the data; unset: the environment variable NASES_DATA_DIR, else a folder of the user's cache."""
    device: str = "auto"
    """A torch device such as cpu or cuda:1; auto: the GPU where there is one."""
    num_threads: int = 1
    """CPU threads of a training."""
    search_space: str | None = None
    """enas_micro, nasbench201, or one of your own as MODULE:CLASS; unset: the environment's own."""
    landscape_seed: int | None = None
    """NASES-Synthetic-v0: the seed of a random reward with interactions; unset: the share of one operator."""
    table: str | None = None
    """NASES-NASBench201-v0: the CSV file with the table; unset: where the environment's documentation says."""
    operator_permutation_seed: int | None = None
    """NASES-NASBench201-v0: number the operators in a random order, so that no order can help; unset: their own order."""
    embedding: str | None = None
    """A pretrained embedding as `nases pretrain` writes it; unset: the one that ships."""
    execution: tyro.conf.OmitArgPrefixes[ExecutionSettings] = field(default_factory=ExecutionSettings)
    """Where and how children are evaluated; none of it changes a result:"""
    child: ChildOptions = field(default_factory=ChildOptions)
    """One by one, in place of what the preset says:"""


def make_env(args: SearchArgs) -> gym.Env[Observation, Action]:
    """The environment that ``args`` names: one of this package, or any other that is registered and is a `NASESEnv`.

    Raises:
        InputError: if there is no such environment, or it does not take an option that was given.
    """
    module, _, env_id = args.env_id.rpartition(":")
    try:
        if module:
            import_user_module(module)
        spec = gym.spec(env_id)
        env_class = gym.envs.registration.load_env_creator(spec.entry_point)  # type: ignore[arg-type]
    except (gym.error.Error, ImportError) as error:
        raise InputError(
            f"no environment {args.env_id!r} to search in ({one_line(error)}); this package has "
            f"{', '.join(ENV_IDS)}, and MODULE:ID names one of another module"
        ) from None
    if not (isinstance(env_class, type) and issubclass(env_class, NASESEnv)):
        raise InputError(f"{args.env_id} is no environment for architecture search: it must be a NASESEnv")
    keywords = inspect.signature(env_class).parameters
    trains = any(keyword.kind is inspect.Parameter.VAR_KEYWORD for keyword in keywords.values())
    given = {name: getattr(args, name) for name in ENV_OPTIONS if getattr(args, name) != getattr(SearchArgs, name)}
    if "preset" not in keywords and args.preset in args.agent_presets:
        del given["preset"]
    not_taken = [name for name in given if name not in keywords]
    child = {name: value for name, value in vars(args.child).items() if value != "preset"}
    if not trains:
        not_taken += [f"child.{name}" for name in child]
    if not_taken:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in not_taken)
        raise InputError(f"{args.env_id} does not take {options}; leave it out, or name another environment with --env-id")
    if "split_seed" in keywords:
        given["split_seed"] = args.seed
    # A search is one episode: its budget ends it, and a truncation would throw an agent back to a random child.
    return gym.make(spec, max_episode_steps=args.budget, **given, **child)
