"""Refusal of data that change during a search."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from nases_env.errors import InputError


@dataclass
class FirstRead:
    """The digests of the data that an evaluator and its copies, also those in other processes, have read.

    Results are stored with the digest of the first read, so the data must not change after it.

    Attributes:
        digests: the digests of the first reads, by the ``key`` of ``require_same``.
    """

    digests: dict[Hashable, str] = field(default_factory=dict)

    def require_same(self, key: Hashable, digest: str, subject: str) -> None:
        """Store the digest of the first read; a later read must have the same.

        Args:
            key: identifies the data among those that the evaluator reads.
            digest: their digest.
            subject: subject and auxiliary verb of the message, such as "the table has".

        Raises:
            InputError: if the digest differs from that of the first read.
        """
        if self.digests.setdefault(key, digest) != digest:
            raise InputError(
                f"{subject} changed since the first read; undo the change, or start again with a new search or environment"
            )
