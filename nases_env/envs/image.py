"""The environment whose children are trained on images."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from nases_env.devices import device_type
from nases_env.envs.arguments import to_count, to_rungs, to_seed
from nases_env.envs.base import NASESEnv
from nases_env.errors import InputError, did_you_mean, shown
from nases_env.evaluation import ChildSettings, Limits, TrainingEvaluator, auto_preset, resolve_preset
from nases_env.search_spaces import SearchSpace

logger = logging.getLogger(__name__)


class ImageEnv(NASESEnv):
    """Neural architecture search on images.

    ## Description

    The paper's task: children are trained on the training split of an image data set and measured on its validation split,
    10% of the training images. Spaces, rewards, episodes and information are the same as for ``NASESEnv``.

    | id | data |
    | --- | --- |
    | ``NASES-CIFAR10-v0`` | CIFAR-10: torchvision's files, or JPEG or PNG files in directories ``cifar10/train/<class>/`` |
    | ``NASES-CIFAR100-v0``, ``NASES-FashionMNIST-v0``, ``NASES-SVHN-v0`` | torchvision's files |
    | ``NASES-ImageFolder-v0`` | your images, as below |
    | ``NASES-Digits-v0`` | scikit-learn's digits, 8×8, included in that library |

    For ``NASES-ImageFolder-v0``, ``data_dir`` is one of these. Without a split, every fifth image of each class is a test
    image. Images of one size keep their aspect ratio, others are stretched to squares; ``image_size`` is the longer side.
    Values of types other than uint8 are converted with the range of each channel of the training images.

    - A directory with PNG, JPEG or TIFF files in ``train/<class>/`` and ``test/<class>/``, or in ``<class>/``.
    - An ``.npz`` file with the arrays ``images`` (numbers, shape (N, H, W), (N, H, W, C) or (N, C, H, W), up to 16 channels)
      and ``labels`` (integers, texts or one-hot), or with ``train_images``, ``train_labels``, ``test_images`` and
      ``test_labels``, as in MedMNIST.
    - A directory with such arrays as ``.npy`` files, such as ``images.npy`` and ``labels.npy``.
    - A ``.csv`` file with a header and the columns ``file``, ``label`` and optionally ``split`` (train, valid or
      test; valid images are training images).

    ## Rewards

    With ``reward_signal="valid_accuracy"``, the validation accuracy. With ``reward_signal="training_speed"``, exp(-L), where
    L is the mean training loss over the epochs. With ``flops_exponent`` other than 0, the odds of either are multiplied by
    the number of MFLOPs to this power: r = s F^w / (s F^w + 1 - s). The preset ``cpu`` uses ``training_speed`` and the
    exponent that the search space recommends, which is 0.5, or 0 for ``enas_micro_sized``: with its two epochs, the
    validation accuracy does not predict the accuracy after the final training. All other presets use the validation
    accuracy, which is ``info["valid_accuracy"]`` in any case.

    ## Arguments

    ```python
    env = gymnasium.make("NASES-CIFAR10-v0", preset="cpu", num_epochs=4)
    ```

    Args:
        dataset: name of the data set; set by the ids above.
        preset: a name of ``nases_env.evaluation.PRESETS``: "paper", "gpu", "cpu", "small" or "smoke"; "auto" selects "small"
            for an image folder with few images, otherwise "gpu" if torch finds a GPU or ``device`` is one, otherwise "cpu".
            The selected preset is logged and is ``env.unwrapped.preset``.
        data_dir: directory with the data, or a file for ``NASES-ImageFolder-v0``; None uses the environment variable
            ``NASES_DATA_DIR``, otherwise a directory in the user's cache.
        download: whether torchvision may download a missing data set.
        device: a torch device such as "cpu" or "cuda:1"; "auto" is the GPU if this machine has one. A GPU must be available
            when the first child is evaluated; with the executors "ray" and "slurm", "cuda" is a GPU of another machine.
        split_seed: seed of the split into training and validation images.
        num_threads: number of CPU threads per child.
        search_space: name of a built-in search space, MODULE:CLASS of a custom one, or a search space.
        embedding: file with a pretrained embedding, as written by ``nases pretrain``; None uses the built-in one.
        rungs: numbers of epochs after which a child can be evaluated, increasing, such as (1, 3, 7); None: only after its
            whole training. The last one takes the place of ``num_epochs``, ``min_steps`` and ``num_cycles``: the schedule
            of the learning rate restarts after each rung. See "Rungs" in ``NASESEnv``.
        max_params: maximum number of parameters of a child; None: no limit. A child above one of these limits is infeasible:
            a search does not evaluate it and draws others; ``step`` gives it the status too_large and the reward 0.
        max_flops: maximum number of floating-point operations for one image; a multiply-add counts as two.
        max_memory: maximum peak memory of the float32 activations of one image in bytes, without the weights.
        max_latency: maximum time in seconds to classify one image with one thread of this CPU, measured for each child.
        execution: where and how children are evaluated; see ``NASESEnv``.
        render_mode: "rgb_array" or "ansi"; see ``NASESEnv``.
        info_text: whether the information contains strings; see ``NASESEnv``.
        **overrides: fields of ``nases_env.evaluation.ChildSettings`` by name; they replace the values of the preset:

            - num_epochs: Number of epochs.
            - min_steps: Minimum number of training steps (batches): with few images, training takes more than num_epochs
              epochs.
            - num_cycles: Number of cosine cycles, each twice as long as the previous one; together they last the whole
              training. No effect with the schedule triangular.
            - schedule: Learning rate per batch. cosine: cosine annealing with warm restarts (SGDR). triangular: one cycle
              from 0 to lr_max and back to 0, for very short training runs.
            - lr_max: Learning rate at the start of a cosine cycle, or the peak of the triangle.
            - lr_min: Learning rate at the end of a cosine cycle.
            - momentum: Nesterov momentum.
            - weight_decay: Weight decay of all parameters.
            - batch_size: Images per batch.
            - crop_padding: Random crop: zero padding in pixels on each side; 0 disables it. Default: an eighth of the
              shorter side, as in the paper (4 for 32 pixels).
            - flip: Random horizontal flip with probability 0.5. Default: on, except for data sets of digits.
            - cutout_length: Cutout: side of the square in pixels; 0 disables it.
            - precision: auto: bfloat16 autocast on GPUs that support it, float32 otherwise.
            - cuda_graphs: On a GPU, capture a training step as a CUDA graph and replay it. No effect on a CPU.
            - image_size: Longer side of the images in pixels, or WIDTHxHEIGHT to stretch all; the built-in data sets are
              only shrunk. Default: their size, and for your images between 16 and 32 pixels, by their sizes.
            - num_train_images: Maximum number of training images. Default: all images of the split.
            - num_valid_images: Maximum number of validation images. Default: all images of the split.
            - cells_per_stage: N: normal cells in each of the three stages.
            - num_filters: F: channels of the first stage; doubles at each reduction.
            - drop_path_prob: Drop-path: probability to drop a branch of the last cell at the end of training; 0
              disables it.
            - auxiliary_head: Train an auxiliary classifier at two thirds of the depth.
            - reward_signal: What the reward is computed from: valid_accuracy, or training_speed, exp(-mean training loss
              over the epochs). The latter is for short training runs in which the network sees each image a few times.
            - flops_exponent: Multiply the odds of the reward by the number of MFLOPs to this power. Above 0, it corrects
              for the advantage of small networks in a short training run; 0: no correction; None: as the search space
              recommends. Range: -10 to 10.

    Raises:
        InputError: if a value has the wrong type or is out of range.
        TypeError: if a keyword is unknown.

    ## Version History

    - v0: initial version.
    """

    def __init__(
        self,
        dataset: str,
        *,
        preset: str = "auto",
        data_dir: str | None = None,
        download: bool = True,
        device: str = "auto",
        split_seed: int = 0,
        num_threads: int = 1,
        search_space: str | SearchSpace = "enas_micro",
        embedding: str | None = None,
        rungs: Sequence[int] | None = None,
        max_params: float | None = None,
        max_flops: float | None = None,
        max_memory: float | None = None,
        max_latency: float | None = None,
        execution: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        info_text: bool = True,
        **overrides: Any,
    ) -> None:
        known = [option.name for option in dataclasses.fields(ChildSettings)]
        for name in overrides:
            if name not in known:  # Python's own words, which TorchRL looks for
                close = did_you_mean(name, known)
                raise TypeError(f"ImageEnv.__init__() got an unexpected keyword argument {name!r}{close}")
        given_rungs, seed = to_rungs(rungs), to_seed(split_seed)
        if seed is None:
            raise InputError("split_seed must be an integer, not None")
        if not isinstance(preset, str):
            raise InputError(f"preset must be the name of a preset such as 'cpu', not {shown(preset)}")
        for name in ("num_epochs", "min_steps", "num_cycles"):
            if given_rungs and name in overrides:
                raise InputError(f"{name} (--child.{name.replace('_', '-')}) has no effect with rungs; omit it")
        if preset == "auto":
            preset = auto_preset(dataset, data_dir, device)
        self.preset, self.settings = resolve_preset(preset, overrides)
        logger.info("preset %s on %s", self.preset, device_type(device))
        evaluator = TrainingEvaluator(
            search_space,
            dataset,
            self.settings,
            data_dir=data_dir,
            download=download,
            device=device,
            split_seed=seed,
            num_threads=to_count("num_threads", num_threads),
            rungs=given_rungs,
            limits=Limits(max_params, max_flops, max_memory, max_latency),  # type: ignore[arg-type] # it converts 5e6
        )
        self.settings = evaluator.settings
        super().__init__(
            evaluator,
            embedding=embedding,
            execution=execution,
            render_mode=render_mode,
            info_text=info_text,
        )
