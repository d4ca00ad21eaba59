"""Pretraining of an embedding (paper, section 4.1): simulator and decoder are trained jointly as an autoencoder."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from tqdm import tqdm

from nases_env.embedding.autoencoder import CategoricalDecoder, Embedding, Loss
from nases_env.errors import InputError, shown
from nases_env.json_io import require_field_types
from nases_env.optimizers import Adam
from nases_env.search_spaces.base import SearchSpace
from nases_env.seeding import torch_generator

NUM_CALIBRATION_SAMPLES = 10_000
MAX_DEFAULT_EMBEDDING_SIZE = 20
FIRST_TEMPERATURE, LAST_TEMPERATURE = 1.0, 0.02  # of the calibration, in nats


Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class PretrainSettings:
    """Hyperparameters of pretraining. The built-in embeddings use the defaults; ``PRESETS`` also contains the paper's.

    Raises:
        InputError: if a value has the wrong type or is out of range, or calibration is combined with the loss
            ``least_squares``.
    """

    embedding_size: int | None = field(
        default=None,
        metadata={"help": "Dimension n of the embedding. Default: the number of decisions, at most 20."},
    )
    hidden_size: int = field(default=128, metadata={"help": "Hidden size of both LSTMs."})
    loss: Loss = field(
        default="cross_entropy",
        metadata={"help": "cross_entropy: classify decisions. least_squares: regress numbers, as in the paper."},
    )
    num_steps: int = field(default=3000, metadata={"help": "Optimization steps (Adam)."})
    batch_size: int = field(default=128, metadata={"help": "Uniform vectors per step; each step draws new ones."})
    learning_rate: float = field(default=2e-2, metadata={"help": "Initial learning rate of Adam."})
    schedule: Schedule = field(default="cosine", metadata={"help": "cosine: anneal the learning rate to 0 with a cosine."})
    standardize: bool = field(
        default=True,
        metadata={"help": "Standardize embeddings over the batch during training; trained embeddings always are."},
    )
    noise_std: float = field(
        default=0.1, metadata={"help": "Standard deviation of the Gaussian noise added to the decoder's input in training."}
    )
    num_calibration_rounds: int = field(
        default=20,
        metadata={"help": "Rounds of bias calibration after training, which makes decoded decisions uniform. 0: off."},
    )

    def __post_init__(self) -> None:
        for name, choices in (("loss", get_args(Loss)), ("schedule", get_args(Schedule))):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, not {shown(getattr(self, name))}")
        try:
            require_field_types(PretrainSettings, vars(self), allow_infinity=True)
        except ValueError as error:
            raise InputError(error) from None
        minimums: dict[str, float] = {
            "embedding_size": 1,
            "hidden_size": 1,
            "num_steps": 1,
            "batch_size": 2,
            "noise_std": 0,
            "num_calibration_rounds": 0,
        }
        for name, minimum in minimums.items():
            value = getattr(self, name)
            if value is not None and not minimum <= value < math.inf:
                raise InputError(f"{name} must be a finite number of at least {minimum}, not {value}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate must be positive, not {self.learning_rate}")
        if self.loss == "least_squares" and self.num_calibration_rounds:
            raise InputError("calibration needs the loss cross_entropy; set num_calibration_rounds to 0 for least_squares")

    def embedding_size_for(self, search_space: SearchSpace) -> int:
        """Return ``embedding_size`` if it is set; otherwise min(m, 20), where m is the number of decisions."""
        if self.embedding_size is not None:
            return self.embedding_size
        return min(search_space.num_decisions, MAX_DEFAULT_EMBEDDING_SIZE)


PRESETS = {
    "default": PretrainSettings(),
    "paper": PretrainSettings(
        loss="least_squares",
        learning_rate=1e-5,
        schedule="constant",
        standardize=False,
        noise_std=0.0,
        num_calibration_rounds=0,
    ),
}
"""The built-in embeddings use ``default``; ``paper`` is section 4.1, which omits batch size, steps and sizes."""


def pretrain(
    search_space: SearchSpace, settings: PretrainSettings, seed: int, *, progress: bool = False
) -> tuple[Embedding, list[float]]:
    """Train a simulator and a decoder on uniform vectors.

    The result depends only on the arguments and the number of torch threads. The embedding is always standardized. If
    ``settings.standardize`` is off, mean and standard deviation are measured after training and folded into the decoder,
    which leaves the reconstructions unchanged.

    Args:
        search_space: the search space to embed.
        settings: the hyperparameters.
        seed: seed of the initial weights and of all random draws.
        progress: whether to show a progress bar on standard error.

    Returns:
        The frozen embedding and the reconstruction loss of every step.

    Raises:
        InputError: if the training diverges.

    Examples:
        >>> embedding, losses = pretrain(get_search_space("enas_micro"), PRESETS["default"], seed=0)
    """
    embedding = Embedding(
        search_space,
        embedding_size=settings.embedding_size_for(search_space),
        hidden_size=settings.hidden_size,
        loss=settings.loss,
        seed=seed,
    )
    simulator, decoder = embedding.simulator, embedding.decoder
    generator = torch_generator(seed, "pretraining")
    shape = settings.batch_size, embedding.embedding_size
    optimizer = Adam(embedding.parameters(), lr=settings.learning_rate)
    history = []
    for step in tqdm(range(settings.num_steps), desc="pretraining", unit="step", disable=not progress):
        if settings.schedule == "cosine":
            optimizer.param_groups[0]["lr"] = (
                settings.learning_rate * (1 + math.cos(math.pi * step / settings.num_steps)) / 2
            )
        vectors = torch.rand(settings.batch_size, embedding.num_decisions, generator=generator)
        embeddings = simulator.encode_raw(vectors)
        if settings.standardize:
            embeddings = F.batch_norm(embeddings, None, None, training=True)
        embeddings = embeddings + settings.noise_std * torch.randn(shape, generator=generator)
        loss = decoder.loss(embeddings, vectors)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        history.append(loss.item())
        if not math.isfinite(history[-1]):
            raise InputError(f"pretraining diverged at step {step}; use a learning_rate below {settings.learning_rate}")
    optimizer.zero_grad()
    simulator.fit_standardization(generator)
    if not settings.standardize:
        decoder.fold_standardization(simulator.mean, simulator.std)
    if settings.num_calibration_rounds:
        assert isinstance(decoder, CategoricalDecoder)
        calibrate(decoder, embedding.embedding_size, settings.num_calibration_rounds, generator)
    return embedding.requires_grad_(False), history


@torch.no_grad()
def calibrate(decoder: CategoricalDecoder, embedding_size: int, num_rounds: int, generator: torch.Generator) -> None:
    """Adjust the decoder's biases until standard-normal embeddings decode to every choice of a decision equally often.

    Assigning embeddings to choices with equal shares and the highest total logit is an optimal-transport problem. It is
    solved by Sinkhorn iterations on the biases (Cuturi, 2013), annealing the temperature until the softmax is nearly the
    argmax.

    Args:
        decoder: modified in place.
        embedding_size: n.
        num_rounds: number of Sinkhorn iterations.
        generator: draws the embeddings.
    """
    logits = decoder(torch.randn(NUM_CALIBRATION_SAMPLES, embedding_size, generator=generator))
    for temperature in torch.logspace(math.log10(FIRST_TEMPERATURE), math.log10(LAST_TEMPERATURE), num_rounds).tolist():
        shares = (logits / temperature).softmax(dim=2).mean(dim=0)
        surplus = (shares * decoder.sizes[:, None]).clamp_min(1e-30).log()
        change = (temperature * surplus).masked_fill(~decoder.choices, 0.0)
        decoder.bias.sub_(change)
        logits -= change
