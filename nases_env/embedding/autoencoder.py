"""The three functions of the paper (section 3.2): architecture simulator, architecture decoder and controller."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nases_env.errors import InputError
from nases_env.search_spaces.base import SearchSpace
from nases_env.seeding import seeded_torch, torch_generator

Loss = Literal["cross_entropy", "least_squares"]

NUM_STATISTICS_VECTORS = 10_000
"""How many uniform vectors the mean and deviation of a simulator's outputs are measured on."""


class _LSTM(nn.LSTM):
    """An LSTM that starts by remembering: the biases of its forget gate are 1 (Jozefowicz et al., 2015)."""

    weight_ih_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.bias_ih_l0[self.hidden_size : 2 * self.hidden_size] = 1.0
            self.bias_hh_l0[self.hidden_size : 2 * self.hidden_size] = 0.0


class Simulator(nn.Module):
    """The architecture simulator s_v, an LSTM encoder from vectors to embeddings; trainable, it is the controller g_k.

    The LSTM (one layer) reads ``decisions_per_timestep`` numbers at a time; a linear head projects its last hidden state. The
    outputs are standardised by a mean and a deviation that are buffers, set once by ``freeze_statistics``: batch
    normalisation without affine parameters and always in evaluation mode, so that a unit in embedding space keeps its
    meaning while a controller is fine-tuned.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, num_decisions: int, decisions_per_timestep: int, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.num_decisions = num_decisions
        self.num_steps = math.ceil(num_decisions / decisions_per_timestep)
        self.decisions_per_timestep = decisions_per_timestep
        self.lstm = _LSTM(decisions_per_timestep, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, embedding_size)
        self.register_buffer("mean", torch.zeros(embedding_size))
        self.register_buffer("deviation", torch.ones(embedding_size))

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (B, m) in [0, 1) to embeddings (B, n), standardised over uniform vectors once statistics are frozen."""
        return (self.raw(vectors) - self.mean) / self.deviation

    def raw(self, vectors: Tensor) -> Tensor:
        """The embeddings (B, n) of vectors (B, m) before standardisation."""
        centred = (vectors - 0.5) * math.sqrt(12)  # zero mean and unit deviation for uniform numbers
        padded = F.pad(centred, (0, self.num_steps * self.decisions_per_timestep - self.num_decisions))
        _, (hidden, _) = self.lstm(padded.reshape(-1, self.num_steps, self.decisions_per_timestep))
        embeddings: Tensor = self.head(hidden[0])
        return embeddings

    @torch.no_grad()
    def freeze_statistics(self, generator: torch.Generator) -> None:
        """Set ``mean`` and ``deviation`` so that embeddings of uniform vectors have mean 0 and deviation 1."""
        raw = self.raw(torch.rand(NUM_STATISTICS_VECTORS, self.num_decisions, generator=generator))
        self.mean.copy_(raw.mean(dim=0))
        self.deviation.copy_(raw.std(dim=0).clamp_min(1e-6))


class Decoder(nn.Module, ABC):
    """The architecture decoder f_θ: an LSTM of the simulator's size that reads the embedding at every time step.

    At each step a shared linear head gives ``outputs_per_decision`` numbers for each of ``decisions_per_timestep`` decisions;
    every decision has biases of its own.
    """

    sizes: Tensor

    def __init__(
        self,
        decision_sizes: tuple[int, ...],
        decisions_per_timestep: int,
        embedding_size: int,
        hidden_size: int,
        outputs_per_decision: int,
    ) -> None:
        super().__init__()
        self.num_decisions = len(decision_sizes)
        self.num_steps = math.ceil(self.num_decisions / decisions_per_timestep)
        self.outputs_per_decision = outputs_per_decision
        self.lstm = _LSTM(embedding_size, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, decisions_per_timestep * outputs_per_decision, bias=False)
        self.bias = nn.Parameter(torch.zeros(self.num_decisions, outputs_per_decision))
        self.register_buffer("sizes", torch.tensor(decision_sizes), persistent=False)

    def outputs(self, embeddings: Tensor) -> Tensor:
        """Embeddings (B, n) to (B, m, outputs_per_decision)."""
        hidden, _ = self.lstm(embeddings.unsqueeze(1).expand(-1, self.num_steps, -1))
        outputs: Tensor = self.head(hidden).unflatten(2, (-1, self.outputs_per_decision)).flatten(1, 2)
        return outputs[:, : self.num_decisions] + self.bias

    @torch.no_grad()
    def absorb(self, mean: Tensor, deviation: Tensor) -> None:
        """Change the input weights so that an embedding z decodes as ``z * deviation + mean`` did; both have shape (n,)."""
        self.lstm.bias_ih_l0 += self.lstm.weight_ih_l0 @ mean
        self.lstm.weight_ih_l0 *= deviation

    @abstractmethod
    def loss(self, embeddings: Tensor, vectors: Tensor) -> Tensor:
        """How badly embeddings (B, n) are decoded to vectors (B, m): a scalar, the mean over batch and decisions."""

    @abstractmethod
    def vector(self, embeddings: Tensor) -> Tensor:
        """Embeddings (B, n) to vectors (B, m) in [0, 1)."""


class DecisionDecoder(Decoder):
    """A decoder that predicts each decision: logits over its choices, trained with cross-entropy.

    The paper's decoder predicts numbers with least squares, which regresses to the mean whatever the embedding cannot carry:
    middle choices crowd out the others. A distribution over choices has no middle.
    """

    choices: Tensor

    def __init__(
        self, decision_sizes: tuple[int, ...], decisions_per_timestep: int, embedding_size: int, hidden_size: int
    ) -> None:
        super().__init__(decision_sizes, decisions_per_timestep, embedding_size, hidden_size, max(decision_sizes))
        self.register_buffer("choices", torch.arange(self.outputs_per_decision) < self.sizes[:, None], persistent=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings (B, n) to logits (B, m, choices of the largest decision); -inf where a decision has no such choice."""
        return self.outputs(embeddings).masked_fill(~self.choices, -math.inf)

    def loss(self, embeddings: Tensor, vectors: Tensor) -> Tensor:
        """Cross-entropy in nats of the decisions that ``vectors`` make."""
        decisions = (vectors * self.sizes).long().minimum(self.sizes - 1)
        logits: Tensor = self(embeddings)
        return F.cross_entropy(logits.flatten(0, 1), decisions.flatten())

    def vector(self, embeddings: Tensor) -> Tensor:
        """The middles of the bins of the likeliest choices."""
        logits: Tensor = self(embeddings)
        return ((logits.argmax(dim=2).double() + 0.5) / self.sizes).float()


class NumberDecoder(Decoder):
    """The paper's decoder: it predicts the m numbers themselves, trained with least squares (section 4.1)."""

    def __init__(
        self, decision_sizes: tuple[int, ...], decisions_per_timestep: int, embedding_size: int, hidden_size: int
    ) -> None:
        super().__init__(decision_sizes, decisions_per_timestep, embedding_size, hidden_size, outputs_per_decision=1)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Embeddings (B, n) to numbers (B, m), not clipped."""
        return self.outputs(embeddings).squeeze(2)

    def loss(self, embeddings: Tensor, vectors: Tensor) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(self(embeddings), vectors)

    def vector(self, embeddings: Tensor) -> Tensor:
        """The predicted numbers, clipped into [0, 1)."""
        numbers: Tensor = self(embeddings)
        return numbers.clamp(0.0, float(np.nextafter(np.float32(1), np.float32(0))))


class Embedding(nn.Module):
    """Simulator and decoder of one search space: the map between its vectors and an n-dimensional embedding space."""

    def __init__(
        self,
        search_space: SearchSpace,
        *,
        embedding_size: int,
        hidden_size: int,
        loss: Loss,
        seed: int = 0,
    ) -> None:
        """Freshly initialised; ``pretrain`` trains it, ``load_embedding`` reads a trained one.

        Args:
            search_space: gives the decisions and how many of them make a time step.
            embedding_size: n, at least 1.
            hidden_size: of both LSTMs, at least 1.
            loss: ``cross_entropy``: the decoder predicts decisions; ``least_squares``: numbers, as in the paper.
            seed: of the initial weights.

        Raises:
            InputError: if a size is less than 1, or ``loss`` is neither of the two.
        """
        super().__init__()
        if embedding_size < 1 or hidden_size < 1:
            raise InputError(f"embedding size and hidden size must be at least 1, not {embedding_size} and {hidden_size}")
        decoders: dict[str, type[DecisionDecoder] | type[NumberDecoder]] = {
            "cross_entropy": DecisionDecoder,
            "least_squares": NumberDecoder,
        }
        if loss not in decoders:
            raise InputError(f"the decoder's loss is cross_entropy or least_squares, not {loss!r}")
        self.search_space_name = search_space.name
        self.decision_sizes = search_space.decision_sizes
        self.decisions_per_timestep = search_space.decisions_per_timestep
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.loss: Loss = loss
        with seeded_torch(seed, "embedding", "weights"):
            self.simulator = Simulator(self.num_decisions, self.decisions_per_timestep, embedding_size, hidden_size)
            self.decoder = decoders[loss](self.decision_sizes, self.decisions_per_timestep, embedding_size, hidden_size)

    @property
    def num_decisions(self) -> int:
        """m: the number of decisions of the search space."""
        return len(self.decision_sizes)

    def encode(self, vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """The simulator's embedding, shape (n,) or (B, n), of one vector (m,) or several (B, m) in [0, 1).

        Raises:
            InputError: if the shape is another or a number is not finite.
        """
        return self._map(self.simulator, vectors, self.num_decisions, "vector")

    def decode(self, embeddings: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """The vector in [0, 1), shape (m,) or (B, m), of one embedding (n,) or several (B, n).

        Raises:
            InputError: if the shape is another or a number is not finite.
        """
        return self._map(self.decoder.vector, embeddings, self.embedding_size, "embedding")

    def _map(
        self, function: Callable[[Tensor], Tensor], values: NDArray[np.floating[Any]], size: int, what: str
    ) -> NDArray[np.float32]:
        values = np.array(values, dtype=np.float32, order="C")  # a copy, which torch may share whatever was given
        if values.ndim not in (1, 2) or values.shape[-1] != size:
            raise InputError(f"expected one {what} of shape ({size},) or several of (B, {size}), not {values.shape}")
        if not np.isfinite(values).all():
            raise InputError(f"expected a finite {what}; this one holds NaN or infinity")
        with torch.no_grad():
            results: NDArray[np.float32] = function(torch.from_numpy(values).reshape(-1, size)).numpy()
        return results.reshape(*values.shape[:-1], results.shape[-1])

    def controller(self, initialisation: Literal["simulator", "random"] = "simulator", seed: int = 0) -> Simulator:
        """A trainable controller g_k, independent of this embedding.

        Args:
            initialisation: ``simulator`` starts with the simulator's weights, as in the paper; ``random`` with fresh ones,
                and statistics measured anew on uniform vectors, so that both begin at the same scale.
            seed: of the random weights.

        Raises:
            InputError: if ``initialisation`` is neither of the two.
        """
        controller = copy.deepcopy(self.simulator)
        if initialisation == "random":
            with seeded_torch(seed, "controller", "weights"):
                controller.lstm.reset_parameters()
                controller.head.reset_parameters()
            controller.freeze_statistics(torch_generator(seed, "controller", "statistics"))
        elif initialisation != "simulator":
            raise InputError(f"a controller's initialisation is simulator or random, not {initialisation!r}")
        return controller.requires_grad_(True)
