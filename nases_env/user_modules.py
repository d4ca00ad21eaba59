"""Modules of a person's own, by name."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType


def import_user_module(name: str) -> ModuleType:
    """The module called ``name``, which may lie in the working folder, as with ``python -m``.

    Raises:
        Exception: whatever the module raises; ImportError if there is none.
    """
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)
