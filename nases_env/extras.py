"""Import of the packages of an extra, such as ``nases-env[export]``."""

from __future__ import annotations

import importlib
from typing import Any

from nases_env.errors import InputError, one_line


def import_extra(module: str, extra: str, user: str) -> Any:
    """Import a module of an extra.

    Args:
        module: its name.
        extra: the extra whose packages contain it.
        user: what requires it, for the message, such as "export to ONNX".

    Raises:
        InputError: if the module, or one that it imports, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{user} requires additional packages ({one_line(error)}): pip install 'nases-env[{extra}]'"
        ) from None
