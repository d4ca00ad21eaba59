"""The environment of NAS-Bench-201: both checkers, and the guarantees of the class docstring."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

from nases_env.embedding import Embedding, save_embedding
from nases_env.envs import NasBench201Env
from nases_env.errors import InputError
from nases_env.networks.nasbench201 import OPERATORS
from nases_env.search_spaces.nasbench201 import NasBench201
from tests.evaluation.test_nasbench201 import LINES, STRINGS, real_table, requires_real_table, write_table

SPACE = NasBench201()
NUM_ACTIONS = 6


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return options with the paths of a table and of an untrained embedding."""
    folder = tmp_path_factory.mktemp("nasbench201")
    embedding = Embedding(SPACE, embedding_size=NUM_ACTIONS, hidden_size=16, loss="cross_entropy")
    save_embedding(embedding, folder / "embedding.safetensors")
    return {"table": write_table(folder / "table.csv"), "embedding": str(folder / "embedding.safetensors")}


def make(options: dict[str, Any], **more: Any) -> gym.Env[Any, Any]:
    return gym.make("NASES-NASBench201-v0", **options, **more)


def unwrapped(env: gym.Env[Any, Any]) -> NasBench201Env:
    return cast(NasBench201Env, env.unwrapped)


@pytest.mark.parametrize("render_mode", [None, "rgb_array", "ansi"])
@pytest.mark.parametrize("operator_permutation_seed", [None, 3])
def test_gymnasium_checker(options: dict[str, Any], render_mode: str | None, operator_permutation_seed: int | None) -> None:
    check_env(make(options, render_mode=render_mode, operator_permutation_seed=operator_permutation_seed).unwrapped)


@pytest.mark.parametrize("operator_permutation_seed", [None, 3])
def test_stable_baselines3_checker(options: dict[str, Any], operator_permutation_seed: int | None) -> None:
    check_env_of_sb3(make(options, operator_permutation_seed=operator_permutation_seed), skip_render_check=False)


def test_spec_round_trips(options: dict[str, Any]) -> None:
    env = make(options, operator_permutation_seed=5)
    spec = env.spec
    assert spec is not None
    again = gym.envs.registration.EnvSpec.from_json(spec.to_json())
    assert again == spec
    assert unwrapped(gym.make(again)).search_space == unwrapped(env).search_space
    assert isinstance(gym.make("nases_env:NASES-NASBench201-v0", **options).unwrapped, NasBench201Env)


def test_spaces(options: dict[str, Any]) -> None:
    env = make(options)
    assert env.action_space == gym.spaces.Box(-1, 1, (NUM_ACTIONS,), np.float32)
    assert env.observation_space == gym.spaces.Box(0, 1, (6,), np.float32)


@pytest.mark.parametrize("operator_permutation_seed", [None, 1])
def test_step_queries_the_child_that_the_action_decodes_to(
    options: dict[str, Any], operator_permutation_seed: int | None
) -> None:
    env = make(options, operator_permutation_seed=operator_permutation_seed)
    space = unwrapped(env).search_space
    _, first_info = env.reset(seed=1)
    assert set(first_info) == {"key", "genotype"}
    action = env.action_space.sample()
    observation, reward, terminated, truncated, info = env.step(action)
    architecture = space.from_json(info["genotype"])
    assert architecture == space.decode(unwrapped(env).embedding.decode(3 * action))
    np.testing.assert_array_equal(observation, space.encode(architecture))
    row = STRINGS.index(space.genotype(architecture)["cell"])
    assert type(reward) is float
    assert reward == info["valid_accuracy"] == pytest.approx(row / 20_000)
    report = unwrapped(env).evaluator.report_test_accuracy(architecture)
    assert report == pytest.approx(0.99 - row / 20_000)
    assert info["key"] == SPACE.from_json(info["genotype"]).key
    assert (info["status"], terminated, truncated) == ("ok", False, False)
    assert (info["train_accuracy"], info["num_params"], info["num_flops"]) == (0.0, 0, 0)
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


def test_permutations_depend_on_the_seed_and_are_uniform(options: dict[str, Any]) -> None:
    def operators(operator_permutation_seed: int | None) -> tuple[str, ...]:
        return NasBench201Env(operator_permutation_seed=operator_permutation_seed, **options).search_space.operators

    assert operators(None) == OPERATORS
    assert operators(7) == operators(7)
    orders = [operators(seed) for seed in range(100)]
    assert all(sorted(order) == sorted(OPERATORS) for order in orders)
    assert all(type(name) is str for name in orders[0])
    assert len(set(orders)) > 50  # of 120 permutations
    for place in range(5):
        counts = [[order[place] for order in orders].count(name) for name in OPERATORS]
        assert min(counts) >= 6  # 20 expected, with a standard deviation of 4


def test_key_and_reward_do_not_depend_on_the_operator_permutation(options: dict[str, Any]) -> None:
    infos = []
    for operator_permutation_seed in (None, 0, 1, 2):
        env = NasBench201Env(operator_permutation_seed=operator_permutation_seed, **options)
        observation, info = env.reset(seed=0, options={"architecture": {"cell": STRINGS[1234]}})
        evaluation = env.evaluate(env.architecture)
        infos.append((info, evaluation.key, evaluation.reward))
        np.testing.assert_array_equal(observation, env.search_space.encode(env.architecture))
    assert infos == infos[:1] * 4


def test_reward_does_not_depend_on_the_seed(options: dict[str, Any]) -> None:
    env = make(options)
    steps = []
    for seed in (0, 1):
        env.reset(seed=seed)
        steps.append(env.step(np.zeros(NUM_ACTIONS, np.float32))[1:])
    assert steps[0] == steps[1]


def test_reward_is_the_accuracy_at_the_rung(options: dict[str, Any], tmp_path: Path) -> None:
    column = ["valid_accuracy_200_epochs", *(f"{50 + row / 400:.4f}" for row in range(len(STRINGS)))]
    table = write_table(tmp_path / "table.csv", [f"{line},{cell}" for line, cell in zip(LINES, column, strict=True)])
    env = make({**options, "table": table}, rungs=[12, 200])
    assert unwrapped(env).rungs == (12, 200)
    rewards = {}
    for fidelity in (12, 200):
        env.reset(seed=0, options={"fidelity": fidelity})
        _, reward, _, _, info = env.step(np.zeros(NUM_ACTIONS, np.float32))
        rewards[fidelity] = float(reward)
        assert info["fidelity"] == fidelity
    assert rewards[200] == pytest.approx(0.5 + rewards[12] / 2, abs=1e-5)


@pytest.mark.parametrize("rungs", [(12, 200), (200,)])
def test_reset_raises_an_error_if_the_table_lacks_the_column_of_a_rung(options: dict[str, Any], rungs: Any) -> None:
    with pytest.raises(InputError, match="lacks the column valid_accuracy_200_epochs") as caught:
        make(options, rungs=rungs).reset()
    assert "\n" not in str(caught.value)
    make(options, rungs=(12,)).reset()


@pytest.mark.parametrize("rungs", [(200, 12), (6, 12), ("12",)])
def test_other_rungs_are_one_line(options: dict[str, Any], rungs: Any) -> None:
    with pytest.raises(InputError, match="the rungs of NAS-Bench-201 are 12 and 200 epochs, not"):
        make(options, rungs=rungs)


def test_reset_raises_an_error_if_the_table_is_missing_and_reads_the_variable(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = gym.make("NASES-NASBench201-v0", embedding=options["embedding"]).unwrapped
    with pytest.raises(InputError, match=r"set table .*NASES_NASBENCH201_TABLE .*NASES_DATA_DIR") as caught:
        env.reset()
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("NASES_NASBENCH201_TABLE", options["table"])
    env.reset()
    assert env.step(np.zeros(NUM_ACTIONS, np.float32))[4]["status"] == "ok"


def test_render_shows_the_cell(options: dict[str, Any]) -> None:
    env = make(options, render_mode="ansi")
    env.reset(options={"architecture": {"cell": STRINGS[0]}})
    assert str(env.render()).splitlines()[:3] == ["not evaluated yet", "cell", "  node 1 = zero"]
    images = make(options, render_mode="rgb_array")
    images.reset(seed=0)
    image = cast(np.ndarray, images.render())
    assert image.dtype == np.uint8
    assert image.min() < 100


def test_environment_is_picklable(options: dict[str, Any]) -> None:
    env = NasBench201Env(operator_permutation_seed=2, **options)
    env.reset(seed=0)
    again = pickle.loads(pickle.dumps(env))
    action = np.full(NUM_ACTIONS, 0.4, np.float32)
    assert again.step(action)[4] == env.step(action)[4]


def test_every_keyword_is_documented(options: dict[str, Any]) -> None:
    documentation = cast(str, inspect.getdoc(NasBench201Env))
    for name in ("table", "operator_permutation_seed", "embedding", "render_mode"):
        assert f"\n    {name}: " in documentation
    assert "evaluator.report_test_accuracy(" in documentation


@requires_real_table
def test_optimum_of_the_real_table(options: dict[str, Any]) -> None:
    env = NasBench201Env(**{**options, "table": real_table(), "operator_permutation_seed": 4})
    env.reset(seed=0)
    best = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    architecture = env.to_architecture({"cell": best})
    assert env.evaluate(architecture).reward == pytest.approx(0.84892)
    assert env.evaluator.report_test_accuracy(architecture) == pytest.approx(0.9437, abs=5e-5)


def test_data_set_selects_the_table(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path / "nasbench201-imagenet16-120.csv", [LINES[0], *(f"{text},42.5,1,46.5" for text in STRINGS)])
    monkeypatch.setenv("NASES_DATA_DIR", str(tmp_path))
    env = make({"embedding": options["embedding"]}, dataset="imagenet16-120")
    env.reset(seed=0)
    assert env.step(np.zeros(NUM_ACTIONS, np.float32))[1] == pytest.approx(0.425)
    assert unwrapped(env).evaluator.report_test_accuracy(unwrapped(env).architecture) == pytest.approx(0.465)
    assert "\n    dataset: " in cast(str, inspect.getdoc(NasBench201Env))
    with pytest.raises(InputError, match=r"put nasbench201-cifar100.csv into the directory NASES_DATA_DIR"):
        make({"embedding": options["embedding"]}, dataset="cifar100").reset()
