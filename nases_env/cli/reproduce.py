"""``nases reproduce``: the steps of a plan, one after the other, and the report on what they came to."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import math
import pkgutil
import runpy
import sys
import warnings
from datetime import timedelta
from typing import Any

from rich.console import Console

from nases_env.atomic_io import is_unused, write_atomically
from nases_env.cli.pretrain import PretrainArgs, pretrain_command
from nases_env.cli.train import TrainArgs, train_command
from nases_env.command_line import parse
from nases_env.devices import device_name, resolve_device
from nases_env.errors import InputError, did_you_mean
from nases_env.evaluation import RETRAIN_PRESETS, TrainingEvaluator, resolve_preset
from nases_env.retraining import FinalTraining
from nases_env.retraining.plan import Plan, Stage, Step, make_plan
from nases_env.retraining.plan_args import REPRODUCTIONS, ReproduceArgs
from nases_env.retraining.protocol_report import make_report
from nases_env.retraining.timing import NUM_NETWORKS, time_pretraining, time_training
from nases_env.search import SearchArgs, make_env
from nases_env.search_spaces import get_search_space
from nases_env.seeding import numpy_generator

CONFIG = "config.json"
FREE = ("output", "dry_run", "seeds", "execution")  # options that may differ when it is gone on with


def reproduce_command(args: ReproduceArgs) -> None:
    """Runs ``nases reproduce``.

    Raises:
        InputError: if an argument is wrong, data are missing, the folder holds something else, or a step fails.
    """
    agents = [module.name for module in pkgutil.iter_modules(importlib.import_module("nases_agents").__path__)]
    for agent in args.agents:
        if agent not in agents:
            raise InputError(f"there is no agent {agent!r}{did_you_mean(agent, agents)}; known: {', '.join(agents)}")
    plan = make_plan(args)
    evaluator = _evaluator(plan)
    if args.dry_run:
        _check_config(plan)
        _print_dry_run(plan, evaluator)
        return
    _open(plan)
    console = Console(stderr=True)
    steps = list(plan.steps())
    for number, step in enumerate(steps, start=1):
        if not step.is_done:
            console.print(f"[{number}/{len(steps)}] {step.command}", markup=False, highlight=False, soft_wrap=True)
            try:
                _run(step)
            except BaseException:  # an interrupt, and what an agent ends with, among them
                console.print(f"ended in step {number} of {len(steps)}; the same command goes on with it", highlight=False)
                raise
    from rich.markdown import Markdown  # slow to import

    report = make_report(plan)
    Console().print(Markdown(report))
    Console().print(f"everything is in {plan.output}", soft_wrap=True, highlight=False)


def _run(step: Step) -> None:
    options = step.options()
    if step.stage == "pretrain":
        pretrain_command(parse(PretrainArgs, args=options))
    elif step.stage == "train":
        train_command(parse(TrainArgs, args=options))
    else:
        _run_agent(f"nases_agents.{step.agent}", options)
    if not step.is_done:
        raise InputError(f"this did not come to its end: {step.command}")


def _run_agent(module: str, options: list[str]) -> None:
    """Runs an agent's file as ``python -m`` does, in this process, so that it ends with it."""
    arguments = sys.argv
    sys.argv = [module, *options]
    try:
        with warnings.catch_warnings():
            # What another agent has imported of it is left as it is: it runs anew.
            warnings.filterwarnings("ignore", ".*found in sys.modules after import", RuntimeWarning)
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            raise
    finally:
        sys.argv = arguments


def _evaluator(plan: Plan) -> TrainingEvaluator:
    """What evaluates the searches' children; its data are there."""
    args = plan.args
    search = SearchArgs(
        env_id=plan.env_id, preset=plan.preset, data_dir=args.data_dir, device=args.device, num_threads=args.num_threads
    )
    search.child = args.child
    env = make_env(search)
    try:
        evaluator = env.unwrapped.evaluator  # type: ignore[attr-defined]
        if not isinstance(evaluator, TrainingEvaluator):
            raise InputError(f"{plan.env_id} trains no networks, so that there is none to train to the end; name another")
        evaluator.prepare()
        return evaluator
    finally:
        env.close()


def _config(plan: Plan) -> dict[str, Any]:
    """What must be the same when the reproduction is gone on with, as JSON values."""
    kept = {name: value for name, value in dataclasses.asdict(plan.args).items() if name not in FREE}
    return dict(json.loads(json.dumps({**kept, "preset": plan.preset, "env_id": plan.env_id, "budget": plan.budget})))


def _check_config(plan: Plan) -> bool:
    """Whether the folder holds this reproduction; False if it is new.

    Raises:
        InputError: if it holds another, or something else.
    """
    path = plan.output / CONFIG
    try:
        before = json.loads(path.read_text())
        if not isinstance(before, dict) or "preset" not in before:
            raise ValueError("it is not that of a reproduction")
    except FileNotFoundError:
        if not is_unused(plan.output, CONFIG):
            raise InputError(f"{plan.output} exists and holds no reproduction; give another --output") from None
        return False
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} ({error}); give another --output") from error
    changed = [name for name, value in _config(plan).items() if before.get(name) != value]
    if changed:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
        raise InputError(f"{plan.output} was begun with other {options}; give them as before, or another --output")
    return True


def _open(plan: Plan) -> None:
    if not _check_config(plan):
        write_atomically(plan.output / CONFIG, (json.dumps(_config(plan), indent=2) + "\n").encode())


def _print_dry_run(plan: Plan, evaluator: TrainingEvaluator) -> None:
    say = functools.partial(Console().print, markup=False, highlight=False, soft_wrap=True)
    seconds: dict[Stage, float] = {}
    left = 0.0
    for step in plan.steps():
        if step.is_done:
            say(f"{'done':>16}  {step.command}")
            continue
        if step.stage not in seconds:
            seconds[step.stage] = _estimate(step.stage, plan, evaluator)
        left += seconds[step.stage]
        say(f"{duration(seconds[step.stage]):>16}  {step.command}")
    children = f"{plan.args.num_envs} children at once, " if plan.args.num_envs > 1 else ""
    where = device_name(resolve_device(evaluator.device))
    say(f"{duration(left):>16}  in all on {where}, {children}if every child is new:")
    say(f"{'':>16}  estimated from a few batches of {NUM_NETWORKS} random architectures")


def _estimate(stage: Stage, plan: Plan, evaluator: TrainingEvaluator) -> float:
    """Seconds of one step of a stage here; children at once are taken to take no longer than one."""
    args = plan.args
    space = get_search_space(evaluator.search_space)
    if stage == "pretrain":
        return time_pretraining(space, args.embedding, REPRODUCTIONS[plan.preset].pretrain_steps)
    if stage == "search":
        settings, images, times = evaluator.settings, evaluator.images()[0], math.ceil(plan.budget / args.num_envs)
    else:
        given = {name: value for name, value in vars(args.final).items() if value != "preset"}
        _, settings = resolve_preset(plan.preset, given, RETRAIN_PRESETS)
        architecture = space.sample(numpy_generator(0, "timed architectures"))
        final = FinalTraining(space, architecture, evaluator.dataset, settings, data_dir=args.data_dir)
        images, times = final.train_images, 1
    timed = time_training(space, settings, images, device=args.device, num_threads=args.num_threads)
    return times * timed.of(settings.num_epochs)


def duration(seconds: float) -> str:
    """A length of time in words, such as "2 days, 3:04:05"."""
    return "unknown" if math.isnan(seconds) else str(timedelta(seconds=math.ceil(seconds)))
