"""The micro search space of TransNAS-Bench-101 (Duan et al., 2021): one cell of six edges with four operators."""

from __future__ import annotations

from dataclasses import dataclass

from nases_env.networks.nasbench201 import TRANSNAS_OPERATORS
from nases_env.search_spaces.six_edge_cell import SixEdgeCell


@dataclass(frozen=True)
class TransNASMicro(SixEdgeCell):
    """The micro search space of TransNAS-Bench-101, m = 6: the operators of the edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2.

    The cell is that of NAS-Bench-201 without average pooling: node 0 is the input; nodes 1, 2 and 3 add their edges, and
    node 3 is the output. Choice ``c`` is the operator ``operators[c]``. A cell has the same key and the same genotype for
    every order of the operators. Each of the 4^6 = 4,096 rows of the table has its own key.

    A genotype is ``{"cell": string}`` in the notation of NAS-Bench-201: an operator and its source for each edge, as in
    ``|nor_conv_3x3~0|+|skip_connect~0|nor_conv_3x3~1|+|skip_connect~0|skip_connect~1|nor_conv_3x3~2|``.

    A network is that of NAS-Bench-201 with this cell, for image classification. It is not a network of TransNAS-Bench-101,
    whose stages and heads differ, so its accuracy is not the metric in the table.

    Attributes:
        operators: the four operators in the order of their choices. In the natural order the last choices are the
            convolutions; permute the operators to compare agents.

    Raises:
        InputError: if ``operators`` is not a permutation of the four operators.
    """

    name = "transnas_micro"
    natural_operators = TRANSNAS_OPERATORS

    operators: tuple[str, ...] = TRANSNAS_OPERATORS  # type: ignore[misc]  # as in the base class
