"""Tutorial: define a custom search space and search it on scikit-learn's digits (about 30 seconds).

    python examples/custom_search_space.py

A search space defines a name, the number of choices of each decision, and the network that the choices describe. If the
accuracies are already known, for instance from a table, implement ``query(architecture) -> float`` instead of ``build`` and
search in ``NASES-Query-v0``.

On the command line, write the search space as MODULE:CLASS and run the command in the directory of the module. Only some
agents need an embedding; local_search, regularized_evolution, bayesian_optimization, tpe, discrete_reinforce and
random_search do not:

    cd examples
    python ../agents/local_search.py --search-space custom_search_space:WidthsAndKernels
    nases pretrain --search-space custom_search_space:WidthsAndKernels --output widths.safetensors
    python ../agents/reinforce.py --search-space custom_search_space:WidthsAndKernels --embedding widths.safetensors
    nases draw --search-space custom_search_space:WidthsAndKernels runs/.../best.json
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import gymnasium
from torch import nn

import nases_env
from nases_env.embedding import PretrainSettings, pretrain, quality_report, save_embedding
from nases_env.networks import NetworkSettings
from nases_env.search_spaces import Architecture, SearchSpace

gymnasium.register_envs(nases_env)

WIDTHS = (4, 8, 16, 32)
KERNEL_SIZES = (1, 3, 5)
ACTIVATIONS = (nn.ReLU, nn.SiLU, nn.Tanh)
NUM_LAYERS = 3


class WidthsAndKernels(SearchSpace):
    """Three consecutive convolutions, each with a width, a kernel size and an activation: 46,656 architectures."""

    name = "widths_and_kernels"
    decision_sizes = (len(WIDTHS), len(KERNEL_SIZES), len(ACTIVATIONS)) * NUM_LAYERS

    # Optional: the names of the decisions and of their choices, which descriptions and drawings show.
    decision_names = tuple(
        f"{name} {layer}" for layer in range(1, NUM_LAYERS + 1) for name in ("width", "kernel size", "activation")
    )
    choice_names = (WIDTHS, KERNEL_SIZES, tuple(activation.__name__ for activation in ACTIVATIONS)) * NUM_LAYERS

    def build(
        self, architecture: Architecture, settings: NetworkSettings, *, num_classes: int, image_shape: tuple[int, int, int]
    ) -> nn.Module:
        """Return the network that ``architecture`` describes."""
        channels = image_shape[0]
        layers: list[nn.Module] = []
        for start in range(0, self.num_decisions, 3):
            width, kernel_size, activation = architecture.decisions[start : start + 3]
            layers.append(nn.Conv2d(channels, WIDTHS[width], KERNEL_SIZES[kernel_size], padding="same", bias=False))
            channels = WIDTHS[width]
            layers += [nn.BatchNorm2d(channels), ACTIVATIONS[activation]()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def main(num_children: int = 10, num_pretraining_steps: int = 500) -> None:
    """Pretrain an embedding, evaluate random architectures, and print the best one.

    Args:
        num_children: number of architectures to evaluate.
        num_pretraining_steps: optimizer steps of the embedding.
    """
    search_space = WidthsAndKernels()

    # Pretrain the embedding. It does not depend on the data set. `nases pretrain` also saves a quality report.
    embedding, _ = pretrain(search_space, PretrainSettings(num_steps=num_pretraining_steps), seed=0)
    report = quality_report(embedding, search_space, seed=0)
    print(f"reconstruction accuracy {report.reconstruction_accuracy:.0%}, by chance {report.chance_accuracy:.0%}")

    # Search. All environments that train children accept a search space.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "widths_and_kernels.safetensors"
        save_embedding(embedding, file)
        env = gymnasium.make(
            "NASES-Digits-v0", search_space=search_space, embedding=str(file), preset="cpu", render_mode="ansi"
        )
    env.reset(seed=0)
    env.action_space.seed(0)
    best_reward = 0.0
    for _ in range(num_children):
        _, reward, _, _, info = env.step(env.action_space.sample())
        accuracy = f"validation accuracy {info['valid_accuracy']:.2%}"
        print(f"reward {reward:.4f}, {accuracy}, {info['num_params']:,} parameters: {info['genotype']}")
        if float(reward) > best_reward:
            best_reward, best_description = float(reward), env.render()
    print(f"\nbest of {num_children}: {best_description}")
    env.close()


if __name__ == "__main__":
    main()
