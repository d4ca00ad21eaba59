"""Networks of the built-in search spaces from a JSON file, without any search code."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

from torch import nn

from nases_env.errors import InputError, did_you_mean, shown
from nases_env.networks.enas_micro import Cell, EnasMicroNetwork, Node
from nases_env.networks.enas_micro_sized import SIZE_CHOICES, Sizes, read_sizes
from nases_env.networks.nasbench201 import EDGES, TRANSNAS_OPERATORS, NasBench201Network
from nases_env.networks.nasbench201 import OPERATORS as NASBENCH201_OPERATORS
from nases_env.networks.operations import OPERATORS
from nases_env.networks.settings import NetworkSettings

NETWORK_KEYS = ("network", "num_classes", "image_shape")
"""Keys of ``genotype.json`` in addition to the search space and its genotype."""

CELLS = ("normal", "reduction")
NUM_NODES = 5  # B, in each cell of ENAS micro
NUM_CELL_INPUTS = 2  # the outputs of the two previous cells
_OPERATOR_BITS, _BRANCH_BITS = 4, 16  # in the code of a node
_NOT_PLACED = -1

SIX_EDGE_OPERATORS = {"nasbench201": NASBENCH201_OPERATORS, "transnas_micro": TRANSNAS_OPERATORS}
"""The operators of the search spaces of one cell of six edges, by name."""

_STRING = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
_STRING_PATTERN = re.compile(re.escape(_STRING).replace(r"\{\}", r"([^|~]*)"))


def build_network(
    genotype: Mapping[str, Any],
    *,
    network: NetworkSettings | None = None,
    num_classes: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> nn.Module:
    """Build the network of a ``genotype.json``, initialized from torch's default generator.

    It maps float32 images (N, channels, height, width) to logits (N, num_classes). The order of the nodes in a cell does not
    matter: the network equals the one that the search trained, so its weights can be loaded.

    Args:
        genotype: content of the file: ``search_space``, the keys of the genotype, and ``network``, ``num_classes`` and
            ``image_shape``. The ``best.json`` of a search lacks the last three; pass them as arguments.
        network: the size of the network; None uses the genotype's value.
        num_classes: length of the logits; None uses the genotype's value.
        image_shape: (channels, height, width) of the images; None uses the genotype's value.

    Raises:
        InputError: if it is not a genotype of a built-in search space, or a value is missing or out of range.
    """
    if not isinstance(genotype, Mapping):
        raise InputError(f"a genotype must be a JSON object, such as the content of genotype.json, not {shown(genotype)}")
    name = genotype.get("search_space")
    known = ["enas_micro", "enas_micro_sized", *SIX_EDGE_OPERATORS]
    if name not in known:
        raise InputError(f"cannot build a network of the search space {shown(name)}; known: {', '.join(known)}")
    given = {"network": network, "num_classes": num_classes, "image_shape": image_shape}
    values = {key: genotype.get(key) if value is None else value for key, value in given.items()}
    missing = [key for key in NETWORK_KEYS if values[key] is None]
    if missing:
        raise InputError(f"the genotype lacks {' and '.join(missing)}; pass {missing[0]}=... to build_network")
    cell_keys = {key: value for key, value in genotype.items() if key not in ("search_space", *NETWORK_KEYS)}
    settings, classes, shape = _settings(values["network"]), _integer(values["num_classes"]), _shape(values["image_shape"])
    if name in SIX_EDGE_OPERATORS:
        cell = read_six_edges(cell_keys, name, SIX_EDGE_OPERATORS[name])
        return NasBench201Network(cell, settings, num_classes=classes, image_shape=shape)
    skeleton = None
    if name == "enas_micro_sized":
        sizes, *cells = read_enas_micro_sized(cell_keys)
        skeleton = sizes.skeleton(settings)
    else:
        cells = [*read_enas_micro(cell_keys)]
    normal, reduction = map(canonical_cell, cells)
    return EnasMicroNetwork(normal, reduction, settings, num_classes=classes, image_shape=shape, skeleton=skeleton)


def _settings(network: Any) -> NetworkSettings:
    if isinstance(network, NetworkSettings):
        return network
    names = [setting.name for setting in dataclasses.fields(NetworkSettings)]
    if not isinstance(network, Mapping) or set(network) != set(names):
        raise InputError(f"the network of a genotype must be an object with {', '.join(names)}, not {shown(network)}")
    for name, value in network.items():
        kind = type(getattr(NetworkSettings, name))
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise InputError(f"the network of a genotype has the {name} {shown(value)}; it must be of type {kind.__name__}")
    return NetworkSettings(**network)


def _integer(num_classes: Any) -> int:
    if type(num_classes) is not int:
        raise InputError(f"num_classes is {shown(num_classes)}; it must be an integer")
    return num_classes


def _shape(image_shape: Any) -> tuple[int, int, int]:
    if not isinstance(image_shape, (list, tuple)) or [type(length) for length in image_shape] != [int] * 3:
        raise InputError(f"image_shape is {shown(image_shape)}; it must be (channels, height, width), all integers")
    channels, height, width = image_shape
    return channels, height, width


def read_enas_micro(genotype: Any) -> tuple[Cell, Cell]:
    """Return the normal and the reduction cell of a genotype of ENAS micro, with the nodes in the given order.

    Args:
        genotype: ``{"normal": [node, …], "reduction": [node, …]}`` with ``node = [[operator, input], [operator, input]]``.

    Raises:
        InputError: if it is not valid.
    """
    if not isinstance(genotype, Mapping) or set(genotype) != set(CELLS):
        raise InputError(
            f"a genotype of enas_micro must be a dict with the cells {' and '.join(CELLS)}, not {shown(genotype)}"
        )
    normal, reduction = (tuple(_read_nodes(name, genotype[name])) for name in CELLS)
    return normal, reduction


def read_enas_micro_sized(genotype: Any) -> tuple[Sizes, Cell, Cell]:
    """Return the sizes, the normal and the reduction cell of a genotype of ``enas_micro_sized``.

    Args:
        genotype: a genotype of ENAS micro with the additional keys of ``read_sizes``.

    Raises:
        InputError: if it is not valid.
    """
    keys = (*SIZE_CHOICES, *CELLS)
    if not isinstance(genotype, Mapping) or set(genotype) != set(keys):
        raise InputError(f"a genotype of enas_micro_sized must be a dict with {', '.join(keys)}, not {shown(genotype)}")
    normal, reduction = read_enas_micro({name: genotype[name] for name in CELLS})
    return read_sizes({name: genotype[name] for name in SIZE_CHOICES}), normal, reduction


def _read_nodes(name: str, nodes: Any) -> Iterator[Node]:
    if not isinstance(nodes, (list, tuple)) or len(nodes) != NUM_NODES:
        raise InputError(f"the {name} cell of a genotype is a list of {NUM_NODES} nodes, not {shown(nodes)}")
    for index, node in enumerate(nodes):
        if not isinstance(node, (list, tuple)) or len(node) != 2:
            raise InputError(
                f"node {index} of the {name} cell must be [[operator, input], [operator, input]], not {shown(node)}"
            )
        one, other = (_read_branch(name, index, branch) for branch in node)
        yield (*one, *other)


def _read_branch(name: str, index: int, branch: Any) -> tuple[int, int]:
    """Parse a branch into (input, operator)."""
    if not isinstance(branch, (list, tuple)) or len(branch) != 2:
        raise InputError(f"a branch of node {index} of the {name} cell must be [operator, input], not {shown(branch)}")
    operator, source = branch
    if operator not in OPERATORS:
        hint = did_you_mean(operator, OPERATORS) if isinstance(operator, str) else ""
        raise InputError(f"unknown operator {shown(operator)} in the {name} cell{hint}; known: {', '.join(OPERATORS)}")
    if type(source) is not int or not 0 <= source < index + NUM_CELL_INPUTS:
        raise InputError(
            f"node {index} of the {name} cell reads input {shown(source)}; it may read 0..{index + NUM_CELL_INPUTS - 1}"
        )
    return source, OPERATORS.index(operator)


@lru_cache(maxsize=4096)
def canonical_cell(cell: Cell) -> Cell:
    """Return the lexicographically smallest form of ``cell`` over all orders of its nodes and their branches."""
    labels = [value << _OPERATOR_BITS for value in range(NUM_CELL_INPUTS)] + [_NOT_PLACED] * len(cell)
    codes = _least_codes(labels, NUM_CELL_INPUTS << _OPERATOR_BITS, [], list(enumerate(cell, start=NUM_CELL_INPUTS)))
    return tuple(map(_decode_node, codes))


def _least_codes(labels: list[int], label: int, ready: list[tuple[int, int]], waiting: list[tuple[int, Node]]) -> list[int]:
    """Return the codes of the nodes that are not placed yet, in the smallest order.

    A code is an integer that sorts as the node (input, operator, input, operator) does. It is known as soon as both inputs
    of the node are placed.

    Args:
        labels: by value (cell inputs and nodes), its new number, shifted by ``_OPERATOR_BITS``, or ``_NOT_PLACED``.
        label: that of the next node.
        ready: (code, value) of the nodes whose inputs are placed.
        waiting: (value, node) of the others; some inputs may have been placed since.
    """
    codes: list[int] = []
    while ready or waiting:
        still_waiting = []
        for entry in waiting:
            value, (a, op_a, b, op_b) = entry
            if (one := labels[a]) >= 0 and (other := labels[b]) >= 0:
                one, other = one + op_a, other + op_b
                ready.append((one << _BRANCH_BITS | other if one < other else other << _BRANCH_BITS | one, value))
            else:
                still_waiting.append(entry)
        waiting = still_waiting
        ready.sort()
        code, value = ready.pop(0)
        codes.append(code)
        following = label + (1 << _OPERATOR_BITS)
        if ready and ready[0][0] == code:  # equal nodes: those that read them decide which one is first
            nodes = [(code, value), *ready]
            return codes + min(
                _least_codes(_with(labels, first, label), following, [node for node in nodes if node[1] != first], waiting)
                for node_code, first in nodes
                if node_code == code
            )
        labels[value], label = label, following
    return codes


def _with(labels: list[int], value: int, label: int) -> list[int]:
    return [*labels[:value], label, *labels[value + 1 :]]


@cache
def _decode_node(code: int) -> Node:
    one, other = divmod(code, 1 << _BRANCH_BITS)
    return (*divmod(one, 1 << _OPERATOR_BITS), *divmod(other, 1 << _OPERATOR_BITS))


def read_six_edges(genotype: Any, search_space: str, operators: tuple[str, ...]) -> tuple[str, ...]:
    """Return the operators of a genotype of one cell of six edges, in the order of ``EDGES``.

    Args:
        genotype: ``{"cell": string}`` in the notation of NAS-Bench-201.
        search_space: name of the search space, for error messages.
        operators: the operators of the search space.

    Raises:
        InputError: if it is not valid.
    """
    if not isinstance(genotype, Mapping) or set(genotype) != {"cell"}:
        raise InputError(f"a genotype of {search_space} must be a dict with the single key cell, not {shown(genotype)}")
    return parse_six_edges(genotype["cell"], search_space, operators)


def parse_six_edges(text: Any, search_space: str, operators: tuple[str, ...]) -> tuple[str, ...]:
    """Parse a cell in the notation of NAS-Bench-201 into the operators of its edges; see ``read_six_edges``.

    Raises:
        InputError: if ``text`` is not in this notation.
    """
    match = _STRING_PATTERN.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InputError(
            f"a cell of {search_space} is written {_STRING.format(*['operator'] * len(EDGES))}, not {shown(text)}"
        )
    for name in match.groups():
        if name not in operators:
            hint = did_you_mean(name, operators)
            raise InputError(f"unknown operator {name!r} in {text!r}{hint}; known: {', '.join(operators)}")
    return match.groups()


def format_six_edges(cell: tuple[str, ...]) -> str:
    """Format a cell, the operator of each edge, in the notation of NAS-Bench-201."""
    return _STRING.format(*cell)
