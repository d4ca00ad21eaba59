"""Callbacks that send the curves of a search to an experiment tracker: Weights & Biases, MLflow or Trackio.

The tracker is configured by its own environment variables, such as ``WANDB_MODE``, ``MLFLOW_TRACKING_URI`` or
``TRACKIO_DIR``. The run is named after the run directory, and a resumed search continues it. A thread sends the curves, so
that a server that does not answer does not delay the search.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from nases_env.errors import InputError, one_line
from nases_env.extras import import_extra
from nases_env.search.callbacks import SearchCallback
from nases_env.search.curves import Hyperparameters, agent_scalars, trial_scalars
from nases_env.search.loop import SearchLoop
from nases_env.search.trials import Trial

logger = logging.getLogger(__name__)

PROJECT = "nases"

MAX_FINISH_SECONDS = 60
"""How long the end of a search waits for its tracker."""


class Tracker(SearchCallback):
    """Base class of the callbacks of trackers; a subclass implements the three calls of the tracker.

    ``log`` and ``finish`` are called in a thread, in the context of ``start``.

    Args:
        run_dir: the run directory.
        run_id: identifies the search, so that a resumed search continues the run.
        hyperparameters: the configuration of the run.

    Attributes:
        name: name of the run.

    Raises:
        InputError: if the package of the tracker is not installed, or it cannot start a run.
    """

    package: str
    """Name of the module to import."""

    def __init__(self, run_dir: Path, run_id: str, hyperparameters: Hyperparameters) -> None:
        self.run_dir = run_dir
        self.name = run_dir.resolve().name
        self.run_id = run_id
        self.hyperparameters = dict(hyperparameters)
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._has_warned = False
        self.module = import_extra(self.package, self.package, f"--track {self.package}")

    @abstractmethod
    def start(self) -> None:
        """Start or continue the run."""

    @abstractmethod
    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Log values at the trial ``step``."""

    @abstractmethod
    def finish(self, *, interrupted: bool) -> None:
        """End the run."""

    def on_start(self, loop: SearchLoop) -> None:
        try:
            self.start()
        except Exception as error:  # each tracker has its own
            raise InputError(
                f"{self.package} cannot start a run ({one_line(error)}); configure it, or omit --track"
            ) from error
        context = contextvars.copy_context()  # some trackers keep their run in it
        self._thread = threading.Thread(target=context.run, args=(self._make_calls,), name=self.package, daemon=True)
        self._thread.start()

    def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
        if not is_replayed:
            self._call(partial(self.log, trial_scalars(loop, trial), trial.number))

    def on_metrics(self, loop: SearchLoop, metrics: Mapping[str, float], *, is_replayed: bool) -> None:
        if not is_replayed:
            self._call(partial(self.log, agent_scalars(metrics), loop.num_trials))

    def on_end(self, loop: SearchLoop, *, interrupted: bool) -> None:
        if self._thread is None:
            return
        self._call(partial(self.finish, interrupted=interrupted))
        self._calls.put(None)
        self._thread.join(MAX_FINISH_SECONDS)
        if self._thread.is_alive():
            logger.warning(
                "%s did not receive all curves within %d s after the end of the search; TensorBoard has all of them",
                self.package,
                MAX_FINISH_SECONDS,
            )
        self._warn_if_failed()

    def _call(self, use_tracker: Callable[[], None]) -> None:
        """Let the thread use the tracker, unless it has failed."""
        self._warn_if_failed()
        if self._error is None:
            self._calls.put(use_tracker)

    def _make_calls(self) -> None:
        """Make the calls of the queue until None is in it, or one fails, for example without the server of the tracker."""
        try:
            while (use_tracker := self._calls.get()) is not None:
                use_tracker()
        except Exception as error:  # each tracker has its own
            self._error = error

    def _warn_if_failed(self) -> None:
        if self._error is not None and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s failed (%s); the search continues without it, with all curves in TensorBoard",
                self.package,
                one_line(self._error),
            )


class WandbTracker(Tracker):
    """Sends curves to Weights & Biases."""

    package = "wandb"

    def start(self) -> None:
        self.run = self.module.init(
            project=PROJECT,
            name=self.name,
            id=self.run_id,
            resume="allow",
            dir=str(self.run_dir),
            config=self.hyperparameters,
            settings=self.module.Settings(console="off", finish_timeout=MAX_FINISH_SECONDS),
        )

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self.run.log(dict(scalars), step=step)

    def finish(self, *, interrupted: bool) -> None:
        self.run.finish(exit_code=int(interrupted))


class MlflowTracker(Tracker):
    """Sends curves to MLflow."""

    package = "mlflow"
    tag = "nases.run_id"
    max_params = 100  # of a request

    def start(self) -> None:
        self.client = self.module.MlflowClient()
        experiment = self.client.get_experiment_by_name(PROJECT)
        experiment_id = self.client.create_experiment(PROJECT) if experiment is None else experiment.experiment_id
        found = self.client.search_runs([experiment_id], filter_string=f"tags.`{self.tag}` = '{self.run_id}'")
        if found:
            self.mlflow_id = found[0].info.run_id
            self.client.update_run(self.mlflow_id, status="RUNNING")
            return
        self.mlflow_id = self.client.create_run(experiment_id, run_name=self.name, tags={self.tag: self.run_id}).info.run_id
        params = [self.module.entities.Param(name, str(value)) for name, value in self.hyperparameters.items()]
        for first in range(0, len(params), self.max_params):
            self.client.log_batch(self.mlflow_id, params=params[first : first + self.max_params])

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        timestamp = round(time.time() * 1000)
        metrics = [self.module.entities.Metric(name, value, timestamp, step) for name, value in scalars.items()]
        self.client.log_batch(self.mlflow_id, metrics)

    def finish(self, *, interrupted: bool) -> None:
        self.client.set_terminated(self.mlflow_id, "KILLED" if interrupted else "FINISHED")


class TrackioTracker(Tracker):
    """Sends curves to Trackio."""

    package = "trackio"

    def start(self) -> None:
        self.module.init(
            project=PROJECT, name=f"{self.name}-{self.run_id[:4]}", resume="allow", config=self.hyperparameters, embed=False
        )

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self.module.log(dict(scalars), step=step)

    def finish(self, *, interrupted: bool) -> None:
        self.module.finish()


TRACKERS: dict[str, type[Tracker]] = {"wandb": WandbTracker, "mlflow": MlflowTracker, "trackio": TrackioTracker}
"""The callback of each tracker by the name of its package."""
