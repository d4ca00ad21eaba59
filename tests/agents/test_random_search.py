"""Random search is reproducible."""

from __future__ import annotations

import json
from pathlib import Path

from nases_agents.random_search import main

from nases_env.search import SearchArgs


def test_seed_determines_the_children(tmp_path: Path) -> None:
    keys = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        main(SearchArgs(env_id="NASES-Synthetic-v0", budget=5, seed=seed, run_dir=tmp_path / name))
        records = (tmp_path / name / "evaluations.jsonl").read_text().splitlines()
        keys.append([json.loads(record)["key"] for record in records])
    assert keys[0] == keys[1]
    assert len(set(keys[0]) | set(keys[2])) == 10
