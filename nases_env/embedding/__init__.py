"""Embeddings of search spaces: the paper's simulator, decoder and controller, their pretraining and quality metrics."""

from nases_env.embedding.autoencoder import CategoricalDecoder, Decoder, Embedding, RegressionDecoder, Simulator
from nases_env.embedding.metrics import QualityReport, quality_report, report_table
from nases_env.embedding.pretraining import PRESETS, PretrainSettings, pretrain
from nases_env.embedding.serialization import load_embedding, save_embedding

__all__ = [
    "PRESETS",
    "CategoricalDecoder",
    "Decoder",
    "Embedding",
    "PretrainSettings",
    "QualityReport",
    "RegressionDecoder",
    "Simulator",
    "load_embedding",
    "pretrain",
    "quality_report",
    "report_table",
    "save_embedding",
]
