"""The search space of NAS-Bench-201: one cell of six edges, each with one of five operators (Dong and Yang, 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from nases_env.networks.nasbench201 import OPERATORS
from nases_env.search_spaces.six_edge_cell import SixEdgeCell


@dataclass(frozen=True)
class NasBench201(SixEdgeCell):
    """The search space of NAS-Bench-201, m = 6: the operators of the edges 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2.

    Node 0 is the input of the cell; nodes 1, 2 and 3 add their edges, and node 3 is the output. Choice ``c`` is the operator
    ``operators[c]``. A cell has the same key and the same genotype for every order of the operators.

    Each of the 5^6 = 15,625 rows of the table has its own key. Cells that differ only in the names of their nodes, or in
    unused edges, were trained separately with different results, so they have different keys.

    A genotype is ``{"cell": string}`` in the notation of NAS-Bench-201: an operator and its source for each edge, as in
    ``|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|``.

    Attributes:
        operators: the five operators in the order of their choices. In the natural order the middle choices are the
            convolutions, which favors agents that prefer middle choices; permute the operators to compare agents.

    Raises:
        InputError: if ``operators`` is not a permutation of the five operators.
    """

    name = "nasbench201"
    natural_operators = OPERATORS

    operators: tuple[str, ...] = OPERATORS  # type: ignore[misc]  # as in the base class
