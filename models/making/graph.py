"""The encoder's ONNX graph, written from its weights: no tracing, no torch.

One graph serves all families of `models.making.encoder`. It is padding-free: token-wise layers run on the real tokens of the pass
laid end to end, shape [tokens, hidden]; only attention sees texts side by side in rows. docs/engine.md tells why each part is as it
is, with the measurements. Three things are exact rewritings of the usual graph:

- Where the head reads the first token of each text, the last layer computes nothing else.
- Its keys and values are never made: q.(x Wk) = (q Wk^T).x, and sum p (x Wv) = (sum p x) Wv, so both products are done once a text
  instead of once a token. Where a key's place changes what it is multiplied with, keys are made all the same.
- A bias of the keys adds the same to all scores of a query, which softmax ignores, unless a key's place matters. A bias of the
  values passes through attention unchanged, because the probabilities add up to 1, and is added to the next bias here.

A text's logits do not depend, to the bit, on its batch-mates. Integer products are exact, all that is not attention works on single
rows, and in attention every sum runs over the text's own tokens in a fixed order, with exact zeros for the others (see
`models.passes` for what it takes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from models.making.architecture import Activation, Dense, Encoder, Layer, Norm
from models.making.attention import Attention
from models.making.nodes import MICROSOFT, Nodes
from models.making.quantize import LEVELS, LOW_LEVELS, LOW_ZERO_POINT, TINY, ZERO_POINT, ByRow, Fixed, Recipe
from models.making.weights import Floats
from models.passes import INPUTS

# Attention (opset 23) as one operator; the runtime's own operators besides.
OPSET: Final = 23
# The graph's input with an element for each token.
TOKENS: Final = "input_ids"


@dataclass(frozen=True, slots=True)
class Product:
    """One product of the graph, and the names of the tensors that are its input: several where layers share their weights."""

    inputs: list[str]
    dense: Dense


class Writer:
    """Writes an encoder's graph: in fp32, or in INT8 with a recipe for each product.

    With `probe`, the graph has further outputs: the inputs of the products, for calibration (see `probes`).
    """

    def __init__(self, encoder: Encoder, recipes: Mapping[str, Recipe] | None = None, *, probe: bool = False) -> None:
        self._encoder = encoder
        self._recipes = recipes
        self._probe = probe
        self._g = Nodes()
        # What the probing graph tells: the products by name.
        self.probes: dict[str, Product] = {}
        self._zeros: dict[tuple[str, int], str] = {}

    def write(self) -> onnx.ModelProto:
        """The model: inputs `models.passes.INPUTS`, outputs `logits`, shape [texts, labels], and `first`, shape [texts, hidden]:
        what the head reads. (A pass over one text has a second row.)
        """
        g, encoder = self._g, self._encoder
        hidden = self._embed()
        self._attention = Attention(g, encoder, self._table)
        for number in range(len(encoder.layers) - 1):
            hidden = self._layer(number, hidden)
        read = self._read(len(encoder.layers) - 1, hidden)
        assert read == g.nodes[-1].name
        g.nodes[-1].output[0] = "first"
        logits = self._head("first")
        g.nodes[-1].output[0] = "logits"
        assert logits == g.nodes[-1].name
        return self._model()

    # --- parts

    def _embed(self) -> str:
        g, encoder = self._g, self._encoder
        positions = None
        if encoder.positions is not None:
            positions = g.op("Gather", g.constant("positions.table", encoder.positions), "positions", axis=0)
        if self._recipes is not None:
            # A scale for each word: rare words have small vectors, which one scale for the table would round away.
            scale = np.maximum(np.abs(encoder.words).max(axis=1, keepdims=True) / LEVELS, TINY).astype(np.float32)
            table = np.rint(encoder.words / scale).astype(np.int8)
            rows = g.op("Cast", g.op("Gather", g.constant("words.table", table), "input_ids", axis=0), to=TensorProto.FLOAT)
            words = g.op("Mul", rows, g.op("Gather", g.constant("words.scale", scale), "input_ids", axis=0))
        else:
            words = g.op("Gather", g.constant("words.table", encoder.words), "input_ids", axis=0)
        hidden = self._norm("embeddings.norm", words if positions is None else g.op("Add", words, positions), encoder.norm)
        return hidden if encoder.project is None else self._dense("embeddings.project", hidden, encoder.project)

    def _name(self, number: int) -> str:
        """Layers that share their weights share the name of the first of them, and so their constants."""
        return f"layer.{self._encoder.layers.index(self._encoder.layers[number])}"

    def _layer(self, number: int, hidden: str) -> str:
        layer, name = self._encoder.layers[number], self._name(number)
        source = self._before_attention(number, hidden)
        key_bias = layer.key.bias if layer.knows_place_of_keys else np.zeros_like(layer.key.bias)
        joined = Dense(
            np.concatenate([layer.query.weight, layer.key.weight, layer.value.weight], axis=1),
            np.concatenate([layer.query.bias, key_bias, np.zeros_like(layer.value.bias)]),
        )
        context = self._attention.in_rows(name, layer, self._dense(f"{name}.attention", source, joined))
        return self._after_attention(number, hidden, context)

    def _read(self, number: int, hidden: str) -> str:
        """The last layer, and what the head reads of it, shape [texts, hidden]."""
        if self._encoder.pooling == "first":
            return self._final_norm(self._last_layer(number, hidden))
        return self._mean(self._final_norm(self._layer(number, hidden)))

    def _last_layer(self, number: int, hidden: str) -> str:
        """The last layer's first tokens, shape [texts, hidden]."""
        g, layer, name = self._g, self._encoder.layers[number], self._name(number)
        source = self._before_attention(number, hidden)
        firsts = g.op("Gather", "texts", g.index(0), axis=1)
        first = g.op("Gather", source, firsts, axis=0)
        residual = first if source == hidden else g.op("Gather", hidden, firsts, axis=0)
        context = self._attention.of_firsts(
            name,
            layer,
            source,
            query=lambda scale: self._dense(f"{name}.first", first, _times(layer.query, scale), firsts),
            keys=lambda: self._dense(f"{name}.key", source, layer.key),
        )
        return self._after_attention(number, residual, context, firsts)

    def _mean(self, hidden: str) -> str:
        """The mean of each text's tokens: all of them have the same share."""
        g = self._g
        shares = g.op("Softmax", "text_mask", axis=-1)
        mean = g.op("MatMul", shares, g.op("Gather", hidden, "texts", axis=0))
        return g.op("Reshape", mean, g.integers(-1, self._encoder.hidden))

    def _before_attention(self, number: int, hidden: str) -> str:
        norm = self._encoder.layers[number].norm1
        return hidden if norm is None or not self._encoder.is_pre_norm else self._norm(f"{self._name(number)}.norm1", hidden, norm)

    def _after_attention(self, number: int, residual: str, context: str, rows: str = TOKENS) -> str:
        """The rest of a layer, for all tokens or for some: both shape [rows, hidden]; `rows` as in `_dense`."""
        g, layer, name = self._g, self._encoder.layers[number], self._name(number)
        output = Dense(layer.output.weight, layer.output.bias + layer.value.bias @ layer.output.weight)
        attended = self._dense(f"{name}.context", context, output, rows)
        middle = g.op("Add", attended, residual)
        if self._encoder.is_pre_norm:
            return g.op("Add", self._feed_forward(name, layer, self._norm(f"{name}.norm2", middle, layer.norm2), rows), middle)
        if layer.norm1 is not None:
            middle = self._norm(f"{name}.norm1", middle, layer.norm1)
        return self._norm(f"{name}.norm2", g.op("Add", self._feed_forward(name, layer, middle, rows), middle), layer.norm2)

    def _feed_forward(self, name: str, layer: Layer, values: str, rows: str) -> str:
        up = self._dense(f"{name}.up", values, layer.up, rows)
        if not self._encoder.is_gated:
            return self._dense(f"{name}.down", self._activate(self._encoder.activation, up), layer.down, rows)
        inner = len(layer.down.weight)
        activated = self._activate(self._encoder.activation, self._columns(up, 0, inner))
        return self._dense(f"{name}.down", self._g.op("Mul", activated, self._columns(up, inner, 2 * inner)), layer.down, rows)

    def _columns(self, values: str, start: int, end: int) -> str:
        g = self._g
        return g.op("Slice", values, g.integers(start), g.integers(end), g.integers(1))

    def _final_norm(self, values: str) -> str:
        norm = self._encoder.final_norm
        return values if norm is None else self._norm("final_norm", values, norm)

    def _head(self, first: str) -> str:
        """Computed in fp32: it is a thousandth of the work, and what comes out are the logits themselves."""
        g = self._g
        for number, step in enumerate(self._encoder.head):
            first = g.op("MatMul", first, self._table(f"head.{number}.weight", step.dense.weight))
            first = g.op("Add", first, g.constant(f"head.{number}.bias", step.dense.bias))
            if step.activation is not None:
                first = self._activate(step.activation, first)
            if step.norm is not None:
                first = self._norm(f"head.{number}.norm", first, step.norm)
        return first

    def _table(self, name: str, value: Floats) -> str:
        return self._g.half(name, value) if self._recipes is not None else self._g.constant(name, value.astype(np.float32))

    # --- products

    def _dense(self, name: str, values: str, dense: Dense, rows: str = TOKENS) -> str:
        """A product; `rows` is a tensor of shape [rows], whatever its elements."""
        g = self._g
        self.probes.setdefault(name, Product([], dense)).inputs.append(values)
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
        widths = {"logits": self._encoder.labels, "first": self._encoder.hidden}
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["texts", width]) for name, width in widths.items()]
        if self._probe:
            probed = dict.fromkeys(tensor for product in self.probes.values() for tensor in product.inputs)
            outputs += [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None) for tensor in probed]
        graph = helper.make_graph(g.nodes, "encoder", inputs, outputs, list(g.constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="supportbot")


def _times(dense: Dense, factor: float) -> Dense:
    return Dense(dense.weight * factor, dense.bias * factor)
