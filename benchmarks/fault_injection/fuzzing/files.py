"""Commands that read damaged JSON files, stores and tensors."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from benchmarks.common.commands import script
from benchmarks.fault_injection.fuzzing.inputs import INPUTS, OUTPUTS, FuzzInput, command
from benchmarks.fault_injection.fuzzing.mutations import mutate_bytes, mutate_file, mutate_record, mutate_store
from benchmarks.fault_injection.fuzzing.samples import EMBEDDING, FINAL, MODEL, NUM_CHILDREN, RUN
from benchmarks.fault_injection.fuzzing.values import choose
from benchmarks.fault_injection.search_process import AGENTS
from nases_env.cli import main as cli

RUN_FILES = ("config.json", "evaluations.jsonl", "finalists.json", "best.json")
FINAL_FILES = ("config.json", "genotype.json", "seed-0/result.json")


def _damage(rng: np.random.Generator, path: Path) -> None:
    path.write_bytes(mutate_file(path.read_bytes(), rng))


def draw_json(rng: np.random.Generator, folder: Path) -> FuzzInput:
    """Return an input that reads a damaged JSON file of a search or a final training."""
    if rng.random() < 0.4:
        name = choose(rng, FINAL_FILES)
        _damage(rng, folder / INPUTS / FINAL / name)
        options = ["status", f"{INPUTS}/{FINAL}"] if name != "genotype.json" else ["draw", f"{INPUTS}/{FINAL}/{name}"]
        return command("nases", cli.main, options)
    name = choose(rng, RUN_FILES)
    if not (folder / INPUTS / RUN / name).exists():  # a search without finalists
        name = RUN_FILES[0]
    if name == "best.json":
        _damage(rng, folder / INPUTS / RUN / name)
        return command("nases", cli.main, ["draw", f"{INPUTS}/{RUN}/{name}"])
    if rng.random() < 0.2:
        _damage(rng, folder / OUTPUTS / RUN / name)
        options = ["--resume", f"{OUTPUTS}/{RUN}", "--budget", str(NUM_CHILDREN + 1)]
        return command("random_search", script(AGENTS / "random_search.py"), options)
    _damage(rng, folder / INPUTS / RUN / name)
    return command("nases", cli.main, [choose(rng, ("status", "validate", "train")), f"{INPUTS}/{RUN}"])


def draw_store(rng: np.random.Generator, folder: Path) -> FuzzInput:
    """Return an input that reads a damaged store."""
    path = folder / INPUTS / "damaged.sqlite"
    shutil.copy(folder / INPUTS / RUN / "store.sqlite", path)
    mutate_store(path, rng)
    name = f"{INPUTS}/{path.name}"
    commands = (
        *(["ls", name], ["verify", name], ["export", name], ["export", name, "--format", "jsonl"]),
        *(["show", name, "enas_micro:0"], ["merge", f"{OUTPUTS}/merged.sqlite", name]),
    )
    return command("nases", cli.main, ["store", *choose(rng, commands)])


def draw_tensors(rng: np.random.Generator, folder: Path) -> FuzzInput:
    """Return an input that reads a damaged model or embedding, with or without a valid digest."""
    path = folder / INPUTS / "damaged.safetensors"
    is_model, with_digest = rng.random() < 0.6, rng.random() < 0.6
    content = (folder / INPUTS / (MODEL if is_model else EMBEDDING)).read_bytes()
    kind = "model" if is_model else "embedding"
    path.write_bytes(mutate_record(content, kind, rng) if with_digest else mutate_bytes(content, rng))
    name = f"{INPUTS}/{path.name}"
    if is_model:
        return command("nases", cli.main, ["predict", name, f"{INPUTS}/image.png"])
    options = ["--env-id", "NASES-Synthetic-v0", "--budget", "1", "--run-dir", f"{OUTPUTS}/run-new", "--embedding", name]
    return command("reinforce", script(AGENTS / "reinforce.py"), options)
