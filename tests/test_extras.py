"""Packages of extras are imported, or the message says how to install them."""

from __future__ import annotations

import json
import sys

import pytest

from nases_env.errors import InputError
from nases_env.extras import import_extra


def test_installed_module_is_returned() -> None:
    assert import_extra("json", "baselines", "an agent") is json


def test_missing_module_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "absent", None)
    with pytest.raises(InputError, match=r"^an agent requires .* \(.*absent.*\): pip install 'nases-env\[baselines\]'$"):
        import_extra("absent", "baselines", "an agent")
