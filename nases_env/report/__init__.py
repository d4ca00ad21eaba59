"""The report on searches: one HTML page without references to other files or to the network."""

from nases_env.report.data import Child, Curve, Design, Finalist, Latency, Numbers, Run, rank
from nases_env.report.page import render

__all__ = ["Child", "Curve", "Design", "Finalist", "Latency", "Numbers", "Run", "rank", "render"]
