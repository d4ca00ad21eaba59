"""The device of children that are trained on other machines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from nases_env.errors import InputError
from nases_env.evaluation import PRESETS, OperatorShareEvaluator, TrainingEvaluator
from nases_env.evaluation.nasbench201_costs import NasBench201CostEvaluator
from nases_env.execution.remote_device import remote_device_type, require_gpu


def on_device(device: str) -> TrainingEvaluator:
    return TrainingEvaluator("enas_micro", "digits", PRESETS["smoke"], device=device)


@pytest.mark.parametrize("has_gpu", [True, False])
def test_only_auto_depends_on_the_gpu_of_this_machine(has_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert remote_device_type(on_device("auto")) == ("cuda" if has_gpu else "cpu")
    assert remote_device_type(on_device("cuda")) == "cuda"
    assert remote_device_type(on_device("cpu")) == "cpu"


def test_evaluator_that_trains_nothing_has_no_device(tmp_path: Path) -> None:
    assert remote_device_type(OperatorShareEvaluator("nasbench201", "skip_connect")) is None
    assert remote_device_type(NasBench201CostEvaluator(path=str(tmp_path), device="ms_phone")) is None


def test_missing_gpu_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    require_gpu("request one")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for is_built, advice in ((True, "request one"), (False, "install a build of PyTorch with CUDA there")):
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda is_built=is_built: is_built)
        with pytest.raises(InputError, match=rf"^PyTorch {re.escape(torch.__version__)} finds no GPU on .*; {advice}$"):
            require_gpu("request one")
