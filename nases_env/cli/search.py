"""Search for a good network for a data set.

    nases search my_images/ --time 45m
    nases search cifar10 --agent reinforce --budget 100
    nases search my_images/ --dry-run

The data is a directory of images with <class>/ or train/<class>/ and test/<class>/, an .npz file with the arrays images and
labels, a directory with images.npy and labels.npy, a .csv file with the columns file and label, the name of a data set, or
the id of an environment. With --dry-run, the plan and an estimate of the duration are printed, and nothing is trained.

The other options are those of the agent: nases search my_images/ --agent reinforce --help lists them, and --help-all
explains them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nases_env.cli.agents import AGENTS, import_agent
from nases_env.cli.search_plan import print_plan
from nases_env.devices import device_type
from nases_env.errors import InputError, did_you_mean
from nases_env.escaping import quoted
from nases_env.evaluation import Evaluator
from nases_env.execution.factory import REMOTE_EXECUTORS
from nases_env.execution.process_worker import default_num_workers
from nases_env.registration import ENV_IDS, MO_ENV_IDS
from nases_env.search.environment import make_env
from nases_env.search.options import SearchArgs
from nases_env.search.parsing import parse_and_search
from nases_env.search.run_dir import CONFIG, TRAJECTORY, read_config

DEFAULT_AGENT = "model_assisted"
MIN_CONCURRENT = 5  # children; as many as ``model_assisted`` proposes together
MIN_ROUNDS = 6  # times that the agent proposes children, with the default number of concurrent ones

HELP_WORDS = {"-h", "--help", "--help-all"}

HELP = f"""usage: nases search DATA [--agent AGENT] [--dry-run] [OPTIONS]
       nases search --resume RUN [OPTIONS]

{__doc__}
agents (default: {DEFAULT_AGENT}):
""" + "\n".join(f"  {name:<22} {summary}" for name, summary in AGENTS.items())

ENV_ID_BY_DATASET = {
    "cifar10": "NASES-CIFAR10-v0",
    "cifar100": "NASES-CIFAR100-v0",
    "fashion_mnist": "NASES-FashionMNIST-v0",
    "svhn": "NASES-SVHN-v0",
    "digits": "NASES-Digits-v0",
}


@dataclass
class CompletedArgs(SearchArgs):
    """The options that shells complete: those of all agents."""

    agent: str = DEFAULT_AGENT
    dry_run: bool = False


ARGS = CompletedArgs


def main(options: Sequence[str]) -> None:
    """Search for a good network for a data set."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--agent")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--resume")
    try:
        own, others = parser.parse_known_args(options)
    except argparse.ArgumentError as error:
        raise InputError(f"{error}; nases search --help lists the options") from None
    data = others.pop(0) if others and not others[0].startswith("-") else None
    names = {other.split("=")[0].replace("_", "-") for other in others}
    if own.resume is not None:
        if data is not None or own.agent is not None:
            raise InputError("with --resume, the data and the agent are those of the resumed search; omit them")
        agent = read_config(Path(own.resume))["agent"]
        agent = agent if agent in AGENTS else "sb3"  # named by its algorithm
        given = ["--resume", own.resume]
    elif data is None:
        if own.agent is None and HELP_WORDS & set(others):
            print(HELP)
            return
        if not HELP_WORDS & set(others):
            raise InputError("no data given; the first argument is a directory of images, a file or the name of a data set")
        agent, given = own.agent, []
    else:
        agent = own.agent or DEFAULT_AGENT
        given = data_options(data)
        for name in ("--env-id", "--data-dir"):
            if name in given and name in names:
                raise InputError(f"{name} is determined by {data}; omit it")
    module = import_agent(agent)

    def plan_and_search(args: Any) -> None:
        args.check()
        env = make_env(args)
        try:
            if "--num-envs" not in names and args.resume is None:
                args = replace(args, num_envs=_default_num_envs(args, env.evaluator))
            if own.dry_run or not (args.quiet or args.log_json):
                args.check_env(env)
                args.inputs(env.search_space)  # errors before the plan
                print_plan(env, args, agent)
        finally:
            env.close()
        if not own.dry_run:
            module.main(args)

    plan_and_search.__doc__ = f"{module.main.__doc__} Other options, --agent and --dry-run: nases search --help"
    parse_and_search(module.Args, plan_and_search, options=[*given, *others], program="nases search DATA")


def data_options(data: str) -> list[str]:
    """Return the options that select the environment for ``data``.

    Raises:
        InputError: if it is a run directory, or neither a path nor the name of a data set or an environment.
    """
    path = Path(data).expanduser()
    if data in ENV_ID_BY_DATASET and not path.is_dir():
        return ["--env-id", ENV_ID_BY_DATASET[data]]
    if (path / CONFIG).is_file() and (path / TRAJECTORY).is_file():
        raise InputError(f"{data} is the run directory of a search; resume it with: nases search --resume {quoted(data)}")
    if path.exists():
        return ["--env-id", "NASES-ImageFolder-v0", "--data-dir", data]
    module, _, env_id = data.partition(":")
    if data in (*ENV_IDS, *MO_ENV_IDS) or (
        env_id and not Path(env_id).suffix and all(part.isidentifier() for part in module.split("."))
    ):
        return ["--env-id", data]
    known = [*ENV_ID_BY_DATASET, *ENV_IDS, *MO_ENV_IDS]
    if data.startswith("NASES-"):
        raise InputError(
            f"unknown environment {data!r}{did_you_mean(data, known)}; known: {', '.join((*ENV_IDS, *MO_ENV_IDS))}"
        )
    raise InputError(
        f"{data} is neither a directory, a file nor the name of a data set{did_you_mean(data, known)}; the data sets are "
        f"{', '.join(ENV_ID_BY_DATASET)}"
    )


def _default_num_envs(args: SearchArgs, evaluator: Evaluator) -> int:
    """Return the number of concurrent children: as many as the GPUs of this machine, or its CPU cores, can train.

    There are not more than a sixth of the budget, or ``MIN_CONCURRENT`` if that is more: an agent that proposes most of its
    children before it knows a result cannot learn. There is one if nothing is trained, with the executor "serial", and for
    GPUs of other machines, whose number is not known.
    """
    execution, device = args.execution, device_type(args.device)
    if not evaluator.is_expensive or execution.executor == "serial":
        return 1
    if device not in ("cpu", "cuda") or (device == "cuda" and execution.executor in REMOTE_EXECUTORS):
        return 1
    return default_num_workers(evaluator, max(MIN_CONCURRENT, args.budget // MIN_ROUNDS), execution.workers_per_gpu)
