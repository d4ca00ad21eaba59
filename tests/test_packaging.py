"""The wheel is complete, and the package imports no more than it needs."""

from __future__ import annotations

import re
import sys
import tarfile
import venv
from importlib.metadata import metadata
from pathlib import Path
from zipfile import ZipFile

import gymnasium
import pytest
from nases_agents import random_search

import nases_env
from nases_env.cli.main import HELP
from tests.commands import ROOT, run

HEAVY = {
    "stable_baselines3",
    "ray",
    "submitit",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pandas",
    "matplotlib",
    "sklearn",
    "torch",
}
MARK = "modules:"
MODULES = f"print({MARK!r}, *sorted({HEAVY!r} & sys.modules.keys()))"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sdist and the wheel, which is built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run("python", "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT), folder=folder)
    return folder


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a virtual environment with the wheel, which finds its dependencies in the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)  # without pip, whose installation takes seconds
    pip = ("python", "-m", "pip", "--python", str(folder / "bin" / "python"))
    (wheel,) = dist.glob("*.whl")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel), folder=folder)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    dependencies = [Path(path) for path in sys.path if path.endswith("site-packages")]
    (site_packages / "dependencies.pth").write_text("\n".join(map(str, dependencies)))
    return folder


def modules_after(*codes: str) -> list[set[str]]:
    """Run parts of a program one after the other and return the large modules that are loaded after each of them."""
    program = "\n".join(f"{code}\n{MODULES}" for code in ("import sys", *codes))
    _, *lines = run("python", "-c", program, folder=ROOT).stdout.splitlines()
    return [set(line.removeprefix(MARK).split()) for line in lines if line.startswith(MARK)]


def test_wheel_contains_every_module_and_all_data(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in (("nases_env", ROOT / "nases_env"), ("nases_agents", ROOT / "agents"))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names == expected
    assert {Path(name).suffix for name in names} == {".py", ".typed", ".json", ".safetensors", ".css", ".html", ".js"}


def test_sdist_contains_tests_and_documents(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "tests/commands.py",
        "tests/networks/cells.py",
        "docs/images/best_cell.svg",
        "benchmarks/README.md",
        "Makefile",
    } <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("benchmarks/results")]


def test_installed_wheel_runs_commands_and_agents(installed: Path, tmp_path: Path) -> None:
    bin_dir = installed / "bin"
    python, nases = str(bin_dir / "python"), str(bin_dir / "nases")
    where = run(python, "-c", "import nases_env, nases_agents; print(nases_env.__file__)", folder=tmp_path).stdout
    assert Path(where.strip()).is_relative_to(installed)
    assert run(nases, "--help", folder=tmp_path).stdout.startswith("usage: nases COMMAND")
    assert run(nases, "--version", folder=tmp_path).stdout == f"nases {nases_env.__version__}\n"
    # One process runs all that needs torch, because importing it takes seconds.
    code = """
import runpy, sys
sys.argv = "random_search --env-id NASES-Synthetic-v0 --budget 3 --run-dir run".split()
runpy.run_module("nases_agents.random_search", run_name="__main__", alter_sys=True)
from nases_env.cli.main import main
from nases_env.embedding import load_embedding
from nases_env.search_spaces import EnasMicro
print("embedding size", load_embedding(EnasMicro()).embedding_size)
sys.argv = ["nases", "draw", "run/best.json"]
main()
sys.argv += ["--output", "best.svg"]
main()
"""
    searched, _, drawn = run(python, "-c", code, folder=tmp_path).stdout.partition("embedding size ")
    assert "the best of 3 architectures" in searched
    assert drawn.startswith("20\n")
    assert "normal cell" in drawn
    assert "normal cell" in (tmp_path / "best.svg").read_text()


def test_package_runs_as_the_nases_command(tmp_path: Path) -> None:
    assert run("python", "-m", "nases_env", "--help", folder=tmp_path).stdout == f"{HELP}\n"


def test_import_loads_no_large_dependency() -> None:
    assert modules_after("import nases_env") == [set()]


def test_environment_search_and_report_load_only_torch(tmp_path: Path) -> None:
    step = "env = gymnasium.make('NASES-Synthetic-v0'); env.reset(seed=0); env.step(env.action_space.sample())"
    search = """
from nases_agents.random_search import Args, RandomSearch
from nases_env.search import SearchRun
with SearchRun(Args(env_id="NASES-Synthetic-v0", budget=1, run_dir=Path(folder)), agent="random_search") as run:
    RandomSearch(run.env, run.args)
    run.env.reset(seed=0)
"""
    searched = tmp_path / "searched"
    random_search.main(random_search.Args(env_id="NASES-Synthetic-v0", budget=3, run_dir=searched, quiet=True))
    report = f"from nases_env.cli.main import main\nsys.argv = ['nases', 'report', {str(searched)!r}]\nmain()"
    before_search = f"from pathlib import Path\nfolder = {str(tmp_path / 'run')!r}"
    codes = (f"import gymnasium, nases_env\n{step}", before_search + search, report)
    assert modules_after(*codes) == [{"torch"}] * 3


def test_register_envs_accepts_the_package() -> None:
    code = "import gymnasium, nases_env; gymnasium.register_envs(nases_env); print('NASES-Digits-v0' in gymnasium.registry)"
    assert run("python", "-c", code, folder=ROOT).stdout == "True\n"
    assert gymnasium.spec("NASES-Digits-v0").id == "NASES-Digits-v0"


def test_versions_agree() -> None:
    assert metadata("nases-env")["Version"] == nases_env.__version__
    assert re.search(rf"^version: {re.escape(nases_env.__version__)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
