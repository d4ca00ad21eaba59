"""The size of a child network."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class NetworkSettings:
    """How large a network is built from a cell, and the two regularisers that are part of the network."""

    cells_per_stage: int = field(default=5, metadata={"help": "N: normal cells in each of the three stages."})
    num_filters: int = field(default=40, metadata={"help": "F: channels of the first stage; doubles at each reduction."})
    drop_path_keep: float = field(
        default=1.0, metadata={"help": "Drop-path: chance to keep a branch at the last cell at the end of training; 1 is off."}
    )
    auxiliary_head: bool = field(default=False, metadata={"help": "Train a second classifier after two thirds of the depth."})
