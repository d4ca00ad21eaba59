"""A search space of one's own, from its decisions to a search on digits: half a minute.

    python examples/custom_search_space.py

Below is all that a search space needs: a name, how many choices each decision has, and what network they mean. Where the
accuracies are known already, in a table of your own for instance, write ``query(architecture) -> float`` in place of
``build``, and search in ``NASES-Query-v0``.

A search space can be named on the command line as MODULE:CLASS, from the folder that its module lies in:

    cd examples
    nases pretrain --search-space own_search_space:WidthsAndKernels --output widths_and_kernels.safetensors
    python ../agents/reinforce.py --search-space own_search_space:WidthsAndKernels --embedding widths_and_kernels.safetensors
    nases draw --search-space own_search_space:WidthsAndKernels runs/.../best.json
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import gymnasium
from torch import nn

import nases_env  # noqa: F401 - registers the environments
from nases_env.embedding import PretrainSettings, pretrain, quality_report, save_embedding
from nases_env.networks import NetworkSettings
from nases_env.search_spaces import Architecture, SearchSpace

WIDTHS = (4, 8, 16, 32)
KERNEL_SIZES = (1, 3, 5)
ACTIVATIONS = (nn.ReLU, nn.SiLU, nn.Tanh)
NUM_LAYERS = 3


class WidthsAndKernels(SearchSpace):
    """A chain of three convolutions, each with a width, a kernel size and an activation of its own: 46,656 networks."""

    name = "widths_and_kernels"
    decision_sizes = (len(WIDTHS), len(KERNEL_SIZES), len(ACTIVATIONS)) * NUM_LAYERS

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        channels = image_shape[0]
        layers: list[nn.Module] = []
        for at in range(0, self.num_decisions, 3):
            width, kernel_size, activation = architecture.decisions[at : at + 3]
            layers.append(nn.Conv2d(channels, WIDTHS[width], KERNEL_SIZES[kernel_size], padding="same", bias=False))
            channels = WIDTHS[width]
            layers += [nn.BatchNorm2d(channels), ACTIVATIONS[activation]()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def main(num_children: int = 10, num_pretraining_steps: int = 500) -> None:
    search_space = WidthsAndKernels()

    # First its embedding, once for all data sets. `nases pretrain` takes more steps, and writes a report beside it.
    embedding, _ = pretrain(search_space, PretrainSettings(num_steps=num_pretraining_steps), seed=0)
    report = quality_report(embedding, search_space, seed=0)
    print(f"the embedding keeps {report.kept_decisions:.0%} of the decisions; {report.kept_by_chance:.0%} would be chance")

    # Then the search: every environment that trains children takes the search space by the keyword of that name.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "widths_and_kernels.safetensors"
        save_embedding(embedding, file)
        env = gymnasium.make(
            "NASES-Digits-v0", search_space=search_space, embedding=str(file), preset="cpu", render_mode="ansi"
        )
    env.reset(seed=0)
    env.action_space.seed(0)
    best = 0.0
    for _ in range(num_children):
        _, reward, _, _, info = env.step(env.action_space.sample())
        print(f"validation accuracy {reward:.4f}, {info['num_params']:,} parameters: {info['genotype']}")
        if float(reward) > best:
            best, picture = float(reward), env.render()
    print(f"\nthe best of {num_children}: {picture}")
    env.close()


if __name__ == "__main__":
    main()
