"""Evaluating children: the record, what makes it, and how large and how long children train."""

from nases_env.evaluation.evaluation import Evaluation, Status
from nases_env.evaluation.evaluators import (
    AnalyticEvaluator,
    Evaluator,
    TrainingEvaluator,
    describe_search_space,
    device_name,
    digest_of,
    resolve_device,
)
from nases_env.evaluation.interactions import InteractionEvaluator
from nases_env.evaluation.lookup import LookUpEvaluator
from nases_env.evaluation.presets import FINAL_PRESETS, PRESETS, ChildSettings, resolve_preset
from nases_env.evaluation.table import TableEvaluator

__all__ = [
    "FINAL_PRESETS",
    "PRESETS",
    "AnalyticEvaluator",
    "ChildSettings",
    "Evaluation",
    "Evaluator",
    "InteractionEvaluator",
    "LookUpEvaluator",
    "Status",
    "TableEvaluator",
    "TrainingEvaluator",
    "describe_search_space",
    "device_name",
    "digest_of",
    "resolve_device",
    "resolve_preset",
]
