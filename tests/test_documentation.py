"""What the README and the pages of the documentation tell the user to type works, and the site is complete."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from nases_agents import random_search
from PIL import Image

from nases_env import ENV_IDS, MO_ENV_IDS
from nases_env.cli import main as cli
from nases_env.cli.export import ExportArgs
from nases_env.command_line import parse
from nases_env.evaluation import TrainingEvaluator
from nases_env.retraining.plan_args import ReproduceArgs
from tests.commands import ROOT, module, run_here, script
from tests.processes import run_forked

pytestmark = pytest.mark.usefixtures("few_samples", "tiny_children")

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS, *sorted((ROOT / "benchmarks").glob("*.md"))]
BLOCK = re.compile(r"```(bash|python)\n(.*?)```", flags=re.DOTALL)

NOT_RUN = (
    "source .venv/bin/activate",
    "tensorboard --logdir runs",
    "ray start",
    "nases --help",
    "nases --tyro-print-completion",
)
"""Commands that need no test, or change the machine."""

SMALL = {"NASES-CIFAR10-v0": "NASES-Digits-v0", 'preset="cpu"': 'preset="smoke"', "budget=10)": "budget=2)"}
"""Replaced in the Python code of the pages."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def without(words: list[str], *options: str) -> list[str]:
    """Return ``words`` without ``options`` and their values."""
    kept = list(words)
    for option in options:
        while option in kept:
            start = kept.index(option)
            del kept[start : start + 2]
    return kept


def run_agent(main: Callable[[], object], options: list[str], agent: str) -> None:
    """Run an agent with one small child, or only parse the options if it needs a cluster."""
    if "ray" in options or "slurm" in options:
        parse(importlib.import_module(f"nases_agents.{agent}").Args, args=options)
        return
    if "--resume" in options:
        few = ["--budget", "2"] if "--budget" in options else []
    else:
        few = ["--budget", "1", "--preset", "smoke", "--num-envs", "1", "--num-finalists", "0"]
    result = run_here(main, *without(options, "--budget", "--preset", "--num-envs"), *few)
    assert result.returncode == 0, result.stderr
    assert re.search(r"the best of \d architecture|is finished", result.stdout), result.stdout


def run_nases(command: str, options: list[str]) -> None:
    """Run a subcommand of ``nases`` at a small size."""
    if command == "pretrain":
        rounds = "0" if "paper" in options else "1"
        options = [*options, "--num-steps", "2", "--num-calibration-rounds", rounds]
    elif command == "train":
        options = without(options, "--seeds")
    elif command == "reproduce":
        if "--dry-run" not in options:  # test_reproduce.py runs all steps
            parse(ReproduceArgs, args=options)
            return
        options = [*without(options, "--preset"), "--preset", "smoke"]
    elif command == "search":
        small = ("--budget", "1", "--preset", "smoke", "--num-envs", "1", "--num-finalists", "0")
        options = [word.replace("cifar10", "digits") for word in without(options, "--budget", "--time")] + [*small]
    result = run_here(cli.main, command, *options)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def check_example(path: Path, options: list[str]) -> None:
    """Check that an example exists and has ``options``; test_examples.py runs it."""
    source = path.read_text()
    for option in options:
        if option.startswith("--"):
            assert f" {option[2:].replace('-', '_')}: " in source, option


def run_typed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a line that the user types in a shell, with few and small children."""
    words = shlex.split(line.replace("NASES-CIFAR10-v0", "NASES-Digits-v0"), comments=True)
    if line.startswith(NOT_RUN):
        return
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif words[:2] == ["pip", "install"]:
        for extra in re.findall(r"\[(.*?)\]", line)[:1]:
            for name in extra.split(","):
                assert re.search(rf"^{name} = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    elif words[0] == "cd":
        monkeypatch.chdir(words[1])
    elif words[:2] == ["nases", "export"]:
        parse(ExportArgs, args=words[2:])  # the fixture ``exported`` runs all formats
    elif words[0] == "nases":
        run_nases(words[1], words[2:])
    elif words[:2] == ["python", "-m"] and words[2].startswith("benchmarks."):
        shown = run_here(module(words[2]), "--help").stdout
        assert all(word in shown for word in words[3:] if word.startswith("--")), shown
    elif words[:2] == ["python", "-m"]:
        run_agent(module(words[2]), words[3:], words[2].split(".")[1])
    elif words[0] == "python" and Path(words[1]).parent.name == "agents":
        run_agent(script(Path(words[1])), words[2:], Path(words[1]).stem)
    elif words[0] == "python" and Path(words[1]).parent.name == "examples":
        check_example(Path(words[1]), words[2:])
    else:
        raise AssertionError(f"no test runs {line!r}; extend run_typed")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the examples, the agents, and the images that the pages mention."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "agents").symlink_to(ROOT / "agents")
    rng = np.random.default_rng(0)
    classes = [f"my_images/{split}/{name}" for split in ("train", "test") for name in ("cat", "dog")]
    files = [f"{each}/{number}.png" for each in classes for number in range(10)]
    for path in ("cat.jpg", "dog.png", "image.jpg", "image.png", *files):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / path)
    return folder


@pytest.fixture(scope="module")
def trained(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a search and its final training in ``runs/NAME``, copies of its architecture, and an earlier search."""
    folder = tmp_path_factory.mktemp("trained") / "checkout"
    shutil.copytree(checkout, folder, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small = ["--search-space", "nasbench201"]  # its networks are exported in a third of the time of others
        run_agent(script(ROOT / "agents" / "reinforce.py"), ["--run-dir", "runs/NAME", *small], "reinforce")
        run_nases("train", ["runs/NAME"])
        random_search.main(
            random_search.Args(env_id="NASES-Synthetic-v0", budget=5, run_dir=Path("runs/EARLIER"), quiet=True)
        )
    for path, copy in (("best.json", "best.json"), ("best.json", "sb3/best.json"), ("final/genotype.json", "genotype.json")):
        (folder / copy).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "runs" / "NAME" / path, folder / copy)
    return folder


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    """The same with the exported models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        run_nases("export", ["runs/NAME", "--format", "onnx", "--output", "model.onnx"])
        run_nases("export", ["runs/NAME", "--format", "torch-export", "--output", "cats.pt2"])
        run_nases("export", ["runs/NAME", "--format", "python", "--output", "model.py"])
    return trained


# Importing torchrl raises the warning.
@pytest.mark.filterwarnings("ignore:Creating .* which inherits from WeightUpdaterBase:DeprecationWarning")
@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("page", [page for page in (README, *DOCS) if BLOCK.search(page.read_text())], ids=name_of)
def test_code_and_commands_of_the_page_run(
    page: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks run in the order of the page; Python blocks share their variables."""
    text = page.read_text()
    uses_run = re.search(r"runs/NAME|runs/EARLIER|sb3/best.json", text)
    folder = tmp_path / "checkout"
    fixture = "exported" if "model.onnx" in text else "trained" if uses_run else "checkout"
    shutil.copytree(request.getfixturevalue(fixture), folder, symlinks=True)
    monkeypatch.chdir(folder)
    # Children are trained in this process unless the page selects another executor, which saves the start of workers.
    monkeypatch.setattr(TrainingEvaluator, "is_expensive", False)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != ""])
    monkeypatch.delitem(sys.modules, "custom_search_space", raising=False)
    if "from model import" in text:
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, "model", raising=False)
    namespace: dict[str, object] = {}
    for language, block in BLOCK.findall(text):
        if language == "python":
            for shown, small in SMALL.items():
                block = block.replace(shown, small)
            exec(block, namespace)
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip():
                run_typed(line, monkeypatch)


def test_options_in_the_guides_exist() -> None:
    """The options are searched in the help of some agents and of all ``nases`` commands."""
    shown = run_here(module("nases_agents.reinforce"), "--help-all").stdout
    shown += run_here(module("nases_agents.model_assisted"), "--help-all").stdout
    shown += run_here(module("nases_agents.sb3"), "--help-all").stdout
    shown += run_here(cli.main, "--help").stdout
    commands = [*cli.COMMANDS, *(f"store {name}" for name in ("ls", "show", "export", "merge", "verify"))]
    for command in commands:
        shown += run_here(cli.main, *command.split(), "--help").stdout
    known = set(re.findall(r"(?<![\w-])--[a-z][a-z.-]+[a-z]", shown)) | {
        "--help",
        "--logdir",
        "--head",
        "--address",
        "--generate",
    }
    for page in (README, *DOCS):
        if page.parent.name != "results" and page.name != "examples.md":
            text = re.sub(r"^python -m benchmarks.*", "", page.read_text(), flags=re.MULTILINE)
            used = set(re.findall(r"(?<![\w-])--[a-z](?:[a-z.-]*[a-z])?", text))
            assert used <= known, (name_of(page), used - known)


def test_guide_lists_every_environment() -> None:
    guide = (ROOT / "docs" / "guides" / "environments.md").read_text()
    for env_id in (*ENV_IDS, *MO_ENV_IDS):
        assert f"`{env_id}`" in guide


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_extras_are_added_to_the_installed_package(page: Path) -> None:
    """This works in any directory and for any installation; error messages give the same command."""
    for words in re.findall(r"pip install ([^`\n#]*\[[^\n]*?\]'?)", page.read_text()):
        assert words.startswith("'nases-env["), words


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 100


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_refer_to_existing_files_and_names(page: Path) -> None:
    """If the text of a link is an identifier, such as ``SearchLoop.run``, the linked file must define it."""
    for text, target in re.findall(r"\[([^\]]*)\]\((?!http)([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        path = (page.parent / target).resolve()
        assert path.exists(), target
        if path.suffix == ".py" and text.startswith("`") and "/" not in text:
            for name in text.strip("`").split("."):
                assert re.search(rf"(def|class) {name}\b", path.read_text()) or name == path.stem, (text, target)


def test_site_has_every_page_and_no_broken_link_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    """MkDocs ends with an error for a broken link or anchor, or an unknown name in the API reference."""
    mkdocs = partial(runpy.run_module, "mkdocs", run_name="__main__", alter_sys=True)
    options = ("build", "--strict", "--site-dir", str(tmp_path))
    result = run_forked(mkdocs, *options, folder=ROOT, environment={"NO_MKDOCS_2_WARNING": "1"})
    assert result.returncode == 0, result.stderr
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in DOCS:
        assert f" {page.relative_to(ROOT / 'docs').as_posix()}\n" in navigation, page
    for path in tmp_path.rglob("*.html"):
        html = path.read_text()
        assert not re.search(r"<(script|img|iframe|source)[^>]* src=\"?(https?:)?//", html), path
        assert not re.search(r"<link[^>]* href=\"?(https?:)?//", html), path
    commands = (tmp_path / "reference" / "cli" / "index.html").read_text()
    for name in ("nases store merge", "nases reproduce", "regularized_evolution"):
        assert f"{name}<" in commands
