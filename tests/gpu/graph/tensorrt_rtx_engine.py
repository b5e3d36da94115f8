"""How TensorRT-RTX parses a model and builds an engine from it. Neither needs a GPU."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import onnx
import tensorrt_rtx as trt

Shape = tuple[int, int]
WITH_MASK = 4  # inputs of an attention: q, k, v and a mask


@dataclass(frozen=True)
class Engine:
    """A built engine: size in bytes, build time in seconds, and the inputs and outputs of its network."""

    size: int
    seconds: float
    inputs: dict[str, tuple[str, list[int]]]
    outputs: dict[str, tuple[str, list[int]]]


def optimization_profile(inputs: list[str], max_length: int) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Input name -> smallest, typical and largest [batch, sequence], the same for all inputs.

    From a single token to 32 rows of 512 tokens, the length that NVIDIA's model card evaluates; tuned for 8 short
    passages.
    """
    smallest, typical, largest = (1, 1), (8, 128), (32, 512)
    cut = tuple((batch, min(width, max_length)) for batch, width in (smallest, typical, largest))
    return dict.fromkeys(inputs, cut)


class _Errors(trt.ILogger):
    """Keeps TensorRT's error messages."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.messages: list[str] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.messages.append(message)


class _Parsed:
    """A model in TensorRT. The network is strongly typed: every value keeps the dtype that the exporter gave it."""

    def __init__(self) -> None:
        self.logger = _Errors()
        self.builder = trt.Builder(self.logger)
        self.network = self.builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self.parser = trt.OnnxParser(self.network, self.logger)

    def errors(self) -> list[str]:
        errors = [self.parser.get_error(index) for index in range(self.parser.num_errors)]
        return [f"{error.node_operator()} {error.node_name()}: {error.desc()}" for error in errors]


def problems(model: Path) -> list[str]:
    """Why the model cannot become one engine that means the same; empty if nothing speaks against it."""
    nodes = onnx.load(model, load_external_data=False).graph.node
    return unsupported(model, len(nodes)) or ignored(model, sum(node.op_type == "Attention" for node in nodes))


def unsupported(model: Path, nodes: int) -> list[str]:
    """What the parser does not take of a model with that many nodes."""
    parsed = _Parsed()
    supported = parsed.parser.supports_model_v2(model.read_bytes(), str(model))
    found = [] if supported else ["TensorRT-RTX does not support the whole model", *parsed.errors()]
    parts = [
        (parsed.parser.is_subgraph_supported(index), len(parsed.parser.get_subgraph_nodes(index)))
        for index in range(parsed.parser.num_subgraphs)
    ]
    if parts != [(True, nodes)]:
        described = ", ".join(f"{count} nodes {'' if good else 'not '}supported" for good, count in parts)
        found.append(f"{len(parts)} subgraphs instead of one with all {nodes} nodes: {described}")
    return found


def ignored(model: Path, attentions: int) -> list[str]:
    """What the parser took and then left out, which it does not report.

    Every value that a layer makes is read by another layer or is an output, and each of the model's attention nodes has
    become an attention with a mask: TensorRT ignores an input that it does not know, such as row lengths.
    """
    parsed = _Parsed()
    if not parsed.parser.parse_from_file(str(model)):
        return parsed.errors()
    network = parsed.network
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    read = {network.get_output(index).name for index in range(network.num_outputs)}
    for layer in layers:
        inputs = (layer.get_input(index) for index in range(layer.num_inputs))
        read |= {tensor.name for tensor in inputs if tensor is not None}
    made = [layer.get_output(index).name for layer in layers for index in range(layer.num_outputs)]
    found = [f"no layer reads {name}" for name in made if name not in read]
    inputs = [layer.num_inputs for layer in layers if layer.type == trt.LayerType.ATTENTION_INPUT]
    if inputs != [WITH_MASK] * attentions:
        found.append(f"attentions have {inputs} inputs, expected {attentions} with {WITH_MASK}: q, k, v and a mask")
    return found


def build(model: Path, profile: dict[str, tuple[Shape, Shape, Shape]], compute_capability: str) -> Engine:
    """Build an engine for a compute capability such as "SM89", without a GPU. Raises with TensorRT's messages."""
    parsed = _Parsed()
    if not parsed.parser.parse_from_file(str(model)):
        raise RuntimeError("\n".join(parsed.errors()))
    network, config = parsed.network, parsed.builder.create_builder_config()
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(getattr(trt.ComputeCapability, compute_capability), 0):
        raise RuntimeError(f"TensorRT-RTX does not build for {compute_capability}")
    shapes = parsed.builder.create_optimization_profile()
    for name, (smallest, typical, largest) in profile.items():
        shapes.set_shape(name, smallest, typical, largest)
    if config.add_optimization_profile(shapes) != 0:
        raise RuntimeError(f"the profile {profile} does not fit the network")
    start = time.perf_counter()
    engine = parsed.builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError("\n".join([f"no engine for {compute_capability}", *parsed.logger.messages]))

    def describe(tensor):
        return tensor.dtype.name, list(tensor.shape)

    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return Engine(
        engine.nbytes,
        time.perf_counter() - start,
        {tensor.name: describe(tensor) for tensor in inputs},
        {tensor.name: describe(tensor) for tensor in outputs},
    )
