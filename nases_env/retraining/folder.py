"""The output directory of a final training: its configuration, a directory per seed, and the report."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from nases_env.atomic_io import is_fresh, remove_leftovers, write_atomically, write_error
from nases_env.errors import InputError, one_line
from nases_env.evaluation import ChildSettings, load_settings
from nases_env.file_lock import WAIT_SECONDS, is_locked, lock, open_folder
from nases_env.input_files import read_file
from nases_env.json_io import parse_json, require_type
from nases_env.model_io import save_model, write_genotype
from nases_env.retraining.result import FinalResult, read_result
from nases_env.retraining.training import FinalTraining
from nases_env.safetensors_file import InvalidFileError, load_tensors
from nases_env.signals import defer_signals
from nases_env.training import EpochRecord
from nases_env.training.trainer import OnEpoch
from nases_env.version import __version__

CONFIG = "config.json"
GENOTYPE = "genotype.json"
RESULT = "result.json"
MODEL = "model.safetensors"
CHECKPOINT = "checkpoint.safetensors"
REPORT = "report.md"  # written last

BUSY_SECONDS = 30.0
"""How long a process waits for another one that reads or writes the files of the same directory."""


@dataclass(frozen=True)
class SeedProgress:
    """State of the training of one seed.

    Attributes:
        seed: the seed.
        result: the result; None until it is finished.
        num_epochs: number of epochs in the checkpoint.
        is_running: whether a process is training it.
    """

    seed: int
    result: FinalResult | None
    num_epochs: int
    is_running: bool


class FinalFolder:
    """The output directory of a final training.

    - ``config.json``: the command and everything that determines the results
    - ``genotype.json``: the architecture and the size of its network
    - ``seed-K/``: ``model.safetensors``, ``result.json`` and event files of TensorBoard; during the training also
      ``checkpoint.safetensors``

    Args:
        path: the directory; ``open`` creates it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, training: FinalTraining) -> None:
        """Create the directory, or check that it belongs to ``training``.

        Raises:
            InputError: if it belongs to a different final training, contains anything else, or cannot be written.
        """
        configuration = json.loads(json.dumps(training.describe()))
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} exists and is not a final training; choose a different --output")
        with self.locked():
            self._open(training, configuration)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory for a moment, while its files are read and written; it waits for other processes.

        Raises:
            InputError: if the directory cannot be created or stays locked.
        """
        message = f"another process has locked {self.path}; wait until it ends, or stop it"
        with locked_folder(self.path, message, wait_seconds=BUSY_SECONDS):
            yield

    def _open(self, training: FinalTraining, configuration: dict[str, Any]) -> None:
        if (self.path / CONFIG).exists():
            self._check(configuration)
        else:
            if not is_fresh(self.path, CONFIG):
                raise InputError(f"{self.path} exists and is not a final training; choose a different --output")
            config = {
                "command": shlex.join(sys.argv),
                "configuration": configuration,
                "num_epochs": training.num_epochs,
                "num_train_images": len(training.train_images),
                "nases_env": __version__,
            }
            write_atomically(self.path / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
        if (self.path / GENOTYPE).exists():
            return
        images = training.train_images
        write_genotype(
            self.path / GENOTYPE,
            training.search_space,
            training.architecture,
            dataclasses.replace(training.settings, auxiliary_head=False),  # the saved model has none
            num_classes=len(images.class_names),
            image_shape=images.image_shape,
        )

    def _check(self, configuration: dict[str, Any]) -> None:
        # Earlier versions did not record the test images.
        before = {"test_images": configuration["test_images"], **self.read_config()["configuration"]}
        changed = [name for name in configuration if before.get(name) != configuration[name]]
        if "key" in changed:
            raise InputError(f"{self.path} is the training of another architecture; choose a different --output")
        if "settings" in changed:
            settings = configuration["settings"]
            changed.remove("settings")
            changed += [name for name in settings if before["settings"].get(name) != settings[name]]
        if changed:
            raise InputError(
                f"{self.path} was started with different values of {', '.join(changed)}; restore them to resume it, or "
                "choose a different --output"
            )

    def read_config(self) -> dict[str, Any]:
        """Read ``config.json``; renamed settings are returned under their current names.

        Raises:
            InputError: if it cannot be read.
        """
        try:
            config = parse_json(read_file(self.path / CONFIG), allow_infinity=True)
            require_type("num_epochs", config["num_epochs"], int)
            require_type("num_train_images", config.get("num_train_images"), int | None)  # not in those of earlier versions
            require_type("dataset", config["configuration"]["dataset"], str)
            settings = load_settings(dict(config["configuration"]["settings"]), ChildSettings())
            return {**config, "configuration": {**config["configuration"], "settings": dataclasses.asdict(settings)}}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.path} is not a final training ({one_line(error)}); choose a different --output"
            ) from error

    def train(self, training: FinalTraining, seed: int, on_epoch: OnEpoch) -> FinalResult:
        """Train one network, or resume its training, unless its result and its model are on disk.

        Args:
            training: the configuration.
            seed: the seed.
            on_epoch: called after each epoch.

        Raises:
            InputError: as in ``FinalTraining.run``, or if another process is training this seed.
        """
        folder = self.path / f"seed-{seed}"
        message = f"another process is training in {folder}; wait for it to finish, or use a different --seed"
        with locked_folder(folder, message):
            for name in (MODEL, RESULT):
                remove_leftovers(folder / name)
            result = read_result(folder / RESULT)
            if result is None or not (folder / MODEL).is_file():
                with _Curves(folder) as curves:

                    def record_epoch(record: EpochRecord) -> None:
                        curves.write(record)
                        on_epoch(record)

                    model, result = training.run(seed, folder / CHECKPOINT, record_epoch)
                values = result.to_dict()
                with defer_signals():
                    save_model(model, folder / MODEL)
                    write_atomically(folder / RESULT, (json.dumps(values, indent=2) + "\n").encode())
            with contextlib.suppress(FileNotFoundError):
                (folder / CHECKPOINT).unlink()
        return result

    def result(self, seed: int) -> FinalResult | None:
        """Return the result of ``seed``; None until it is finished.

        Raises:
            InputError: if it cannot be read.
        """
        return read_result(self.path / f"seed-{seed}" / RESULT)

    def is_finished(self, seed: int) -> bool:
        """Return whether ``train`` has nothing left to do for ``seed``: its result and model exist, but no checkpoint.

        Raises:
            InputError: if the result cannot be read.
        """
        folder = self.path / f"seed-{seed}"
        return self.result(seed) is not None and (folder / MODEL).is_file() and not (folder / CHECKPOINT).exists()

    def results(self) -> list[FinalResult]:
        """Return the results of all finished seeds, sorted by seed.

        Raises:
            InputError: if a result cannot be read.
        """
        found = (read_result(path) for path in self.path.glob(f"seed-*/{RESULT}"))
        return sorted((result for result in found if result is not None), key=lambda result: result.seed)

    def num_epochs(self) -> int:
        """Return the number of epochs of the training.

        Raises:
            InputError: if ``config.json`` cannot be read.
        """
        config = self.read_config()
        return int(config.get("num_epochs", config["configuration"]["settings"]["num_epochs"]))

    def progress(self) -> list[SeedProgress]:
        """Return the state of every seed that was started, sorted by seed; it can change while a process is training.

        Raises:
            InputError: if a result cannot be read.
        """
        seeds = {folder: folder.name.removeprefix("seed-") for folder in self.path.glob("seed-*")}
        folders = sorted((int(seed), folder) for folder, seed in seeds.items() if seed.isdecimal())
        return [
            SeedProgress(seed, read_result(folder / RESULT), _last_epoch(folder / CHECKPOINT), is_locked(folder))
            for seed, folder in folders
        ]


def _last_epoch(checkpoint: Path) -> int:
    """Return the number of epochs in a checkpoint; 0 if there is none."""
    try:
        record, _ = load_tensors(checkpoint, "checkpoint")
        return len(record["values"]["curve"])
    except (FileNotFoundError, InvalidFileError, KeyError, TypeError):
        return 0


class _Curves:
    """TensorBoard curves of one training run, flushed after each epoch, before its checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def write(self, record: EpochRecord) -> None:
        if self._writer is None:  # discards the epochs that follow the checkpoint, and those of a lost model
            self._writer = SummaryWriter(str(self._folder), purge_step=record.epoch)
        for name, value in dataclasses.asdict(record).items():
            if name != "epoch":
                self._writer.add_scalar(f"final/{name}", value, record.epoch)
        self._writer.flush()

    def __enter__(self) -> _Curves:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._writer is not None:
            self._writer.close()


@contextlib.contextmanager
def locked_folder(folder: Path, message: str, *, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Lock ``folder`` against other processes.

    Raises:
        InputError: with ``message`` if another process has locked it, or if it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open_folder(folder)
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        if not lock(handle, wait_seconds=wait_seconds):
            raise InputError(message)
        yield
    finally:
        os.close(handle)
