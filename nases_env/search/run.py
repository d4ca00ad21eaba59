"""A search that a person started: its run folder, its curves, its progress line and its summary."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from nases_env.atomic_io import write_atomically, write_error
from nases_env.envs import Action, ImageEnv
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status
from nases_env.search.loop import SearchLoop, Trial
from nases_env.search.options import SearchArgs, make_env
from nases_env.search.run_dir import (
    STORE,
    RunDir,
    changed_since,
    configuration_of,
    is_finished,
    is_unused,
    read_config,
    read_trajectory,
    to_json,
)
from nases_env.search_spaces import Architecture
from nases_env.signals import defer_signals
from nases_env.version import __version__

NUM_RECENT = 10  # children that the running mean of the reward covers
NUM_LISTED = 5  # architectures in the table at the end
REFRESH_SECONDS = 1.0  # of the progress line while nothing happens
BAR_FORMAT = "{desc}: {n_fmt}/{total_fmt} |{bar:16}| {elapsed}{postfix}"


class SearchRun(SearchLoop):
    """A search that a person started: recorded and shown, for as long as a ``with`` block lasts.

    The run folder holds, from the first child on and after each one:

    - ``config.json``: the command, its arguments, the configuration of the evaluations, versions
    - ``evaluations.jsonl``: the trajectory, one child a line, in order, with action and reward
    - ``store.sqlite``: the results, unless another store is named
    - ``best.json``: the best architecture so far, as the environment's ``reset`` reads it
    - TensorBoard's event files

    and ``best.png`` and ``best.svg`` when the block ends, by an interrupt or an error too.

    With ``args.resume`` the agent is driven again through the children that the run folder knows, without evaluating them,
    so that it comes to the state in which it was, random generators included, and goes on. Nothing that the agent remembers
    needs a file of its own, and what it does differently from before is seen at once.

    Raises:
        InputError: if an argument is wrong, the run folder is not new or cannot be written, data are missing, or a run
            cannot be gone on with; nothing is written then.
    """

    def __init__(self, args: SearchArgs, *, agent: str) -> None:
        for option in ("budget", "num_envs", "ask_batch_size"):
            if getattr(args, option) < 1:
                raise InputError(f"--{option.replace('_', '-')} must be at least 1, not {getattr(args, option)}")
        if args.seed < 0:
            raise InputError(f"--seed must be at least 0, not {args.seed}")
        super().__init__(make_env(args), args.budget, args.num_envs)
        self.args = args
        self.agent = agent
        self._started = _now()
        self._keys: set[str] = set()
        self._num_failed = 0
        self.env.reset(seed=args.seed)  # loads the data: what is missing is missed before any file
        self.folder = RunDir(_run_dir(args, agent))
        self.run_dir = self.folder.path
        self._recorded = [] if args.resume is None else self._read_recorded(args.resume)
        where = args.execution
        self.nases.execution = dataclasses.replace(
            where,
            store=str(Path(where.store or self.run_dir / STORE).absolute()),
            work_dir=str(Path(where.work_dir or self.run_dir).absolute()),
        )
        _ = self.nases.executor  # made now: a store or a cluster that cannot be used is missed before any file
        try:
            self._open()
        except BaseException:
            self.close()
            self.folder.close()
            raise

    def _open(self) -> None:
        self.folder.lock()
        if self.args.resume is not None:
            self.folder.mend()
        self.folder.write_config(self._config())
        # What follows the last recorded child is dropped; that child's curves, which may be missing, are written again.
        self._writer = SummaryWriter(str(self.run_dir), purge_step=len(self._recorded) or None)
        if not self._recorded:
            self._writer.add_text("config", _markdown_table(self._hyper_parameters()))
        self._console = Console()
        self._bar = tqdm(
            total=self.budget,
            initial=len(self._recorded),
            unit="child",
            desc=self.agent,
            file=sys.stderr,
            dynamic_ncols=True,
            bar_format=BAR_FORMAT,
        )
        self._began = time.monotonic()

    def _read_recorded(self, path: Path) -> list[str]:
        """The keys of the children that the run folder knows; the environment remembers their evaluations."""
        config = read_config(path)
        if config.get("agent") != self.agent:
            raise InputError(f"{path} is a run of the agent {config.get('agent')}, not {self.agent}; go on with that one")
        if config.get("configuration") != configuration_of(self.nases.evaluator):
            names = changed_since(config, self.nases.evaluator)
            raise InputError(
                f"{path} cannot be gone on with: its children were evaluated with other {', '.join(names) or 'settings'}; "
                "restore what has changed, or begin a new search"
            )
        if is_finished(path, self.budget):
            raise InputError(f"{path} is finished: it has its {self.budget} children; --budget goes on with it")
        keys = []
        for record in read_trajectory(path):
            keys.append(record["key"])
            self.nases.remember(Evaluation.from_dict(record))
        if len(keys) > self.budget:
            raise InputError(f"{path} has {len(keys)} children already, more than --budget {self.budget}; give a larger one")
        return keys

    @property
    def _replays(self) -> bool:
        """Whether the current child was recorded before this process began, and its curves are whole."""
        return len(self.children) < len(self._recorded)

    def log(self, scalars: Mapping[str, float]) -> None:
        """Adds an agent's own curves to TensorBoard, at the current child."""
        if self._replays:
            return
        with self._writing():
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, len(self.children))

    def __enter__(self) -> SearchRun:
        preset = f"preset {self.nases.preset}, " if isinstance(self.nases, ImageEnv) else ""
        known = f", {len(self._recorded)} of them known" if self._recorded else ""
        self._console.print(
            f"{self.args.env_id}: {preset}{self.budget} children, seed {self.args.seed}{known}", highlight=False
        )
        return self

    def __exit__(self, *raised: Any) -> Literal[False]:
        if isinstance(raised[1], KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, _leave_at_once)
        try:
            self._end(interrupted=raised[0] is not None)
        finally:
            self.folder.close()
        return False

    def _end(self, interrupted: bool) -> None:
        self._bar.close()
        self.close()
        if interrupted:
            self._console.print(f"ended after {max(len(self.children), len(self._recorded))} of {self.budget} children")
        self._print_summary()
        with defer_signals(*((signal.SIGTERM,) if interrupted else ())), self._writing():
            if self.best is not None and not self._replays:
                self._save_pictures(self.best)
            self._writer.close()
            if self.done:
                self.folder.write_config({**self._config(), "finished": _now()})

    def close(self) -> None:
        """Abandons what is in flight."""
        super().close()
        if self.done:
            self.folder.remove_checkpoints()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """TensorBoard's writer works in a thread of its own and raises what went wrong there at a later call."""
        try:
            yield
        except OSError as error:
            raise write_error(self.run_dir, error) from error

    def _wait(self, future: Future[Evaluation]) -> Evaluation:
        while not wait([future], timeout=REFRESH_SECONDS).done:
            self._show()
        return future.result()

    def _remember(self, architecture: Architecture, evaluation: Evaluation, action: Action | None) -> None:
        with contextlib.nullcontext() if len(self.children) + 1 < len(self._recorded) else defer_signals():
            before = self.best
            super()._remember(architecture, evaluation, action)
            assert self.best is not None
            child = self.children[-1]
            is_new = evaluation.key not in self._keys
            self._keys.add(evaluation.key)
            self._num_failed += evaluation.status is not Status.OK
            if child.number <= len(self._recorded):
                self._check(child)
            else:
                self.folder.append(self._record(child, is_new))
                self._bar.update()
            if self._replays:
                return
            if self.best is not before or child.number == len(self._recorded):
                self._save_best(self.best)
            self._write_curves(evaluation, is_new)
            self._show()

    def _record(self, child: Trial, is_new: bool) -> dict[str, Any]:
        values = child.evaluation.to_dict()
        del values["curve"]  # the store has it
        return {
            "child": child.number,
            "is_new": is_new,
            "reward": child.evaluation.reward,
            **values,
            "action": None if child.action is None else child.action.tolist(),
            "genotype": self.nases.search_space.genotype(child.architecture),
        }

    def _check(self, child: Trial) -> None:
        """Whether the agent has chosen the child that it chose when the run was recorded."""
        key = self._recorded[child.number - 1]
        if key != child.evaluation.key:
            raise InputError(
                f"{self.run_dir} cannot be gone on with: child {child.number} was {key} and is now {child.evaluation.key}. "
                "Another version or machine computes otherwise; begin a new search, with --store "
                f"{self.nases.execution.store} if it shall use these results"
            )

    def _show(self) -> None:
        """The progress line: finished, in flight, from the store, failed, best, pace, time left."""
        num_new = len(self.children) - len(self._recorded)
        per_second = num_new / (time.monotonic() - self._began) if num_new > 0 else 0.0
        parts = {
            "in flight": self.num_in_flight,
            "from store": self.nases.executor.num_from_store,
            "failed": self._num_failed,
        }
        shown = [f"{count} {what}" for what, count in parts.items() if count]
        if self.best is not None:
            shown.append(f"best {self.best.evaluation.reward:.4f}")
        if per_second:
            left = tqdm.format_interval((self.budget - len(self.children)) / per_second)
            shown.append(f"{pace(per_second)}, {left} left")
        self._bar.set_postfix_str(", ".join(shown), refresh=False)
        if time.time() - self._bar.last_print_t > self._bar.mininterval or self.done:
            self._bar.refresh()

    def _save_pictures(self, best: Trial) -> None:
        from nases_env import visualization  # imports matplotlib, which is slow

        title = f"{self.args.env_id}: validation accuracy {best.evaluation.valid_accuracy:.2%}"
        picture = visualization.draw(self.nases.search_space, best.architecture, title)
        visualization.save(picture, self.run_dir / "best.png")
        visualization.save(picture, self.run_dir / "best.svg")
        self._writer.add_hparams(
            self._hyper_parameters(), {"hparam/best_reward": best.evaluation.reward}, run_name=os.curdir
        )

    def _save_best(self, child: Trial) -> None:
        space = self.nases.search_space
        write_atomically(self.run_dir / "best.json", (space.to_json(child.architecture) + "\n").encode())
        if child is not self.children[-1]:
            return
        from nases_env import visualization  # imports matplotlib, which is slow

        picture = visualization.draw(
            space, child.architecture, f"child {child.number}: reward {child.evaluation.reward:.4f}"
        )
        with self._writing():
            self._writer.add_image("search/best_cells", visualization.to_array(picture), child.number, dataformats="HWC")

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
        with self._writing():
            self._writer.flush()  # a search that is killed loses no child's curves but the last one's

    def _arguments(self) -> dict[str, Any]:
        values = to_json(self.args)
        if self.args.execution.store is not None:
            values["execution"]["store"] = self.nases.execution.store
        if isinstance(self.nases, ImageEnv):
            values["preset"] = self.nases.preset  # auto may stand for another one on another machine
        del values["run_dir"], values["resume"]
        return values

    def _hyper_parameters(self) -> dict[str, str | int | float | bool]:
        """All arguments, flat, and with the children's settings as they are after preset and options."""
        flat: dict[str, Any] = {"agent": self.agent, **self._arguments()}
        for group in ("child", "execution"):
            flat.pop(group)
        if isinstance(self.nases, ImageEnv):
            flat.update({f"child.{name}": value for name, value in dataclasses.asdict(self.nases.settings).items()})
        return {name: value if isinstance(value, (bool, int, float, str)) else str(value) for name, value in flat.items()}

    def _config(self) -> dict[str, Any]:
        return {
            "command": shlex.join(sys.argv),
            "agent": self.agent,
            "arguments": self._arguments(),
            "configuration": configuration_of(self.nases.evaluator),
            "num_known": len(self._recorded),
            "started": self._started,
            "versions": {
                "nases_env": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "gymnasium": gym.__version__,
            },
        }

    def _print_summary(self) -> None:
        best_of: dict[str, Trial] = {}  # the first child of each architecture
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
        run_dir = shlex.quote(str(self.run_dir))
        lines = [f"everything is in {self.run_dir}", f"curves: tensorboard --logdir {run_dir}"]
        if not self.done:
            lines.insert(0, f"go on with: {_program()} --resume {run_dir}")
        for line in lines:
            self._console.print(line, soft_wrap=True, highlight=False)


def pace(per_second: float) -> str:
    """Children a minute, with as many digits as tell something."""
    per_minute = 60 * per_second
    return f"{per_minute:,.0f} a minute" if per_minute >= 10 else f"{per_minute:.2g} a minute"


def _leave_at_once(*received: Any) -> None:
    """Ends the process without another step. Its workers end with it, and what it has reported is on the disk."""
    os._exit(130)


def _program() -> str:
    """What the person typed to start this program, without its options."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {module.name}" if module is not None else f"python {shlex.quote(sys.argv[0])}"


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _run_dir(args: SearchArgs, agent: str) -> Path:
    if args.resume is not None:
        return args.resume
    if args.run_dir is None:
        now = datetime.now().strftime("%Y%m%d-%H%M%S")
        return Path("runs") / f"{args.env_id.split(':')[-1]}-{agent}-seed{args.seed}-{now}"
    if not is_unused(args.run_dir):
        raise InputError(
            f"the run folder {args.run_dir} exists and is not empty; go on with it by --resume, or name a new --run-dir"
        )
    return args.run_dir


def _markdown_table(values: Mapping[str, Any]) -> str:
    return "\n".join(["| name | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in values.items())])
