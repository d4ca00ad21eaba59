"""Compare agents: the best architecture of each agent within a budget, over many seeds.

    python -m benchmarks.search_quality --table nasbench201-cifar10.csv --output comparison.json
    python -m benchmarks.search_quality --env-id NASES-TransNASMicro-v0 --env-kwargs task jigsaw
    python -m benchmarks.search_quality --env-id NASES-Accel-v0
    python -m benchmarks.search_quality --env-id NASES-Synthetic-v0 --random-landscapes
    python -m benchmarks.search_quality --env-id NASES-Digits-v0 --agents random_search reinforce --num-seeds 5 --budgets 64

Smaller budgets are prefixes of the search with the largest: the best of 100 children is the best of the first 100 of 300.
(An agent that adapts to its budget adapts to the largest.) Repeated children count toward the budget. The agents see only
rewards, which are validation accuracies unless the preset has another reward. If the evaluator can report the test accuracy
of fully trained children, it is read after a search, and the test accuracy of the child with the best reward is compared;
otherwise its reward is. All agents search the same environments. If an environment can permute its operators, the seed of
the search determines their order, so no agent profits from a particular order. With ``--random-landscapes``, it also
determines the reward function of a synthetic environment; the regret is then against the best child of all searches with
the same seed.

The tables in Markdown (.md), regret curves (.png, .svg), and one line per search (.records.jsonl) are written next to the
output. A record is on disk as soon as its search has ended, and the same command resumes an interrupted comparison. A record
is reused only if everything that determines it is equal: the options of agent and environment, the largest budget, the
table, the embedding, the code, and the versions of libraries. Other records stay in the file unused.

To compare another agent or other options, add a line to DEFAULT_AGENTS, or to ABLATIONS if it does not run by default.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nases_agents import (
    bayesian_optimization,
    cma_es,
    discrete_reinforce,
    elite_reinforce,
    local_search,
    model_assisted,
    regularized_evolution,
    reinforce,
    sb3,
    tpe,
)
from nases_agents.bayesian_optimization import BayesianOptimization
from nases_agents.cma_es import CMAES
from nases_agents.discrete_reinforce import DiscreteReinforce
from nases_agents.elite_reinforce import EliteReinforce
from nases_agents.local_search import LocalSearch
from nases_agents.model_assisted import ModelAssisted
from nases_agents.random_search import RandomSearch
from nases_agents.regularized_evolution import RegularizedEvolution
from nases_agents.reinforce import Reinforce
from nases_agents.tpe import TPE
from tqdm import tqdm

from benchmarks.common import regret, report
from benchmarks.common.console import wide_console
from benchmarks.common.identity import (
    Table,
    describe_environment,
    digest_of_files,
    digest_of_text,
    read_table,
    sources_of_agent,
)
from benchmarks.common.records import Record, RecordFile, find_duplicate_steps, find_incumbent_steps
from benchmarks.common.searches import run_agent
from benchmarks.common.workers import map_unordered
from benchmarks.search_quality.ablations import (
    ModelAssistedNegatedSizes,
    ModelAssistedShuffledSizes,
    ModelAssistedWithoutSizes,
    NegatedSizes,
    ShuffledSizes,
    WithoutPaths,
    WithoutSizes,
)
from nases_env.envs import NASESEnv
from nases_env.errors import InputError, did_you_mean
from nases_env.search import SearchArgs, SearchLoop, make_env
from nases_env.search.agent import Agent
from nases_env.signals import defer_signals

NO_LEARNING = 1e-12  # a learning rate
ALGORITHM_1: dict[str, Any] = {"std": 0.1, "unseen": False}  # options of reinforce


class Entry(NamedTuple):
    """An agent in the comparison.

    Attributes:
        label: its name in the legend of the regret curves.
        agent: an ``Agent`` class with the arguments (environment, options), or a function of (search, options) that uses up
            the budget of the search.
        options: options of the agent; environment, budget and seed are those of the comparison.
        variant_of: the name of the agent of which this one is a variant.
    """

    label: str
    agent: type[Agent] | Callable[[SearchLoop, Any], None]
    options: SearchArgs
    variant_of: str | None = None


DEFAULT_AGENTS: dict[str, Entry] = {
    "random_search": Entry("random search", RandomSearch, SearchArgs()),
    "regularized_evolution": Entry("regularized evolution", RegularizedEvolution, regularized_evolution.Args()),
    "local_search": Entry("local search", LocalSearch, local_search.Args()),
    "discrete_reinforce": Entry("REINFORCE on discrete actions, LSTM", DiscreteReinforce, discrete_reinforce.Args()),
    "discrete_reinforce_independent": Entry(
        "REINFORCE on discrete actions, independent", DiscreteReinforce, discrete_reinforce.Args(controller="independent")
    ),
    "reinforce": Entry("REINFORCE", Reinforce, reinforce.Args()),
    "elite_reinforce": Entry("REINFORCE with elites", EliteReinforce, elite_reinforce.Args()),
    "model_assisted": Entry("model-assisted REINFORCE", ModelAssisted, model_assisted.Args()),
    "bayesian_optimization": Entry("Bayesian optimization", BayesianOptimization, bayesian_optimization.Args()),
    "cma_es": Entry("CMA-ES", CMAES, cma_es.Args()),
    "tpe": Entry("TPE", TPE, tpe.Args()),
    "ppo": Entry("PPO", sb3.learn, sb3.Args(algorithm="ppo")),
    "a2c": Entry("A2C", sb3.learn, sb3.Args(algorithm="a2c")),
    "sac": Entry("SAC", sb3.learn, sb3.Args(algorithm="sac")),
    "td3": Entry("TD3", sb3.learn, sb3.Args(algorithm="td3")),
    "reinforce_random_weights": Entry("REINFORCE, random weights", Reinforce, reinforce.Args(init="random"), "reinforce"),
    "reinforce_no_learning": Entry(
        "REINFORCE, no learning", Reinforce, reinforce.Args(learning_rate=NO_LEARNING), "reinforce"
    ),
    "reinforce_paper": Entry("Algorithm 1", Reinforce, reinforce.Args(**ALGORITHM_1), "reinforce"),
    "reinforce_paper_random_weights": Entry(
        "Algorithm 1, random weights", Reinforce, reinforce.Args(**ALGORITHM_1, init="random"), "reinforce"
    ),
    "elite_reinforce_random_weights": Entry(
        "REINFORCE with elites, random weights", EliteReinforce, elite_reinforce.Args(init="random"), "elite_reinforce"
    ),
    "elite_reinforce_no_learning": Entry(
        "REINFORCE with elites, no learning",
        EliteReinforce,
        elite_reinforce.Args(learning_rate=NO_LEARNING),
        "elite_reinforce",
    ),
}
"""The agents that are compared by default, by name."""

FROM_POLICY_ALONE: dict[str, Any] = {
    **{"num_policy_candidates": 50, "num_prior_candidates": 0, "num_mutants": 0},
    **{"ask_batch_size": 5, "learning_starts": 5, "training_growth": 1.0},
}
"""Options of ``model_assisted``: five children at a time among 50 samples of a policy that is trained before."""

ABLATIONS: dict[str, Entry] = {
    "model_assisted_no_learning": Entry(
        "model-assisted, no learning", ModelAssisted, model_assisted.Args(learning_rate=NO_LEARNING), "model_assisted"
    ),
    "model_assisted_no_screening": Entry(
        "model-assisted, random first children", ModelAssisted, model_assisted.Args(screen=False), "model_assisted"
    ),
    "model_assisted_no_sizes": Entry(
        "model-assisted, no sizes", ModelAssistedWithoutSizes, model_assisted.Args(), "model_assisted"
    ),
    "model_assisted_negated_sizes": Entry(
        "model-assisted, negated sizes", ModelAssistedNegatedSizes, model_assisted.Args(), "model_assisted"
    ),
    "model_assisted_shuffled_sizes": Entry(
        "model-assisted, shuffled sizes", ModelAssistedShuffledSizes, model_assisted.Args(), "model_assisted"
    ),
    "model_assisted_50": Entry(
        "model-assisted, 50 samples of the policy", ModelAssisted, model_assisted.Args(**FROM_POLICY_ALONE), "model_assisted"
    ),
    "model_assisted_50_no_learning": Entry(
        "model-assisted, 50 samples, no learning",
        ModelAssisted,
        model_assisted.Args(**FROM_POLICY_ALONE, learning_rate=NO_LEARNING),
        "model_assisted",
    ),
    "bayesian_optimization_no_screening": Entry(
        "Bayesian opt., random first children",
        BayesianOptimization,
        bayesian_optimization.Args(screen=False),
        "bayesian_optimization",
    ),
    "bayesian_optimization_no_paths": Entry(
        "Bayesian opt., no kernel on paths", WithoutPaths, bayesian_optimization.Args(), "bayesian_optimization"
    ),
    "bayesian_optimization_no_sizes": Entry(
        "Bayesian opt., no sizes", WithoutSizes, bayesian_optimization.Args(), "bayesian_optimization"
    ),
    "bayesian_optimization_negated_sizes": Entry(
        "Bayesian opt., negated sizes", NegatedSizes, bayesian_optimization.Args(), "bayesian_optimization"
    ),
    "bayesian_optimization_shuffled_sizes": Entry(
        "Bayesian opt., shuffled sizes", ShuffledSizes, bayesian_optimization.Args(), "bayesian_optimization"
    ),
}
"""Variants of the agents with a model, by name. They are as slow as these agents, so they are compared only if named."""

AGENTS = {**DEFAULT_AGENTS, **ABLATIONS}
"""All agents by name."""

BASELINE = "random_search"

DIFFERENCES: dict[str, tuple[str, str]] = {
    "model-assisted – model-free": ("model_assisted", "elite_reinforce"),
    "model-assisted – Bayesian optimization": ("model_assisted", "bayesian_optimization"),
    "simulator weights – random weights (REINFORCE with elites)": ("elite_reinforce", "elite_reinforce_random_weights"),
    "simulator weights – random weights (REINFORCE)": ("reinforce", "reinforce_random_weights"),
    "simulator weights – random weights (Algorithm 1)": ("reinforce_paper", "reinforce_paper_random_weights"),
    "REINFORCE with elites – REINFORCE on discrete actions, LSTM": ("elite_reinforce", "discrete_reinforce"),
    "REINFORCE with elites – REINFORCE on discrete actions, independent": (
        "elite_reinforce",
        "discrete_reinforce_independent",
    ),
    "learning – no learning (REINFORCE with elites)": ("elite_reinforce", "elite_reinforce_no_learning"),
    "learning – no learning (REINFORCE)": ("reinforce", "reinforce_no_learning"),
    "REINFORCE – random search": ("reinforce", "random_search"),
    "REINFORCE with elites – REINFORCE": ("elite_reinforce", "reinforce"),
    "REINFORCE with elites – Algorithm 1": ("elite_reinforce", "reinforce_paper"),
    "learning – no learning (model-assisted)": ("model_assisted", "model_assisted_no_learning"),
    "learning – no learning (50 samples of the policy)": ("model_assisted_50", "model_assisted_50_no_learning"),
    "all candidates – 50 samples of the policy": ("model_assisted", "model_assisted_50"),
    "large first children – random ones (model-assisted)": ("model_assisted", "model_assisted_no_screening"),
    "large first children – random ones (Bayesian opt.)": ("bayesian_optimization", "bayesian_optimization_no_screening"),
    "kernel on paths – no paths": ("bayesian_optimization", "bayesian_optimization_no_paths"),
    "sizes – no sizes (model-assisted)": ("model_assisted", "model_assisted_no_sizes"),
    "negated sizes – no sizes (model-assisted)": ("model_assisted_negated_sizes", "model_assisted_no_sizes"),
    "shuffled sizes – no sizes (model-assisted)": ("model_assisted_shuffled_sizes", "model_assisted_no_sizes"),
    "sizes – no sizes (Bayesian opt.)": ("bayesian_optimization", "bayesian_optimization_no_sizes"),
    "negated sizes – no sizes (Bayesian opt.)": ("bayesian_optimization_negated_sizes", "bayesian_optimization_no_sizes"),
    "shuffled sizes – no sizes (Bayesian opt.)": ("bayesian_optimization_shuffled_sizes", "bayesian_optimization_no_sizes"),
}
"""Pairs of agents that are compared seed by seed, by the title of their difference."""

MIN_WIDTH = 140  # characters of the tables if the output is not a terminal


@dataclass
class Args:
    """Options of the benchmark."""

    agents: tuple[str, ...] = tuple(DEFAULT_AGENTS)
    """Names of the agents; by default all without the ablations of the agents with a model."""
    num_seeds: int = 100
    """Number of searches of each agent, at least 2."""
    first_seed: int = 0
    """First seed; the others follow consecutively."""
    budgets: tuple[int, ...] = (100, 300)
    """Numbers of children after which the best is compared; a search ends at the largest."""
    env_id: str = "NASES-NASBench201-v0"
    """Id of the environment; MODULE:ID if MODULE registers it."""
    env_kwargs: dict[str, str] = field(default_factory=dict)
    """Additional environment arguments as NAME VALUE pairs, such as task jigsaw."""
    random_landscapes: bool = False
    """Use the seed of each search as the landscape_seed of its environment, such as NASES-Synthetic-v0."""
    table: str | None = None
    """File with the table of results, for an environment that reads one; unset: the default path of the environment."""
    search_space: str | None = None
    """Name of a built-in search space or MODULE:CLASS of a custom one; unset: that of the environment."""
    embedding: str | None = None
    """File with a pretrained embedding, as written by `nases pretrain`; unset: the built-in one."""
    preset: str = "auto"
    """Size and training of the children, for an environment that trains them."""
    data_dir: str | None = None
    """Directory with the data, for an environment that trains; unset: NASES_DATA_DIR."""
    num_processes: int = os.cpu_count() or 1
    """Number of parallel searches, with one thread each; 1 runs them in the main process."""
    output: Path = Path("search_quality.json")
    """JSON file for the measurements; the other files are written next to it."""

    def __post_init__(self) -> None:
        for name in self.agents:
            if name not in AGENTS:
                raise InputError(f"unknown agent {name!r}{did_you_mean(name, AGENTS)}; known: {', '.join(AGENTS)}")
        for option, minimum in {"num_seeds": 2, "first_seed": 0, "num_processes": 1}.items():
            if getattr(self, option) < minimum:
                raise InputError(f"--{option.replace('_', '-')} must be at least {minimum}, not {getattr(self, option)}")
        if not self.agents or not self.budgets or min(self.budgets) < 1:
            raise InputError(
                "pass at least one agent with --agents, and at least one number of children, 1 or larger, with --budgets"
            )
        reserved = {"table": "use --table", "operator_permutation_seed": "each search sets its own"}
        if self.random_landscapes:
            reserved["landscape_seed"] = "with --random-landscapes, each search sets its own"
        for name, reason in reserved.items():
            if name in self.env_kwargs:
                raise InputError(f"--env-kwargs cannot set {name}: {reason}")
        if self.output.suffix != ".json":
            raise InputError(f"--output must end in .json, as {self.output.with_suffix('.json')} does, not {self.output}")


class Job(NamedTuple):
    """One search.

    Attributes:
        agent: name of the agent.
        changes: options set by the comparison; they override those of the agent.
        settings: digest of everything that determines the result, except for the seed.
    """

    agent: str
    changes: dict[str, Any]
    settings: str

    @property
    def seed(self) -> int:
        """Seed of everything random in the search."""
        return int(self.changes["seed"])

    @property
    def options(self) -> SearchArgs:
        """All options of the agent and of the environment."""
        return dataclasses.replace(AGENTS[self.agent].options, **self.changes)


def environment_options(args: Args) -> dict[str, Any]:
    """Return the options that all searches share."""
    names = ("env_id", "search_space", "embedding", "preset", "data_dir")
    env_kwargs = args.env_kwargs if args.table is None else {**args.env_kwargs, "table": args.table}
    return {"budget": max(args.budgets), "env_kwargs": env_kwargs, **{name: getattr(args, name) for name in names}}


def open_environment(args: Args) -> NASESEnv:
    """Return the environment of the first seed after a reset, which fails if a required file is missing.

    Raises:
        InputError: if the environment does not take an argument.
    """
    options = environment_options(args)
    if args.random_landscapes:
        options["env_kwargs"] = {**options["env_kwargs"], "landscape_seed": str(args.first_seed)}
    try:
        env = make_env(SearchArgs(**options))
    except InputError as error:
        if args.random_landscapes and "landscape_seed" in str(error):
            raise InputError(f"--random-landscapes: {error}") from None
        raise
    env.reset(seed=args.first_seed)
    return env


def make_jobs(args: Args, nases: NASESEnv, environment: Mapping[str, Any]) -> list[Job]:
    """Return all searches, ordered by seed, so that an interrupted comparison has about equally many of each agent."""
    permutes = "operator_permutation_seed" in inspect.signature(type(nases)).parameters
    permutations = ["operator_permutation_seed"] if permutes else []
    landscapes = ["landscape_seed"] if args.random_landscapes else []
    changes, jobs = environment_options(args), []
    # Without the path of the table, whose content is in ``environment``.
    hashed = {**changes, "env_kwargs": {**args.env_kwargs, **dict.fromkeys(landscapes, "the seed of the search")}}
    for name in dict.fromkeys(args.agents):
        _, agent, options, _ = AGENTS[name]
        settings = {
            **dataclasses.asdict(dataclasses.replace(options, **hashed)),
            **environment,
            "agent_code": digest_of_files(sources_of_agent(agent)),
        }
        digest = digest_of_text(json.dumps(settings, default=str))
        for seed in range(args.first_seed, args.first_seed + args.num_seeds):
            env_kwargs = {**changes["env_kwargs"], **dict.fromkeys([*permutations, *landscapes], str(seed))}
            jobs.append(Job(name, {**changes, "seed": seed, "env_kwargs": env_kwargs}, digest))
    return sorted(jobs, key=lambda job: job.seed)


def run_search(job: Job) -> Record:
    """Run a search; the test accuracies are read after its end."""
    agent, options = AGENTS[job.agent].agent, job.options
    start = time.perf_counter()
    search = run_agent(agent, options)
    seconds = time.perf_counter() - start
    children = search.trials[: options.budget]
    assert len(children) == options.budget, f"{job.agent} evaluated {len(children)} of {options.budget} children"
    rewards = [child.evaluation.reward for child in children]
    incumbent_steps = find_incumbent_steps(rewards)
    report_test_accuracy = getattr(search.env.evaluator, "report_test_accuracy", None)
    return Record(
        agent=job.agent,
        seed=job.seed,
        settings=job.settings,
        seconds=seconds,
        rewards=rewards,
        duplicate_steps=find_duplicate_steps([child.evaluation.key for child in children]),
        incumbent_steps=incumbent_steps,
        test_accuracies=report_test_accuracy
        and [float(report_test_accuracy(children[number - 1].architecture)) for number in incumbent_steps],
    )


def complete(jobs: Sequence[Job], file: RecordFile[Record], num_processes: int) -> dict[str, list[Record]]:
    """Run the searches that are missing in ``file``; return all records by agent, ordered by seed."""
    known, was_cut_off = file.load()
    if was_cut_off:
        print(f"the last record in {file.path} was incomplete: its search runs again")
    finished = {(record.agent, record.seed, record.settings): record for record in known}
    wanted = {(job.agent, job.seed, job.settings): job for job in jobs}
    missing = [job for key, job in wanted.items() if key not in finished]
    if known:
        num_others = len(finished.keys() - wanted.keys())
        print(f"{len(wanted) - len(missing)} searches are already in {file.path}, {num_others} with other seeds or settings")
    sys.stdout.flush()
    with (
        tqdm(total=len(wanted), initial=len(wanted) - len(missing), unit="search", dynamic_ncols=True) as bar,
        closing(map_unordered(run_search, missing, num_processes)) as records,
    ):
        for record in records:
            with defer_signals():
                file.append(record)
            finished[record.agent, record.seed, record.settings] = record
            bar.set_postfix(last=record.agent, refresh=False)
            bar.update()
    completed: dict[str, list[Record]] = {}
    for key in wanted:
        completed.setdefault(key[0], []).append(finished[key])
    return completed


def find_optimum(found: Sequence[Record], table: Table | None) -> dict[str, float]:
    """Return the best reward and test accuracy in the table; without a table, in the searches."""
    if table:
        rewards = [valid_accuracy for valid_accuracy, _ in table.values()]
        test_accuracies = [test_accuracy for _, test_accuracy in table.values() if test_accuracy is not None]
    else:
        rewards = [max(record.rewards) for record in found]
        test_accuracies = [accuracy for record in found for accuracy in record.test_accuracies or ()]
    optimum = {"reward": max(rewards)}
    return {**optimum, "test_accuracy": max(test_accuracies)} if test_accuracies else optimum


def find_optima(records: Mapping[str, Sequence[Record]]) -> dict[str, list[float]]:
    """Return the best rewards and test accuracies in the searches with the same seed, by seed."""
    optima = [find_optimum(same_seed, None) for same_seed in zip(*records.values(), strict=True)]
    return {measure: [optimum[measure] for optimum in optima] for measure in optima[0]}


def main(args: Args) -> None:
    """Compare agents on the same environment over many seeds."""
    nases = open_environment(args)
    table = None if args.random_landscapes else read_table(nases)
    environment = describe_environment(nases, table, args.table)
    jobs = make_jobs(args, nases, environment)
    file = RecordFile(args.output.with_suffix(".records.jsonl"), Record.from_json)
    print(f"{args.env_id}: {len(jobs)} searches for {max(args.budgets)} children, {args.num_processes} at a time")
    try:
        records = complete(jobs, file, args.num_processes)
    except KeyboardInterrupt:
        print(f"interrupted: finished searches are in {file.path}; run the same command to resume")
        raise
    write_results(args, jobs, environment, records, table)


def write_results(
    args: Args,
    jobs: Sequence[Job],
    environment: Mapping[str, Any],
    records: Mapping[str, Sequence[Record]],
    table: Table | None,
) -> None:
    """Write metrics, tables and curves of a finished comparison to files, and print the tables."""
    from nases_env import visualization  # imports matplotlib, which is slow

    metrics = report.analyze(records, sorted(set(args.budgets)), BASELINE, DIFFERENCES, args.first_seed)
    tables = report.make_tables(metrics)
    optimum: Mapping[str, float | list[float]] = (
        find_optima(records)
        if args.random_landscapes
        else find_optimum([record for rows in records.values() for record in rows], table)
    )
    points = regret.log_spaced(max(args.budgets))
    curves = regret.curves(records, points, optimum, args.first_seed)
    content = {
        "benchmark": "search_quality",
        "settings": dataclasses.asdict(args),
        "permuted": "operator_permutation_seed" in jobs[0].options.env_kwargs,
        "environment": environment,
        "options": {job.agent: dataclasses.asdict(job.options) for job in jobs},
        **metrics,
        "optimum": {**optimum, "is_known": table is not None},
        "regret": {
            "children": points,
            **{measure: {agent: curve.to_dict() for agent, curve in panel.items()} for measure, panel in curves.items()},
        },
    }
    report.write_report(args.output, content, tables)
    best = "the optimum" if table else "the best of all searches"
    if args.random_landscapes:
        best += " with the same seed"
    agents = [name for name in records if AGENTS[name].variant_of not in records]
    variants = [name for name in records if name not in agents]
    groups = (
        [agents, [*dict.fromkeys(str(AGENTS[name].variant_of) for name in variants), *variants]] if variants else [agents]
    )
    labels = {name: AGENTS[name].label for name in records}
    environment_name = " ".join((args.env_id, *(f"{name}={value}" for name, value in args.env_kwargs.items())))
    figure = regret.draw(
        f"{environment_name}, {args.num_seeds} seeds: regret against {best}", points, curves, groups, labels
    )
    for ending in (".png", ".svg"):
        visualization.save(figure, args.output.with_suffix(ending))
    console = wide_console(MIN_WIDTH)
    for text_table in tables:
        console.print(text_table.to_rich())
    console.print(f"measurements, tables and curves: {args.output.with_suffix('.*')}", highlight=False, soft_wrap=True)
