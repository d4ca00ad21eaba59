"""Evaluating children: the record, what makes it, and how large and how long children train."""

from nases_env.evaluation.base import Evaluator, config_digest, describe_search_space
from nases_env.evaluation.nasbench201 import NasBench201Evaluator
from nases_env.evaluation.presets import PRESETS, RETRAIN_PRESETS, ChildSettings, resolve_preset
from nases_env.evaluation.query import QueryEvaluator
from nases_env.evaluation.result import Evaluation, Status
from nases_env.evaluation.synthetic import OperatorShareEvaluator, RandomLandscapeEvaluator
from nases_env.evaluation.training import TrainingEvaluator

__all__ = [
    "PRESETS",
    "RETRAIN_PRESETS",
    "ChildSettings",
    "Evaluation",
    "Evaluator",
    "NasBench201Evaluator",
    "OperatorShareEvaluator",
    "QueryEvaluator",
    "RandomLandscapeEvaluator",
    "Status",
    "TrainingEvaluator",
    "config_digest",
    "describe_search_space",
    "resolve_preset",
]
