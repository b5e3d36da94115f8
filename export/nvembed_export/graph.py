"""A thin builder over onnx_ir: names nodes after their module, shares constants, stores weights externally."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import onnx_ir as ir

from nvembed_export import __version__
from nvembed_export.external_data import ExternalData

OPSET = 24  # the first whose Attention has nonpad_kv_seqlen
MICROSOFT = "com.microsoft"  # domain of ONNX Runtime's own operators
IR_VERSION = 12  # released with opset 24; ONNX Runtime 1.31 supports it


class GraphBuilder:
    """Collects the nodes and weights of one graph, in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.data = ExternalData()
        self._nodes: list[ir.Node] = []
        self._weights: list[ir.Value] = []
        self._constants: dict[tuple, ir.Value] = {}
        self._scope: list[str] = []
        self._counts: dict[str, int] = {}
        self._made: dict[tuple, object] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Nodes made inside this context are named `…/name/…`."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    def op(self, op_type: str, *inputs: ir.Value | None, outputs: int = 1, domain: str = "", **attributes):
        """Append a node (standard domain by default) and return its output, or a tuple if there are several."""
        path = "/".join([*self._scope, op_type])
        number = self._counts.get(path, 0)
        self._counts[path] = number + 1
        name = f"{path}_{number}" if number else path
        attrs = ir.convenience.convert_attributes(attributes)
        node = ir.Node(domain, op_type, inputs, attributes=attrs, num_outputs=outputs, name=name)
        for index, value in enumerate(node.outputs):
            value.name = f"{name}:{index}"
        self._nodes.append(node)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def once(self, key: tuple, make):
        """The result of `make()`, which is called once per key: for nodes that several others share."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def constant(self, value: int | float | list[int], dtype: type[np.generic]) -> ir.Value:
        """A small constant, stored in the graph file itself so that shape inference can see it."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            tensor = ir.tensor(array, name=name)
            self._constants[key] = ir.Value(
                name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
        return self._constants[key]

    def weight(self, name: str, dtype: ir.DataType, shape: tuple[int, ...], make) -> ir.Value:
        """A weight in the external data file; see ExternalData.add."""
        value = self.data.add(name, dtype, shape, make)
        self._weights.append(value)
        return value

    def model(self, inputs: list[ir.Value], outputs: list[ir.Value]) -> onnx.ModelProto:
        """The finished model. Its weights refer to the data file, which need not exist yet."""
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self._nodes,
            initializers=[*self._constants.values(), *self._weights],
            opset_imports={"": OPSET} | {node.domain: 1 for node in self._nodes if node.domain},
            name=self.name,
        )
        model = ir.Model(graph, ir_version=IR_VERSION, producer_name="nvembed-export", producer_version=__version__)
        return ir.to_proto(model)
