"""The options of a search that a run directory records, also one of an earlier version."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nases_env.errors import InputError, one_line
from nases_env.evaluation import Limits, load_settings, resolve_preset
from nases_env.execution import ExecutionSettings
from nases_env.json_io import require_field_types, require_type
from nases_env.search.options import OUTPUT_OPTIONS, Args, SearchArgs
from nases_env.search.run_dir import CONFIG, read_config

OLD_NAMES = {
    "round_size": "ask_batch_size",
    "landscape": "landscape_seed",
    "permutation_seed": "operator_permutation_seed",
}
"""Options that were renamed, for run directories of earlier versions."""

OLD_ENV_OPTIONS = ("landscape_seed", "table", "operator_permutation_seed")
"""Options of earlier versions that are now in ``env_kwargs``."""

OLD_ENV_IDS = {"NASES-LookUp-v0": "NASES-Query-v0", "NASES-Analytic-v0": "NASES-Synthetic-v0"}


def load_args(args_type: type[Args], path: Path) -> Args:
    """Read the options of the search in the run directory ``path``, to resume it.

    Args:
        args_type: the options of the agent; ``SearchArgs`` reads the common options of any agent.
        path: the run directory.

    Raises:
        InputError: if it is not a run directory, or belongs to another agent.
    """
    config = read_config(path)
    values = _rename_old(config["arguments"])
    names = {option.name for option in dataclasses.fields(args_type)} - {"run_dir", "resume"}
    has_children = config["configuration"].get("evaluator") == "training"
    if args_type is SearchArgs:
        values = {name: value for name, value in values.items() if name in names}
        if not has_children:
            values["preset"] = SearchArgs.preset  # in earlier versions, it could be a preset of the agent
    values = {**{name: getattr(args_type, name) for name in args_type.added}, **values}
    if set(values) != names:
        raise InputError(
            f"{path} is a search with {config.get('agent')} and the options of a different agent or version of NASES; "
            f"resume it with that agent and version: {config.get('command')}"
        )
    if not args_type.uses_embedding:
        values["embedding"] = None  # earlier versions required one for custom search spaces
    try:
        require_type("preset", values["preset"], str)
        require_type("child", values["child"], dict[str, Any] | None)
        _, child = resolve_preset(values["preset"])
        values["limits"] = _load_limits(values)
        if has_children:
            described = config["configuration"].get("settings")
            if isinstance(described, dict) and "reward_signal" not in described:  # the preset may have changed since
                child = dataclasses.replace(child, reward_signal="valid_accuracy", flops_exponent=0.0)
            child = load_settings(values["child"], child)
        values["child"] = child
        require_field_types(ExecutionSettings, values["execution"], allow_infinity=True)
        values["execution"] = ExecutionSettings(**values["execution"])
        values |= {name: tuple(values[name]) for name in names if isinstance(getattr(args_type, name, None), tuple)}
        require_field_types(args_type, values, allow_infinity=True)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path / CONFIG} is damaged ({one_line(error)}); restore it, or start a new search") from None
    return args_type(**{**values, "run_dir": path, "resume": path})


def _load_limits(values: Mapping[str, Any]) -> Limits:
    """Return the limits of a search; in earlier versions, there was one, among the settings of the children."""
    limits = values["limits"]
    require_type("limits", limits, dict[str, Any])
    child = values["child"] or {}
    if isinstance(child.get("max_params"), int):
        limits = {**limits, "max_params": child["max_params"]}
    require_field_types(Limits, limits)
    return Limits(**limits)


def _rename_old(arguments: dict[str, Any]) -> dict[str, Any]:
    """Convert the ``arguments`` of a run directory of an earlier version to the current options."""
    values = {OLD_NAMES.get(name, name): value for name, value in arguments.items()}
    for name in ("rungs", "reduction_factor", "num_finalists", "time", "track", "objectives", *OUTPUT_OPTIONS):
        values.setdefault(name, getattr(SearchArgs, name))
    values.setdefault("limits", {})
    if "env_kwargs" not in values:
        moved = {name: values.pop(name, None) for name in OLD_ENV_OPTIONS}
        values["env_kwargs"] = {name: value for name, value in moved.items() if value is not None}
    values["env_id"] = OLD_ENV_IDS.get(values["env_id"], values["env_id"])
    return values
