"""What every agent needs and none should write again: a budget, a run folder, the best so far, curves and a summary."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import platform
import shlex
import sys
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union

import gymnasium as gym
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import nases_env
from nases_env import drawing
from nases_env.agent import Agent
from nases_env.env import Action, ImageEnv, NASESEnv, Observation
from nases_env.errors import InputError
from nases_env.evaluation import ChildSettings, Evaluation
from nases_env.files import append_line, cannot_write, write_atomically
from nases_env.interrupts import deferred_interrupts
from nases_env.modules import import_own
from nases_env.search_spaces import Architecture

NUM_RECENT = 10  # children that the running mean of the reward covers
NUM_LISTED = 5  # architectures in the table at the end
ENV_OPTIONS = (
    "preset",
    "data_dir",
    "device",
    "num_threads",
    "search_space",
    "landscape",
    "table",
    "permutation_seed",
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
    round_size: int = 1
    """Children asked for at once: what an agent learns from one of them cannot help to choose the others."""
    run_dir: Path | None = None
    """New folder for everything that the search writes; unset: runs/ENVIRONMENT-AGENT-seedSEED-TIME."""
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
    landscape: int | None = None
    """NASES-Analytic-v0: the seed of a random reward with interactions; unset: the share of one operator."""
    table: str | None = None
    """NASES-NASBench201-v0: the CSV file with the table; unset: where the environment's documentation says."""
    permutation_seed: int | None = None
    """NASES-NASBench201-v0: number the operators in a random order, so that no order can help; unset: their own order."""
    embedding: str | None = None
    """A pretrained embedding as `nases pretrain` writes it; unset: the one that ships."""
    child: ChildOptions = field(default_factory=ChildOptions)
    """One by one, in place of what the preset says:"""


@dataclass(frozen=True)
class Child:
    """One line of a search's history.

    Attributes:
        number: 1 for the first child of the search.
        architecture: what was evaluated.
        evaluation: what came of it.
    """

    number: int
    architecture: Architecture
    evaluation: Evaluation


class Search(gym.Wrapper[Observation, Action, Observation, Action]):
    """An environment whose children are counted and remembered until a budget is spent.

    An agent calls ``step`` as in any environment, or ``evaluate`` with an architecture, until ``done``; ``run`` does so for
    an agent that asks and is told.

    Args:
        env: a NASES environment that was reset.
        budget: children to evaluate, at least 1. One that is met again counts.
    """

    def __init__(self, env: gym.Env[Observation, Action], budget: int) -> None:
        super().__init__(env)
        self.nases: NASESEnv = env.unwrapped  # type: ignore[assignment]
        self.budget = budget
        self.children: list[Child] = []
        self.best: Child | None = None

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return len(self.children) >= self.budget

    def step(self, action: Action) -> tuple[Observation, Any, bool, bool, dict[str, Any]]:
        """One step of the environment, recorded."""
        result = super().step(action)
        self._remember()
        return result

    def evaluate(self, architecture: Architecture) -> Evaluation:
        """Evaluates ``architecture`` in the environment, recorded: for agents that need no embedding."""
        evaluation = self.nases.evaluate(architecture)
        self._remember()
        return evaluation

    def run(self, agent: Agent, round_size: int = 1) -> None:
        """Has children evaluated as ``agent`` asks for them, ``round_size`` at a time, until the budget is spent."""
        while not self.done:
            for proposal in agent.ask(min(round_size, self.budget - len(self.children))):
                if proposal.action is None:
                    self.evaluate(proposal.architecture)
                else:
                    self.step(proposal.action)
                self.log(agent.tell(proposal, self.children[-1].evaluation))

    def log(self, scalars: Mapping[str, float]) -> None:
        """Takes an agent's own curves, at the current child; they are shown where the search is recorded."""

    def _remember(self) -> None:
        evaluation = self.nases.last_evaluation
        assert evaluation is not None
        self.children.append(Child(len(self.children) + 1, self.nases.architecture, evaluation))
        if self.best is None or evaluation.reward > self.best.evaluation.reward:
            self.best = self.children[-1]


class RecordedSearch(Search):
    """A search that a person started: recorded and shown, for as long as a ``with`` block lasts.

    The run folder holds, from the first child on and after each one:

    - ``config.json``: the command, its arguments, the children's settings, seeds and versions
    - ``evaluations.jsonl``: one evaluation a line, in order
    - ``best.json``: the best architecture so far, as the environment's ``reset`` reads it
    - TensorBoard's event files

    and ``best.png`` and ``best.svg`` when the block ends, by an interrupt or an error too.

    Raises:
        InputError: if an argument is wrong, the run folder is not new or cannot be written, or data are missing; nothing
            is written then.
    """

    def __init__(self, args: SearchArgs, *, agent: str) -> None:
        for option in ("budget", "round_size"):
            if getattr(args, option) < 1:
                raise InputError(f"--{option.replace('_', '-')} must be at least 1 child, not {getattr(args, option)}")
        env = make_env(args)
        super().__init__(env, args.budget)
        self.args = args
        self.agent = agent
        self._keys: set[str] = set()
        env.reset(seed=args.seed)  # loads the data: what is missing is missed before any file
        self.run_dir = _new_run_dir(args, agent)
        write_atomically(self.run_dir / "config.json", (json.dumps(self._config(), indent=2) + "\n").encode())
        self._writer = SummaryWriter(str(self.run_dir))
        self._writer.add_text("config", _markdown_table(self._hyper_parameters()))
        self._console = Console()
        self._bar = tqdm(total=args.budget, unit="child", desc=agent, file=sys.stderr, dynamic_ncols=True)

    def log(self, scalars: Mapping[str, float]) -> None:
        """Adds an agent's own curves to TensorBoard, at the current child."""
        with self._writing():
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, len(self.children))

    def __enter__(self) -> RecordedSearch:
        preset = f"preset {self.nases.preset}, " if isinstance(self.nases, ImageEnv) else ""
        self._console.print(
            f"{self.args.env_id}: {preset}{self.args.budget} children, seed {self.args.seed}", highlight=False
        )
        return self

    def __exit__(self, *raised: Any) -> Literal[False]:
        self._bar.close()
        self.close()
        if raised[0] is not None:
            self._console.print(f"ended after {len(self.children)} of {self.args.budget} children")
        self._print_summary()
        with deferred_interrupts(), self._writing():
            if self.best is not None:
                self._save_pictures(self.best)
            self._writer.close()
        return False

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """TensorBoard's writer works in a thread of its own and raises what went wrong there at a later call."""
        try:
            yield
        except OSError as error:
            raise cannot_write(self.run_dir, error) from error

    def _remember(self) -> None:
        with deferred_interrupts():
            before = self.best
            super()._remember()
            assert self.best is not None
            child = self.children[-1]
            evaluation = child.evaluation
            is_new = evaluation.key not in self._keys
            self._keys.add(evaluation.key)
            record = {"child": child.number, "is_new": is_new, "reward": evaluation.reward, **evaluation.to_dict()}
            record["genotype"] = self.nases.search_space.genotype(child.architecture)
            append_line(self.run_dir / "evaluations.jsonl", json.dumps(record))
            if self.best is not before:
                self._save_best(child)
            self._write_curves(evaluation, is_new)
            self._bar.set_postfix(best=f"{self.best.evaluation.reward:.4f}", last=f"{evaluation.reward:.4f}", refresh=False)
            self._bar.update()

    def _save_pictures(self, best: Child) -> None:
        title = f"{self.args.env_id}: validation accuracy {best.evaluation.valid_accuracy:.2%}"
        picture = drawing.draw(self.nases.search_space, best.architecture, title)
        drawing.save(picture, self.run_dir / "best.png")
        drawing.save(picture, self.run_dir / "best.svg")
        self._writer.add_hparams(
            self._hyper_parameters(), {"hparam/best_reward": best.evaluation.reward}, run_name=os.curdir
        )

    def _save_best(self, child: Child) -> None:
        space = self.nases.search_space
        write_atomically(self.run_dir / "best.json", (space.to_json(child.architecture) + "\n").encode())
        picture = drawing.draw(space, child.architecture, f"child {child.number}: reward {child.evaluation.reward:.4f}")
        with self._writing():
            self._writer.add_image("search/best_cells", drawing.to_array(picture), child.number, dataformats="HWC")

    def _write_curves(self, evaluation: Evaluation, is_new: bool) -> None:
        assert self.best is not None
        recent = [child.evaluation.reward for child in self.children[-NUM_RECENT:]]
        self.log(
            {
                "search/reward": evaluation.reward,
                "search/best_reward": self.best.evaluation.reward,
                f"search/mean_of_last_{NUM_RECENT}": sum(recent) / len(recent),
                "search/distinct_architectures": len(self._keys),
                "child/num_params": evaluation.num_params,
                "child/train_accuracy": evaluation.train_accuracy,
            }
        )
        if is_new:
            self.log({"child/seconds": evaluation.seconds})

    def _hyper_parameters(self) -> dict[str, str | int | float | bool]:
        """All arguments, flat, and with the children's settings as they are after preset and options."""
        flat: dict[str, Any] = {"agent": self.agent, **dataclasses.asdict(self.args)}
        flat.pop("child")
        if isinstance(self.nases, ImageEnv):
            flat["preset"] = self.nases.preset
            flat.update({f"child.{name}": value for name, value in dataclasses.asdict(self.nases.settings).items()})
        return {name: value if isinstance(value, (bool, int, float, str)) else str(value) for name, value in flat.items()}

    def _config(self) -> dict[str, Any]:
        return {
            "command": shlex.join(sys.argv),
            **self._hyper_parameters(),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": {
                "nases_env": nases_env.__version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "gymnasium": gym.__version__,
            },
        }

    def _print_summary(self) -> None:
        best_of: dict[str, Child] = {}  # the first child of each architecture
        for child in self.children:
            best_of.setdefault(child.evaluation.key, child)
        ranked = sorted(best_of.values(), key=lambda child: -child.evaluation.reward)[:NUM_LISTED]
        if ranked:
            table = Table(title=f"the best of {len(best_of)} architectures", title_justify="left")
            for heading in ("rank", "valid", "train", "parameters", "MFLOPs", "child", "status"):
                table.add_column(heading, justify="right")
            for rank, child in enumerate(ranked, start=1):
                evaluation = child.evaluation
                table.add_row(
                    str(rank),
                    f"{evaluation.valid_accuracy:.2%}",
                    f"{evaluation.train_accuracy:.2%}",
                    f"{evaluation.num_params:,}",
                    f"{evaluation.num_flops / 1e6:,.1f}",
                    str(child.number),
                    evaluation.status.value,
                )
            self._console.print(table)
        self._console.print(f"everything is in {self.run_dir}", soft_wrap=True, highlight=False)
        self._console.print(
            f"curves: tensorboard --logdir {shlex.quote(str(self.run_dir))}", soft_wrap=True, highlight=False
        )


def make_env(args: SearchArgs) -> gym.Env[Observation, Action]:
    """The environment that ``args`` names: one of this package, or any other that is registered and is a `NASESEnv`.

    Raises:
        InputError: if there is no such environment, or it does not take an option that was given.
    """
    module, _, env_id = args.env_id.rpartition(":")
    try:
        if module:
            import_own(module)
        spec = gym.spec(env_id)
        env_class = gym.envs.registration.load_env_creator(spec.entry_point)  # type: ignore[arg-type]
    except (gym.error.Error, ImportError) as error:
        raise InputError(
            f"no environment {args.env_id!r} to search in ({_one_line(error)}); this package has "
            f"{', '.join(nases_env.ENV_IDS)}, and MODULE:ID names one of another module"
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _new_run_dir(args: SearchArgs, agent: str) -> Path:
    time = datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{args.env_id.split(':')[-1]}-{agent}-seed{args.seed}-{time}"
    run_dir = Path("runs") / name if args.run_dir is None else args.run_dir
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise InputError(f"the run folder {run_dir} exists and is not empty; name a new one with --run-dir")
    return run_dir


def _markdown_table(values: Mapping[str, Any]) -> str:
    return "\n".join(["| name | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in values.items())])
