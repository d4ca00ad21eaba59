"""Import of user modules by name."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType


def import_user_module(name: str) -> ModuleType:
    """Import the module ``name``; as with ``python -m``, it may be in the working directory.

    Raises:
        ImportError: if there is no such module.
        Exception: any exception that the module raises on import.
    """
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)
