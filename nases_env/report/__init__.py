"""The report on searches: one HTML page without references to other files or to the network."""

from nases_env.report.data import (
    Child,
    Curve,
    Design,
    EvaluationDigest,
    Finalist,
    Latency,
    Numbers,
    Run,
    Totals,
    are_comparable,
    is_spaced,
    rank,
)
from nases_env.report.page import render
from nases_env.report.sample import MAX_CHILDREN, TrialSample
from nases_env.report.totals import TotalsCounter

__all__ = [
    "MAX_CHILDREN",
    "Child",
    "Curve",
    "Design",
    "EvaluationDigest",
    "Finalist",
    "Latency",
    "Numbers",
    "Run",
    "Totals",
    "TotalsCounter",
    "TrialSample",
    "are_comparable",
    "is_spaced",
    "rank",
    "render",
]
