"""The child networks as plain torch modules."""

from nases_env.networks.costs import Costs, count_costs, count_file_bytes, count_flops, count_parameters
from nases_env.networks.enas_micro import Cell, EnasMicroNetwork, Node
from nases_env.networks.genotype import build_network
from nases_env.networks.nasbench201 import NasBench201Network
from nases_env.networks.operations import OPERATORS
from nases_env.networks.settings import NetworkSettings

__all__ = [
    "OPERATORS",
    "Cell",
    "Costs",
    "EnasMicroNetwork",
    "NasBench201Network",
    "NetworkSettings",
    "Node",
    "build_network",
    "count_costs",
    "count_file_bytes",
    "count_flops",
    "count_parameters",
]
