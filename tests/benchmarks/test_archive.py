"""The file of finished results from which another machine continues a benchmark."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common.archive import archived, pack, unpack
from nases_env.errors import InputError


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n")
    return path


@pytest.mark.parametrize("name", ["archive.jsonl", "archive.jsonl.gz"])
def test_results_of_two_machines_are_united(name: str, tmp_path: Path) -> None:
    archive, first, second = tmp_path / name, tmp_path / "first", tmp_path / "second"
    pack(archive, first, [write(first / "trainings" / "b.json", {"value": 2})])
    pack(archive, second, [write(second / "trainings" / "a.json", {"value": 1})])
    data = archive.read_bytes()
    text = gzip.decompress(data) if archive.suffix == ".gz" else data
    assert [json.loads(line)["path"] for line in text.splitlines()] == ["trainings/a.json", "trainings/b.json"]
    unpack(archive, tmp_path / "third")
    for result, value in {"a": 1, "b": 2}.items():
        assert json.loads((tmp_path / "third" / "trainings" / f"{result}.json").read_text()) == {"value": value}


def test_results_of_the_directory_are_kept_and_replace_those_of_the_archive(tmp_path: Path) -> None:
    archive, work_dir = tmp_path / "archive.jsonl", tmp_path / "work"
    path = write(work_dir / "a.json", {"value": 1})
    pack(archive, work_dir, [path])
    write(path, {"value": 2})
    unpack(archive, work_dir)
    assert json.loads(path.read_text()) == {"value": 2}
    pack(archive, work_dir, [path])
    assert json.loads(archive.read_text()) == {"path": "a.json", "content": {"value": 2}}


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"children": [1, 2], "chosen": {"600.0": "b"}}, {"children": [1], "chosen": {"60.0": "a"}}),
        ({"children": [1], "chosen": {"60.0": "a", "90.0": "a"}}, {"children": [1], "chosen": {"60.0": "a"}}),
        ({"epochs": {"1": 0.5}, "status": "diverged"}, {"epochs": {"1": 0.5}}),
    ],
    ids=["more children", "more choices", "finished training"],
)
def test_longer_result_is_kept(better: dict[str, Any], worse: dict[str, Any], tmp_path: Path) -> None:
    archive, work_dir = tmp_path / "archive.jsonl", tmp_path / "work"
    path = write(work_dir / "a.json", better)
    pack(archive, work_dir, [path])
    write(path, worse)
    pack(archive, work_dir, [path])
    assert json.loads(archive.read_text())["content"] == better
    unpack(archive, work_dir)
    assert json.loads(path.read_text()) == better


def test_interrupted_benchmark_adds_what_is_finished(tmp_path: Path) -> None:
    archive, work_dir = tmp_path / "archive.jsonl", tmp_path / "work"
    pack(archive, tmp_path / "first", [write(tmp_path / "first" / "a.json", {"value": 1})])

    def benchmark() -> None:
        with archived(archive, work_dir, work_dir.iterdir):
            assert json.loads((work_dir / "a.json").read_text()) == {"value": 1}
            write(work_dir / "b.json", {"value": 2})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmark()
    assert [json.loads(line)["path"] for line in archive.read_text().splitlines()] == ["a.json", "b.json"]


def test_missing_archive_is_empty(tmp_path: Path) -> None:
    unpack(tmp_path / "missing.jsonl", tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        pytest.param("[" * 100_000, id="deep"),
        "[]",
        "{}",
        '{"path": 1, "content": {}}',
        '{"path": "a.json", "content": []}',
        '{"path": "../outside.json", "content": {}}',
        '{"path": "/outside.json", "content": {}}',
    ],
)
def test_wrong_archives_are_one_error(tmp_path: Path, line: str) -> None:
    archive = tmp_path / "archive.jsonl"
    archive.write_text(line + "\n")
    with pytest.raises(InputError, match=r"line 1 of .*archive\.jsonl is not a result"):
        unpack(archive, tmp_path / "work")
    assert not (tmp_path / "work").exists()
    archive.write_bytes(b"\xff\n")
    with pytest.raises(InputError, match=r"cannot read .*archive\.jsonl"):
        pack(archive, tmp_path / "work", [])


@pytest.mark.parametrize(
    "data",
    [b"text", gzip.compress(b"{}")[:-4], gzip.compress(b"{}" * 50)[:15]],
    ids=["text", "without its end", "without its data"],  # the bytes contain the time, and xdist compares the ids
)
def test_damaged_compressed_archive_is_one_error(tmp_path: Path, data: bytes) -> None:
    archive = tmp_path / "archive.jsonl.gz"
    archive.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot read .*archive\.jsonl\.gz"):
        unpack(archive, tmp_path / "work")
