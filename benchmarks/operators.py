"""`python -m benchmarks.operators`: what the runtime's operators cost alone, in ns a token, one thread; needs the build extra.

The numbers that the graph's design rests on (docs/engine.md): normalizations, activations and quantization by rows, and attention
in five designs at row widths from 16 to 256.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper, numpy_helper

from models.engines import open_session

TOKENS = 256
MICROSOFT = "com.microsoft"
Arrays = Mapping[str, Any]  # numpy arrays and scalars
KINDS = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int64": TensorProto.INT64, "int32": TensorProto.INT32}
RANDOM = np.random.default_rng(1)


def main(rounds: int) -> None:
    """Print both tables for both widths."""
    for width in (384, 768):
        print(f"{width} wide, {TOKENS} tokens: ns a token")  # noqa: T201
        for name, nodes, feeds, constants in rowwise(width):
            print(f"  {name:44} {nanoseconds(nodes, feeds, constants, rounds):8.0f}")  # noqa: T201
        for row in (16, 32, 64, 128, 256):
            designs = attention(width, row)
            shown = "  ".join(
                f"{name} {nanoseconds(nodes, feeds, constants, rounds):.0f}" for name, nodes, feeds, constants in designs
            )
            print(f"  attention in rows of {row}: {shown}")  # noqa: T201


def nanoseconds(nodes: list[NodeProto], feeds: Arrays, constants: Arrays, rounds: int) -> float:
    """The median time of the nodes as one graph, a token."""
    inputs = [
        helper.make_tensor_value_info(name, KINDS[str(value.dtype)], [f"{name}{axis}" for axis in range(value.ndim)])
        for name, value in feeds.items()
    ]
    kind = TensorProto.UINT8 if nodes[-1].op_type == "QuantizeLinear" else TensorProto.FLOAT
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "operators", inputs, [helper.make_tensor_value_info("y", kind, None)], tensors)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    session = open_session(model, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(20):
            session.run(None, dict(feeds))
        times.append((time.perf_counter() - started) / 20)
    return statistics.median(times) / TOKENS * 1e9


def rowwise(width: int) -> list[tuple[str, list[NodeProto], Arrays, Arrays]]:
    """Operators on [tokens, width] or, where the name says 4x, [tokens, 4 width]."""
    inner = 4 * width
    x, wide = normal(TOKENS, width), normal(TOKENS, inner)
    gamma, bias = normal(width), normal(inner)
    scale, zeros = np.abs(normal(TOKENS)) + np.float32(0.01), np.full(TOKENS, 128, dtype=np.uint8)
    one, zero, axis = np.float32(0.02), np.uint8(128), np.array([1])
    normed = {"g": gamma, "b": gamma}
    product = {
        "w": RANDOM.integers(-127, 128, (width, inner)).astype(np.int8), "a": one, "s": np.abs(bias), "z": zero, "b": bias,
    }  # fmt: skip
    node = helper.make_node
    return [
        ("Add + LayerNormalization", [node("Add", ["x", "r"], ["t"]), node("LayerNormalization", ["t", "g", "b"], ["y"])],
         {"x": x, "r": x}, normed),
        ("SkipLayerNormalization", [node("SkipLayerNormalization", ["x", "r", "g", "b"], ["y"], domain=MICROSOFT)],
         {"x": x, "r": x}, normed),
        ("Gelu (4x)", [node("Gelu", ["x"], ["y"], domain=MICROSOFT)], {"x": wide}, {}),
        ("BiasGelu (4x)", [node("BiasGelu", ["x", "b"], ["y"], domain=MICROSOFT)], {"x": wide}, {"b": bias}),
        ("FastGelu (4x)", [node("FastGelu", ["x", "b"], ["y"], domain=MICROSOFT)], {"x": wide}, {"b": bias}),
        ("ReduceMax (4x)", [node("ReduceMax", ["x", "i"], ["y"], keepdims=1)], {"x": wide}, {"i": axis}),
        ("ReduceL2 (4x)", [node("ReduceL2", ["x", "i"], ["y"], keepdims=1)], {"x": wide}, {"i": axis}),
        ("QuantizeLinear, one scale (4x)", [node("QuantizeLinear", ["x", "a", "z"], ["y"])], {"x": wide}, {"a": one, "z": zero}),
        ("QuantizeLinear, a scale a row (4x)", [node("QuantizeLinear", ["x", "a", "z"], ["y"], axis=0)],
         {"x": wide, "a": scale, "z": zeros}, {}),
        ("QuantizeLinear, a scale a column (4x)", [node("QuantizeLinear", ["x", "a", "z"], ["y"], axis=1)],
         {"x": wide}, {"a": np.abs(bias) + np.float32(0.01), "z": np.full(inner, 128, dtype=np.uint8)}),
        ("Mul by a column of rows' scales (4x)", [node("Mul", ["x", "a"], ["y"])], {"x": wide, "a": scale[:, None]}, {}),
        ("Mul by a row (1x), as for smoothing", [node("Mul", ["x", "a"], ["y"])], {"x": x}, {"a": gamma}),
        ("MatMulIntegerToFloat (1x to 4x)",
         [node("MatMulIntegerToFloat", ["x", "w", "a", "s", "z", "", "b"], ["y"], domain=MICROSOFT)],
         {"x": RANDOM.integers(0, 256, (TOKENS, width)).astype(np.uint8)}, product),
        ("DynamicQuantizeMatMul (1x to 4x)",
         [node("DynamicQuantizeMatMul", ["x", "w", "s", "", "b"], ["y"], domain=MICROSOFT)],
         {"x": x}, {name: product[name] for name in ("w", "s", "b")}),
    ]  # fmt: skip


def attention(width: int, row: int) -> list[tuple[str, list[NodeProto], Arrays, Arrays]]:
    """Attention of 12 heads over full rows, in five designs."""
    heads, rows = 12, TOKENS // row
    sides = {name: normal(rows, row, width) for name in "qkv"}
    node = helper.make_node
    contrib: dict[str, Any] = {"domain": MICROSOFT, "num_heads": heads}
    shapes = {"s4": np.array([0, 0, heads, width // heads]), "s3": np.array([0, 0, width])}
    parts = [
        node("Reshape", ["q", "s4"], ["q4"]), node("Transpose", ["q4"], ["qt"], perm=[0, 2, 1, 3]),
        node("Reshape", ["k", "s4"], ["k4"]), node("Transpose", ["k4"], ["kt"], perm=[0, 2, 3, 1]),
        node("Reshape", ["v", "s4"], ["v4"]), node("Transpose", ["v4"], ["vt"], perm=[0, 2, 1, 3]),
        node("MatMul", ["qt", "kt"], ["s"]), node("Add", ["s", "m"], ["sm"]), node("Softmax", ["sm"], ["p"], axis=-1),
        node("MatMul", ["p", "vt"], ["o"]), node("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]),
        node("Reshape", ["ot", "s3"], ["y"]),
    ]  # fmt: skip
    mask = np.zeros((rows, 1, row, row), dtype=np.float32)
    return [
        ("parts", parts, {**sides, "m": mask[:, :, :1]}, shapes),
        ("MultiHeadAttention", [node("MultiHeadAttention", ["q", "k", "v"], ["y"], **contrib)], sides, {}),
        ("+ key mask", [node("MultiHeadAttention", ["q", "k", "v", "", "m"], ["y"], **contrib)],
         {**sides, "m": np.ones((rows, row), dtype=np.int32)}, {}),
        ("+ bias", [node("MultiHeadAttention", ["q", "k", "v", "", "", "m"], ["y"], **contrib)], {**sides, "m": mask}, {}),
        ("Attention + mask", [node("Attention", ["q", "k", "v", "m"], ["y"], q_num_heads=heads, kv_num_heads=heads)],
         {**sides, "m": mask}, {}),
    ]  # fmt: skip


def normal(*shape: int) -> npt.NDArray[np.float32]:
    """Random values."""
    return RANDOM.standard_normal(shape).astype(np.float32)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
