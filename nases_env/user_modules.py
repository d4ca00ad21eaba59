"""Import of user modules by name."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from nases_env.errors import InputError, one_line
from nases_env.escaping import printable


def import_user_module(name: str) -> ModuleType:
    """Import the module ``name``, which the user named; as with ``python -m``, it may be in the working directory.

    Raises:
        ImportError: if there is no such module.
        Exception: any exception that the module raises on import.
    """
    if name in sys.modules:
        return sys.modules[name]
    _search_working_directory()
    return importlib.import_module(name)


def import_recorded_module(name: str, run_dir: Path) -> None:
    """Import the module ``name``, which a file in ``run_dir`` names, from installed packages or the working directory.

    A module in ``run_dir``, or in the subdirectory of the working directory that contains ``run_dir``, is not imported,
    because a copied directory could contain any code. The files that are imported are printed to standard error.

    Raises:
        InputError: if there is no such module elsewhere, or its import fails.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise InputError(f"{run_dir} names the module {name!r}, which is not a valid name; start a new search")
    folder = run_dir.resolve()
    if not Path.cwd().resolve().is_relative_to(folder):
        _search_working_directory()
    parts = name.split(".")
    for number in range(1, len(parts) + 1):
        module = ".".join(parts[:number])
        if module in sys.modules:
            continue
        try:
            _import(module, folder, run_dir)
        except InputError:
            raise
        except ModuleNotFoundError as error:
            if error.name != module:
                raise _failure(module, run_dir, error) from error
            raise InputError(
                f"there is no module {module!r}, which {run_dir} names; run this in its directory, or install it"
            ) from None
        except Exception as error:  # a custom module may raise anything
            raise _failure(module, run_dir, error) from error


def _copied_folder(run_dir: Path) -> Path:
    """Return the directory that ``run_dir`` may be part of a copy of.

    It is the subdirectory of the working directory that contains ``run_dir``, or ``run_dir`` itself.
    """
    directory = Path.cwd().resolve()
    if run_dir == directory or not run_dir.is_relative_to(directory):
        return run_dir
    return directory / run_dir.relative_to(directory).parts[0]


def _import(name: str, folder: Path, run_dir: Path) -> None:
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    copied = _copied_folder(folder)
    if name.split(".")[0] == copied.name:  # found in the working directory
        folder = copied
    for location in _locations(spec):
        if Path(location).resolve().is_relative_to(folder):
            raise InputError(
                f"{run_dir} names the module {name!r}, and {location} may have been copied with it, so it is not imported; "
                "move it to a directory that you trust, and run this there"
            )
    if spec.has_location:
        print(f"importing {printable(spec.origin)}, which {printable(run_dir)} names", file=sys.stderr)
    importlib.import_module(name)


def _locations(spec: ModuleSpec) -> list[str]:
    """Return the file of a module and the directories of a package."""
    return [*([spec.origin] if spec.has_location and spec.origin else []), *(spec.submodule_search_locations or ())]


def _failure(name: str, run_dir: Path, error: Exception) -> InputError:
    reason = f"{type(error).__name__}: {one_line(error)}"
    return InputError(f"the module {name!r}, which {run_dir} names, fails when it is imported ({reason})")


def _search_working_directory() -> None:
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
