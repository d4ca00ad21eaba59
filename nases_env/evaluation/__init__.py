"""Evaluating children: the record, what makes it, and how large and how long children train."""

from nases_env.evaluation.evaluation import Evaluation, Status
from nases_env.evaluation.evaluators import AnalyticEvaluator, Evaluator, TrainingEvaluator, resolve_device
from nases_env.evaluation.presets import PRESETS, ChildSettings, resolve_preset

__all__ = [
    "PRESETS",
    "AnalyticEvaluator",
    "ChildSettings",
    "Evaluation",
    "Evaluator",
    "Status",
    "TrainingEvaluator",
    "resolve_device",
    "resolve_preset",
]
