"""The first stage of the search (paper, section 4.1): simulator and decoder, trained together as an autoencoder."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from tqdm import tqdm

from nases_env.embedding.autoencoder import DecisionDecoder, Embedding, Loss
from nases_env.errors import InputError
from nases_env.search_spaces.base import SearchSpace
from nases_env.seeding import torch_generator

NUM_CALIBRATION_SAMPLES = 10_000
LARGEST_DEFAULT_SIZE = 20  # of an embedding
FIRST_TEMPERATURE, LAST_TEMPERATURE = 1.0, 0.02  # of the calibration, in nats


@dataclass(frozen=True)
class PretrainSettings:
    """How an embedding is trained. The defaults are this project's; ``PRESETS`` has the paper's as well."""

    embedding_size: int | None = field(
        default=None,
        metadata={"help": "n: numbers in an embedding; that of the presets is one a decision, but at most 20."},
    )
    hidden_size: int = field(default=128, metadata={"help": "Hidden size of both LSTMs."})
    loss: Loss = field(
        default="cross_entropy",
        metadata={"help": "cross_entropy: the decoder predicts decisions. least_squares: numbers, as in the paper."},
    )
    num_steps: int = field(default=3000, metadata={"help": "Optimisation steps (Adam)."})
    batch_size: int = field(default=128, metadata={"help": "Uniform vectors per step, never the same twice."})
    learning_rate: float = field(default=2e-2, metadata={"help": "Adam's learning rate, at its highest."})
    schedule: Literal["constant", "cosine"] = field(
        default="cosine", metadata={"help": "cosine: the learning rate falls to 0 along half a cosine."}
    )
    standardize: bool = field(
        default=True,
        metadata={"help": "Standardise embeddings over the batch while training; afterwards they are in any case."},
    )
    noise: float = field(
        default=0.1, metadata={"help": "Deviation of the Gaussian added to the embedding that the decoder learns from."}
    )
    num_calibration_rounds: int = field(
        default=20,
        metadata={"help": "Rounds of final adjustment of the decoder's biases towards uniform decisions; 0 is off."},
    )

    def __post_init__(self) -> None:
        """Refuse settings that cannot be trained with.

        Raises:
            InputError: if one is out of range, or two of them do not go together.
        """
        at_least: dict[str, float] = {
            "embedding_size": 1,
            "hidden_size": 1,
            "num_steps": 1,
            "batch_size": 2,
            "noise": 0,
            "num_calibration_rounds": 0,
        }
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise InputError(f"{name} must be at least {least}, not {value}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate must be positive, not {self.learning_rate}")
        if self.loss == "least_squares" and self.num_calibration_rounds:
            raise InputError("calibration is for the loss cross_entropy; set num_calibration_rounds to 0 for least_squares")

    def size_for(self, search_space: SearchSpace) -> int:
        """n, the size of an embedding of ``search_space``: the one that was given, else min(m, 20)."""
        return min(search_space.num_decisions, LARGEST_DEFAULT_SIZE) if self.embedding_size is None else self.embedding_size


PRESETS = {
    "default": PretrainSettings(),
    "paper": PretrainSettings(
        loss="least_squares",
        learning_rate=1e-5,
        schedule="constant",
        standardize=False,
        noise=0.0,
        num_calibration_rounds=0,
    ),
}
"""``default`` is what ships; ``paper`` is section 4.1, which leaves batch size, number of steps and sizes open."""


def pretrain(
    search_space: SearchSpace, settings: PretrainSettings, seed: int, *, progress: bool = False
) -> tuple[Embedding, list[float]]:
    """Train a simulator and a decoder on uniform vectors; the result depends on the arguments and torch's threads alone.

    Whether or not embeddings are standardised while training, those of the returned embedding are: without, the measured
    mean and deviation go into the simulator and, inversely, into the decoder's input weights, which leaves what the two
    compute together as it was.

    Args:
        search_space: whose decisions are embedded.
        settings: how.
        seed: of the initial weights and of everything drawn.
        progress: show a progress bar on standard error.

    Returns:
        The embedding, frozen, and the reconstruction loss of every step.

    Raises:
        InputError: if the training diverges.
    """
    embedding = Embedding(
        search_space,
        embedding_size=settings.size_for(search_space),
        hidden_size=settings.hidden_size,
        loss=settings.loss,
        seed=seed,
    )
    simulator, decoder = embedding.simulator, embedding.decoder
    generator = torch_generator(seed, "pretraining")
    shape = settings.batch_size, embedding.embedding_size
    optimizer = torch.optim.Adam(embedding.parameters(), lr=settings.learning_rate)
    history = []
    for step in tqdm(range(settings.num_steps), desc="pretraining", unit="step", disable=not progress):
        if settings.schedule == "cosine":
            optimizer.param_groups[0]["lr"] = (
                settings.learning_rate * (1 + math.cos(math.pi * step / settings.num_steps)) / 2
            )
        vectors = torch.rand(settings.batch_size, embedding.num_decisions, generator=generator)
        embeddings = simulator.raw(vectors)
        if settings.standardize:
            embeddings = F.batch_norm(embeddings, None, None, training=True)
        embeddings = embeddings + settings.noise * torch.randn(shape, generator=generator)
        loss = decoder.loss(embeddings, vectors)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        history.append(loss.item())
        if not math.isfinite(history[-1]):
            raise InputError(f"pretraining diverged at step {step}; give a learning_rate below {settings.learning_rate}")
    optimizer.zero_grad()
    simulator.freeze_statistics(generator)
    if not settings.standardize:
        decoder.absorb(simulator.mean, simulator.deviation)
    if settings.num_calibration_rounds:
        assert isinstance(decoder, DecisionDecoder)
        calibrate(decoder, embedding.embedding_size, settings.num_calibration_rounds, generator)
    return embedding.requires_grad_(False), history


@torch.no_grad()
def calibrate(decoder: DecisionDecoder, embedding_size: int, num_rounds: int, generator: torch.Generator) -> None:
    """Change the decoder's biases until normal embeddings decode to every choice of a decision equally often.

    To give every choice its share at the least loss in logits is optimal transport from embeddings to choices, solved by
    Sinkhorn's iteration on the biases (Cuturi, 2013) with a temperature that falls until the softmax is nearly the argmax.
    """
    logits = decoder(torch.randn(NUM_CALIBRATION_SAMPLES, embedding_size, generator=generator))
    for temperature in torch.logspace(math.log10(FIRST_TEMPERATURE), math.log10(LAST_TEMPERATURE), num_rounds).tolist():
        shares = (logits / temperature).softmax(dim=2).mean(dim=0)
        surplus = (shares * decoder.sizes[:, None]).clamp_min(1e-30).log()
        change = (temperature * surplus).masked_fill(~decoder.choices, 0.0)
        decoder.bias.sub_(change)
        logits -= change
