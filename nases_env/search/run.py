"""A search run started from the command line: run directory, reporting and resume."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import shlex
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import gymnasium as gym
import torch

from nases_env.envs import ImageEnv
from nases_env.errors import InputError, one_line
from nases_env.escaping import printable, quoted
from nases_env.evaluation import Evaluator
from nases_env.execution import Store
from nases_env.hashing import sha256_hex
from nases_env.paths import escape_name, require_utf8
from nases_env.search.agent import Agent
from nases_env.search.callbacks import SearchCallback
from nases_env.search.environment import absolute_env_kwargs, make_env
from nases_env.search.feasibility import check_feasibility
from nases_env.search.loop import SearchLoop
from nases_env.search.options import OUTPUT_OPTIONS, SearchArgs
from nases_env.search.reporting import BestArtifacts, JsonLog, ProgressBar, Summary, TensorBoardLogger
from nases_env.search.run_dir import (
    STORE,
    RunDir,
    changed_configuration,
    config_of,
    is_finished,
    read_again,
    read_config,
    read_trajectory,
    require_fresh,
    to_json,
    trial_record,
)
from nases_env.search.time_budget import TimeBudget, format_budget
from nases_env.search.trackers import TRACKERS
from nases_env.search.trials import Trial
from nases_env.signals import INTERRUPTS, defer_signals
from nases_env.streams import optional_output
from nases_env.version import __version__

NUM_FINALISTS = 5  # the default of --num-finalists
RUN_ID_LENGTH = 16  # characters of the id of a search


class SearchRun:
    """A resumable search, recorded in a run directory. Use it as a context manager.

    The run directory contains:

    - ``config.json``: the command, its arguments, the configuration of the evaluations, versions
    - ``evaluations.jsonl``: the trajectory, one trial per line, with action and reward, appended after each trial
    - ``store.sqlite``: the results, unless ``args.execution`` names another store
    - ``best.json``: the best architecture so far, in the format of the ``reset`` option, written after each improvement
    - ``finalists.json``: the best children with the results of both evaluations, at the end
    - event files of TensorBoard

    Drawings of the best architecture, ``best.png``, ``best.svg`` and ``best.pdf``, are written when the context ends, even
    after an interrupt or an error. The report, ``report.html``, is written at the end or after an interrupt.

    With ``args.resume``, the recorded trajectory is replayed through ``ask`` and ``tell`` without evaluating anything, which
    restores the exact state of the agent, including its random generators. A trial that differs from the recorded one
    raises ``InputError``.

    Args:
        args: the options of the search.
        agent: name of the agent, for the run directory.
        callbacks: called after the built-in ones.

    Attributes:
        env: the environment, reset and started.
        loop: the search loop.
        run_dir: path of the run directory.

    Raises:
        InputError: if an argument is not valid, the run directory is in use or cannot be written, data is missing, or the
            run cannot be resumed. Nothing is written in these cases.
    """

    def __init__(self, args: SearchArgs, *, agent: str, callbacks: Sequence[SearchCallback] = ()) -> None:
        args.check()
        if args.embedding is not None and not args.uses_embedding:
            raise InputError(f"--embedding has no effect, because {agent} uses no embedding; omit it")
        require_utf8(args.run_dir or args.resume or Path())
        self.args = args = args.with_absolute_paths()
        self.agent = agent
        self._started = _now()
        self._id = uuid.uuid4().hex[:RUN_ID_LENGTH]
        if args.track is not None and args.track not in TRACKERS:
            raise InputError(f"--track must be one of {', '.join(TRACKERS)}, not {args.track}")
        self.env = env = make_env(args)
        args.check_env(env)
        self._inputs = args.inputs(env.search_space)
        self._num_finalists = resolve_num_finalists(args, env.evaluator)
        # Raise an error if an embedding or data is missing, before anything is written.
        if args.uses_embedding:
            _ = env.embedding
        env.reset(seed=args.seed)
        if args.resume is None:
            note = check_feasibility(env, args.seed)
            if note and not args.quiet:
                print(note, file=sys.stderr)
        self._directory = RunDir(args.resume or args.run_dir or _new_run_dir(args, agent))
        try:
            # Locked before it is read, because another search could still append to it.
            self._directory.lock(make_unique=args.run_dir is None and args.resume is None)
            self.run_dir = self._directory.path
            self.loop = self._make_loop(callbacks)
            if not self.loop.num_replayed:
                self._begin_writing()
        except BaseException:
            env.close()
            self._directory.discard()
            raise

    def _make_loop(self, callbacks: Sequence[SearchCallback]) -> SearchLoop:
        """Read the recorded trials, start the executor and create the search loop."""
        args, env = self.args, self.env
        if args.resume is None:
            require_fresh(self.run_dir)
            recorded = _Recorded(0, 0, [], {})
        else:
            recorded = self._read_recorded(args.resume)
        store = Path(args.execution.store or self.run_dir / STORE).absolute()
        if recorded.latencies and env.evaluator.limits.max_latency is not None:
            self._require_latencies(recorded.latencies, store)
        self._earlier_budgets, self._num_resumed = recorded.earlier_budgets, recorded.num_children
        self._replay = read_again(self.run_dir)
        env.start(
            dataclasses.replace(
                args.execution,
                store=str(store),
                work_dir=str(Path(args.execution.work_dir or self.run_dir).absolute()),
            ),
            max_in_flight=args.num_envs,
        )
        preset = f"preset {env.preset}, " if isinstance(env, ImageEnv) else ""
        resumed = f", {recorded.num_children} of them recorded" if recorded.num_children else ""
        rungs = f", rungs {', '.join(map(str, env.rungs))}" if env.rungs else ""
        title = f"{args.env_id}: {preset}{format_budget(args.budget, args.time)}{rungs}, seed {args.seed}{resumed}"
        return SearchLoop(
            env,
            args.budget,
            args.num_envs,
            [
                _TrajectoryRecorder(self._directory, recorded.num_trials, self._begin_writing, self._write_config),
                BestArtifacts(self._directory, args.env_id, args.seed),
                TensorBoardLogger(self._directory, self._hyperparameters()),
                *([] if args.track is None else [TRACKERS[args.track](self.run_dir, self._id, self._hyperparameters())]),
                *self._printers(title, recorded.num_children),
                *([] if args.time is None else [TimeBudget(args.time)]),
                *callbacks,
            ],
            recorded=self._replay,
            num_replayed=recorded.num_trials,
            reduction_factor=args.reduction_factor,
            pauses=recorded.earlier_budgets if env.rungs else (),
            num_finalists=self._num_finalists,
        )

    def _begin_writing(self) -> None:
        """Prepare the run directory, after all checks and the replay: a search that cannot be resumed keeps its files."""
        if self.args.resume is not None:
            self._directory.repair()
        self._write_config()

    def _write_config(self) -> None:
        self._directory.write_config(self._config())

    def _printers(self, title: str, num_recorded: int) -> list[SearchCallback]:
        """Return the callbacks that print."""
        if self.args.log_json:
            return [JsonLog(self.run_dir, num_recorded)]
        if self.args.quiet:
            return []
        return [
            ProgressBar(self.agent, title, num_recorded, self.args.time or math.inf),
            Summary(self.run_dir, num_recorded),
        ]

    def __enter__(self) -> SearchRun:
        self._output = optional_output()
        self._output.__enter__()
        try:
            self.loop.__enter__()
        except BaseException:
            self._directory.close()
            self._output.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        interrupted = error_type is not None
        before = None
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGINT, _exit_immediately)
        try:
            # After an interrupt, a second Ctrl-C must still end the process.
            with defer_signals(*(number for number in INTERRUPTS if not (interrupted and number == signal.SIGINT))):
                try:
                    self.loop.__exit__(error_type, error, traceback)
                    if self.loop.is_complete:
                        self._directory.remove_checkpoints()
                        self._directory.write_config({**self._config(), "finished": _now()})
                finally:
                    self._replay.close()
                    self._directory.close()  # a report on a locked directory would state that the search is running
                if (error is None or isinstance(error, KeyboardInterrupt)) and not self.loop.is_replaying:
                    self._write_report()
        finally:
            self._output.__exit__(None, None, None)
            if before is not None:
                signal.signal(signal.SIGINT, before)

    def _write_report(self) -> None:
        """Write the report; the search is complete without it, so that any failure is one line."""
        try:
            from nases_env.search.run_report import write_report  # imports a template engine

            path = write_report(self.run_dir)
        except Exception as error:
            reason = printable(one_line(error))
            command = f"nases report {printable(quoted(self.run_dir))}"
            print(f"the report was not written ({reason}); try: {command}", file=sys.stderr)
        else:
            if not (self.args.quiet or self.args.log_json):
                print(f"report: {printable(path)}")

    def search(self, agent: Agent) -> None:
        """Run ``agent`` until the budget is used up."""
        self.loop.run(agent, self.args.ask_batch_size)

    def _read_recorded(self, path: Path) -> _Recorded:
        """Read what the run directory holds."""
        config = read_config(path)
        if config.get("agent") != self.agent:
            raise InputError(f"{path} is a search with {config.get('agent')}, not {self.agent}; resume it with that agent")
        if config.get("configuration") != config_of(self.env.evaluator):
            names = ", ".join(changed_configuration(config, self.env.evaluator)) or "settings"
            raise InputError(
                f"{path} cannot be resumed: the evaluation settings changed ({names}); restore them, or start a new search"
            )
        digests = config.get("inputs", {}).values()  # earlier versions recorded relative paths, which may name the same
        changed = [name for name, digest in self._inputs.items() if digest not in digests]
        if changed:
            raise InputError(f"{path} cannot be resumed: {changed[0]} has changed; restore it, or start a new search")
        if is_finished(path, self.args.budget):
            raise InputError(f"{path} is finished ({self.args.budget} children); pass a larger --budget to continue")
        num_trials, num_children, latencies = 0, 0, {}
        for record in read_trajectory(path):  # one at a time, because a list of all records would be large
            num_trials += 1
            num_children += not record["is_promotion"]
            if record.get("latency"):
                latencies[record["key"]] = record["latency"]
        require_budget(self.args.budget, num_children, path)
        self._id = config.get("id", sha256_hex(str(path.resolve()))[:RUN_ID_LENGTH])  # earlier versions used the path
        budgets = config.get("budgets", [config["arguments"]["budget"]])
        return _Recorded(
            num_trials=num_trials,
            num_children=num_children,
            earlier_budgets=sorted(budget for budget in budgets if budget < self.args.budget),
            latencies=latencies,
        )

    def _require_latencies(self, latencies: Mapping[str, float], path: Path) -> None:
        """Raise ``InputError`` unless the store ``path`` has these latencies: others would make other children feasible.

        Args:
            latencies: the recorded latencies by key.
            path: the store.
        """
        digest, known = self.env.evaluator.digest(), dict.fromkeys(latencies)
        if path.exists():
            with Store(path, read_only=True) as store:
                known = {key: store.get_latency(key, digest) for key in latencies}
        if known == latencies:
            return
        recorded = read_config(self.run_dir)["arguments"]["execution"]["store"]
        before = Path(recorded or self.run_dir / STORE).absolute()
        if path == before:
            hint = "restore this file, or start a new search"
        elif all(known[key] in (None, latency) for key, latency in latencies.items()):
            hint = f"omit --store, or first run: nases store merge {quoted(path)} {quoted(before)}"
        else:
            hint = "omit --store"
        raise InputError(f"{self.run_dir} cannot be resumed: its latencies are in {before}; {hint}")

    def _arguments(self) -> dict[str, Any]:
        values = to_json(self.args)
        values["env_kwargs"] = absolute_env_kwargs(self.args, type(self.env))
        for name in ("store", "work_dir"):
            if getattr(self.args.execution, name) is not None:
                values["execution"][name] = getattr(self.env.execution, name)  # absolute
        if isinstance(self.env, ImageEnv):
            values["preset"] = self.env.preset  # "auto" may select another preset on another machine
        for name in ("run_dir", "resume", *OUTPUT_OPTIONS):
            del values[name]
        return values

    def _hyperparameters(self) -> dict[str, str | int | float | bool]:
        """Return all arguments as one flat dictionary, with the resolved settings of the children."""
        flat: dict[str, Any] = {"agent": self.agent, **self._arguments()}
        for group in ("child", "execution"):
            flat.pop(group)
        for group in ("limits", "env_kwargs"):
            flat.update({f"{group}.{name}": value for name, value in flat.pop(group).items()})
        if isinstance(self.env, ImageEnv):
            flat.update({f"child.{name}": value for name, value in dataclasses.asdict(self.env.settings).items()})
        return {
            name: value if isinstance(value, (bool, int, float)) else escape_name(str(value)) for name, value in flat.items()
        }

    def _config(self) -> dict[str, Any]:
        return {
            "command": shlex.join(sys.argv),
            "agent": self.agent,
            "arguments": {**self._arguments(), "budget": self.loop.budget},  # reduced if the time was used up
            "configuration": config_of(self.env.evaluator),
            "quantity": dataclasses.asdict(self.env.evaluator.quantity),
            "inputs": self._inputs,
            "budgets": [*self._earlier_budgets, self.loop.budget],
            "num_resumed": self._num_resumed,
            "started": self._started,
            "id": self._id,
            "versions": {
                "nases_env": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "gymnasium": gym.__version__,
            },
        }


class _Recorded(NamedTuple):
    """What a run directory holds.

    Attributes:
        num_trials: number of trials.
        num_children: number of trials that are not promotions.
        earlier_budgets: the budgets of this and earlier commands that are less than the budget of the resumed search, in
            increasing order.
        latencies: the latencies that were measured, by key.
    """

    num_trials: int
    num_children: int
    earlier_budgets: list[int]
    latencies: dict[str, float]


class _TrajectoryRecorder(SearchCallback):
    """Appends new trials to the trajectory.

    Args:
        directory: the run directory.
        num_recorded: number of recorded trials, which a resumed search repeats.
        on_replayed: called after the last of them was repeated, before anything is appended.
        on_reduced: called after the budget was reduced, before a trial is appended that depends on it.
    """

    def __init__(
        self,
        directory: RunDir,
        num_recorded: int,
        on_replayed: Callable[[], None],
        on_reduced: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._num_recorded = num_recorded
        self._on_replayed = on_replayed
        self._on_reduced = on_reduced
        self._budget = 0

    def on_start(self, loop: SearchLoop) -> None:
        self._budget = loop.budget

    def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
        if trial.number > self._num_recorded:
            if loop.budget != self._budget:
                self._budget = loop.budget
                self._on_reduced()
            self._directory.append(trial_record(trial, loop.env.search_space))
        elif trial.number == self._num_recorded:
            self._on_replayed()


def resolve_num_finalists(args: SearchArgs, evaluator: Evaluator) -> int:
    """Return the number of finalists: the option, or its default for ``evaluator``.

    Raises:
        InputError: if the option is negative or has no effect.
    """
    if args.num_finalists is None:
        return NUM_FINALISTS if evaluator.is_noisy else 0
    if args.num_finalists < 0 or args.num_finalists == 1:
        raise InputError(f"--num-finalists must be 0 or at least 2, not {args.num_finalists}")
    if args.num_finalists and not evaluator.is_noisy:
        raise InputError(f"--num-finalists has no effect in {args.env_id}, whose rewards do not depend on a seed; omit it")
    return args.num_finalists


def require_budget(budget: int, num_recorded: int, path: Path) -> None:
    """Raise ``InputError`` if the search in ``path`` has more than ``budget`` children."""
    if num_recorded > budget:
        raise InputError(f"{path} has {num_recorded} children already, more than --budget {budget}; pass a larger --budget")


def _new_run_dir(args: SearchArgs, agent: str) -> Path:
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{args.env_id.split(':')[-1]}-{agent}-seed{args.seed}-{now}"


def _exit_immediately(*received: Any) -> None:
    """Exit immediately. Workers exit with this process, and everything that was reported is on disk."""
    os._exit(130)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
