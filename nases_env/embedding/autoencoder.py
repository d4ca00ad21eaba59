"""The autoencoder of the paper (section 3.2): architecture simulator, architecture decoder and controller."""

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

NUM_STATISTICS_VECTORS = 10_000  # uniform vectors from which mean and standard deviation of embeddings are estimated


class _LSTM(nn.LSTM):
    """An LSTM whose forget-gate biases are initialized to 1 (Jozefowicz et al., 2015)."""

    weight_ih_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.bias_ih_l0[self.hidden_size : 2 * self.hidden_size] = 1.0
            self.bias_hh_l0[self.hidden_size : 2 * self.hidden_size] = 0.0


class Simulator(nn.Module):
    """The architecture simulator s_v: an LSTM encoder from vectors to embeddings. A trainable copy is the controller g_k.

    The LSTM has one layer and reads ``decisions_per_timestep`` numbers per time step; a linear head projects its last
    hidden state. The output is standardized with the buffers ``mean`` and ``std``, which ``fit_standardization`` sets once.
    This is batch normalization without affine parameters, always in evaluation mode: the scale of the embedding space stays
    fixed while a controller is fine-tuned.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_decisions: int, decisions_per_timestep: int, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.num_decisions = num_decisions
        self.num_steps = math.ceil(num_decisions / decisions_per_timestep)
        self.decisions_per_timestep = decisions_per_timestep
        self.lstm = _LSTM(decisions_per_timestep, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, embedding_size)
        self.register_buffer("mean", torch.zeros(embedding_size))
        self.register_buffer("std", torch.ones(embedding_size))

    def forward(self, vectors: Tensor) -> Tensor:
        """Encode ``vectors`` (B, m) in [0, 1) to standardized embeddings (B, n)."""
        return (self.encode_raw(vectors) - self.mean) / self.std

    def encode_raw(self, vectors: Tensor) -> Tensor:
        """Encode ``vectors`` (B, m) in [0, 1) to embeddings (B, n) without standardization."""
        centered = (vectors - 0.5) * math.sqrt(12)  # zero mean and unit variance for uniform numbers
        padded = F.pad(centered, (0, self.num_steps * self.decisions_per_timestep - self.num_decisions))
        _, (hidden, _) = self.lstm(padded.reshape(-1, self.num_steps, self.decisions_per_timestep))
        embeddings: Tensor = self.head(hidden[0])
        return embeddings

    @torch.no_grad()
    def fit_standardization(self, generator: torch.Generator) -> None:
        """Set ``mean`` and ``std`` so that embeddings of uniform vectors, drawn from ``generator``, are standardized."""
        raw = self.encode_raw(torch.rand(NUM_STATISTICS_VECTORS, self.num_decisions, generator=generator))
        self.mean.copy_(raw.mean(dim=0))
        self.std.copy_(raw.std(dim=0).clamp_min(1e-6))


class Decoder(nn.Module, ABC):
    """The architecture decoder f_θ: an LSTM that reads the embedding at every time step.

    At each step a shared linear head computes ``outputs_per_decision`` numbers for each of ``decisions_per_timestep``
    decisions. Every decision has its own biases.
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
        """Map ``embeddings`` (B, n) to outputs (B, m, outputs_per_decision)."""
        hidden, _ = self.lstm(embeddings.unsqueeze(1).expand(-1, self.num_steps, -1))
        outputs: Tensor = self.head(hidden).unflatten(2, (-1, self.outputs_per_decision)).flatten(1, 2)
        return outputs[:, : self.num_decisions] + self.bias

    @torch.no_grad()
    def fold_standardization(self, mean: Tensor, std: Tensor) -> None:
        """Fold ``z * std + mean`` into the input weights, so that the decoder reads standardized embeddings z.

        Args:
            mean: mean of the embeddings, shape (n,).
            std: standard deviation of the embeddings, shape (n,).
        """
        self.lstm.bias_ih_l0 += self.lstm.weight_ih_l0 @ mean
        self.lstm.weight_ih_l0 *= std

    @abstractmethod
    def loss(self, embeddings: Tensor, vectors: Tensor) -> Tensor:
        """Return the reconstruction loss, a scalar: the mean over the batch and the decisions.

        Args:
            embeddings: shape (B, n).
            vectors: the targets in [0, 1), shape (B, m).
        """

    @abstractmethod
    def predict(self, embeddings: Tensor) -> Tensor:
        """Decode ``embeddings`` (B, n) to vectors (B, m) in [0, 1)."""


class CategoricalDecoder(Decoder):
    """A decoder that outputs logits over the choices of each decision, trained with cross-entropy.

    The paper's decoder regresses numbers with least squares. If the embedding lacks information, regression predicts the
    mean, which overrepresents middle choices. A categorical distribution has no such bias.
    """

    choices: Tensor

    def __init__(
        self, decision_sizes: tuple[int, ...], decisions_per_timestep: int, embedding_size: int, hidden_size: int
    ) -> None:
        super().__init__(decision_sizes, decisions_per_timestep, embedding_size, hidden_size, max(decision_sizes))
        self.register_buffer("choices", torch.arange(self.outputs_per_decision) < self.sizes[:, None], persistent=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map ``embeddings`` (B, n) to logits (B, m, size of the largest decision); -inf for choices that do not exist."""
        return self.outputs(embeddings).masked_fill(~self.choices, -math.inf)

    def loss(self, embeddings: Tensor, vectors: Tensor) -> Tensor:
        """Return the cross-entropy, in nats, of the decisions that ``vectors`` encode."""
        decisions = (vectors * self.sizes).long().minimum(self.sizes - 1)
        logits: Tensor = self(embeddings)
        return F.cross_entropy(logits.flatten(0, 1), decisions.flatten())

    def predict(self, embeddings: Tensor) -> Tensor:
        """Return the bin centers of the most probable choices."""
        logits: Tensor = self(embeddings)
        return ((logits.argmax(dim=2).double() + 0.5) / self.sizes).float()


class RegressionDecoder(Decoder):
    """The paper's decoder: it predicts the m numbers of the vector, trained with least squares (section 4.1)."""

    def __init__(
        self, decision_sizes: tuple[int, ...], decisions_per_timestep: int, embedding_size: int, hidden_size: int
    ) -> None:
        super().__init__(decision_sizes, decisions_per_timestep, embedding_size, hidden_size, outputs_per_decision=1)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map ``embeddings`` (B, n) to numbers (B, m), not clipped."""
        return self.outputs(embeddings).squeeze(2)

    def loss(self, embeddings: Tensor, vectors: Tensor) -> Tensor:
        """Return the mean squared error."""
        return F.mse_loss(self(embeddings), vectors)

    def predict(self, embeddings: Tensor) -> Tensor:
        """Return the predicted numbers, clipped to [0, 1)."""
        numbers: Tensor = self(embeddings)
        return numbers.clamp(0.0, float(np.nextafter(np.float32(1), np.float32(0))))


class Embedding(nn.Module):
    """Simulator and decoder of one search space: maps its vectors to an n-dimensional embedding space and back."""

    def __init__(
        self,
        search_space: SearchSpace,
        *,
        embedding_size: int,
        hidden_size: int,
        loss: Loss,
        seed: int = 0,
    ) -> None:
        """Initialize an untrained embedding; see ``pretrain`` and ``load_embedding`` for trained ones.

        Args:
            search_space: defines the decisions and the number of decisions per time step.
            embedding_size: n, at least 1.
            hidden_size: hidden size of both LSTMs, at least 1.
            loss: ``cross_entropy`` for a ``CategoricalDecoder``; ``least_squares`` for a ``RegressionDecoder``, as in the
                paper.
            seed: seed of the initial weights.

        Raises:
            InputError: if a size is less than 1 or ``loss`` is unknown.
        """
        super().__init__()
        if embedding_size < 1 or hidden_size < 1:
            raise InputError(f"embedding size and hidden size must be at least 1, not {embedding_size} and {hidden_size}")
        decoders: dict[str, type[CategoricalDecoder] | type[RegressionDecoder]] = {
            "cross_entropy": CategoricalDecoder,
            "least_squares": RegressionDecoder,
        }
        if loss not in decoders:
            raise InputError(f"the decoder's loss must be cross_entropy or least_squares, not {loss!r}")
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
        """m, the number of decisions of the search space."""
        return len(self.decision_sizes)

    def encode(self, vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Encode ``vectors`` in [0, 1), shape (m,) or (B, m), to embeddings, shape (n,) or (B, n).

        Raises:
            InputError: if the shape is wrong or a number is not finite.
        """
        return self._map(self.simulator, vectors, self.num_decisions, "vector")

    def decode(self, embeddings: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Decode ``embeddings``, shape (n,) or (B, n), to vectors in [0, 1), shape (m,) or (B, m).

        Raises:
            InputError: if the shape is wrong or a number is not finite.
        """
        return self._map(self.decoder.predict, embeddings, self.embedding_size, "embedding")

    def _map(
        self, function: Callable[[Tensor], Tensor], values: NDArray[np.floating[Any]], size: int, kind: str
    ) -> NDArray[np.float32]:
        values = np.array(values, dtype=np.float32, order="C")  # torch cannot share read-only or reversed arrays
        if values.ndim not in (1, 2) or values.shape[-1] != size:
            raise InputError(f"expected one {kind} of shape ({size},) or several of shape (B, {size}), not {values.shape}")
        if not np.isfinite(values).all():
            raise InputError(f"expected a finite {kind}, but it contains NaN or infinity")
        with torch.no_grad():
            results: NDArray[np.float32] = function(torch.from_numpy(values).reshape(-1, size)).numpy()
        return results.reshape(*values.shape[:-1], results.shape[-1])

    def controller(self, init: Literal["simulator", "random"] = "simulator", seed: int = 0) -> Simulator:
        """Return a trainable controller g_k that shares no memory with this embedding.

        Args:
            init: ``simulator`` starts from the simulator's weights, as in the paper; ``random`` starts from random weights
                and measures mean and standard deviation again, so that both start at the same scale.
            seed: seed of the random weights.

        Raises:
            InputError: if ``init`` is unknown.
        """
        controller = copy.deepcopy(self.simulator)
        if init == "random":
            with seeded_torch(seed, "controller", "weights"):
                controller.lstm.reset_parameters()
                controller.head.reset_parameters()
            controller.fit_standardization(torch_generator(seed, "controller", "statistics"))
        elif init != "simulator":
            raise InputError(f"init must be simulator or random, not {init!r}")
        return controller.requires_grad_(True)
