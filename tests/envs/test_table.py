"""The environment of a custom table: both checkers, its keywords, and searches."""

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
from nases_env.envs import TableEnv, vector_entry_point
from nases_env.errors import InputError
from nases_env.execution import Store
from nases_env.search import SearchArgs, SearchRun, make_env
from nases_env.search.run_dir import read_config
from tests.evaluation.test_task_table import PAIRS, SPACE, Pairings, write_table

ENV_ID = "Pairings-v0"


class PairingsEnv(TableEnv):
    evaluator_class = Pairings


pairings_vector_env = vector_entry_point(PairingsEnv)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("PAIRINGS_TABLE", raising=False)
    gym.register(
        ENV_ID,
        entry_point=f"{__name__}:PairingsEnv",
        vector_entry_point=f"{__name__}:pairings_vector_env",
        max_episode_steps=5,
    )
    yield
    del gym.registry[ENV_ID]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("pairings")
    embedding = folder / "pairs.safetensors"
    save_embedding(Embedding(SPACE, embedding_size=2, hidden_size=4, loss="cross_entropy"), embedding)
    return {"table": write_table(folder / "table.csv"), "embedding": str(embedding)}


def test_gymnasium_and_stable_baselines3_checkers(options: dict[str, Any]) -> None:
    check_env(gym.make(ENV_ID, render_mode="rgb_array", **options).unwrapped)
    check_env_of_sb3(gym.make(ENV_ID, task="loss", **options), skip_render_check=False)


def test_reward_and_information_are_those_of_the_task(options: dict[str, Any]) -> None:
    env = gym.make(ENV_ID, task="loss", **options)
    _, first_info = env.reset(seed=1)
    assert set(first_info) == {"key", "genotype", "task"}
    _, reward, _, _, info = env.step(env.action_space.sample())
    row = PAIRS.index(cast(tuple[int, int], tuple(sorted(SPACE.from_json(info["genotype"]).decisions))))
    assert reward == info["valid_accuracy"] == pytest.approx(1 / (1 + row))
    assert (info["task"], info["status"], info["num_params"]) == ("loss", "ok", 0)


def test_default_task_is_the_first_metric(options: dict[str, Any]) -> None:
    assert PairingsEnv(**options).evaluator.labels() == {"task": "accuracy"}


def test_information_without_strings_lacks_the_task(options: dict[str, Any]) -> None:
    env = gym.make(ENV_ID, info_text=False, **options)
    _, first_info = env.reset(seed=0)
    assert set(first_info) == {
        "valid_accuracy",
        "train_accuracy",
        "num_params",
        "num_flops",
        "activation_bytes",
        "file_bytes",
    }


def test_vector_environment_and_spec(options: dict[str, Any]) -> None:
    envs = gym.make_vec(ENV_ID, num_envs=2, task="similarity", **options)
    envs.reset(seed=0)
    infos = envs.step(np.zeros((2, 2), np.float32))[4]
    assert list(infos["task"]) == ["similarity", "similarity"]
    assert gym.envs.registration.EnvSpec.from_json(envs.spec.to_json()) == envs.spec  # type: ignore[union-attr]
    envs.close()


def test_environment_is_picklable(options: dict[str, Any]) -> None:
    env = PairingsEnv(**options)
    env.reset(seed=0)
    action = np.full(2, 0.4, np.float32)
    assert pickle.loads(pickle.dumps(env)).step(action)[4] == env.step(action)[4]


def test_options_of_the_command_line_are_its_keywords(options: dict[str, Any], tmp_path: Path) -> None:
    env_kwargs = {"task": "speed", "table": options["table"]}
    env = make_env(SearchArgs(env_id=ENV_ID, embedding=options["embedding"], env_kwargs=env_kwargs))
    env.reset(seed=0)
    assert env.evaluate(env.architecture).reward == env.evaluator.evaluate(env.architecture, 0).reward
    with pytest.raises(InputError, match="does not take --search-space"):
        make_env(SearchArgs(env_id=ENV_ID, search_space="enas_micro", env_kwargs=env_kwargs))
    with pytest.raises(InputError, match=r"unknown task 'sped' \(did you mean 'speed'\?\)"):
        make_env(SearchArgs(env_id=ENV_ID, env_kwargs={"task": "sped"}))


def test_search_records_absolute_paths(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(options["table"]).parent)
    env_kwargs, run_dir = {"task": "speed", "table": "table.csv"}, tmp_path / "run"
    args = SearchArgs(env_id=ENV_ID, embedding="pairs.safetensors", env_kwargs=env_kwargs, budget=1, run_dir=run_dir)
    with SearchRun(args, agent="test"):
        pass
    recorded = read_config(run_dir)["arguments"]
    assert recorded["embedding"] == options["embedding"]
    assert recorded["env_kwargs"] == {"task": "speed", "table": options["table"]}


def test_no_result_of_a_changed_table_is_stored(tmp_path: Path) -> None:
    table, store = write_table(tmp_path / "table.csv"), tmp_path / "store.sqlite"
    env = PairingsEnv(table=table, execution={"store": str(store)})
    env.reset(seed=0)
    env.evaluate(SPACE.architecture((0, 0)))
    write_table(Path(table), [(SPACE.to_string(SPACE.architecture(pair)), 50) for pair in PAIRS], ("arch", "accuracy"))
    with pytest.raises(InputError, match=r"table\.csv has changed since the first read"):
        env.evaluate(SPACE.architecture((3, 3)))
    env.close()
    with Store(store, read_only=True) as results:
        assert [row["key"] for row in results.rows()] == ["pairs:0-0"]


def test_every_keyword_is_documented() -> None:
    documentation = cast(str, inspect.getdoc(TableEnv))
    for name in inspect.signature(TableEnv).parameters:
        assert f"\n    {name}: " in documentation
