"""Saving, loading and exporting trained networks."""

from nases_env.model_io.export import export_model
from nases_env.model_io.export_int8 import export_int8
from nases_env.model_io.model import TrainedModel
from nases_env.model_io.serialization import genotype_record, load_model, save_model, write_genotype

__all__ = ["TrainedModel", "export_int8", "export_model", "genotype_record", "load_model", "save_model", "write_genotype"]
