"""Command-line options of a search."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

import tyro

from nases_env.envs import NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import ChildSettings, Limits
from nases_env.execution import ExecutionSettings
from nases_env.paths import absolute_path
from nases_env.search.option_checks import require_at_least, require_default, require_num_threads
from nases_env.search.run_dir import require_fresh
from nases_env.search.time_budget import Duration
from nases_env.search_spaces import SearchSpace

OUTPUT_OPTIONS = ("quiet", "log_json")
"""Options of what a command prints, which a run directory does not record."""


def _parse_rungs(texts: list[str]) -> tuple[int, ...]:
    try:
        return tuple(int(rung) for rung in texts[0].split(",")) if texts[0] else ()
    except ValueError:
        raise InputError(f"--rungs must be numbers of epochs separated by commas, such as 1,3,7, not {texts[0]}") from None


Rungs = Annotated[
    tuple[int, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="EPOCHS,EPOCHS,...",
        instance_from_str=_parse_rungs,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda rungs: [",".join(map(str, rungs))],
    ),
]
"""Type of the option ``--rungs``."""

ChildOptions = tyro.conf.FlagConversionOff[tyro.conf.AvoidSubcommands[ChildSettings | None]]
"""Type of an option group for the settings of the children. None: those of the preset."""


@dataclass
class SearchArgs:
    """Options of every search."""

    uses_embedding: ClassVar[bool] = True
    """Whether the agent uses the embedding of the search space."""

    essential: ClassVar[tuple[str, ...]] = (
        "env_id",
        "budget",
        "time",
        "seed",
        "num_envs",
        "preset",
        "data_dir",
        "run_dir",
        "resume",
    )
    """Options that ``--help`` explains; ``--help-all`` explains all."""

    added: ClassVar[tuple[str, ...]] = ()
    """Options of the agent that run directories of earlier versions lack; they have their defaults."""

    env_id: str = "NASES-Digits-v0"
    """Id of the environment, such as NASES-CIFAR10-v0; MODULE:ID for one that MODULE registers."""
    env_kwargs: dict[str, str] = field(default_factory=dict)
    """Additional environment arguments as NAME VALUE pairs, such as landscape_seed 3."""
    budget: int = 30
    """Number of children to evaluate, including repeated architectures, which are not evaluated again."""
    time: Duration = None
    """Duration of the search, such as 90s, 45m or 1h30m, including the second evaluation of the finalists. A resumed search
    gets the full time again. Default: no limit. With --time, --budget is unlimited by default, except for a resumed search
    that is not finished, which keeps its budget."""
    seed: int = 0
    """Seed of all random numbers, including the validation split."""
    num_envs: int = 1
    """Number of concurrent evaluations. In `nases search`, the default is one per GPU of this machine (times
    --workers-per-gpu) or, without a GPU, one per CPU core, but at most 5, or a sixth of --budget if that is more, and one if
    nothing is trained. The agent receives results in the order of its
    proposals, so the search does not depend on timing. It depends on this number: with more than one, the agent proposes
    before it knows all results."""
    ask_batch_size: int = 1
    """Number of children that the agent proposes at a time."""
    rungs: Rungs = ()
    """Numbers of epochs after which a child can be evaluated, such as 1,3,7, which also restart the learning rate schedule
    and replace --child.num-epochs. New children are trained up to the first; the best 1 / REDUCTION_FACTOR of them continue
    to the next (asynchronous successive halving). Default: all children are trained to the end."""
    reduction_factor: int = 4
    """With --rungs: the inverse of the fraction of children that continue to the next rung."""
    num_finalists: int | None = None
    """Number of best children that are evaluated again with another seed, at the last rung; the one with the best mean
    reward at the last rung is the result. 0: the result is the child with the best reward. Default: 5, or 0 if rewards do
    not depend on a seed."""
    run_dir: Path | None = None
    """New directory for all files of the search. Default: runs/ENVIRONMENT-AGENT-seedSEED-TIME."""
    resume: Path | None = None
    """Run directory of a search to resume. Its options are used; only --budget, --time, --track, --data-dir, --quiet,
    --log-json and the options of the execution may change. The images must be the same."""
    track: Literal["wandb", "mlflow", "trackio"] | None = None
    """Also send the curves to this experiment tracker, which its own environment variables configure."""
    quiet: bool = False
    """Print errors only."""
    log_json: bool = False
    """Print JSON objects, one per line, instead of the progress bar and the table: for the start, each trial, each finalist
    and the end. A resumed search prints its last recorded trial again."""
    preset: str = "auto"
    """Network size and training of the children: paper, gpu, cpu, small or smoke. auto: small for an image folder with few
    images, otherwise gpu if there is a GPU or --device is cuda, otherwise cpu."""
    data_dir: str | None = None
    """Directory with the data sets. Default: the environment variable NASES_DATA_DIR, else a directory in the user's
    cache."""
    device: str = "auto"
    """Torch device such as cpu or cuda:1. auto: the GPU if this machine has one. With --executor slurm or ray, cuda is a GPU
    of the machine that trains a child; this one needs none."""
    num_threads: int = 1
    """Number of CPU threads per training."""
    search_space: str | None = None
    """enas_micro, enas_micro_sized, nasbench201, transnas_micro, accel, or a custom search space as MODULE:CLASS. Default:
    that of the environment."""
    objectives: str | None = None
    """The objectives of an environment with several: accuracy, which is the reward, and then one or more costs, such as
    accuracy,flops. Default: accuracy,params."""
    embedding: str | None = None
    """File with a pretrained embedding, as written by `nases pretrain`, for agents that use one. Default: the built-in
    one."""
    limits: tyro.conf.OmitArgPrefixes[Limits] = field(default_factory=Limits)
    """Limits on the costs of a child; children that exceed a limit are not evaluated:"""
    execution: tyro.conf.OmitArgPrefixes[ExecutionSettings] = field(default_factory=ExecutionSettings)
    """Where and how children are evaluated; has no effect on results, except for --time-limit and --memory-limit:"""
    child: ChildOptions = None
    """Settings of the children; the defaults are those of --preset:"""

    @property
    def max_pending(self) -> int:
        """Largest number of children that are proposed and not yet evaluated."""
        return max(self.num_envs, self.ask_batch_size)

    def check(self) -> None:
        """Check the options of every search, before anything is planned or written.

        Raises:
            InputError: if one of them is out of its range, or has no effect with the others, or if ``run_dir`` is in use.
        """
        require_at_least(self, 1, "budget", "num_envs", "ask_batch_size")
        require_num_threads(self)
        require_at_least(self, 2, "reduction_factor")
        require_at_least(self, 0, "seed")
        if len(self.rungs) < 2:
            require_default(self, "with one rung" if self.rungs else "without --rungs", "reduction_factor")
        if self.quiet and self.log_json:
            raise InputError("--quiet and --log-json exclude each other; omit one of them")
        if self.time is not None and not self.time > 0:
            raise InputError(f"--time must be more than 0 seconds, not {self.time}")
        if self.run_dir is not None and self.resume is None:
            require_fresh(self.run_dir)
        self.execution.require_device(self.device)  # before data is downloaded

    def with_absolute_paths(self: Args) -> Args:
        """Return the options with absolute paths of what the search reads, so that other directories can resume it."""
        data_dir, embedding = (str(absolute_path(path)) if path else path for path in (self.data_dir, self.embedding))
        return replace(self, data_dir=data_dir, embedding=embedding)

    def check_env(self, env: NASESEnv) -> None:
        """Check that the agent can search ``env``, before anything is planned or written.

        Raises:
            InputError: if it cannot, for example because it needs several objectives.
        """

    def inputs(self, search_space: SearchSpace) -> dict[str, str]:
        """Return digests of what the agent reads from files, by description. A resumed search must read the same.

        Args:
            search_space: the search space of the environment.

        Raises:
            InputError: if a file cannot be read, or does not fit ``search_space``.
        """
        return {}


Args = TypeVar("Args", bound=SearchArgs)
