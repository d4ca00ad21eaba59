"""The exact totals of all trials of a search, which may be too many to keep."""

from __future__ import annotations

from array import array
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from nases_env.report.data import OK, Child, Totals

NOT_NEW = -1


class TotalsCounter:
    """Counts trials one by one, with about 30 bytes for each."""

    def __init__(self) -> None:
        self._keys = array("q")  # hashes: two architectures of a million have the same one with a probability of 3e-8
        self._seconds = array("d")
        self._devices = array("i")  # indices; NOT_NEW if no time was spent
        self._rewards = array("d")
        self._index_by_device: dict[str, int] = {}
        self._failures: Counter[str] = Counter()
        self._num_promotions = 0

    def add(self, child: Child) -> None:
        """Count a trial; the trials are added in order."""
        self._keys.append(hash(child.key))
        self._seconds.append(child.seconds)
        index = self._index_by_device.setdefault(child.device, len(self._index_by_device)) if child.is_new else NOT_NEW
        self._devices.append(index)
        self._num_promotions += child.is_promotion
        if child.status == OK:
            self._rewards.append(child.reward)
        else:
            self._failures[child.status] += 1

    def totals(self) -> Totals:
        """Return the totals of the trials that were added."""
        keys = np.array(self._keys)
        return Totals(
            num_trials=len(keys),
            num_promotions=self._num_promotions,
            num_distinct=len(np.unique(keys)),
            rewards=np.array(self._rewards),
            failures=dict(self._failures),
            seconds_by_device=self._seconds_by_device(keys),
        )

    def _seconds_by_device(self, keys: NDArray[np.int64]) -> dict[str, float]:
        # A promoted child is listed once per rung; its last result includes the time of the lower rungs.
        devices = np.array(self._devices)
        new = np.flatnonzero(devices != NOT_NEW)[::-1]
        last = new[np.unique(keys[new], return_index=True)[1]]
        num_devices = len(self._index_by_device)
        counts = np.bincount(devices[last], minlength=num_devices)
        seconds = np.bincount(devices[last], np.array(self._seconds)[last], minlength=num_devices)
        return {name: float(seconds[index]) for name, index in self._index_by_device.items() if counts[index]}
