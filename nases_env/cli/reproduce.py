"""``nases reproduce``: run all steps of the protocol and report the results."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from nases_env.atomic_io import is_fresh, write_atomically
from nases_env.cli.agents import require_agent
from nases_env.cli.pretrain import parse_pretrain, pretrain_command
from nases_env.cli.train import parse_train, train_command
from nases_env.command_line import PARENT_VARIABLE, given_preset, parse, parse_quietly
from nases_env.console import Console
from nases_env.devices import device_name, resolve_device
from nases_env.errors import InputError
from nases_env.evaluation import (
    PRESETS,
    RETRAIN_PRESETS,
    Limits,
    TrainingEvaluator,
    final_settings,
    load_settings,
    resolve_preset,
)
from nases_env.input_files import read_file
from nases_env.json_io import parse_json
from nases_env.paths import require_utf8
from nases_env.report.text import duration
from nases_env.retraining import FinalTraining
from nases_env.retraining.folder import FinalFolder, locked_folder
from nases_env.retraining.plan import Plan, Step, make_plan
from nases_env.retraining.plan_args import PROTOCOL_PRESETS, ReproduceArgs
from nases_env.retraining.protocol_report import write_protocol_report
from nases_env.retraining.timing import (
    NUM_NETWORKS,
    SearchTime,
    TrainingTime,
    count_concurrent,
    time_pretraining,
    time_search,
    time_training,
)
from nases_env.retraining.training import TrainingFailedError
from nases_env.search import SearchArgs, make_env
from nases_env.search.run_dir import count_trials
from nases_env.search_spaces import get_search_space, importable_name
from nases_env.seeding import numpy_generator
from nases_env.streams import optional_output

CONFIG = "config.json"
RESUME_OVERRIDABLE = ("output", "dry_run", "seeds", "execution", "limit_final")
"""Options that may change when the command is rerun."""

FINAL_FOLDERS = "seed-*/*/final"

INTERRUPT_GRACE_SECONDS = 5.0


ARGS = ReproduceArgs


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases reproduce``."""
    reproduce_command(parse_reproduce(options))


def parse_reproduce(options: Sequence[str]) -> ReproduceArgs:
    """Parse the options of ``nases reproduce``.

    Settings of the searches default to the preset's values, and settings of the final training to those of the searches.
    """
    preset, child = resolve_preset(given_preset(options) or "auto")
    given = parse_quietly(ReproduceArgs, options, ReproduceArgs(child=child, final=child))
    final = final_settings(given.child or child if given else child, preset)
    args: ReproduceArgs = parse(
        ReproduceArgs, prog="nases reproduce", args=options, default=ReproduceArgs(child=child, final=final)
    )
    return args


def reproduce_command(args: ReproduceArgs) -> None:
    """Run ``nases reproduce``.

    Raises:
        InputError: if an argument is invalid, data is missing, the output directory has other content, or a step fails.
    """
    plan = make_plan(args)
    for agent in plan.agents:
        require_agent(agent)
    require_utf8(plan.output)
    _check_config(plan)
    evaluator = _prepare_evaluator(plan)
    plan = dataclasses.replace(plan, search_space=importable_name(get_search_space(evaluator.search_space)))
    if args.dry_run:
        _print_dry_run(plan, evaluator)
        return
    with locked_folder(plan.output, f"another process uses {plan.output}; wait until it ends, or choose another --output"):
        if not _check_config(plan):
            write_atomically(plan.output / CONFIG, (json.dumps(_config(plan), indent=2) + "\n").encode())
        with optional_output():
            _run_steps(list(plan.steps()), Console(stderr=True))
        report = write_protocol_report(plan)
    from rich.markdown import Markdown  # slow to import

    Console().print(Markdown(report))
    Console().print(f"results: {plan.output}", soft_wrap=True)


def _run_steps(steps: Sequence[Step], console: Console) -> None:
    for number, step in enumerate(steps, start=1):
        if not step.is_done:
            console.print(f"[{number}/{len(steps)}] {step.command}", soft_wrap=True)
            try:
                _run(step)
            except TrainingFailedError as error:  # it would fail again
                raise InputError(
                    f"{step.options()[0]}: {error.problem}; to train all final networks again and keep the searches, delete "
                    f"{step.plan.output / FINAL_FOLDERS} and rerun the command with a lower {error.options('final')}"
                ) from error
            except BaseException:  # including KeyboardInterrupt and SystemExit
                console.print(f"stopped in step {number} of {len(steps)}; rerun the command to resume")
                raise


def _run(step: Step) -> None:
    options = step.options()
    if step.stage == "pretrain":
        pretrain_command(parse_pretrain(options))
    elif step.stage == "train":
        train_command(parse_train(options))
    else:
        try:
            _run_agent([sys.executable, "-m", f"nases_agents.{step.agent}", *options])
        except SystemExit:
            if not step.is_done:  # otherwise, it only could not print its results
                raise
    if not step.is_done:
        raise InputError(f"this command stopped early: {step.command}")


def _run_agent(command: Sequence[str]) -> None:
    """Run ``command`` and wait for it to exit, even after an interrupt, so that the agent can close its run directory.

    Raises:
        SystemExit: with the exit status of ``command`` if it is not 0.
    """
    environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
    with subprocess.Popen(command, env=environment) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            # Ctrl-C in a terminal also interrupts the agent; a signal sent only to this process does not.
            try:
                process.wait(INTERRUPT_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
            raise
    if status:
        sys.exit(status if status > 0 else 128 - status)


def _prepare_evaluator(plan: Plan) -> TrainingEvaluator:
    """Return the evaluator of the searches; check that its data is available, and the options of the execution."""
    args = _search_args(plan)
    resolve_device(args.device)  # the final trainings run on this machine, wherever the children are trained
    env = make_env(args)
    try:
        evaluator = env.evaluator
        if not isinstance(evaluator, TrainingEvaluator):
            raise InputError(f"{plan.env_id} does not train networks; choose a different environment with --env-id")
        count_concurrent(evaluator, args)
        evaluator.prepare()
        return evaluator
    finally:
        env.close()


def _search_args(plan: Plan) -> SearchArgs:
    """Return the options that all searches have in common."""
    args = plan.args
    return SearchArgs(
        env_id=plan.env_id,
        budget=plan.budget,
        num_envs=args.num_envs,
        preset=plan.preset,
        data_dir=args.data_dir,
        device=args.device,
        num_threads=args.num_threads,
        limits=args.limits,
        execution=args.execution,
        child=plan.child,
    )


def _config(plan: Plan) -> dict[str, Any]:
    """Return the options that determine the results, as JSON values."""
    kept = {name: value for name, value in dataclasses.asdict(plan.args).items() if name not in RESUME_OVERRIDABLE}
    resolved = {name: getattr(plan, name) for name in ("preset", "env_id", "budget", "agents")}
    settings = {name: dataclasses.asdict(getattr(plan, name)) for name in ("child", "final")}
    return dict(json.loads(json.dumps({**kept, **resolved, **settings})))


def _check_config(plan: Plan) -> bool:
    """Return whether the output directory contains this reproduction.

    False if the directory is new, or if it has other settings of the final training runs but no final training.

    Raises:
        InputError: if it contains a different reproduction or anything else.
    """
    path = plan.output / CONFIG
    try:
        before = parse_json(read_file(path), allow_infinity=True)
        if not isinstance(before, dict) or "preset" not in before:
            raise ValueError("not the configuration of a reproduction")
        if before["preset"] != plan.preset:
            before = {**_config(plan), "preset": before["preset"]}  # the other options depend on it
        before.setdefault("limits", _limits_of_earlier_version(before.get("child")))
        if not isinstance(before["limits"], dict):
            raise ValueError("limits must be an object")
        for name, presets in (("child", PRESETS), ("final", RETRAIN_PRESETS)):  # the defaults of earlier versions
            before[name] = dataclasses.asdict(load_settings(before.get(name), presets[plan.preset]))
    except FileNotFoundError:
        if not is_fresh(plan.output, CONFIG):
            raise InputError(f"{plan.output} exists and is not a reproduction; choose a different --output") from None
        return False
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({error}); choose a different --output") from error
    before, now = _flatten(before), _flatten(_config(plan))
    changed = [name for name, value in now.items() if before.get(name) != value and name not in RESUME_OVERRIDABLE]
    if changed and all(name.startswith("final.") for name in changed) and not any(plan.output.glob(FINAL_FOLDERS)):
        return False
    if changed:
        options = ", ".join(f"--{name.replace('_', '-')} {_format(before.get(name))}" for name in changed)
        raise InputError(f"{plan.output} was started with {options}; pass the same options, or choose a different --output")
    return True


def _limits_of_earlier_version(child: Any) -> dict[str, Any]:
    """Return the limits of a reproduction of an earlier version, which had one, among the settings of the children."""
    max_params = child.get("max_params") if isinstance(child, dict) else None
    return {**dataclasses.asdict(Limits()), "max_params": max_params}


def _format(value: Any) -> str:
    """Format the value of an option as on the command line."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _flatten(config: dict[str, Any]) -> dict[str, Any]:
    """Replace the settings of the searches and of the final training, and the limits, by one entry per option."""
    settings = {f"{group}.{name}": value for group in ("child", "final") for name, value in config[group].items()}
    others = {name: value for name, value in config.items() if name not in ("child", "final", "limits")}
    return {**others, **config["limits"], **settings}


def _print_dry_run(plan: Plan, evaluator: TrainingEvaluator) -> None:
    print_line = functools.partial(Console().print, soft_wrap=True)
    durations = _Durations(plan, evaluator)
    total = 0.0
    for step in plan.steps():
        if step.is_done:
            print_line(f"{'done':>16}  {step.command}")
            continue
        seconds = durations.estimate(step)
        total += seconds
        print_line(f"{_format_estimate(seconds):>16}  {step.command}")
    num_concurrent = count_concurrent(evaluator, _search_args(plan))
    concurrent = f" with {num_concurrent} concurrent children" if num_concurrent > 1 else ""
    where = device_name(resolve_device(evaluator.device))
    print_line(f"{_format_estimate(total):>16}  total on {where}{concurrent}, assuming no repeated children;")
    print_line(f"{'':>16}  estimated from a few batches of {NUM_NETWORKS} random architectures")


class _Durations:
    """Estimates of the durations of steps; a stage is timed before its first estimate."""

    def __init__(self, plan: Plan, evaluator: TrainingEvaluator) -> None:
        self._plan = plan
        self._evaluator = evaluator
        self._space = get_search_space(evaluator.search_space)

    def estimate(self, step: Step) -> float:
        """Return the seconds that are left of ``step``; NaN if they are unknown."""
        if step.agent is None:
            return self._pretraining
        run_dir = self._plan.run_dir(step.seed, step.agent)
        if step.stage == "search":
            return self._search.estimate(self._plan.budget, count_trials(run_dir) if (run_dir / CONFIG).exists() else {})
        timed, num_epochs = self._training
        finished = (seed.num_epochs for seed in FinalFolder(run_dir / "final").progress() if seed.seed == step.seed)
        return timed.estimate(num_epochs - sum(finished))

    @functools.cached_property
    def _pretraining(self) -> float:
        return time_pretraining(self._space, self._plan.args.embedding, PROTOCOL_PRESETS[self._plan.preset].pretrain_steps)

    @functools.cached_property
    def _search(self) -> SearchTime:
        return time_search(self._evaluator, _search_args(self._plan))

    @functools.cached_property
    def _training(self) -> tuple[TrainingTime, int]:
        """The times of a final training, and its number of epochs."""
        args, settings = self._plan.args, self._plan.final
        architecture = self._space.sample(numpy_generator(0, "timed architectures"))
        final = FinalTraining(self._space, architecture, self._evaluator.dataset, settings, data_dir=args.data_dir)
        timed = time_training(self._space, settings, final.train_images, device=args.device, num_threads=args.num_threads)
        return timed, final.num_epochs


def _format_estimate(seconds: float) -> str:
    return "unknown" if math.isnan(seconds) else duration(math.ceil(seconds))
