"""Export of trained models as one Python file that needs only torch.

The file contains the graph of ``torch.export`` as a module with a layer for each convolution, batch norm and linear layer,
and the weights.
"""

from __future__ import annotations

import base64
import builtins
import keyword
import math
import operator
import re
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind

from nases_env.errors import InputError, one_line
from nases_env.model_io.model import TrainedModel

ATEN = torch.ops.aten
MAX_INLINE_LENGTH = 70  # characters of an expression that is an argument of the next one
LINE_LENGTH = 120
MAX_INDEX = 2**63 - 1  # the end of a slice without an end
OTHER_FORMAT = "choose onnx or torch-export with --format"

TEMPLATE = '''"""A trained image classifier in one file, which needs only torch. It was written by `nases export`.

    from model import CLASS_NAMES, load

    network = load()          # in evaluation mode, on the CPU
    logits = network(images)  # float32 (N, {channels}, {height}, {width}) in [0, 1] to float32 (N, {num_classes})
    names = [CLASS_NAMES[label] for label in logits.argmax(dim=1).tolist()]

`model` is the name of this file. Images are standardized by the network. The weights are at the end of the file.
"""

{imports}

CLASS_NAMES = {class_names}
IMAGE_SHAPE = {image_shape}  # channels, height, width


class Network(nn.Module):
    """The network, which maps images with values in [0, 1] to logits."""

    def __init__(self) -> None:
        super().__init__()
{layers}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
{forward}


def load() -> Network:
    """Return the network with its trained weights, in evaluation mode, on the CPU."""
    with torch.device("meta"):
        network = Network()
    content, start, tensors = bytearray(base64.b64decode(WEIGHTS)), 0, {{}}
    for name, tensor in network.state_dict().items():
        end = start + tensor.numel() * tensor.element_size()
        tensors[name] = torch.frombuffer(content[start:end], dtype=tensor.dtype).reshape(tensor.shape)
        start = end
    network.load_state_dict(tensors, assign=True)
    return network.eval()


METADATA = {metadata}
"""How the network was found and trained, by key, as JSON."""

WEIGHTS = """
{weights}
"""
"""The tensors of `Network.state_dict()` in this order, little-endian, in base64."""
'''


class _Function(NamedTuple):
    """A function of torch for an operator: its arguments have the names that they have in the schema of the operator."""

    name: str
    num_positional: int = 1


FUNCTIONS: dict[Any, _Function] = {
    ATEN.adaptive_avg_pool2d.default: _Function("F.adaptive_avg_pool2d", 2),
    ATEN.avg_pool2d.default: _Function("F.avg_pool2d", 2),
    ATEN.cat.default: _Function("torch.cat"),
    ATEN.flatten.using_ints: _Function("torch.flatten"),
    ATEN.max_pool2d.default: _Function("F.max_pool2d", 2),
    ATEN.mean.dim: _Function("torch.mean"),
    ATEN.pad.default: _Function("F.pad", 2),
    ATEN.permute.default: _Function("torch.permute", 2),
    ATEN.relu.default: _Function("F.relu"),
    ATEN.unsqueeze.default: _Function("torch.unsqueeze", 2),
    ATEN.zeros_like.default: _Function("torch.zeros_like"),
}
PAIRS = {"kernel_size", "stride", "padding", "dilation", "output_size"}  # arguments that are written as a number if possible
BINARY = {ATEN.add.Tensor: "+", ATEN.div.Tensor: "/", ATEN.mul.Tensor: "*", ATEN.sub.Tensor: "-"}


def python_source(model: TrainedModel, program: torch.export.ExportedProgram, metadata: dict[str, str]) -> bytes:
    """Return the content of a Python file with the graph and the tensors of ``program``.

    Args:
        model: the model that was exported.
        program: its export.
        metadata: the ``model_metadata``, as JSON values by name.

    Raises:
        InputError: if the graph contains anything except operators of torch.
    """
    writer = _Writer(program)
    channels, height, width = model.image_shape
    values = {
        "channels": channels,
        "height": height,
        "width": width,
        "num_classes": len(model.class_names),
        "imports": "\n".join(writer.imports()),
        "class_names": ascii(model.class_names),
        "image_shape": model.image_shape,
        "layers": textwrap.indent("\n".join(writer.definitions()), " " * 8),
        "forward": textwrap.indent("\n".join(writer.lines), " " * 8),
        "metadata": "{\n" + "".join(f"    {name!a}: {value!a},\n" for name, value in metadata.items()) + "}",
    }
    without_weights = TEMPLATE.format(**values, weights="")
    content = b"".join(map(_bytes, writer.state(_run(without_weights)["Network"])))
    encoded = base64.b64encode(content).decode()
    lines = [encoded[start : start + LINE_LENGTH] for start in range(0, len(encoded), LINE_LENGTH)]
    return TEMPLATE.format(**values, weights="\n".join(lines)).encode("ascii")


def load_python(content: bytes) -> Callable[[Tensor], Tensor]:
    """Run a file of ``python_source``, which cannot import this package, and return its network.

    Raises:
        InputError: if the file cannot be run. The returned function raises it if the network cannot be run.
    """
    network: nn.Module = _checked(lambda: _run(content.decode())["load"]())
    return lambda images: _checked(lambda: network(images))


def _checked(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:  # of an operator that only few networks use
        raise InputError(f"the network cannot be run as Python code ({one_line(error)}); {OTHER_FORMAT}") from error


def _run(source: str) -> dict[str, Any]:
    def import_other(name: str, *arguments: Any, **options: Any) -> Any:
        assert name.partition(".")[0] != "nases_env"
        return builtins.__import__(name, *arguments, **options)

    namespace: dict[str, Any] = {"__name__": "model", "__builtins__": {**vars(builtins), "__import__": import_other}}
    exec(compile(source, "model.py", "exec"), namespace)
    return namespace


def _bytes(tensor: Tensor) -> bytes:
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.detach().flatten())
    return bytes(flat.view(torch.uint8).numpy().tobytes())


class _Layer(NamedTuple):
    definition: str
    tensors: dict[str, Tensor]  # by their names in the layer


class _Expression(NamedTuple):
    text: str
    is_atomic: bool = True  # otherwise, an operand needs parentheses
    sliced: tuple[str, dict[int, str]] | None = None  # the text of a tensor and the slices of its dimensions


class _Writer:
    """The source code of a program: a line for each operator, or an expression for several."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.lines: list[str] = []
        self._tensors = _parameters(program)
        self._names = _Names()
        self._layers: dict[str, tuple[str, _Layer]] = {}  # by the path of the module; with its name
        self._raw: dict[str, tuple[str, Tensor]] = {}  # tensors outside layers, by their path; with their names
        self._expressions: dict[fx.Node, _Expression] = {}
        self._section = ""
        self._uses_operator = False
        nodes = [node for node in program.graph.nodes if node.op != "placeholder"]
        (images,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name not in self._tensors)
        self._expressions[images] = _Expression("images")
        for node, following in zip(nodes, [*nodes[1:], None], strict=True):
            self._write(node, following)

    def imports(self) -> list[str]:
        """Return the lines of the imports."""
        modules = ["base64", *(["operator"] if self._uses_operator else [])]
        uses_functional = any("F." in line for line in self.lines)
        functional = ["import torch.nn.functional as F"] if uses_functional else []
        return [*(f"import {name}" for name in modules), "", "import torch", *functional, "from torch import nn"]

    def definitions(self) -> list[str]:
        """Return the lines that define the layers and the other tensors."""
        raw = [
            f"self.{name} = {_raw_definition(tensor)}"
            if isinstance(tensor, nn.Parameter)
            else f'self.register_buffer("{name}", {_raw_definition(tensor)})'
            for name, tensor in self._raw.values()
        ]
        return raw + [f"self.{name} = {layer.definition}" for name, layer in self._layers.values()]

    def state(self, network: Callable[[], nn.Module]) -> list[Tensor]:
        """Return the tensors of the state of ``network`` in its order."""
        tensors = dict(self._raw.values())
        for name, layer in self._layers.values():
            tensors.update({f"{name}.{suffix}": tensor for suffix, tensor in layer.tensors.items()})
        with torch.device("meta"):
            names = network().state_dict()
        # The number of batches of a batch norm, which the graph does not contain, is the remaining one.
        return [tensors.get(name, torch.zeros(meta.shape, dtype=meta.dtype)) for name, meta in names.items()]

    def _write(self, node: fx.Node, following: fx.Node | None) -> None:
        if node.op == "output":
            results: Any = node.args[0]
            self.lines.append(f"return {self._render(results[0])}")
            return
        if node.op != "call_function":
            raise InputError(f"the network uses {node.target}, which the format python does not support; {OTHER_FORMAT}")
        expression = self._expression(node)
        is_inlined = len(node.users) == 1 and following in node.users and len(expression.text) <= MAX_INLINE_LENGTH
        if not is_inlined:
            self._comment(node)
            name = self._names.unique(node.name)
            self.lines.append(f"{name} = {expression.text}")
            expression = _Expression(name)
        self._expressions[node] = expression

    def _comment(self, node: fx.Node) -> None:
        """Write the name of the module that ``node`` belongs to, if it is not that of the last line."""
        paths = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        names = paths[-1].split(".")[1:3] if paths else []
        section = ".".join(names if len(names) == 2 and names[1].isdecimal() else names[:1])
        if section and section != self._section:
            self.lines.append(f"# {re.sub(r'[^A-Za-z0-9_.]', '_', section)}")
            self._section = section

    def _expression(self, node: fx.Node) -> _Expression:
        target: Any = node.target
        name = getattr(target, "__name__", "")
        if getattr(operator, name, None) is target:
            self._uses_operator = True
            return _Expression(self._call(f"operator.{name}", node.args, node.kwargs))
        if not isinstance(target, torch._ops.OpOverload) or target.namespace not in ("aten", "prims"):
            raise InputError(f"the network uses {target}, which is not an operator of torch; {OTHER_FORMAT}")
        arguments = _arguments(node)
        layer = self._layer(target, arguments)
        if layer is not None:
            return _Expression(f"self.{layer}({self._render(arguments['input'])})")
        if target is ATEN.relu_.default:
            return _Expression(f"F.relu({self._render(arguments['self'])}, inplace=True)")
        if target is ATEN.slice.Tensor:
            return self._slice(arguments)
        if target in BINARY and arguments.get("alpha", 1) == 1:
            return _Expression(
                f"{self._operand(arguments['self'])} {BINARY[target]} {self._operand(arguments['other'])}", is_atomic=False
            )
        if target in FUNCTIONS:
            return _Expression(self._function(target, arguments))
        return _Expression(self._call(f"torch.ops.{target}", node.args, node.kwargs))

    def _function(self, target: Any, arguments: dict[str, Any]) -> str:
        function = FUNCTIONS[target]
        defaults = {argument.name: argument.default_value for argument in target._schema.arguments}
        names = list(arguments)
        positional = [self._short(name, arguments[name]) for name in names[: function.num_positional]]
        options = [
            f"{name}={self._short(name, arguments[name])}"
            for name in names[function.num_positional :]
            if not _is_default(name, arguments[name], defaults[name])
        ]
        return f"{function.name}({', '.join([*positional, *options])})"

    def _short(self, name: str, value: Any) -> str:
        return self._render(_number(value) if name in PAIRS else value)

    def _call(self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        arguments = [*map(self._render, args), *(f"{name}={self._render(value)}" for name, value in kwargs.items())]
        return f"{function}({', '.join(arguments)})"

    def _slice(self, arguments: dict[str, Any]) -> _Expression:
        source, start, end, step = (arguments[name] for name in ("self", "start", "end", "step"))
        dimension = arguments["dim"] % len(source.meta["val"].shape)
        bounds = [
            "" if start in (None, 0) else self._render(start),
            "" if end is None or end == MAX_INDEX else self._render(end),
        ]
        text = ":".join(bounds if step == 1 else [*bounds, self._render(step)])
        base = self._operand(source)
        slices: dict[int, str] = {}
        inner = self._expressions.get(source)
        if inner is not None and inner.sliced is not None and dimension not in inner.sliced[1]:
            base, slices = inner.sliced
        if text != ":":
            slices = {**slices, dimension: text}
        if not slices:
            return _Expression(base, sliced=(base, {}))
        indices = ", ".join(slices.get(index, ":") for index in range(max(slices) + 1))
        return _Expression(f"{base}[{indices}]", sliced=(base, slices))

    def _layer(self, target: Any, arguments: dict[str, Any]) -> str | None:
        """Return the name of the layer that computes the operator, defining it if necessary; None if there is none."""
        if target not in LAYERS:
            return None
        given = {name: arguments.get(name) for name in ("weight", "bias", "running_mean", "running_var")}
        nodes = {name: node for name, node in given.items() if node is not None}
        if any(node.name not in self._tensors for node in nodes.values()):
            return None  # a weight is computed
        found = {name: self._tensors[node.name] for name, node in nodes.items()}
        paths = {path.rpartition(".")[0] for path, _ in found.values()}
        if len(paths) != 1 or any(path.rpartition(".")[2] != name for name, (path, _) in found.items()):
            return None
        definition = LAYERS[target]({name: tensor for name, (_, tensor) in found.items()}, arguments)
        if definition is None:
            return None
        (path,) = paths
        name, layer = self._layers.setdefault(
            path,
            (
                self._names.unique(path.removeprefix("network.")),
                _Layer(definition, {name: tensor for name, (_, tensor) in found.items()}),
            ),
        )
        return name if layer.definition == definition else None

    def _operand(self, value: Any) -> str:
        expression = self._expressions.get(value) if isinstance(value, fx.Node) else None
        return self._render(value) if expression is None or expression.is_atomic else f"({expression.text})"

    def _render(self, value: Any) -> str:
        if isinstance(value, fx.Node):
            if value in self._expressions:
                return self._expressions[value].text
            path, tensor = self._tensors[value.name]
            if path not in self._raw:
                self._raw[path] = self._names.unique(path.removeprefix("network.")), tensor
            return f"self.{self._raw[path][0]}"
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(map(self._render, value))}]"
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        if isinstance(value, torch.device):
            return f'torch.device("{value}")'
        if value is None or isinstance(
            value, (bool, int, float, complex, str, torch.dtype, torch.layout, torch.memory_format)
        ):
            return ascii(value)
        raise InputError(f"the network uses a value of type {type(value).__name__}; {OTHER_FORMAT}")


class _Names:
    """Names of attributes and variables, each given once."""

    def __init__(self) -> None:
        self._taken = {"self", "images", "torch", "nn", "F", "base64", "operator", "float"}
        self._reserved = set(dir(nn.Module()))

    def unique(self, wanted: str) -> str:
        """Return an identifier that is similar to ``wanted``."""
        name = re.sub(r"\W", "_", wanted, flags=re.ASCII)
        if not name or name[0].isdigit() or name[0] == "_":
            name = f"layer_{name}"
        if keyword.iskeyword(name) or name in self._reserved:
            name = f"{name}_"
        number, first = 2, name
        while name in self._taken:
            name, number = f"{first}_{number}", number + 1
        self._taken.add(name)
        return name


def _raw_definition(tensor: Tensor) -> str:
    text = f"torch.empty({tuple(tensor.shape)}, dtype={tensor.dtype})"
    if not isinstance(tensor, nn.Parameter):
        return text
    return f"nn.Parameter({text})" if tensor.requires_grad else f"nn.Parameter({text}, requires_grad=False)"


def _parameters(program: torch.export.ExportedProgram) -> dict[str, tuple[str, Tensor]]:
    """Return the path and the tensor of each parameter, buffer and constant, by the name of its node.

    Raises:
        InputError: if the program has other inputs than these and the images, or changes a buffer.
    """
    signature = program.graph_signature
    if [spec.kind for spec in signature.output_specs] != [OutputKind.USER_OUTPUT]:
        raise InputError(f"the network changes its buffers in evaluation mode; {OTHER_FORMAT}")
    found: dict[str, tuple[str, Tensor]] = {}
    for spec in signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            continue
        tensors = {**program.state_dict, **program.constants}
        tensor = tensors.get(str(spec.target))
        if not isinstance(tensor, Tensor):
            raise InputError(f"the network has a constant that is not a tensor; {OTHER_FORMAT}")
        found[spec.arg.name] = (str(spec.target), tensor)
    return found


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of an operator by name, including default values."""
    target: Any = node.target
    schema = target._schema.arguments
    values = {argument.name: argument.default_value for argument in schema}
    return {**values, **dict(zip(values, node.args, strict=False)), **node.kwargs}


def _number(value: Any) -> Any:
    """Return the number that all elements of a list are equal to; otherwise the value."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(each, int) and each == value[0] for each in value):
        return value[0]
    return value


def _is_default(name: str, value: Any, default: Any) -> bool:
    return bool(value == default or (name in PAIRS and _number(value) == _number(default)))


def _convolution(tensors: dict[str, Tensor], arguments: dict[str, Any]) -> str | None:
    weight, groups = tensors["weight"], arguments["groups"]
    out_channels, in_channels, *kernel = weight.shape
    options = {name: _number(arguments[name]) for name in ("stride", "padding", "dilation")}
    defaults = {"stride": 1, "padding": 0, "dilation": 1}
    texts = [
        f"{name}={value if isinstance(value, int) else tuple(value)}"
        for name, value in options.items()
        if value != defaults[name]
    ]
    texts += [f"groups={groups}"] if groups != 1 else []
    texts += ["bias=False"] if "bias" not in tensors else []
    size = _number(kernel)
    size = size if isinstance(size, int) else tuple(size)
    return f"nn.Conv2d({', '.join([str(in_channels * groups), str(out_channels), str(size), *texts])})"


def _batch_norm(tensors: dict[str, Tensor], arguments: dict[str, Any]) -> str | None:
    if len(tensors) != 4 or arguments["training"] or len(arguments["input"].meta["val"].shape) != 4:
        return None
    return f"nn.BatchNorm2d({len(tensors['weight'])}, eps={arguments['eps']!r}, momentum={arguments['momentum']!r})"


def _linear(tensors: dict[str, Tensor], arguments: dict[str, Any]) -> str | None:
    classes, features = tensors["weight"].shape
    return f"nn.Linear({features}, {classes}{'' if 'bias' in tensors else ', bias=False'})"


LAYERS: dict[Any, Callable[[dict[str, Tensor], dict[str, Any]], str | None]] = {
    ATEN.batch_norm.default: _batch_norm,
    ATEN.conv2d.default: _convolution,
    ATEN.linear.default: _linear,
}
"""For an operator, the function that returns the definition of its layer, or None if no layer computes the same."""
