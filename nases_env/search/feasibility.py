"""Whether the limits of a search leave any children, found by sampling before the search starts."""

from __future__ import annotations

from nases_env.envs import NASESEnv
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation
from nases_env.seeding import numpy_generator

NUM_SAMPLES = 300
MAX_FEASIBLE = 10  # feasible architectures, after which no more are sampled
MAX_MEASURED = 20  # latencies, if measuring is slow
MIN_SHARE = 0.1  # share of feasible architectures below which there is a note


def check_feasibility(env: NASESEnv, seed: int) -> str:
    """Sample architectures and return a note if few of them meet the limits; empty if many do, or there is no limit.

    The latencies that are measured here are not kept. If there are too many of them to sample ``NUM_SAMPLES`` architectures,
    it is a note too that none meets the limits: the search asks for up to ``MAX_INFEASIBLE`` others.

    Raises:
        InputError: if none of ``NUM_SAMPLES`` architectures meets the limits.
    """
    limits, evaluator = env.evaluator.limits, env.evaluator
    if not limits:
        return ""
    rng = numpy_generator(seed, "feasibility")
    infeasible: list[Evaluation] = []
    num_feasible = num_measured = 0
    while num_feasible < MAX_FEASIBLE and num_feasible + len(infeasible) < NUM_SAMPLES and num_measured < MAX_MEASURED:
        architecture = env.search_space.sample(rng)
        screened = evaluator.screen(architecture, seed)
        if screened is None and limits.max_latency is not None:
            num_measured += evaluator.is_screening_slow
            screened = evaluator.screen_latency(architecture, seed, evaluator.measure_latency(architecture, seed))
        if screened is None:
            num_feasible += 1
        else:
            infeasible.append(screened)
    num_samples = num_feasible + len(infeasible)
    if not num_feasible:
        smallest = min(infeasible, key=limits.excess)
        message = f"none of {num_samples} sampled architectures meets the limits; the closest has {smallest.reason}"
        if num_samples < NUM_SAMPLES:
            return f"note: {message}"
        raise InputError(message)
    if num_feasible < MIN_SHARE * num_samples:
        return f"note: {num_feasible} of {num_samples} sampled architectures meet the limits"
    return ""
