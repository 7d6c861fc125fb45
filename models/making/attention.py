"""The attention of a layer as ONNX nodes: of all tokens, in rows, or of first tokens only, a text a row."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto

from models.making.architecture import Encoder, Layer, Relative
from models.making.nodes import MICROSOFT, Nodes
from models.making.weights import Floats
from models.passes import HIDDEN, WIDEST_SHARED_ROW, aligned


class Attention:
    """Writes the attention of an encoder's layers; what several layers use is written once.

    `table` writes a constant of the model under a name.
    """

    def __init__(self, nodes: Nodes, encoder: Encoder, table: Callable[[str, Floats], str]) -> None:
        self._g = nodes
        self._encoder = encoder
        self._table = table
        self._size = encoder.hidden // encoder.heads
        self._scale = 1 / math.sqrt(self._size * encoder.terms)
        # Rows and texts are at most so wide.
        self._widest = max(WIDEST_SHARED_ROW, aligned(encoder.longest))
        self._once: dict[str, str] = {}
        # Where the rows' queries, keys and values are when their joint product is read as [3 x tokens, hidden].
        queries = nodes.op("Mul", "rows", nodes.index(3))
        self._views = queries, nodes.op("Add", queries, nodes.index(1)), nodes.op("Add", queries, nodes.index(2))

    def in_rows(self, name: str, layer: Layer, product: str) -> str:
        """Attention of all tokens to all of their text.

        `product` has shape [tokens, 3 x hidden]: queries, keys and values. The result has shape [tokens, hidden].
        """
        g, width, heads = self._g, self._encoder.hidden, self._encoder.heads
        thirds = g.op("Reshape", product, g.integers(-1, width))
        if layer.rotary is not None:
            thirds = self._rotate(thirds, layer.rotary, "thirds")
        sides = [g.op("Gather", thirds, view, axis=0) for view in self._views]
        mask = "mask" if layer.window is None else self._mask_in_rows(layer.window)
        if layer.relative is not None:
            mask = g.op("Add", self._bias_in_rows(name, layer.relative, *sides[:2]), mask)
        options: dict[str, Any] = {} if self._encoder.terms == 1 else {"scale": self._scale}
        mixed = g.op("Attention", *sides, mask, q_num_heads=heads, kv_num_heads=heads, **options)
        return g.op("Gather", g.op("Reshape", mixed, g.integers(-1, width)), "slots", axis=0)

    def of_firsts(self, name: str, layer: Layer, source: str, query: Callable[[float], str], keys: Callable[[], str]) -> str:
        """Attention of each text's first token to all of its text, without values, and if possible without keys.

        `source` is the layer's input, shape [tokens, hidden]. `query` writes the first tokens' queries, times a
        factor, shape [texts, hidden]; `keys` the keys of all tokens, shape [tokens, hidden]. The result has shape [texts, hidden].
        """
        g, heads, size, width = self._g, self._encoder.heads, self._size, self._encoder.hidden
        queries = g.op("Transpose", g.op("Reshape", query(self._scale), g.integers(-1, heads, size)), perm=[1, 0, 2])
        if layer.knows_place_of_keys:
            made = keys()
            if layer.rotary is not None:  # the first token's query is rotated by nothing
                made = self._rotate(made, layer.rotary, "tokens")
            # Each head's query at its head's place, with zeros for the others.
            blocks = g.constant("heads.blocks", np.eye(width, dtype=np.float32).reshape(heads, size, width))
            spread = g.op("MatMul", queries, blocks)
        else:
            made = source
            spread = g.op("MatMul", queries, self._table(f"{name}.key", _by_head(layer.key.weight, heads).transpose(0, 2, 1)))
        spread = g.op("Transpose", spread, perm=[1, 2, 0])
        tokens = g.op("Gather", source, "texts", axis=0)
        seen = tokens if made == source else g.op("Gather", made, "texts", axis=0)
        scores = g.op("MatMul", seen, spread)
        if layer.relative is not None and layer.relative.queries is not None:
            scores = g.op("Add", scores, self._position_to_content(name, layer.relative.queries, seen))
        scores = g.op("Transpose", scores, perm=[0, 2, 1])
        if layer.relative is not None and layer.relative.keys is not None:
            scores = g.op("Add", scores, self._content_to_position(name, layer.relative.keys, queries))
        mask = "text_mask" if layer.window is None else self._mask_of_firsts(layer.window)
        shares = g.op("Softmax", g.op("Add", scores, mask), axis=-1)
        mixed = g.op("Transpose", g.op("MatMul", shares, tokens), perm=[1, 0, 2])
        values = self._table(f"{name}.value", _by_head(layer.value.weight, heads))
        context = g.op("Transpose", g.op("MatMul", mixed, values), perm=[1, 0, 2])
        return g.op("Reshape", context, g.integers(-1, width))

    def _shared(self, key: str, write: Callable[[], str]) -> str:
        if key not in self._once:
            self._once[key] = write()
        return self._once[key]

    # --- windows

    def _mask_in_rows(self, window: int) -> str:
        """The mask, with tokens hidden that are more than `window` places away."""

        def write() -> str:
            g = self._g
            # An empty slot counts as the pass's first token, and sees nothing but empty slots in any case.
            places = g.op("Cast", g.op("Gather", "positions", "rows", axis=0), to=TensorProto.FLOAT)
            apart = g.op("Abs", g.op("Sub", g.op("Unsqueeze", places, g.integers(2)), g.op("Unsqueeze", places, g.integers(1))))
            far = g.op("Unsqueeze", g.op("Greater", apart, g.real(float(window))), g.integers(1))
            return g.op("Where", far, g.real(float(HIDDEN)), "mask")

        return self._shared(f"mask {window}", write)

    def _mask_of_firsts(self, window: int) -> str:
        def write() -> str:
            g = self._g
            far = g.op("Greater", g.op("Gather", "positions", "texts", axis=0), g.index(window))
            return g.op("Where", g.op("Unsqueeze", far, g.integers(1)), g.real(float(HIDDEN)), "text_mask")

        return self._shared(f"text_mask {window}", write)

    # --- rotary positions

    def _rotate(self, values: str, theta: float, kind: str) -> str:
        """Rotate each head's vector by its token's place; `kind` says what `values` are, both of width hidden.

        "tokens" are the keys of all tokens, "thirds" the queries, keys and values of each, of which the values stay as they are:
        at place 0, nothing is rotated.
        """
        g, width = self._g, self._encoder.hidden

        def places() -> str:
            if kind == "tokens":
                return "positions"
            thirds = g.constant("rotated_thirds", np.array([[1, 1, 0]]))
            return g.op("Reshape", g.op("Mul", g.op("Unsqueeze", "positions", g.integers(1)), thirds), g.integers(-1))

        def each_token(name: str, function: Callable[[Floats], Floats]) -> str:
            def write() -> str:
                table = function(_angles(theta, self._size, self._encoder.longest)).astype(np.float32)
                rows = g.op("Gather", g.constant(f"rotary.{theta!r}.{name}", table), self._shared(kind, places), axis=0)
                return g.op("Unsqueeze", rows, g.integers(0))

            return self._shared(f"{kind} {theta} {name}", write)

        cos, sin = each_token("cos", np.cos), each_token("sin", np.sin)
        # The runtime takes a table of positions only if it is as long as its input, so each token comes with its angles.
        rotated = g.op("RotaryEmbedding", g.op("Unsqueeze", values, g.integers(0)), cos, sin, num_heads=self._encoder.heads)
        return g.op("Reshape", rotated, g.integers(-1, width))

    # --- distances

    def _bias_in_rows(self, name: str, relative: Relative, queries: str, keys: str) -> str:
        """What distances add to the scores, shape [rows, heads, width, width]; both inputs have shape [rows, width, hidden]."""
        g = self._g
        terms = []
        if relative.keys is not None:
            near = self._near(f"{name}.distance.keys", relative.keys)
            scores = g.op("FusedMatMul", self._heads(queries), near, domain=MICROSOFT, transB=1)
            terms.append(g.op("GatherElements", scores, self._rows_of_distances(queries), axis=3))
        if relative.queries is not None:
            near = self._near(f"{name}.distance.queries", relative.queries)
            scores = g.op("FusedMatMul", near, self._heads(keys), domain=MICROSOFT, transB=1)
            terms.append(g.op("GatherElements", scores, self._rows_of_distances(queries), axis=2))
        return terms[0] if len(terms) == 1 else g.op("Add", *terms)

    def _heads(self, values: str) -> str:
        """[rows, width, hidden] to [rows, heads, width, head size]."""
        g = self._g
        return g.op("Transpose", g.op("Reshape", values, g.integers(0, 0, self._encoder.heads, self._size)), perm=[0, 2, 1, 3])

    def _near(self, name: str, rows: Floats) -> str:
        """The part of a table of distances that occurs in rows of this pass's width."""
        g = self._g
        table = self._table(name, rows * np.float32(self._scale))
        return g.op("Slice", table, self._lowest(), self._highest(), g.integers(1))

    def _distances(self) -> str:
        """The rows of all distances, from -(widest - 1) on."""
        assert self._encoder.distances is not None
        return self._g.constant("distances", self._encoder.distances.rows(np.arange(1 - self._widest, self._widest)))

    def _width(self) -> str:
        return self._shared("width", lambda: self._g.op("Shape", "rows", start=1, end=2))

    def _lowest(self) -> str:
        """The first row that occurs at this pass's width, shape [1]."""
        g = self._g

        def write() -> str:
            least = g.op("Sub", g.integers(self._widest), self._width())
            return g.op("Gather", self._distances(), least, axis=0)

        return self._shared("lowest", write)

    def _highest(self) -> str:
        """One more than the last row that occurs at this pass's width, shape [1]."""
        g = self._g

        def write() -> str:
            greatest = g.op("Add", g.integers(self._widest - 2), self._width())
            return g.op("Add", g.op("Gather", self._distances(), greatest, axis=0), g.integers(1))

        return self._shared("highest", write)

    def _rows_of_distances(self, like: str) -> str:
        """For each pair of slots in each row and head, the place of its distance's row in what `_near` gives."""
        g = self._g

        def write() -> str:
            slots = g.op("Range", g.index(0), g.op("Squeeze", self._width(), g.integers(0)), g.index(1))
            apart = g.op("Sub", g.op("Unsqueeze", slots, g.integers(1)), g.op("Unsqueeze", slots, g.integers(0)))
            rows = g.op("Gather", self._distances(), g.op("Add", apart, g.index(self._widest - 1)), axis=0)
            places = g.op("Sub", rows, self._lowest())
            count = g.op("Shape", like, start=0, end=1)
            shape = g.op("Concat", count, g.integers(self._encoder.heads), self._width(), self._width(), axis=0)
            return g.op("Expand", places, shape)

        return self._shared("rows of distances", write)

    def _rows_from_first(self, rows: Floats) -> Floats:
        """From a table by row to one by place: what the distance of a text's first token to each place has."""
        assert self._encoder.distances is not None
        return rows[:, self._encoder.distances.rows(-np.arange(self._widest))]

    def _up_to_longest(self, table: str, axis: int) -> str:
        """The part for places that occur in this pass's texts."""
        g = self._g
        longest = self._shared("longest", lambda: g.op("Shape", "texts", start=1, end=2))
        return g.op("Slice", table, g.integers(0), longest, g.integers(axis))

    def _content_to_position(self, name: str, rows: Floats, queries: str) -> str:
        """Of first tokens' queries, shape [heads, texts, head size] and scaled: [texts, heads, longest]."""
        g = self._g
        table = self._table(f"{name}.first.keys", self._rows_from_first(rows).transpose(0, 2, 1))
        return g.op("Transpose", g.op("MatMul", queries, self._up_to_longest(table, 2)), perm=[1, 0, 2])

    def _position_to_content(self, name: str, rows: Floats, keys: str) -> str:
        """Of keys, shape [texts, longest, hidden], for first tokens: [texts, longest, heads]."""
        g, heads, width = self._g, self._encoder.heads, self._encoder.hidden
        by_place = self._rows_from_first(rows * np.float32(self._scale)).transpose(1, 0, 2).reshape(-1, width)
        products = g.op("Mul", keys, self._up_to_longest(self._table(f"{name}.first.queries", by_place), 0))
        sums = np.repeat(np.eye(heads, dtype=np.float32), self._size, axis=0)
        return g.op("MatMul", products, g.constant("heads.sums", sums))


def _by_head(weight: Floats, heads: int) -> Floats:
    """Weights of shape [inputs, hidden] as [heads, inputs, head size]."""
    return weight.reshape(len(weight), heads, -1).transpose(1, 0, 2)


def _angles(theta: float, size: int, longest: int) -> Floats:
    """By how much each pair of a head's numbers is rotated at each place, shape [longest, size / 2], in float32 as usual."""
    frequencies = (1.0 / np.float32(theta) ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size))).astype(np.float32)
    angles: Floats = np.arange(longest, dtype=np.float32)[:, None] * frequencies
    return angles
