"""What the padding-free graph computes: the weights of a sequence classifier and how they are put together, whatever its family.

`models.making.encoder` reads it from a checkpoint folder, `models.making.graph` writes it as an ONNX graph.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from models.making.config import CheckpointError
from models.making.distances import Distances
from models.making.weights import Floats, Tensors

Activation = Literal["gelu", "gelu_tanh", "relu", "tanh"]
Pooling = Literal["first", "mean"]


@dataclass(frozen=True, slots=True)
class Dense:
    """x @ weight + bias: `weight` shape [inputs, outputs], `bias` shape [outputs]."""

    weight: Floats
    bias: Floats

    @classmethod
    def read(cls, tensors: Tensors, name: str, inputs: int, outputs: int, *, bias: bool = True) -> Self:
        """A linear layer, which checkpoints keep as [outputs, inputs]; without a bias, it is zero. Raises `CheckpointError`."""
        weight = np.ascontiguousarray(tensors(f"{name}.weight", outputs, inputs).T)
        return cls(weight, tensors(f"{name}.bias", outputs) if bias else np.zeros(outputs, dtype=np.float32))

    def divide(self, parts: int) -> list[Dense]:
        """Products whose outputs, side by side, are those of this one."""
        halves = zip(np.split(self.weight, parts, axis=1), np.split(self.bias, parts), strict=True)
        return [Dense(np.ascontiguousarray(weight), bias) for weight, bias in halves]


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalization, both of shape [hidden]."""

    gamma: Floats
    beta: Floats

    @classmethod
    def read(cls, tensors: Tensors, name: str, width: int, *, bias: bool = True) -> Self:
        """Without a bias, it is zero. Raises `CheckpointError`."""
        return cls(tensors(f"{name}.weight", width), tensors(f"{name}.bias", width) if bias else np.zeros(width, dtype=np.float32))


@dataclass(frozen=True, slots=True)
class HeadLayer:
    """One step of the head: a product, then the activation and the normalization where there are any."""

    dense: Dense
    activation: Activation | None = None
    norm: Norm | None = None


@dataclass(frozen=True, slots=True)
class Relative:
    """Disentangled attention (DeBERTa): what the distance between two tokens adds to their score.

    Both have shape [heads, rows, head size], and a row for each distance that is told apart. The row of the distance is multiplied
    with the query (`keys`) and with the key (`queries`); None leaves the term out.
    """

    keys: Floats | None
    queries: Floats | None


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One transformer layer.

    `norm1` and `norm2` normalize after the residuals of attention and of the feed-forward part (post-norm), or before these parts
    (pre-norm); None leaves the normalization out. Where the feed-forward part is gated, the first half of `up` is activated and
    multiplied with the second.

    What attention knows of positions beside those in the embeddings: `rotary`, the base by which queries and keys are rotated
    (theta), and `relative`. With a `window`, tokens at most so many places away are seen.
    """

    query: Dense
    key: Dense
    value: Dense
    output: Dense
    norm1: Norm | None
    up: Dense
    down: Dense
    norm2: Norm
    rotary: float | None = None
    window: int | None = None
    relative: Relative | None = None

    @property
    def products(self) -> tuple[Dense, ...]:
        """All products, in the order of their use."""
        return self.query, self.key, self.value, self.output, self.up, self.down

    @property
    def knows_place_of_keys(self) -> bool:
        """Whether a key's place changes what it is multiplied with.

        If not, the bias of the keys adds the same to all scores of a query, and keys need not be made for a single query.
        """
        return self.rotary is not None or (self.relative is not None and self.relative.queries is not None)


@dataclass(frozen=True, slots=True)
class Encoder:
    """A sequence classifier's weights.

    `words` has shape [vocabulary, embedding]; `positions` [longest text, embedding], its row 0 that of a text's first token, with
    the embedding of token type 0 added; None where attention alone knows positions. After `norm`, `project` makes the embeddings
    as wide as the layers; None where they are.

    `layers` are in the order of their use, and one may be used several times. `final_norm` follows the last one. The `head` reads
    the first token's vector or the mean of all. Scores are divided by the root of head size x `terms`; `distances` are those that
    `Relative` tells apart.
    """

    family: str
    words: Floats
    positions: Floats | None
    norm: Norm
    layers: tuple[Layer, ...]
    heads: int
    activation: Activation
    epsilon: float
    head: tuple[HeadLayer, ...]
    longest: int
    project: Dense | None = None
    is_pre_norm: bool = False
    is_gated: bool = False
    final_norm: Norm | None = None
    pooling: Pooling = "first"
    terms: int = 1
    distances: Distances | None = None

    def __post_init__(self) -> None:
        """Raises `CheckpointError`."""
        head_size(self.hidden, self.heads)

    @property
    def hidden(self) -> int:
        """The width of the token vectors."""
        return int(self.layers[0].query.weight.shape[0])

    @property
    def is_like_bert(self) -> bool:
        """Whether layers are normalized after their parts, and know positions from the embeddings only."""
        knowing = (layer for layer in self.layers if layer.rotary or layer.window or layer.relative)
        return not self.is_pre_norm and not self.is_gated and self.pooling == "first" and not any(knowing)

    @property
    def labels(self) -> int:
        """How many logits the head gives."""
        return int(self.head[-1].dense.weight.shape[1])

    @property
    def parameters(self) -> int:
        """Weights of the tables and products, which is nearly all of them; what several layers share counts once."""
        tables = [self.words, *([] if self.positions is None else [self.positions])]
        products = [dense for layer in set(self.layers) for dense in layer.products]
        relative = [layer.relative for layer in set(self.layers) if layer.relative is not None]
        tables += [table for both in relative for table in (both.keys, both.queries) if table is not None]
        return sum(table.size for table in tables) + sum(dense.weight.size for dense in products)

    def cut(self, longest: int) -> Encoder:
        """The same for texts of so many tokens at most, without the positions that longer ones need."""
        return replace(self, positions=None if self.positions is None else self.positions[:longest], longest=longest)


def head_size(hidden: int, heads: int) -> int:
    """The width of one head. Raises `CheckpointError` where heads do not divide the hidden size."""
    if hidden % heads:
        raise CheckpointError(f"config.json: a hidden size of {hidden} cannot be divided into {heads} heads")
    return hidden // heads
