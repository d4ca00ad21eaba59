"""Cells as pictures and as text: the same for ``render``, TensorBoard and files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from numpy.typing import NDArray

from nases_env.errors import InputError
from nases_env.files import write_atomically
from nases_env.search_spaces import Architecture, SearchSpace
from nases_env.search_spaces.graph import CellGraph

# Okabe and Ito's palette, which colour-blind readers can tell apart; operators take its colours in the order of first use.
OPERATOR_COLOURS = {
    "identity": "#bbbbbb",
    "sep_conv_3x3": "#56b4e9",
    "sep_conv_5x5": "#0072b2",
    "avg_pool_3x3": "#f0e442",
    "max_pool_3x3": "#e69f00",
}
