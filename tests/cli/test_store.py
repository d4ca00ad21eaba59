"""``nases store``: output, files and exit status of its subcommands."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import tyro

from nases_env.cli.store import ExportArgs, StoreCommands, run_store_command
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status
from nases_env.execution.store import COLUMNS, Store
from nases_env.search_spaces import get_search_space
from nases_env.seeding import numpy_generator
from nases_env.training import EpochRecord

SPACE = get_search_space("enas_micro")
RNG = numpy_generator(0, "store commands")
ARCHITECTURES = [SPACE.sample(RNG) for _ in range(4)]
DESCRIPTION = {"evaluator": "some", "epochs": 3}
DIGEST = hashlib.sha256(json.dumps(DESCRIPTION, sort_keys=True).encode()).hexdigest()
STATUSES = (Status.OK, Status.OK, Status.OK, Status.DIVERGED)


def fill(path: Path, accuracies: tuple[float, ...] = (0.25, 0.75, 0.5, 0.0)) -> Path:
    """Create a store with four children; the last one diverged."""
    with Store(path) as store:
        store.register_config(DIGEST, DESCRIPTION)
        for seed, (architecture, status, accuracy) in enumerate(zip(ARCHITECTURES, STATUSES, accuracies, strict=True)):
            evaluation = Evaluation(
                architecture.key, seed, status, accuracy, num_params=1000 + seed, curve=(EpochRecord(1, 0.1, 2.5, 0.125),)
            )
            store.put(evaluation, DIGEST, SPACE.to_json(architecture))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return fill(tmp_path / "my results.sqlite")


@pytest.fixture
def nases_store(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run ``nases store`` and return its output."""

    def nases_store(*arguments: str | Path) -> str:
        capsys.readouterr()
        run_store_command(tyro.cli(StoreCommands, args=list(map(str, arguments))))
        return capsys.readouterr().out

    return nases_store


def change(path: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement, values)


class TestLs:
    def test_children_are_sorted_by_reward(self, path: Path, nases_store: Callable[..., str]) -> None:
        with Store(path) as store:
            assert store.acquire("a child", DIGEST, 5)
            out = nases_store("ls", path)
        assert [line.split()[0] for line in out.splitlines()[1:5]] == ["0.7500", "0.5000", "0.2500", "–"]
        assert ARCHITECTURES[1].key[:20] in out
        assert DIGEST[:8] in out
        assert "evaluations: 4\nconfigurations: 1\nin flight: 1\n" in out
        assert f"  a child, seed 5: process {os.getpid()} on " in out
        change(path, "UPDATE evaluations SET score = 0.875 WHERE seed = 0")
        change(path, "UPDATE evaluations SET score = 0.0625 WHERE seed = 1")
        rows = [line.split()[:2] for line in nases_store("ls", path).splitlines()[:5]]
        assert rows == [
            ["reward", "valid"],
            ["0.8750", "0.2500"],
            ["0.5000", "0.5000"],
            ["0.0625", "0.7500"],
            ["–", "–"],
        ]

    def test_limit_and_status_filter_the_list(self, path: Path, nases_store: Callable[..., str]) -> None:
        assert "0.7500" in (out := nases_store("ls", path, "--limit", "1"))
        assert "0.5000" not in out
        assert "diverged" in (out := nases_store("ls", path, "--status", "diverged"))
        assert "0.7500" not in out
        assert nases_store("ls", path, "--status", "too_large").startswith("evaluations: 4\n")
        with pytest.raises(InputError, match="--limit must be at least 0, not -1"):
            nases_store("ls", path, "--limit", "-1")

    def test_invalid_value_is_an_input_error(self, path: Path, nases_store: Callable[..., str]) -> None:
        change(path, "UPDATE evaluations SET valid_accuracy = 'good' WHERE seed = 1")
        with pytest.raises(InputError, match=re.escape(f"; run: nases store verify '{path}'")):
            nases_store("ls", path)


class TestShow:
    def test_all_fields_are_printed(self, path: Path, nases_store: Callable[..., str]) -> None:
        (record,) = json.loads(nases_store("show", path, ARCHITECTURES[1].key))
        assert (record["valid_accuracy"], record["status"], record["num_params"]) == (0.75, "ok", 1001)
        assert record["curve"] == [{"epoch": 1, "learning_rate": 0.1, "train_loss": 2.5, "train_accuracy": 0.125}]
        assert SPACE.from_json(json.dumps(record["genotype"])) == ARCHITECTURES[1]
        assert record["configuration"] == DESCRIPTION
        assert set(record) == {*COLUMNS, "configuration"}

    def test_prefix_of_a_key_is_accepted(self, path: Path, nases_store: Callable[..., str]) -> None:
        prefix = ARCHITECTURES[2].key[:31] + "…"
        assert [record["seed"] for record in json.loads(nases_store("show", path, prefix))] == [2]
        with pytest.raises(InputError, match="4 architectures whose key starts with 'enas_micro:'; pass a longer prefix"):
            nases_store("show", path, "enas_micro:")
        with pytest.raises(InputError, match=r"key starts with 'darts'; run: nases store ls '.*/my results\.sqlite'"):
            nases_store("show", path, "darts")

    def test_complete_key_is_not_treated_as_a_prefix(self, path: Path, nases_store: Callable[..., str]) -> None:
        with Store(path) as store:
            for key, seed in (("space:1", 1), ("space:1", 2), ("space:10", 3)):
                store.put(Evaluation(key, seed, Status.OK), DIGEST, '{"decisions": [1]}')
        assert [record["seed"] for record in json.loads(nases_store("show", path, "space:1"))] == [1, 2]


class TestExport:
    def test_csv(self, path: Path, nases_store: Callable[..., str], tmp_path: Path) -> None:
        out = nases_store("export", path)
        rows = list(csv.DictReader(io.StringIO(out)))
        assert tuple(rows[0]) == COLUMNS
        assert [float(row["valid_accuracy"]) for row in rows] == [0.25, 0.75, 0.5, 0.0]
        assert json.loads(rows[3]["genotype"]) == json.loads(SPACE.to_json(ARCHITECTURES[3]))
        assert nases_store("export", path, "--output", tmp_path / "new" / "table.csv") == ""
        assert (tmp_path / "new" / "table.csv").read_text() == out

    def test_jsonl(self, path: Path, nases_store: Callable[..., str]) -> None:
        records = [json.loads(line) for line in nases_store("export", path, "--format", "jsonl").splitlines()]
        with Store(path) as store:
            for record in records:
                assert Evaluation.from_dict(record) == store.get(record["key"], record["digest"], record["seed"])
        assert [record["genotype"]["search_space"] for record in records] == ["enas_micro"] * 4

    def test_failed_export_is_an_input_error_and_writes_no_file(
        self, path: Path, nases_store: Callable[..., str], tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match="cannot write"):
            nases_store("export", path, "--output", path / "table.csv")
        with pytest.raises(InputError, match="would replace the file that is read; choose a different file"):
            nases_store("export", path, "--output", path.parent / "." / path.name)
        change(path, "UPDATE evaluations SET curve = '[' WHERE seed = 1")
        with pytest.raises(InputError, match="nases store verify"):
            nases_store("export", path, "--format", "jsonl", "--output", tmp_path / "table.jsonl")
        assert [found.name for found in tmp_path.iterdir()] == [path.name]

    def test_closed_pipe_prints_no_error(self, path: Path) -> None:
        code = "import sys; from nases_env.cli.main import main; sys.stdin.read(); main()"
        with subprocess.Popen(
            [sys.executable, "-c", code, "store", "export", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            process.stdin.close()
            assert process.stderr.read() == b""
        assert process.returncode == 1


class TestMerge:
    def test_several_stores_are_merged_into_a_new_one(
        self, path: Path, tmp_path: Path, nases_store: Callable[..., str]
    ) -> None:
        target = tmp_path / "all.sqlite"
        out = nases_store("merge", target, path, fill(tmp_path / "other.sqlite"))
        assert out.splitlines() == [
            f"{path}: 4 added, 0 known, 0 differing",
            f"{tmp_path / 'other.sqlite'}: 0 added, 4 known, 0 differing",
        ]
        assert nases_store("export", target) == nases_store("export", path)

    def test_latencies_are_merged(self, path: Path, tmp_path: Path, nases_store: Callable[..., str]) -> None:
        target = tmp_path / "copy.sqlite"
        with Store(path) as store:
            store.put_latency("a", DIGEST, 0.25)
        with Store(target) as store:
            store.put_latency("b", DIGEST, 0.5)
        nases_store("merge", target, path)
        with Store(path) as store:
            store.put_latency("b", DIGEST, 0.125)
        nases_store("merge", target, path)
        with Store(target) as store:
            assert [store.get_latency(key, DIGEST) for key in "abc"] == [0.25, 0.5, None]

    def test_conflict_sets_the_exit_status_and_changes_nothing(
        self, path: Path, tmp_path: Path, nases_store: Callable[..., str]
    ) -> None:
        other = fill(tmp_path / "other.sqlite", (0.25, 0.875, 0.5, 0.0))
        before = nases_store("export", path)
        with pytest.raises(SystemExit) as ended:
            nases_store("merge", path, other)
        assert ended.value.code == 1
        assert nases_store("export", path) == before

    def test_conflicting_results_are_listed(self, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        other = fill(tmp_path / "other.sqlite", (0.25, 0.875, 0.5, 0.0))
        with pytest.raises(SystemExit):
            run_store_command(tyro.cli(StoreCommands, args=["merge", str(path), str(other)]))
        assert capsys.readouterr().out.splitlines() == [
            f"{other}: 0 added, 3 known, 1 differing",
            f"  {ARCHITECTURES[1].key}, seed 1: ok 0.875; {path} keeps ok 0.75",
        ]
        change(other, "UPDATE evaluations SET valid_accuracy = 0.75, score = 0.5 WHERE seed = 1")
        with pytest.raises(SystemExit):
            run_store_command(tyro.cli(StoreCommands, args=["merge", str(path), str(other)]))
        line = capsys.readouterr().out.splitlines()[1]
        assert line.endswith(f"seed 1: ok 0.75 with the reward 0.5; {path} keeps ok 0.75")

    def test_merge_with_itself_changes_nothing(self, path: Path, nases_store: Callable[..., str]) -> None:
        assert nases_store("merge", path, path) == f"{path}: 0 added, 4 known, 0 differing\n"

    def test_invalid_source_creates_no_store(self, path: Path, tmp_path: Path, nases_store: Callable[..., str]) -> None:
        with pytest.raises(InputError, match="there is no store"):
            nases_store("merge", tmp_path / "new.sqlite", path, tmp_path / "absent.sqlite")
        with pytest.raises(InputError, match="nothing to merge"):
            nases_store("merge", tmp_path / "new.sqlite")
        assert [found.name for found in tmp_path.iterdir()] == [path.name]


INVALID = {
    "status is 'splendid', not one of ok, ": "UPDATE evaluations SET status = 'splendid' WHERE seed = 1",
    "status is 'failed', not one of ok, ": "UPDATE evaluations SET status = 'failed' WHERE seed = 1",
    "valid_accuracy is 1.5, not a number in [0, 1]": "UPDATE evaluations SET valid_accuracy = 1.5 WHERE seed = 1",
    "train_accuracy is 'good', not a number in [0, 1]": "UPDATE evaluations SET train_accuracy = 'good' WHERE seed = 1",
    "num_params is -1, not a non-negative integer": "UPDATE evaluations SET num_params = -1 WHERE seed = 1",
    "created is b'a', not of the type str": "UPDATE evaluations SET created = X'61' WHERE seed = 1",
    "seconds is -1.0, not a duration": "UPDATE evaluations SET seconds = -1.0 WHERE seed = 1",
    "seconds is inf, not a duration": "UPDATE evaluations SET seconds = 9e999 WHERE seed = 1",
    "seconds is 'fast', not of the type float": "INSERT INTO latencies VALUES ('a', 'b', 'fast')",
    "seconds is -2.0, not a duration": "INSERT INTO latencies VALUES ('a', 'b', -2.0)",
    "started is 'yesterday', not a time": "INSERT INTO leases VALUES ('a', 'b', 1, 'c', 'd', 2, 'e', 0, 'yesterday')",
    "invalid curve (": "UPDATE evaluations SET curve = '[{' WHERE seed = 1",
    "invalid curve ( ": "UPDATE evaluations SET curve = '[{\"epoch\": 1}]' WHERE seed = 1",
    "invalid curve (  ": "UPDATE evaluations SET curve = '7' WHERE seed = 1",
    "its configuration is missing": "UPDATE evaluations SET digest = 'other' WHERE seed = 1",
    "the digest of its description is": "UPDATE configurations SET description = '{}'",
    "the genotype is not valid JSON (": "UPDATE evaluations SET genotype = 'x' WHERE seed = 1",
    "the genotype has the key": (
        "UPDATE evaluations SET genotype = (SELECT genotype FROM evaluations WHERE seed = 0) WHERE seed = 1"
    ),
    "the search space of the genotype is ['a'], not a name": (
        'UPDATE evaluations SET genotype = \'{"search_space": ["a"]}\' WHERE seed = 1'
    ),
    "genotype of": 'UPDATE evaluations SET genotype = \'{"search_space": "enas_micro"}\' WHERE seed = 1',
}


class TestVerify:
    def test_valid_store_passes_all_checks(self, path: Path, nases_store: Callable[..., str]) -> None:
        with Store(path) as store:
            store.put(Evaluation("my_space:1", 9, Status.OK), DIGEST, '{"search_space": "my_space", "decisions": [1]}')
            store.put_latency("my_space:1", DIGEST, 0.25)
            store.acquire("my_space:2", DIGEST, 9)
            out = nases_store("verify", path)
        assert out.splitlines() == [
            "✔ file integrity",
            "✔ 1 configurations: digests match the descriptions",
            "✔ 5 evaluations: all values are in range",
            "✔ 5 evaluations: configurations exist",
            "✔ 4 genotypes of built-in search spaces: keys match",
            "✔ 1 latencies: all values are valid",
            "✔ 1 leases: all values are valid",
        ]

    @pytest.mark.parametrize("message", INVALID)
    def test_error_is_reported(self, path: Path, message: str, capsys: pytest.CaptureFixture[str]) -> None:
        change(path, INVALID[message])
        with pytest.raises(SystemExit) as ended:
            run_store_command(tyro.cli(StoreCommands, args=["verify", str(path)]))
        assert ended.value.code == 1
        out = capsys.readouterr().out
        assert out.count("✘") == 1
        assert out.count("✔") == 6
        (line,) = [line for line in out.splitlines() if line.startswith("  ")]
        assert message.strip() in line

    def test_store_is_valid_while_a_search_with_another_configuration_writes(
        self, path: Path, nases_store: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read, description = Store.configurations, {"evaluator": "some", "epochs": 4}
        digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()

        def configurations(store: Store) -> dict[str, str]:
            found = read(store)
            with Store(path) as search:
                search.register_config(digest, description)
                search.put(Evaluation(ARCHITECTURES[0].key, 0, Status.OK, 0.5), digest, SPACE.to_json(ARCHITECTURES[0]))
            return found

        monkeypatch.setattr(Store, "configurations", configurations)
        assert "1 configurations" in nases_store("verify", path)
        monkeypatch.undo()
        assert "2 configurations" in nases_store("verify", path)

    def test_corrupt_file_fails(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        content = path.read_bytes()
        path.write_bytes(content[:8192] + b"\xa5" * (len(content) - 8192))
        with pytest.raises(SystemExit) as ended:
            run_store_command(tyro.cli(StoreCommands, args=["verify", str(path)]))
        assert ended.value.code == 1
        assert capsys.readouterr().out.startswith(f"✘ {path} is not a valid store")

    def test_missing_file_is_an_input_error(self, tmp_path: Path, nases_store: Callable[..., str]) -> None:
        with pytest.raises(InputError, match="there is no store"):
            nases_store("verify", tmp_path / "absent.sqlite")
        assert list(tmp_path.iterdir()) == []


def test_export_to_a_file_that_cannot_be_written_leaves_it_unchanged(tmp_path: Path) -> None:
    with Store(tmp_path / "store.sqlite"):
        pass
    output = tmp_path / "out.csv"
    output.mkdir()
    with pytest.raises(InputError, match="cannot write"):
        run_store_command(ExportArgs(tmp_path / "store.sqlite", output=output))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "store.sqlite"]
