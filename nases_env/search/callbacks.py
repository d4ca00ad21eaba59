"""Callbacks: what runs when a search starts, records a trial, waits or ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nases_env.search.loop import SearchLoop
    from nases_env.search.trials import Finalist, Trial


class SearchCallback:
    """Observes a `SearchLoop`: a logger, a dashboard, early stopping.

    Every method does nothing by default: subclass this class and override what you need, or pass any object that has all of
    them. An exception raised by a callback ends the search. Interrupts are deferred while ``on_trial`` runs.

    ```python
    class StopAt(SearchCallback):
        def __init__(self, reward: float) -> None:
            self.reward = reward

        def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
            if trial.evaluation.reward >= self.reward:
                loop.stop()


    with SearchLoop(env, budget=100, callbacks=[StopAt(0.9)]) as loop:
        loop.run(agent)
    ```
    """

    def on_start(self, loop: SearchLoop) -> None:
        """Run before the first trial."""

    def on_trial(self, loop: SearchLoop, trial: Trial, *, is_replayed: bool) -> None:
        """Run after each trial, in the order of the trials.

        Args:
            loop: the search; ``loop.best`` and ``loop.num_trials`` include ``trial``.
            trial: the new trial.
            is_replayed: whether a resumed search repeats a trial that was already reported. The last of the recorded trials
                counts as new, because the search may have been killed before it was reported.
        """

    def on_metrics(self, loop: SearchLoop, metrics: Mapping[str, float], *, is_replayed: bool) -> None:
        """Run when the agent logs metrics, after the trial that they belong to, number ``loop.num_trials``."""

    def on_finalist(self, loop: SearchLoop, finalist: Finalist) -> None:
        """Run after a finalist was evaluated again at the end of the search, for a resumed search too."""

    def on_wait(self, loop: SearchLoop) -> None:
        """Run about once a second while the search waits for an evaluation or a feasible proposal."""

    def on_end(self, loop: SearchLoop, *, interrupted: bool) -> None:
        """Run once after the last trial, even after an exception or an interrupt (``interrupted``).

        If ``on_start`` of a callback raises an exception, this runs for the callbacks before it.
        """
