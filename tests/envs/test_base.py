"""The environments: both checkers, the specification, and the guarantees of the class docstring."""

from __future__ import annotations

import dataclasses
import inspect
import json
import pickle
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

import nases_env
from nases_env.envs import ImageEnv, NASESEnv, NASESVectorEnv
from nases_env.envs.base import describe_result
from nases_env.errors import InputError
from nases_env.evaluation import ChildSettings, Evaluation, Limits, OperatorShareEvaluator, Status
from nases_env.execution import CachingExecutor, SerialExecutor
from nases_env.quantity import ACCURACY, Quantity
from nases_env.search import SearchLoop
from nases_env.search_spaces import Architecture, EnasMicro, get_search_space
from tests.datasets import TinyDatasets

pytestmark = pytest.mark.usefixtures("tiny_children")

SPACE = EnasMicro()
# The others require a table or a search space and have test files of their own names.
ELSEWHERE = ("NASES-Accel-v0", "NASES-NASBench201-v0", "NASES-Query-v0", "NASES-TransNASMicro-v0")
ENV_IDS = tuple(env_id for env_id in nases_env.ENV_IDS if env_id not in ELSEWHERE)


def make(env_id: str = "NASES-Digits-v0", **kwargs: Any) -> gym.Env[Any, Any]:
    if env_id != "NASES-Synthetic-v0":
        kwargs = {"preset": "smoke", **kwargs}
    return gym.make(env_id, **kwargs)


def options_of(env_id: str, tiny_datasets: TinyDatasets) -> dict[str, Any]:
    """Return the options that select a tiny data set and, where children are trained, the smallest children."""
    space = {} if env_id == "NASES-Synthetic-v0" else {"search_space": "nasbench201"}
    return {**tiny_datasets.options(env_id), **space}


def unwrapped(env: gym.Env[Any, Any]) -> NASESEnv:
    return cast(NASESEnv, env.unwrapped)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_gymnasium_checker(env_id: str, tiny_datasets: TinyDatasets) -> None:
    env = make(env_id, **options_of(env_id, tiny_datasets))
    check_env(env.unwrapped)  # pytest turns warnings into errors


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_stable_baselines3_checker(env_id: str, tiny_datasets: TinyDatasets) -> None:
    env = make(env_id, **options_of(env_id, tiny_datasets))
    check_env_of_sb3(env, skip_render_check=False)


@pytest.mark.parametrize("render_mode", ["rgb_array", "ansi"])
def test_checkers_with_rendering(render_mode: str) -> None:
    check_env(make("NASES-Synthetic-v0", render_mode=render_mode).unwrapped)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_spec_round_trips(env_id: str) -> None:
    spec = make(env_id).spec
    assert spec is not None
    again = gym.envs.registration.EnvSpec.from_json(spec.to_json())
    assert again == spec
    assert isinstance(gym.make(again).unwrapped, NASESEnv)
    assert isinstance(gym.make(f"nases_env:{env_id}").unwrapped, NASESEnv)


def test_reset_raises_an_error_if_data_is_missing(tmp_path: Path) -> None:
    env = gym.make("NASES-CIFAR10-v0", data_dir=str(tmp_path), download=False)
    with pytest.raises(InputError, match="NASES_DATA_DIR") as caught:
        env.reset()
    assert "\n" not in str(caught.value)


def test_spaces_match_the_paper() -> None:
    env = make()
    assert env.action_space == gym.spaces.Box(-1, 1, (20,), np.float32)
    assert env.observation_space == gym.spaces.Box(0, 1, (40,), np.float32)


def test_step_evaluates_the_child_that_the_action_decodes_to() -> None:
    env = make()
    env.reset(seed=1)
    action = env.action_space.sample()
    observation, reward, terminated, truncated, info = env.step(action)
    architecture = SPACE.from_json(info["genotype"])
    decoded = SPACE.decode(unwrapped(env).embedding.decode(3 * action))
    assert decoded == architecture
    np.testing.assert_array_equal(observation, SPACE.encode(architecture))
    assert info["key"] == architecture.key
    assert info["status"] == "ok"
    assert type(reward) is float
    assert reward == info["valid_accuracy"]
    assert (terminated, truncated) == (False, False)
    evaluation = unwrapped(env).last_evaluation
    assert evaluation is not None
    assert info["num_params"] == evaluation.num_params > 0
    assert info["num_flops"] == evaluation.num_flops > 0
    assert set(info) == {
        "key",
        "genotype",
        "status",
        "valid_accuracy",
        "train_accuracy",
        "num_params",
        "num_flops",
        "activation_bytes",
        "file_bytes",
    }


def test_actions_are_clipped_into_the_box() -> None:
    env = make("NASES-Synthetic-v0")
    env.reset(seed=0)
    inside = np.where(np.arange(20) % 2, 1, -1).astype(np.float32)
    assert env.step(50 * inside)[4]["key"] == env.step(inside)[4]["key"]


@pytest.mark.parametrize(
    "action", [np.full(20, np.nan), np.full(20, np.inf), np.zeros(19), np.zeros((1, 20)), np.float32(0)]
)
def test_invalid_actions_are_one_line_errors_and_change_nothing(action: np.ndarray) -> None:
    env = make("NASES-Synthetic-v0").unwrapped
    observation, _ = env.reset(seed=0)
    before = unwrapped(env).architecture
    with pytest.raises(InputError, match="an action") as caught:
        env.step(action)
    assert "\n" not in str(caught.value)
    assert unwrapped(env).architecture == before
    assert env.step(np.zeros(20, np.float32))[0].shape == observation.shape


def test_episode_is_truncated_at_the_time_limit_and_never_terminates() -> None:
    env = make("NASES-Synthetic-v0")
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(100)]
    assert ends == [(False, False)] * 99 + [(False, True)]


def test_failed_reset_changes_nothing() -> None:
    env = unwrapped(make())
    env.reset(seed=0)
    before = env.architecture, env.np_random_seed
    for options in ({"oops": 1}, {"architecture": "{}"}, {"fidelity": 3}):
        with pytest.raises(InputError):
            env.reset(seed=7, options=options)
        assert (env.architecture, env.np_random_seed) == before


def test_architecture_of_another_search_space_is_an_input_error() -> None:
    env = unwrapped(make())
    env.reset(seed=0)
    other = get_search_space("transnas_micro").sample(np.random.default_rng(0))
    reordered = dataclasses.replace(env.architecture, key="enas_micro:0-1")
    for architecture in (other, reordered):
        with pytest.raises(InputError, match="belongs to another search space, or to enas_micro with another order"):
            env.reset(options={"architecture": architecture})


def test_reset_starts_from_a_given_architecture() -> None:
    env = make("NASES-Synthetic-v0")
    architecture = SPACE.sample(np.random.default_rng(5))
    for given in (architecture, SPACE.genotype(architecture), SPACE.to_json(architecture)):
        observation, info = env.reset(options={"architecture": given})
        np.testing.assert_array_equal(observation, SPACE.encode(architecture))
        assert info == {"key": architecture.key, "genotype": SPACE.to_json(architecture)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architectur": 1}, "unknown reset option 'architectur'"),
        ({"architecture": [1]}, "not an architecture"),
        ({"architecture": "{"}, "not JSON"),
    ],
)
def test_invalid_reset_options_are_input_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make("NASES-Synthetic-v0").reset(options=options)


def test_seed_determines_the_search() -> None:
    def search(seed: int) -> list[Any]:
        env = make()
        first, _ = env.reset(seed=seed)
        env.action_space.seed(7)
        return [first.tolist(), *(env.step(env.action_space.sample())[1:] for _ in range(2))]

    first, again, other = search(3), search(3), search(4)
    assert first == again
    assert first[0] != other[0]
    assert first[1] != other[1]


def test_results_do_not_depend_on_the_order_and_are_cached() -> None:
    actions = [np.full(20, value, np.float32) for value in (-0.3, 0.3)]
    env = make()
    env.reset(seed=0)
    forwards = [env.step(action)[4] for action in actions]
    env.reset(seed=0)
    known = unwrapped(env).evaluate(SPACE.from_json(forwards[1]["genotype"]))
    again = env.step(actions[1])
    assert again[4] == forwards[1]
    assert unwrapped(env).last_evaluation is known  # the same object, so it was not trained again
    other = make()
    other.reset(seed=0)
    assert [other.step(action)[4] for action in reversed(actions)] == forwards[::-1]


def test_child_that_is_too_large_or_diverges_has_reward_0() -> None:
    env = make(max_params=10)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.zeros(20, np.float32))
    assert (reward, info["status"], info["valid_accuracy"]) == (0.0, "too_large", 0.0)
    assert info["num_params"] > 10
    env = make(lr_max=1e30)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.zeros(20, np.float32))
    assert (reward, info["status"]) == (0.0, "diverged")


def test_render_shows_the_current_child() -> None:
    env = make("NASES-Synthetic-v0", render_mode="rgb_array")
    env.reset(seed=0)
    first = cast(np.ndarray, env.render())
    env.step(np.full(20, 0.5, np.float32))
    second = cast(np.ndarray, env.render())
    assert first.shape == second.shape
    assert first.dtype == np.uint8
    assert (first != second).any()
    text = make("NASES-Synthetic-v0", render_mode="ansi")
    text.reset(seed=0)
    assert str(text.render()).startswith("not evaluated yet\nnormal cell\n")
    with pytest.raises(InputError, match="render_mode"):
        NASESEnv(unwrapped(env).evaluator, render_mode="human")


def test_title_of_a_trained_network_has_its_parameters() -> None:
    evaluation = Evaluation("a", 0, Status.OK, 0.5, 0.6, num_params=1234)
    assert describe_result(evaluation, ACCURACY) == "validation accuracy 50.00%, 1,234 parameters"
    assert describe_result(evaluation, Quantity("SSIM")) == "validation SSIM 0.5000, 1,234 parameters"


def test_environment_is_picklable_and_can_be_closed_twice() -> None:
    env = make()
    env.reset(seed=0)
    again = pickle.loads(pickle.dumps(unwrapped(env)))
    assert again.step(np.zeros(20, np.float32))[4] == env.step(np.zeros(20, np.float32))[4]
    env.close()
    env.close()


def test_every_keyword_is_documented() -> None:
    documentation = " ".join(cast(str, ImageEnv.__doc__).split())
    for field in dataclasses.fields(ChildSettings):
        assert f"{field.name}: {field.metadata['help']}" in documentation
    for name in inspect.signature(ImageEnv).parameters.keys() - {"overrides"}:
        assert f" {name}: " in documentation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "cpuu"}, "unknown preset 'cpuu' .did you mean 'cpu'"),
        ({"preset": None}, "preset must be the name of a preset such as 'cpu', not None"),
        ({"num_threads": "2"}, "num_threads must be an integer, not '2'"),
        ({"num_threads": 1.5}, "num_threads must be an integer, not 1.5"),
        ({"num_threads": 0}, "num_threads must be at least 1, not 0"),
        ({"execution": "processes"}, "execution must be a dictionary such as {'executor': 'processes'}, not 'processes'"),
        ({"num_epochs": "three"}, "num_epochs must be int, not 'three'"),
        ({"num_epochs": 0}, "num_epochs must be at least 1, not 0"),
        ({"schedule": "linear"}, "schedule must be Literal.'cosine', 'triangular'"),
        ({"device": "nonsense"}, "cannot use the device 'nonsense'"),
        ({"device": "meta"}, "cannot use the device 'meta'"),
        ({"search_space": "darts"}, "unknown search space 'darts'"),
        ({"embedding": "absent.safetensors"}, "absent.safetensors"),
    ],
)
def test_invalid_keywords_are_one_line_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        gym.make("NASES-Digits-v0", **options)
    assert "\n" not in str(caught.value)


def test_gpu_is_needed_for_the_first_child() -> None:
    """``start`` decides on which machine children are trained."""
    env = gym.make("NASES-Digits-v0", preset="smoke", device="cuda:99")
    env.reset(seed=0)
    with pytest.raises(InputError, match="cannot use the device 'cuda:99'"):
        env.step(env.action_space.sample())
    env.close()


@pytest.mark.parametrize("make_env", [gym.make, gym.make_vec])
@pytest.mark.parametrize("env_id", nases_env.ENV_IDS)
def test_unknown_keyword_is_a_type_error(env_id: str, make_env: Callable[..., Any]) -> None:
    """TorchRL passes ``frameskip`` first, and omits it after an error with this text."""
    with pytest.raises(TypeError, match=r"__init__\(\) got an unexpected keyword argument 'frameskip'"):
        make_env(env_id, frameskip=1)


def test_type_error_suggests_the_keyword_that_was_meant() -> None:
    with pytest.raises(TypeError, match=r"ImageEnv.* unexpected keyword argument 'num_epoch' .did you mean 'num_epochs'"):
        ImageEnv("digits", num_epoch=3)


def test_genotype_in_info_is_one_line_of_json() -> None:
    env = make("NASES-Synthetic-v0")
    _, info = env.reset(seed=0)
    assert "\n" not in info["genotype"]
    assert json.loads(info["genotype"])["search_space"] == "enas_micro"


def test_evaluation_is_repeated_after_an_error() -> None:
    """An error that the user has fixed must not be raised again."""

    class Failing(SerialExecutor):
        in_background = True
        num_submitted = 0

        def submit(self, architecture: Architecture, seed: int, fidelity: int | None = None) -> Future[Evaluation]:
            self.num_submitted += 1
            if self.num_submitted > 1:
                return super().submit(architecture, seed, fidelity)
            future: Future[Evaluation] = Future()
            future.set_exception(InputError("no data"))
            return future

    env = make("NASES-Synthetic-v0")
    env.reset(seed=0)
    nases = unwrapped(env)
    nases._executor = CachingExecutor(Failing(nases.evaluator), None, nases.search_space.to_json)
    child = nases.search_space.sample(np.random.default_rng(0))
    with pytest.raises(InputError, match="no data"):
        nases.evaluate(child)
    assert nases.evaluate(child).key == child.key


@pytest.mark.parametrize("env_id", ["NASES-Synthetic-v0", "NASES-Digits-v0"])
def test_information_without_text_has_the_same_numbers_in_every_step(env_id: str) -> None:
    options: dict[str, Any] = {"preset": "smoke"} if env_id == "NASES-Digits-v0" else {}
    with_text, without = (gym.make(env_id, info_text=info_text, **options) for info_text in (True, False))
    action = np.zeros(20, np.float32)
    infos = []
    for env in (with_text, without):
        env.reset(seed=0)
        infos.append(env.step(action)[4])
    assert infos[1] == {name: value for name, value in infos[0].items() if not isinstance(value, str)}
    _, at_reset = without.reset(seed=0)
    assert at_reset == dict.fromkeys(infos[1], 0)


class TimedEvaluator(OperatorShareEvaluator):
    """The latency of each child is half a second."""

    limits = Limits(max_latency=1.0)

    def measure_latency(self, architecture: Architecture, seed: int) -> float:
        return 0.5


def timed_env(**execution: Any) -> NASESEnv:
    env = NASESEnv(TimedEvaluator("enas_micro", "sep_conv_3x3"), embedding=None, execution=execution)
    env.reset(seed=0)
    return env


def test_evaluations_have_the_measured_latency() -> None:
    env = timed_env()
    assert env.evaluate(env.architecture).latency == 0.5
    assert env.last_evaluation is not None
    assert env.last_evaluation.latency == 0.5
    envs = NASESVectorEnv(timed_env(), 2)
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    assert [child and child.latency for child in envs.last_evaluations] == [0.5, 0.5]


def test_finalists_have_the_measured_latency() -> None:
    loop = SearchLoop(timed_env(), 3, num_finalists=2)
    rng = np.random.default_rng(0)
    loop.evaluate_all([SPACE.sample(rng) for _ in range(3)])
    assert [finalist.second.latency for finalist in loop.finalists] == [0.5, 0.5]


def test_latency_is_measured_after_close(tmp_path: Path) -> None:
    env = timed_env(store=str(tmp_path / "store.sqlite"))
    env.evaluate(env.architecture)
    env.close()
    assert env.is_feasible(SPACE.sample(np.random.default_rng(1)))
