"""The map between a search space and its embedding space: the paper's simulator, decoder and controller."""

from nases_env.embedding.autoencoder import DecisionDecoder, Decoder, Embedding, NumberDecoder, Simulator
from nases_env.embedding.metrics import QualityReport, quality_report, report_table
from nases_env.embedding.pretraining import PRESETS, PretrainSettings, pretrain
from nases_env.embedding.serialization import load_embedding, save_embedding

__all__ = [
    "PRESETS",
    "DecisionDecoder",
    "Decoder",
    "Embedding",
    "NumberDecoder",
    "PretrainSettings",
    "QualityReport",
    "Simulator",
    "load_embedding",
    "pretrain",
    "quality_report",
    "report_table",
    "save_embedding",
]
