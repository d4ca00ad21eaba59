"""Trained networks to take away: on disk, in Python, as ONNX and as exported programs."""

from nases_env.models.export import export_model
from nases_env.models.files import genotype_record, load_model, save_model, write_genotype
from nases_env.models.model import TrainedModel

__all__ = ["TrainedModel", "export_model", "genotype_record", "load_model", "save_model", "write_genotype"]
