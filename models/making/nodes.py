"""A list of ONNX nodes and constants under construction: what graphs are written with."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

# The runtime's own operators.
MICROSOFT: Final = "com.microsoft"


class Nodes:
    """Nodes and constants; every method adds nodes and returns the name of a tensor."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """A constant; the first value given for a name stays."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def integers(self, *values: int) -> str:
        """A constant of shape [values], int64."""
        return self.constant("i_" + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    def index(self, value: int) -> str:
        """A constant without axes, int64."""
        return self.constant(f"index_{value}", np.array(value, dtype=np.int64))

    def real(self, value: float) -> str:
        """A constant without axes, float32."""
        return self.constant(f"f_{value!r}", np.array(value, dtype=np.float32))

    def byte(self, value: int) -> str:
        """A constant without axes, uint8."""
        return self.constant(f"byte_{value}", np.array(value, dtype=np.uint8))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:  # noqa: ANN401 - what ONNX takes
        """A node; returns its one output."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def half(self, name: str, value: npt.NDArray[Any]) -> str:
        """A constant kept in half precision; the runtime widens it once, when it loads the graph."""
        if np.abs(value).max() > np.finfo(np.float16).max:
            return self.constant(name, value.astype(np.float32))
        return self.op("Cast", self.constant(name, value.astype(np.float16)), to=TensorProto.FLOAT)
