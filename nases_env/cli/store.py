"""``nases store``: look at a store, take results out of it, join several, check one."""

from __future__ import annotations

import csv
import heapq
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from nases_env.atomic_io import write_atomically
from nases_env.command_line import parse
from nases_env.errors import InputError
from nases_env.evaluation import Evaluation, Status
from nases_env.execution.store import COLUMNS, CorruptStoreError, Lease, Row, Store
from nases_env.hashing import sha256_hex
from nases_env.search_spaces import SEARCH_SPACES, get_search_space

STORED_STATUSES = tuple(status.value for status in Status if status is not Status.FAILED)

_KEY_WIDTH = 32
_DIGEST_WIDTH = 8
_TABLE_WIDTH = 120


@dataclass(frozen=True)
class LsArgs:
    """List the children of a store, the best first, and those that are under evaluation."""

    path: tyro.conf.Positional[Path] = field(metadata={"help": "The store."})
    limit: int = field(default=20, metadata={"help": "Children to list; 0: all."})
    status: Literal["ok", "diverged", "out_of_memory", "too_large", "timed_out"] | None = field(
        default=None, metadata={"help": "List only those that ended so."}
    )


@dataclass(frozen=True)
class ShowArgs:
    """Print all that is known of one child, as JSON."""

    path: tyro.conf.Positional[Path] = field(metadata={"help": "The store."})
    key: tyro.conf.Positional[str] = field(metadata={"help": "The architecture's key, or enough of its beginning."})


@dataclass(frozen=True)
class ExportArgs:
    """Write all evaluations of a store as a table."""

    path: tyro.conf.Positional[Path] = field(metadata={"help": "The store."})
    format: Literal["csv", "jsonl"] = field(default="csv", metadata={"help": "CSV, or one JSON object a line."})
    output: Path | None = field(default=None, metadata={"help": "The file to write; unset: standard output."})


@dataclass(frozen=True)
class MergeArgs:
    """Copy what a store lacks from others. Results that differ are listed, and the exit status is then 1."""

    target: tyro.conf.Positional[Path] = field(metadata={"help": "The store to copy to; made if there is none."})
    sources: tyro.conf.Positional[tuple[Path, ...]] = field(metadata={"help": "The stores to copy from."})


@dataclass(frozen=True)
class VerifyArgs:
    """Check that a store is whole and that all it holds can be true. If not, the exit status is 1."""

    path: tyro.conf.Positional[Path] = field(metadata={"help": "The store."})


StoreCommands = (
    Annotated[LsArgs, tyro.conf.subcommand("ls")]
    | Annotated[ShowArgs, tyro.conf.subcommand("show")]
    | Annotated[ExportArgs, tyro.conf.subcommand("export")]
    | Annotated[MergeArgs, tyro.conf.subcommand("merge")]
    | Annotated[VerifyArgs, tyro.conf.subcommand("verify")]
)


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases store``."""
    description = "Inspect, export, merge or verify a result store."
    run_store_command(parse(StoreCommands, prog="nases store", args=options, description=description))


def run_store_command(args: LsArgs | ShowArgs | ExportArgs | MergeArgs | VerifyArgs) -> None:
    """Runs ``nases store``.

    Raises:
        InputError: if a store cannot be read or written, or holds no such child.
        SystemExit: with status 1 if ``merge`` found results that differ, or ``verify`` found something wrong.
    """
    if isinstance(args, LsArgs):
        _ls(args)
    elif isinstance(args, ShowArgs):
        _show(args)
    elif isinstance(args, ExportArgs):
        _export(args)
    elif isinstance(args, MergeArgs):
        _merge(args)
    else:
        _verify(args)


def _ls(args: LsArgs) -> None:
    if args.limit < 0:
        raise InputError(f"--limit must be at least 0, not {args.limit}")
    with Store(args.path, read_only=True) as store:
        num_evaluations, num_configurations, leases = store.count(), len(store.configurations()), store.leases()
        rows = (row for row in store.rows() if args.status in (None, row["status"]))
        try:
            best = heapq.nlargest(args.limit or num_evaluations, rows, key=_merit)
            table = _table(best)
            under_evaluation = [_describe_claim(lease) for lease in leases]
        except (TypeError, ValueError) as error:
            raise InputError(f"{args.path} holds what cannot be ({error}); nases store verify lists it") from None
    if best:
        console = Console()
        console.width = max(
            console.width, _TABLE_WIDTH
        )  # a narrow terminal breaks the lines, which is better than cut columns
        console.print(table)
    print(f"evaluations: {num_evaluations}\nconfigurations: {num_configurations}\nunder evaluation: {len(leases)}")
    print("".join(f"  {line}\n" for line in under_evaluation), end="")


def _merit(row: Row) -> tuple[float, int]:
    return row["valid_accuracy"], -row["num_params"]


def _table(rows: Iterable[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("accuracy", "status", "parameters", "seed", "digest", "key", "created"):
        table.add_column(name, justify="right" if name in ("accuracy", "parameters", "seed") else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row['valid_accuracy']:.4f}",
            row["status"],
            f"{row['num_params']:,}",
            str(row["seed"]),
            row["digest"][:_DIGEST_WIDTH],
            _shorten(row["key"]),
            row["created"][:16].replace("T", " "),
        )
    return table


def _shorten(key: str) -> str:
    return key if len(key) <= _KEY_WIDTH else key[: _KEY_WIDTH - 1] + "…"


def _describe_claim(lease: Lease) -> str:
    seconds = (datetime.now(timezone.utc) - datetime.fromisoformat(lease.started)).total_seconds()
    minutes = max(0, int(seconds // 60))
    return f"{_shorten(lease.key)}, seed {lease.seed}: process {lease.pid} on {lease.host_name}, for {minutes} min"


def _show(args: ShowArgs) -> None:
    prefix = args.key.removesuffix("…")  # as ls shortens keys
    with Store(args.path, read_only=True) as store:
        rows = list(store.rows(prefix))
        configurations = store.configurations()
    keys = {row["key"] for row in rows}
    if prefix in keys:
        keys = {prefix}
    if len(keys) != 1:
        found = f"{len(keys)} children whose keys begin" if keys else "no child whose key begins"
        what = "give more of the key" if keys else "nases store ls lists what it has"
        raise InputError(f"{args.path} has {found} with {prefix!r}; {what}")
    records = [
        {**_record(row), "configuration": _parse(configurations.get(row["digest"], "null"))}
        for row in rows
        if row["key"] in keys
    ]
    print(json.dumps(records, indent=2))


def _record(row: Row) -> dict[str, Any]:
    """A row with its JSON texts read."""
    return {**row, "curve": _parse(row["curve"]), "genotype": _parse(row["genotype"])}


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"the store holds something that is no JSON ({error}); nases store verify lists where") from None


def _export(args: ExportArgs) -> None:
    text = io.StringIO()
    with Store(args.path, read_only=True) as store:
        if args.format == "csv":
            writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(store.rows())
        else:
            text.writelines(json.dumps(_record(row)) + "\n" for row in store.rows())
    if args.output is not None:
        write_atomically(args.output, text.getvalue().encode())
        return
    try:
        sys.stdout.write(text.getvalue())
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _merge(args: MergeArgs) -> None:
    if not args.sources:
        raise InputError("nothing to merge; name the stores to copy from after the one to copy to")
    num_differing = 0
    with ExitStack() as stack:
        sources = {path: stack.enter_context(Store(path, read_only=True)) for path in args.sources}
        target = stack.enter_context(Store(args.target))
        for path, source in sources.items():
            merged = target.merge(source)
            num_differing += len(merged.differing)
            print(f"{path}: {merged.num_added} added, {merged.num_known} known, {len(merged.differing)} differing")
            for kept, row in merged.differing:
                print(f"  {row['key']}, seed {row['seed']}: {_result(row)}; {args.target} keeps {_result(kept)}")
    if num_differing:
        sys.exit(1)


def _result(row: Row) -> str:
    return f"{row['status']} {row['valid_accuracy']}"


def _verify(args: VerifyArgs) -> None:
    try:
        with Store(args.path, read_only=True) as store:
            findings = list(_find(store))
    except CorruptStoreError as error:
        print(f"✘ {error}")
        sys.exit(1)
    for what, problems in findings:
        print(f"{'✘' if problems else '✔'} {what}")
        for problem in problems:
            print(f"  {problem}")
    if any(problems for _, problems in findings):
        sys.exit(1)


def _find(store: Store) -> Iterator[tuple[str, list[str]]]:
    """What is checked, and what is wrong with it."""
    yield "the file is whole", store.integrity_errors()
    configurations = store.configurations()
    yield (
        f"{len(configurations)} configurations have the digests that they should",
        [
            f"configuration {digest}: the digest of its description is {actual}"
            for digest, text in configurations.items()
            if (actual := sha256_hex(text)) != digest
        ],
    )
    num_rows, num_genotypes = 0, 0
    bad_values: list[str] = []
    unknown_digests: list[str] = []
    bad_genotypes: list[str] = []
    for row in store.rows():
        child = f"{row['key']}, configuration {row['digest'][:_DIGEST_WIDTH]}, seed {row['seed']}"
        num_rows += 1
        bad_values += [f"{child}: {problem}" for problem in _wrong_values(row)]
        if row["digest"] not in configurations:
            unknown_digests.append(f"{child}: no configuration has its digest")
        ships, problem = _wrong_genotype(row)
        num_genotypes += ships
        if problem:
            bad_genotypes.append(f"{child}: {problem}")
    yield f"{num_rows} evaluations are such as can be", bad_values
    yield f"{num_rows} evaluations have configurations", unknown_digests
    yield f"{num_genotypes} genotypes of search spaces that ship have the keys that they should", bad_genotypes


def _wrong_values(row: Row) -> Iterator[str]:
    if row["status"] not in STORED_STATUSES:
        yield f"the status {row['status']!r} is none of {', '.join(STORED_STATUSES)}"
    for name in ("valid_accuracy", "train_accuracy"):
        if not isinstance(row[name], float) or not 0 <= row[name] <= 1:
            yield f"{name} is {row[name]!r}, which is no number in [0, 1]"
    for name in ("num_params", "num_flops", "num_epochs"):
        if not isinstance(row[name], int) or row[name] < 0:
            yield f"{name} is {row[name]!r}, which is no count"
    try:
        Evaluation.from_dict({**row, "status": Status.OK, "curve": json.loads(row["curve"])})
    except (TypeError, ValueError) as error:
        yield f"the curve is none ({error})"


def _wrong_genotype(row: Row) -> tuple[bool, str]:
    """Whether the genotype is of a search space that ships, and what is wrong with it."""
    try:
        genotype = json.loads(row["genotype"])
    except (TypeError, ValueError) as error:
        return False, f"the genotype is no JSON ({error})"
    name = genotype.get("search_space") if isinstance(genotype, dict) else None
    if name not in SEARCH_SPACES:  # of a person's own, whose module a file does not get to import
        return False, ""
    try:
        key = get_search_space(name).from_json(row["genotype"]).key
    except InputError as error:
        return True, str(error)
    return True, "" if key == row["key"] else f"the genotype has the key {key}"
