"""Built-in callbacks: progress bar, TensorBoard curves, best architecture, summary."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from rich.table import Table
from tensorboard.compat.proto.summary_pb2 import Summary as Event
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from nases_env.atomic_io import write_atomically, write_error
from nases_env.console import Console
from nases_env.envs.base import describe_result
from nases_env.escaping import printable, quoted
from nases_env.evaluation import Limits, Status
from nases_env.progress import Progress
from nases_env.quantity import ACCURACY, REWARD, Quantity
from nases_env.search.callbacks import SearchCallback
from nases_env.search.curves import BEST_REWARD, Hyperparameters, agent_scalars, trial_scalars
from nases_env.search.loop import NUM_RANKED, SearchLoop
from nases_env.search.run_dir import BEST, BEST_DRAWINGS, RunDir, trial_record, write_finalists
from nases_env.search.time_budget import format_progress, limited_budget
from nases_env.search.trials import Finalist, Trial
from nases_env.tables import UNKNOWN, format_known, markdown_table

FIRST_HYPERPARAMETERS = ("env_id", "agent", "seed", "budget")


class ProgressBar(SearchCallback):
    """Shows on standard error: finished, in-flight and failed children, the best reward, the rate and the remaining time.

    Args:
        description: the first word of the bar.
        title: a line that is printed to standard output before the bar.
        num_recorded: number of children that a resumed search has recorded.
        seconds: duration after which the search ends.
    """

    def __init__(self, description: str, title: str, num_recorded: int = 0, seconds: float = math.inf) -> None:
        self._description = description
        self._title = title
        self._num_recorded = num_recorded
        self._seconds = seconds
        self._num_failed = 0

    def on_start(self, loop: SearchLoop) -> None:
        print(printable(self._title), flush=True)
        total = limited_budget(loop.budget)
        self._progress = Progress(self._description, total, "children", initial=self._num_recorded, seconds=self._seconds)

    def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
        self._num_failed += trial.evaluation.status is not Status.OK
        if not is_replayed:
            self._update(loop)

    def on_finalist(self, loop: SearchLoop, finalist: Finalist) -> None:
        self._update(loop)

    def on_wait(self, loop: SearchLoop) -> None:
        self._update(loop)

    def on_end(self, loop: SearchLoop, *, interrupted: bool) -> None:
        self._progress.close()

    def _update(self, loop: SearchLoop) -> None:
        details = [] if loop.best is None else [f"best {loop.best.evaluation.reward:.4f}"]
        counts = {
            "promoted": loop.num_trials - loop.num_children,
            "finalists": len(loop.finalists),
            "failed": self._num_failed,
            "in flight": loop.num_in_flight,
            "from store": loop.env.executor.num_from_store,
            "infeasible": loop.num_infeasible,
        }
        details += [f"{count} {name}" for name, count in counts.items() if count]
        self._progress.update(max(loop.num_children, self._num_recorded), details)


class TensorBoardLogger(SearchCallback):
    """Writes curves, metrics of the agent, drawings of the best cells and hyperparameters to TensorBoard event files.

    TensorBoard sorts the groups of curves by name and opens the first two: ``search/`` has the rewards, ``trial/`` what is
    known about the networks, and ``update/`` the metrics of the agent.

    Args:
        directory: the run directory, where the event files are written.
        hyperparameters: logged as text and, with the best reward, as hyperparameters.

    Raises:
        InputError: if the event files cannot be written.
    """

    def __init__(self, directory: RunDir, hyperparameters: Hyperparameters) -> None:
        self._directory = directory
        self._hyperparameters = dict(hyperparameters)
        self._is_open = False

    def on_start(self, loop: SearchLoop) -> None:
        if not loop.num_replayed:
            self._open(loop)

    def _open(self, loop: SearchLoop) -> None:
        # Drops events after the last recorded trial; the curves of that trial may be missing and are written again.
        with self._translate_errors():
            self._writer = SummaryWriter(str(self._directory.path), purge_step=loop.num_replayed or None)
        self._file = cast(Any, self._writer.file_writer)  # torch declares it as None
        columns, values, self._end = _hyperparameter_summaries(self._hyperparameters)
        self._file.add_summary(columns)
        self._file.add_summary(values)
        if not loop.num_replayed:
            self._writer.add_text("config", markdown_table(("name", "value"), *self._hyperparameters.items()))
        self._is_open = True

    def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
        if is_replayed:
            return
        if not self._is_open:  # after the replay: a search that cannot be resumed writes nothing
            self._open(loop)
        if trial is loop.best:
            self._add_image(loop, trial)
        self._add_scalars(trial_scalars(loop, trial), trial.number)
        with self._translate_errors():
            self._writer.flush()  # a search that is killed loses at most the curves of the last trial

    def on_metrics(self, loop: SearchLoop, metrics: Mapping[str, float], *, is_replayed: bool) -> None:
        if not is_replayed:
            self._add_scalars(agent_scalars(metrics), loop.num_trials)

    def on_end(self, loop: SearchLoop, *, interrupted: bool) -> None:
        if not self._is_open:
            return
        with self._translate_errors():
            self._file.add_summary(self._end)
            self._writer.close()

    def _add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        with self._translate_errors():
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, step)

    def _add_image(self, loop: SearchLoop, trial: Trial) -> None:
        from nases_env import visualization  # imports matplotlib, which is slow

        title = f"child {trial.number}: {describe_result(trial.evaluation, loop.env.evaluator.quantity)}"
        image = visualization.to_array(visualization.draw(loop.env.search_space, trial.architecture, title))
        with self._translate_errors():
            self._writer.add_image("trial/best_cells", image, trial.number, dataformats="HWC")

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Turn ``OSError`` into ``InputError``. The writer works in its own thread and raises its errors in a later call."""
        try:
            yield
        except OSError as error:
            self._directory.require_in_place()
            raise write_error(self._directory.path, error) from error


class BestArtifacts(SearchCallback):
    """Writes ``best.json`` after each improvement, and the finalists and drawings of the best cells when the search ends.

    Args:
        directory: the run directory, where the files are written.
        env_id: id of the environment, for the title of the drawings.
        seed: seed of the search, for the title of the drawings.

    Raises:
        InputError: if a file cannot be written, or the run directory was moved or deleted.
    """

    def __init__(self, directory: RunDir, env_id: str, seed: int) -> None:
        self._directory = directory
        self._folder = directory.path
        self._env_id = env_id
        self._seed = seed
        self._is_written = False

    def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
        if is_replayed or (self._is_written and trial is not loop.best):
            return
        assert loop.best is not None
        self._write_genotype(loop, loop.best)

    def _write_genotype(self, loop: SearchLoop, trial: Trial) -> None:
        genotype = loop.env.search_space.to_json(trial.architecture)
        write_atomically(self._folder / BEST, (genotype + "\n").encode())
        self._is_written = True

    def on_end(self, loop: SearchLoop, *, interrupted: bool) -> None:
        best = loop.best
        if best is None or loop.is_replaying:
            return
        self._directory.require_in_place()
        if loop.has_chosen:
            self._write_genotype(loop, best)
            if loop.finalists:
                write_finalists(self._folder, loop.finalists)
        from nases_env import visualization  # imports matplotlib, which is slow

        result = describe_result(best.evaluation, loop.env.evaluator.quantity)
        title = f"{self._env_id}: {result}, seed {self._seed}"
        figure = visualization.draw(loop.env.search_space, best.architecture, title)
        for name in BEST_DRAWINGS:
            visualization.save(figure, self._folder / name)


class Summary(SearchCallback):
    """Prints a table of the best architectures and the next commands at the end.

    Args:
        run_dir: the run directory.
        num_recorded: number of children that a resumed search has recorded.
    """

    def __init__(self, run_dir: Path, num_recorded: int = 0) -> None:
        self._run_dir = run_dir
        self._num_recorded = num_recorded
        self._console = Console()

    def on_end(self, loop: SearchLoop, *, interrupted: bool) -> None:
        # If the reader of standard output has exited, rich raises SystemExit; the search is finished all the same.
        with suppress(SystemExit, BrokenPipeError):
            self._print(loop, interrupted)

    def _print(self, loop: SearchLoop, interrupted: bool) -> None:
        if interrupted:
            num_children = max(loop.num_children, self._num_recorded)
            self._console.print(f"ended after {format_progress(num_children, loop.budget)}")
        if loop.num_infeasible:
            self._console.print(f"{loop.num_infeasible:,} infeasible proposals were not evaluated")
        if loop.num_trials:
            evaluator = loop.env.evaluator
            self._console.print(f"the best of {loop.num_distinct:,} architecture{'s' * (loop.num_distinct != 1)}")
            self._console.print_table(_top_table(loop.ranking(), loop.finalists, evaluator.limits, evaluator.quantity))
        if failed := [finalist for finalist in loop.finalists if not finalist.is_confirmed]:
            self._console.print(_describe_failed(failed, len(loop.finalists)), soft_wrap=True)
        run_dir = quoted(self._run_dir)
        lines = [f"run directory: {self._run_dir}", f"curves: tensorboard --logdir {run_dir}"]
        if not loop.is_complete:
            lines.insert(0, f"resume with: {_program()} --resume {run_dir}")
        for line in lines:
            self._console.print(line, soft_wrap=True)


class JsonLog(SearchCallback):
    """Prints a JSON object per line to standard output: ``start``, ``trial``, ``finalist`` and ``end`` events, for programs.

    Args:
        run_dir: the run directory.
        num_recorded: number of children that a resumed search has recorded.
    """

    def __init__(self, run_dir: Path, num_recorded: int = 0) -> None:
        self._run_dir = run_dir
        self._num_recorded = num_recorded

    def on_start(self, loop: SearchLoop) -> None:
        self._print("start", run_dir=str(self._run_dir), budget=loop.budget, num_recorded=self._num_recorded)

    def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
        if not is_replayed:
            assert loop.best is not None
            record = trial_record(trial, loop.env.search_space)
            self._print("trial", **record, best_reward=loop.best.evaluation.reward, best_child=loop.best.number)

    def on_finalist(self, loop: SearchLoop, finalist: Finalist) -> None:
        second = finalist.second.reward
        self._print("finalist", child=finalist.trial.number, second_reward=second, mean_reward=finalist.mean_reward)

    def on_end(self, loop: SearchLoop, *, interrupted: bool) -> None:
        best = None if loop.best is None else loop.best.number
        self._print("end", is_complete=loop.is_complete, num_children=loop.num_children, best_child=best)

    def _print(self, event: str, **values: Any) -> None:
        print(json.dumps({"event": event, **values}), flush=True)


def _hyperparameter_summaries(values: Hyperparameters) -> tuple[Event, Event, Event]:
    """Return the columns and the values of TensorBoard's HPARAMS tab, and the end of the search.

    The tab shows the columns that are marked as different between runs before the others.
    """
    shown = {name: str(value) if isinstance(value, bool) else value for name, value in values.items()}
    columns, start, end = hparams(shown, {BEST_REWARD: 0.0})  # type: ignore[no-untyped-call]
    plugin_data = columns.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin_data.content)
    for column in content.experiment.hparam_infos:
        column.differs = column.name in FIRST_HYPERPARAMETERS
    plugin_data.content = content.SerializeToString()
    return columns, start, end


def _describe_failed(failed: Sequence[Finalist], num_finalists: int) -> str:
    """Describe the finalists that could not be evaluated again."""
    reason = failed[0].second.reason or "no reason is known"
    if len(failed) == num_finalists:
        return f"no finalist could be evaluated again ({reason}); the best child is the one with the best first evaluation"
    children = ", ".join(str(number) for number in sorted(finalist.trial.number for finalist in failed))
    noun = "child" if len(failed) == 1 else "children"
    return f"{noun} {children} could not be evaluated again ({reason}) and took no part in the choice of the best child"


def _top_table(ranking: Sequence[Trial], finalists: Sequence[Finalist], limits: Limits, quantity: Quantity) -> Table:
    """Return a table of the finalists and the best other children, without columns of which no value is known."""
    second = {finalist.trial.number: finalist.second for finalist in finalists}
    confirmed = {finalist.trial.number for finalist in finalists if finalist.is_confirmed}
    others = [trial for trial in ranking if trial.number not in second]
    shown = [*(finalist.trial for finalist in finalists), *others][: max(NUM_RANKED, len(second))]
    table = Table()
    columns: dict[str, list[str]] = {}
    is_metric = all(trial.evaluation.score is None for trial in shown)  # whether the reward is the validation metric
    reward_spec = (quantity if is_metric else REWARD).spec
    valid = "valid" if quantity == ACCURACY else f"valid {quantity.name}"
    for rank, trial in enumerate(shown, start=1):
        evaluation = trial.evaluation
        has_result, has_network = evaluation.status is Status.OK, evaluation.num_params > 0
        cells = {
            "rank": str(rank),
            "epochs": str(evaluation.fidelity),
            "reward": format_known(evaluation.reward, reward_spec, has_result),
            valid: format_known(evaluation.valid_accuracy, quantity.spec, has_result),
            "again": format(second[trial.number].reward, reward_spec) if trial.number in confirmed else UNKNOWN,
            "train": format_known(evaluation.train_accuracy, quantity.spec, evaluation.has_train_accuracy),
            "params": format_known(evaluation.num_params, ",", has_network),
            "MFLOPs": format_known(evaluation.num_flops / 1e6, ",.1f", evaluation.num_flops > 0),
            "KB memory": format_known(evaluation.activation_bytes / 1e3, ",.0f", evaluation.activation_bytes > 0),
            "ms": format_known(evaluation.latency * 1e3, ".3g", evaluation.latency > 0),
            "child": str(trial.number),
            "status": evaluation.status.value,
        }
        if all(trial.evaluation.fidelity is None for trial in shown):
            del cells["epochs"]
        if is_metric:
            del cells["reward"]
        if not second:
            del cells["again"]
        if limits.max_memory is None:
            del cells["KB memory"]
        if all(trial.evaluation.status is Status.OK for trial in shown):
            del cells["status"]
        for heading, cell in cells.items():
            columns.setdefault(heading, []).append(cell)
    known = {heading: cells for heading, cells in columns.items() if set(cells) != {UNKNOWN}}
    for heading in known:
        table.add_column(heading, justify="right")
    for row in zip(*known.values(), strict=True):
        table.add_row(*row)
    return table


def _program() -> str:
    """Return the command that started this program, without its options."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    if Path(sys.argv[0]).stem == "nases" or (module is not None and module.name == "nases_env.__main__"):
        return "nases search"
    return f"python -m {module.name}" if module is not None else f"python {quoted(sys.argv[0])}"
