"""``nases store``: list, show, export, merge and verify the results in a store."""

from __future__ import annotations

import csv
import heapq
import io
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import tyro
from rich.table import Table

from nases_env.atomic_io import open_atomically
from nases_env.command_line import parse, unknown_command
from nases_env.console import Console
from nases_env.errors import InputError
from nases_env.escaping import printable, quoted
from nases_env.evaluation import Status
from nases_env.execution.store import COLUMNS, CorruptStoreError, Lease, Row, Store
from nases_env.execution.store.verification import check_store
from nases_env.json_io import parse_json
from nases_env.paths import require_other_file
from nases_env.tables import format_known

_KEY_WIDTH = 32
_DIGEST_WIDTH = 8


@dataclass(frozen=True)
class LsArgs:
    """List the children in a store, best reward first, and those in flight."""

    path: tyro.conf.Positional[Path] = field(metadata={"help": "Path of the store."})
    limit: int = field(default=20, metadata={"help": "Maximum number of children to list; 0 lists all."})
    status: Literal["ok", "diverged", "out_of_memory", "too_large", "timed_out"] | None = field(
        default=None, metadata={"help": "List only children with this status. Default: all."}
    )


@dataclass(frozen=True)
class ShowArgs:
    """Print all evaluations of an architecture as JSON."""

    path: tyro.conf.Positional[Path] = field(metadata={"help": "Path of the store."})
    key: tyro.conf.Positional[str] = field(metadata={"help": "Key of the architecture, or a prefix that identifies it."})


@dataclass(frozen=True)
class ExportArgs:
    """Export all evaluations in a store."""

    path: tyro.conf.Positional[Path] = field(metadata={"help": "Path of the store."})
    format: Literal["csv", "jsonl"] = field(
        default="csv", metadata={"help": "csv: a table with a header. jsonl: one JSON object per line."}
    )
    output: Path | None = field(default=None, metadata={"help": "Output file. Default: standard output."})


@dataclass(frozen=True)
class MergeArgs:
    """Copy the results that are missing in a store from other stores.

    Conflicting results are listed and not copied; the exit status is then 1.
    """

    target: tyro.conf.Positional[Path] = field(metadata={"help": "Store to copy to; created if it does not exist."})
    sources: tyro.conf.Positional[tuple[Path, ...]] = field(metadata={"help": "Stores to copy from."})


@dataclass(frozen=True)
class VerifyArgs:
    """Check the file of a store and the values of every entry. The exit status is 1 if something is invalid."""

    path: tyro.conf.Positional[Path] = field(metadata={"help": "Path of the store."})


COMMANDS = ("ls", "show", "export", "merge", "verify")

StoreCommands = (
    Annotated[LsArgs, tyro.conf.subcommand("ls")]
    | Annotated[ShowArgs, tyro.conf.subcommand("show")]
    | Annotated[ExportArgs, tyro.conf.subcommand("export")]
    | Annotated[MergeArgs, tyro.conf.subcommand("merge")]
    | Annotated[VerifyArgs, tyro.conf.subcommand("verify")]
)


@dataclass(frozen=True)
class StoreArgs:
    """Arguments of ``nases store``."""

    command: tyro.conf.OmitSubcommandPrefixes[StoreCommands]


ARGS = StoreArgs


def main(options: Sequence[str]) -> None:
    """Parse ``options`` and run ``nases store``."""
    name = options[0] if options else ""
    if name not in (*COMMANDS, "-h", "--help"):
        raise unknown_command("nases store", name, COMMANDS)
    description = "Inspect, export, merge or verify a result store."
    run_store_command(parse(StoreCommands, prog="nases store", args=options, description=description))


def run_store_command(args: LsArgs | ShowArgs | ExportArgs | MergeArgs | VerifyArgs) -> None:
    """Run ``nases store``.

    Raises:
        InputError: if a store cannot be read or written, or does not contain the architecture.
        SystemExit: with status 1 if ``merge`` finds conflicting results or ``verify`` finds an error.
    """
    match args:
        case LsArgs():
            _ls(args)
        case ShowArgs():
            _show(args)
        case ExportArgs():
            _export(args)
        case MergeArgs():
            _merge(args)
        case VerifyArgs():
            _verify(args)


def _ls(args: LsArgs) -> None:
    if args.limit < 0:
        raise InputError(f"--limit must be at least 0, not {args.limit}")
    with Store(args.path, read_only=True) as store, store.snapshot():
        num_evaluations, num_configurations, leases = store.count(), len(store.configurations()), store.leases()
        rows = (row for row in store.rows() if args.status in (None, row["status"]))
        try:
            best = heapq.nlargest(args.limit or num_evaluations, rows, key=_ranking_key)
            table = _table(best)
            in_flight = [_describe_lease(lease) for lease in leases]
        except (TypeError, ValueError) as error:
            advice = f"run: nases store verify {quoted(args.path)}"
            raise InputError(f"{args.path} contains invalid values ({error}); {advice}") from None
    if best:
        Console().print_table(table)
    print(f"evaluations: {num_evaluations}\nconfigurations: {num_configurations}\nin flight: {len(leases)}")
    for line in in_flight:
        print(f"  {printable(line)}")


def _ranking_key(row: Row) -> tuple[float, int]:
    return _reward(row), -row["num_params"]


def _reward(row: Row) -> float:
    reward: float = row["valid_accuracy"] if row["score"] is None else row["score"]
    return reward


def _table(rows: Iterable[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    numbers = ("reward", "valid", "parameters", "seed")
    for name in ("reward", "valid", "status", "parameters", "seed", "digest", "key", "created"):
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            format_known(_reward(row), ".4f", row["status"] == Status.OK),
            format_known(row["valid_accuracy"], ".4f", row["status"] == Status.OK),
            row["status"],
            format_known(row["num_params"], ",", row["num_params"] > 0),
            str(row["seed"]),
            row["digest"][:_DIGEST_WIDTH],
            _shorten(row["key"]),
            row["created"][:16].replace("T", " "),
        )
    return table


def _shorten(key: str) -> str:
    return key if len(key) <= _KEY_WIDTH else key[: _KEY_WIDTH - 1] + "…"


def _describe_lease(lease: Lease) -> str:
    seconds = (datetime.now(timezone.utc) - datetime.fromisoformat(lease.started)).total_seconds()
    minutes = max(0, int(seconds // 60))
    return f"{_shorten(lease.key)}, seed {lease.seed}: process {lease.pid} on {lease.host_name}, for {minutes} min"


def _show(args: ShowArgs) -> None:
    prefix = args.key.removesuffix("…")  # appended by ls
    with Store(args.path, read_only=True) as store:
        rows = list(store.rows(prefix))
        configurations = store.configurations()
    keys = {row["key"] for row in rows}
    if prefix in keys:
        keys = {prefix}
    if len(keys) != 1:
        advice = "pass a longer prefix" if keys else f"run: nases store ls {quoted(args.path)}"
        raise InputError(f"{args.path} has {len(keys)} architectures whose key starts with {prefix!r}; {advice}")
    records = [
        {**_record(row), "configuration": _parse(configurations.get(row["digest"], "null"))}
        for row in rows
        if row["key"] in keys
    ]
    print(json.dumps(records, indent=2))


def _record(row: Row) -> dict[str, Any]:
    """Return a row with its JSON texts parsed."""
    return {**row, "curve": _parse(row["curve"]), "genotype": _parse(row["genotype"])}


def _parse(text: str) -> Any:
    try:
        return parse_json(text, allow_infinity=True)
    except ValueError as error:
        raise InputError(f"the store contains invalid JSON ({error}); run nases store verify") from None


def _export(args: ExportArgs) -> None:
    if args.output is not None:
        require_other_file(args.output, args.path)
    with ExitStack() as stack:
        store = stack.enter_context(Store(args.path, read_only=True))
        text: TextIO = sys.stdout
        if args.output is not None:
            file = stack.enter_context(open_atomically(args.output))
            text = io.TextIOWrapper(file, "utf-8", newline="")
            stack.callback(text.detach)
        if args.format == "csv":
            writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            writer.writeheader()
            rows = store.rows()
            if text.isatty():
                rows = ({name: printable(value) for name, value in row.items()} for row in rows)
            writer.writerows(rows)
        else:
            text.writelines(json.dumps(_record(row)) + "\n" for row in store.rows())


def _merge(args: MergeArgs) -> None:
    if not args.sources:
        raise InputError("nothing to merge; pass the stores to copy from after the target")
    num_differing = 0
    with ExitStack() as stack:
        sources = {path: stack.enter_context(Store(path, read_only=True)) for path in args.sources}
        target = stack.enter_context(Store(args.target))
        for path, source in sources.items():
            merged = target.merge(source)
            num_differing += len(merged.differing)
            numbers = f"{merged.num_added} added, {merged.num_known} known, {len(merged.differing)} differing"
            print(f"{printable(path)}: {numbers}")
            for kept, row in merged.differing:
                line = f"{row['key']}, seed {row['seed']}: {_result(row)}; {args.target} keeps {_result(kept)}"
                print(f"  {printable(line)}")
    if num_differing:
        sys.exit(1)


def _result(row: Row) -> str:
    score = "" if row["score"] is None else f" with the reward {row['score']}"
    return f"{row['status']} {row['valid_accuracy']}{score}"


def _verify(args: VerifyArgs) -> None:
    try:
        with Store(args.path, read_only=True) as store, store.snapshot():
            checks = list(check_store(store))
    except CorruptStoreError as error:
        print(f"✘ {printable(error)}")
        sys.exit(1)
    for name, errors in checks:
        print(f"{'✘' if errors else '✔'} {name}")
        for line in errors:
            print(f"  {printable(line)}")
    if any(errors for _, errors in checks):
        sys.exit(1)
