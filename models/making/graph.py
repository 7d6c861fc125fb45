"""The encoder's ONNX graph, written from its weights: no tracing, no torch.

One graph serves BERT, DistilBERT and RoBERTa. It is padding-free: token-wise layers run on the real tokens of the pass laid end to
end, shape [tokens, hidden]; only attention sees texts side by side in rows. docs/engine.md tells why each part is as it is, with
the measurements. Three things are exact rewritings of the usual graph:

- The last layer computes what the head reads, the first token of each text.
- Its keys and values are never made: q.(x Wk) = (q Wk^T).x, and sum p (x Wv) = (sum p x) Wv, so both products are done once a text
  instead of once a token.
- A bias of the keys adds the same to all scores of a query, which softmax ignores; a bias of the values passes through attention
  unchanged, because the probabilities add up to 1, and is added to the next bias here.

A text's logits do not depend, to the bit, on its batch-mates. Integer products are exact, all that is not attention works on single
rows, and in attention every sum runs over the text's own tokens in a fixed order, with exact zeros for the others (see
`models.passes` for what it takes).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.making.encoder import Activation, Dense, Encoder, Norm
from models.making.quantize import LEVELS, LOW_LEVELS, LOW_ZERO_POINT, TINY, ZERO_POINT, ByRow, Fixed, Recipe
from models.passes import INPUTS

Floats = npt.NDArray[np.float32]

# Attention (opset 23) as one operator; the runtime's own operators besides.
OPSET: Final = 23
MICROSOFT: Final = "com.microsoft"
# The graph's input with an element for each token.
TOKENS: Final = "input_ids"


class _Graph:
    """A list of nodes and constants under construction; every method adds nodes and returns the name of a tensor."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def integers(self, *values: int) -> str:
        return self.constant("i_" + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    def index(self, value: int) -> str:
        return self.constant(f"index_{value}", np.array(value, dtype=np.int64))

    def real(self, value: float) -> str:
        return self.constant(f"f_{value!r}", np.array(value, dtype=np.float32))

    def byte(self, value: int) -> str:
        return self.constant(f"byte_{value}", np.array(value, dtype=np.uint8))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:  # noqa: ANN401 - what ONNX takes
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def half(self, name: str, value: npt.NDArray[Any]) -> str:
        """A constant kept in half precision; the runtime widens it once, when it loads the graph."""
        if np.abs(value).max() > np.finfo(np.float16).max:
            return self.constant(name, value.astype(np.float32))
        return self.op("Cast", self.constant(name, value.astype(np.float16)), to=TensorProto.FLOAT)


class Writer:
    """Writes an encoder's graph: in fp32, or in INT8 with a recipe for each product.

    With `probe`, the graph has further outputs: the inputs of the products, for calibration (see `probes`).
    """

    def __init__(self, encoder: Encoder, recipes: Mapping[str, Recipe] | None = None, *, probe: bool = False) -> None:
        self._encoder = encoder
        self._recipes = recipes
        self._probe = probe
        self._g = _Graph()
        # What the probing graph tells: the name of each product, the tensor that is its input, and its weights.
        self.probes: dict[str, tuple[str, Dense]] = {}
        self._views: tuple[str, ...] = ()
        self._zeros: dict[tuple[str, int], str] = {}

    def write(self) -> onnx.ModelProto:
        """The model: inputs `models.passes.INPUTS`, outputs `logits`, shape [texts, labels], and `first`, shape [texts, hidden]:
        what the head reads. (A pass over one text has a second row.)
        """
        g, encoder = self._g, self._encoder
        hidden = self._embed()
        # Where the rows' queries, keys and values are when their joint product is read as [3 x tokens, hidden].
        queries = g.op("Mul", "rows", g.index(3))
        self._views = queries, g.op("Add", queries, g.index(1)), g.op("Add", queries, g.index(2))
        for number in range(len(encoder.layers) - 1):
            hidden = self._layer(number, hidden)
        first = self._last_layer(len(encoder.layers) - 1, hidden)
        assert first == g.nodes[-1].name
        g.nodes[-1].output[0] = "first"
        logits = self._head("first")
        g.nodes[-1].output[0] = "logits"
        assert logits == g.nodes[-1].name
        return self._model()

    # --- parts

    def _embed(self) -> str:
        g, encoder = self._g, self._encoder
        positions = g.op("Gather", g.constant("positions.table", encoder.positions), "positions", axis=0)
        if self._recipes is not None:
            # A scale for each word: rare words have small vectors, which one scale for the table would round away.
            scale = np.maximum(np.abs(encoder.words).max(axis=1, keepdims=True) / LEVELS, TINY).astype(np.float32)
            table = np.rint(encoder.words / scale).astype(np.int8)
            rows = g.op("Cast", g.op("Gather", g.constant("words.table", table), "input_ids", axis=0), to=TensorProto.FLOAT)
            words = g.op("Mul", rows, g.op("Gather", g.constant("words.scale", scale), "input_ids", axis=0))
        else:
            words = g.op("Gather", g.constant("words.table", encoder.words), "input_ids", axis=0)
        return self._norm("embeddings.norm", g.op("Add", words, positions), encoder.norm)

    def _layer(self, number: int, hidden: str) -> str:
        g, layer, width = self._g, self._encoder.layers[number], self._encoder.hidden
        name = f"layer.{number}"
        joined = Dense(
            np.concatenate([layer.query.weight, layer.key.weight, layer.value.weight], axis=1),
            np.concatenate([layer.query.bias, np.zeros_like(layer.key.bias), np.zeros_like(layer.value.bias)]),
        )
        product = self._dense(f"{name}.attention", hidden, joined)
        thirds = g.op("Reshape", product, g.integers(-1, width))
        sides = [g.op("Gather", thirds, view, axis=0) for view in self._views]
        heads = self._encoder.heads
        mixed = g.op("Attention", *sides, "mask", q_num_heads=heads, kv_num_heads=heads)
        context = g.op("Gather", g.op("Reshape", mixed, g.integers(-1, width)), "slots", axis=0)
        return self._after_attention(number, hidden, context)

    def _last_layer(self, number: int, hidden: str) -> str:
        g, layer, encoder = self._g, self._encoder.layers[number], self._encoder
        name, heads, size, width = f"layer.{number}", encoder.heads, encoder.hidden // encoder.heads, encoder.hidden
        firsts = g.op("Gather", "texts", g.index(0), axis=1)
        first = g.op("Gather", hidden, firsts, axis=0)
        scale = 1 / math.sqrt(size)
        query = self._dense(f"{name}.first", first, Dense(layer.query.weight * scale, layer.query.bias * scale), firsts)
        query = g.op("Transpose", g.op("Reshape", query, g.integers(-1, heads, size)), perm=[1, 0, 2])
        keys = layer.key.weight.reshape(width, heads, size).transpose(1, 2, 0)
        query = g.op("Transpose", g.op("MatMul", query, self._table(f"{name}.key", keys)), perm=[1, 2, 0])
        tokens = g.op("Gather", hidden, "texts", axis=0)
        scores = g.op("Transpose", g.op("MatMul", tokens, query), perm=[0, 2, 1])
        shares = g.op("Softmax", g.op("Add", scores, "text_mask"), axis=-1)
        mixed = g.op("Transpose", g.op("MatMul", shares, tokens), perm=[1, 0, 2])
        values = layer.value.weight.reshape(width, heads, size).transpose(1, 0, 2)
        context = g.op("Transpose", g.op("MatMul", mixed, self._table(f"{name}.value", values)), perm=[1, 0, 2])
        context = g.op("Reshape", context, g.integers(-1, width))
        return self._after_attention(number, first, context, firsts)

    def _after_attention(self, number: int, residual: str, context: str, rows: str = TOKENS) -> str:
        """The rest of a layer, for all tokens or for some: both shape [rows, hidden]; `rows` as in `_dense`."""
        g, layer, name = self._g, self._encoder.layers[number], f"layer.{number}"
        output = Dense(layer.output.weight, layer.output.bias + layer.value.bias @ layer.output.weight)
        attended = self._dense(f"{name}.context", context, output, rows)
        middle = self._norm(f"{name}.norm1", g.op("Add", attended, residual), layer.norm1)
        up = self._activate(self._encoder.activation, self._dense(f"{name}.up", middle, layer.up, rows))
        down = self._dense(f"{name}.down", up, layer.down, rows)
        return self._norm(f"{name}.norm2", g.op("Add", down, middle), layer.norm2)

    def _head(self, first: str) -> str:
        """Computed in fp32: it is a thousandth of the work, and what comes out are the logits themselves."""
        g = self._g
        for number, (dense, activation) in enumerate(self._encoder.head):
            first = g.op("MatMul", first, self._table(f"head.{number}.weight", dense.weight))
            first = g.op("Add", first, g.constant(f"head.{number}.bias", dense.bias))
            if activation is not None:
                first = self._activate(activation, first)
        return first

    def _table(self, name: str, value: Floats) -> str:
        return self._g.half(name, value) if self._recipes is not None else self._g.constant(name, value.astype(np.float32))

    # --- products

    def _dense(self, name: str, values: str, dense: Dense, rows: str = TOKENS) -> str:
        """A product; `rows` is a tensor of shape [rows], whatever its elements."""
        g = self._g
        self.probes[name] = values, dense
        bias = g.constant(f"{name}.bias", dense.bias)
        if self._recipes is None:
            return g.op("Add", g.op("MatMul", values, g.constant(f"{name}.weight", dense.weight)), bias)
        recipe = self._recipes[name]
        weight = g.constant(f"{name}.weight", recipe.weight)
        if isinstance(recipe.scaling, Fixed):
            scaling = recipe.scaling
            if scaling.smoothing is not None:
                values = g.op("Mul", values, g.constant(f"{name}.smoothing", scaling.smoothing))
            step, zero = g.real(scaling.scale), g.byte(scaling.zero_point)
            quantized = g.op("QuantizeLinear", values, step, zero)
            scale = g.constant(f"{name}.scale", recipe.scale)
            return g.op("MatMulIntegerToFloat", quantized, weight, step, scale, zero, "", bias, domain=MICROSOFT)
        quantized, row_scale, zero = self._quantize_rows(values, recipe.scaling, rows)
        # The operator takes one scale for the whole input, so the rows' own follow as a product.
        scale = g.constant(f"{name}.scale", recipe.scale)
        product = g.op("MatMulIntegerToFloat", quantized, weight, g.real(1.0), scale, zero, domain=MICROSOFT)
        return g.op("Add", g.op("Mul", product, row_scale), bias)

    def _quantize_rows(self, values: str, scaling: ByRow, rows: str) -> tuple[str, str, str]:
        """Rows in 8 bits, each by its own largest value: (values, scales of shape [rows, 1], zero point)."""
        g = self._g
        top = g.op("ReduceMax", values, g.integers(1), keepdims=1)
        if scaling.least is None:
            zero_point = ZERO_POINT
            bottom = g.op("Neg", g.op("ReduceMin", values, g.integers(1), keepdims=1))
            scale = g.op("Mul", g.op("Max", top, bottom, g.real(TINY)), g.real(1 / LEVELS))
        else:
            zero_point = LOW_ZERO_POINT
            scale = g.op("Max", g.op("Mul", top, g.real(1 / LOW_LEVELS)), g.real(max(scaling.least / LOW_ZERO_POINT, TINY)))
        flat = g.op("Reshape", scale, g.integers(-1))
        return g.op("QuantizeLinear", values, flat, self._zeros_of(rows, zero_point), axis=0), scale, g.byte(zero_point)

    def _zeros_of(self, rows: str, zero_point: int) -> str:
        """The zero point for each row, which `QuantizeLinear` wants beside the scales; made once for all layers."""
        g, key = self._g, (rows, zero_point)
        if key not in self._zeros:
            self._zeros[key] = g.op("Expand", g.byte(zero_point), g.op("Shape", rows))
        return self._zeros[key]

    def _norm(self, name: str, values: str, norm: Norm) -> str:
        g = self._g
        # Add and LayerNormalization, not SkipLayerNormalization, which the runtime computes number by number: 6 times slower.
        return g.op(
            "LayerNormalization",
            values,
            g.constant(f"{name}.gamma", norm.gamma),
            g.constant(f"{name}.beta", norm.beta),
            axis=-1,
            epsilon=self._encoder.epsilon,
        )

    def _activate(self, activation: Activation, values: str) -> str:
        if activation == "gelu":
            return self._g.op("Gelu", values, domain=MICROSOFT)
        if activation == "gelu_tanh":
            return self._g.op("FastGelu", values, domain=MICROSOFT)
        return self._g.op({"relu": "Relu", "tanh": "Tanh"}[activation], values)

    def _model(self) -> onnx.ModelProto:
        g = self._g
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT if kind is np.float32 else TensorProto.INT64, list(shape))
            for name, (kind, shape) in INPUTS.items()
        ]
        widths = {"logits": self._encoder.head[-1][0].weight.shape[1], "first": self._encoder.hidden}
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["texts", width]) for name, width in widths.items()]
        if self._probe:
            outputs += [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None) for tensor, _ in self.probes.values()]
        graph = helper.make_graph(g.nodes, "encoder", inputs, outputs, list(g.constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="supportbot")
