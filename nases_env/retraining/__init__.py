"""The final training: the best architecture of a search is trained to convergence on all training images and tested once."""

from nases_env.retraining.folder import FinalFolder
from nases_env.retraining.result import FinalResult
from nases_env.retraining.training import FinalTraining

__all__ = ["FinalFolder", "FinalResult", "FinalTraining"]
