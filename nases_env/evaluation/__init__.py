"""Evaluation of children: evaluators, their results, and presets for the size and training of children."""

from nases_env.evaluation.accel import AccelEvaluator
from nases_env.evaluation.base import Evaluator
from nases_env.evaluation.csv_file import CSVEvaluator
from nases_env.evaluation.description import config_digest, describe_search_space
from nases_env.evaluation.latency import Latency, measure_latencies
from nases_env.evaluation.limits import Limits
from nases_env.evaluation.metric import FRACTION, NEGATIVE_LOSS, PERCENT, Metric
from nases_env.evaluation.nasbench201 import NasBench201Evaluator
from nases_env.evaluation.nasbench201_costs import NasBench201CostEvaluator
from nases_env.evaluation.objectives import (
    ACCURACY,
    COSTS,
    LOWEST_VALUE,
    OBJECTIVES,
    Cost,
    objective_value,
    parse_objectives,
    split_objectives,
)
from nases_env.evaluation.presets import (
    PRESETS,
    RETRAIN_PRESETS,
    ChildSettings,
    auto_preset,
    final_settings,
    load_settings,
    resolve_preset,
    settings_overrides,
)
from nases_env.evaluation.query import QueryEvaluator
from nases_env.evaluation.result import UNEVALUATED, Evaluation, Status
from nases_env.evaluation.reward import scale_odds, training_speed
from nases_env.evaluation.synthetic import OperatorShareEvaluator, RandomLandscapeEvaluator
from nases_env.evaluation.table import TableEvaluator
from nases_env.evaluation.task_table import TaskTableEvaluator
from nases_env.evaluation.training import TrainingEvaluator
from nases_env.evaluation.transnas import TransNASEvaluator
from nases_env.quantity import Quantity

__all__ = [
    "ACCURACY",
    "COSTS",
    "FRACTION",
    "LOWEST_VALUE",
    "NEGATIVE_LOSS",
    "OBJECTIVES",
    "PERCENT",
    "PRESETS",
    "RETRAIN_PRESETS",
    "UNEVALUATED",
    "AccelEvaluator",
    "CSVEvaluator",
    "ChildSettings",
    "Cost",
    "Evaluation",
    "Evaluator",
    "Latency",
    "Limits",
    "Metric",
    "NasBench201CostEvaluator",
    "NasBench201Evaluator",
    "OperatorShareEvaluator",
    "Quantity",
    "QueryEvaluator",
    "RandomLandscapeEvaluator",
    "Status",
    "TableEvaluator",
    "TaskTableEvaluator",
    "TrainingEvaluator",
    "TransNASEvaluator",
    "auto_preset",
    "config_digest",
    "describe_search_space",
    "final_settings",
    "load_settings",
    "measure_latencies",
    "objective_value",
    "parse_objectives",
    "resolve_preset",
    "scale_odds",
    "settings_overrides",
    "split_objectives",
    "training_speed",
]
