"""The final phase: the best architecture of a search, trained at length on all training images and tested once."""

from nases_env.final.folder import FinalFolder
from nases_env.final.result import FinalResult
from nases_env.final.training import FinalTraining

__all__ = ["FinalFolder", "FinalResult", "FinalTraining"]
