"""A Hugging Face checkpoint folder as one record of weights, whatever its family: BERT, DistilBERT, RoBERTa.

Reads `config.json` and the weights with neither torch nor transformers. What the config asks and the graph cannot do, and any
tensor of the encoder or its head that nobody reads, is an error that names it: a model is built exactly or not at all. Tensors
that belong to something else, such as the head of the pretraining, are left out and named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias

import numpy as np

from models.making.config import CheckpointError, Config, UnsupportedEncoder, label_names, padding_id, read_config
from models.making.formats import WEIGHTS
from models.making.weights import Floats, Tensors, read_tensors

Activation = Literal["gelu", "gelu_tanh", "relu", "tanh"]


@dataclass(frozen=True, slots=True)
class Dense:
    """x @ weight + bias: `weight` shape [inputs, outputs], `bias` shape [outputs]."""

    weight: Floats
    bias: Floats

    @classmethod
    def read(cls, tensors: Tensors, name: str, inputs: int, outputs: int) -> Self:
        """A linear layer, which checkpoints keep as [outputs, inputs]. Raises `CheckpointError`."""
        weight = np.ascontiguousarray(tensors(f"{name}.weight", outputs, inputs).T)
        return cls(weight, tensors(f"{name}.bias", outputs))


# Products, each with the activation that follows it.
Head: TypeAlias = tuple[tuple[Dense, Activation | None], ...]


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalization, both of shape [hidden]."""

    gamma: Floats
    beta: Floats

    @classmethod
    def read(cls, tensors: Tensors, name: str, width: int) -> Self:
        """Raises `CheckpointError`."""
        return cls(tensors(f"{name}.weight", width), tensors(f"{name}.bias", width))


@dataclass(frozen=True, slots=True)
class Layer:
    """One transformer layer, normalized after each residual (post-norm)."""

    query: Dense
    key: Dense
    value: Dense
    output: Dense
    norm1: Norm
    up: Dense
    down: Dense
    norm2: Norm


@dataclass(frozen=True, slots=True)
class Encoder:
    """A sequence classifier's weights.

    `words` has shape [vocabulary, hidden]; `positions` [longest text, hidden], its row 0 that of a text's first token, with the
    embedding of token type 0 added. `head` is applied to the last layer's first token: products, each with its activation.
    """

    family: str
    words: Floats
    positions: Floats
    norm: Norm
    layers: tuple[Layer, ...]
    heads: int
    activation: Activation
    epsilon: float
    head: Head

    @property
    def hidden(self) -> int:
        """The width of the token vectors."""
        return int(self.words.shape[1])

    @property
    def parameters(self) -> int:
        """Weights of the tables and products, which is nearly all of them."""
        layer = self.layers[0]
        products = (layer.query, layer.key, layer.value, layer.output, layer.up, layer.down)
        tables = self.words.size + self.positions.size
        return int(tables + len(self.layers) * sum(dense.weight.size for dense in products))


# Tensors that a message names before it counts the others.
MOST_NAMED: Final = 10

ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}


def read_encoder(folder: Path, say: Callable[[str], None] = lambda _: None) -> Encoder:
    """The weights of a checkpoint folder; `say` gets a sentence that names what was left out.

    Raises `UnsupportedEncoder` for another architecture or an option that the graph does not have, `CheckpointError` for files
    that are missing, damaged or do not fit together, and for an encoder without a classification head.
    """
    config = read_config(folder)
    name = str(config.get("model_type"))
    if name not in FAMILIES:
        raise UnsupportedEncoder(f"config.json: model_type = {name!r} is not supported (only {', '.join(map(repr, FAMILIES))})")
    config.demand("pruned_heads", {}, [])
    family = FAMILIES[name]
    tensors = read_tensors(folder)
    if missing := [tensor for tensor in family.head if tensor not in tensors]:
        raise CheckpointError(no_head(folder, config, f"no tensor {missing[0]!r}"))
    encoder = family.read(config, tensors, len(label_names(config)))
    unread = tensors.unread()
    if odd := [tensor for tensor in unread if family.claims(tensor)]:
        raise CheckpointError(f"{WEIGHTS}: tensors with no place in a {name} classifier: {', '.join(odd[:5])}")
    if unread:
        say(left_out(unread, name))
    if encoder.hidden % encoder.heads:
        raise CheckpointError(f"config.json: a hidden size of {encoder.hidden} cannot be divided into {encoder.heads} heads")
    return encoder


def no_head(folder: Path, config: Config, reason: str) -> str:
    """The message for an encoder that was never trained to classify, or for another task."""
    made_as = config.get("architectures")
    kind = f"{', '.join(map(str, made_as))}, " if isinstance(made_as, list) and made_as else ""
    return (
        f"{folder} has no classification head ({kind}{reason}); this makes one from your labelled texts:"
        f" supportbot train --base {folder} --data FILE --out CHECKPOINT"
    )


def left_out(names: Sequence[str], family: str) -> str:
    """A sentence for tensors that a classifier of the family never reads."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"left out {len(names)} tensors that the {family} classifier never reads: {', '.join(names[:MOST_NAMED])}{more}"


def _activation(config: Config, name: str) -> Activation:
    config.demand(name, *ACTIVATIONS)
    return ACTIVATIONS[config.get(name, "gelu")]


def _bert(config: Config, tensors: Tensors, labels: int) -> Encoder:
    width = config.integer("hidden_size", 768)
    head: Head = (
        (Dense.read(tensors, "bert.pooler.dense", width, width), "tanh"),
        (Dense.read(tensors, "classifier", width, labels), None),
    )
    return _bert_like(config, tensors, "bert", head, skipped_positions=0)


def _roberta(config: Config, tensors: Tensors, labels: int) -> Encoder:
    width = config.integer("hidden_size", 768)
    head: Head = (
        (Dense.read(tensors, "classifier.dense", width, width), "tanh"),
        (Dense.read(tensors, "classifier.out_proj", width, labels), None),
    )
    # RoBERTa numbers positions from the padding token's id + 1.
    return _bert_like(config, tensors, "roberta", head, skipped_positions=padding_id(config) + 1)


def _bert_like(
    config: Config,
    tensors: Tensors,
    prefix: str,
    head: Head,
    skipped_positions: int,
) -> Encoder:
    config.demand("position_embedding_type", "absolute")
    config.demand("is_decoder", False)
    config.demand("add_cross_attention", False)
    width, inner = config.integer("hidden_size", 768), config.integer("intermediate_size", 3072)
    embeddings = f"{prefix}.embeddings"
    types = tensors(f"{embeddings}.token_type_embeddings.weight", config.integer("type_vocab_size", 2), width)
    positions = tensors(f"{embeddings}.position_embeddings.weight", config.integer("max_position_embeddings", 512), width)

    def layer(number: int) -> Layer:
        name = f"{prefix}.encoder.layer.{number}"
        return Layer(
            query=Dense.read(tensors, f"{name}.attention.self.query", width, width),
            key=Dense.read(tensors, f"{name}.attention.self.key", width, width),
            value=Dense.read(tensors, f"{name}.attention.self.value", width, width),
            output=Dense.read(tensors, f"{name}.attention.output.dense", width, width),
            norm1=Norm.read(tensors, f"{name}.attention.output.LayerNorm", width),
            up=Dense.read(tensors, f"{name}.intermediate.dense", width, inner),
            down=Dense.read(tensors, f"{name}.output.dense", inner, width),
            norm2=Norm.read(tensors, f"{name}.output.LayerNorm", width),
        )

    return Encoder(
        family=str(config.get("model_type")),
        words=tensors(f"{embeddings}.word_embeddings.weight", -1, width),
        positions=positions[skipped_positions:] + types[0],
        norm=Norm.read(tensors, f"{embeddings}.LayerNorm", width),
        layers=tuple(map(layer, range(config.integer("num_hidden_layers", 12)))),
        heads=config.integer("num_attention_heads", 12),
        activation=_activation(config, "hidden_act"),
        epsilon=config.real("layer_norm_eps", 1e-12),
        head=head,
    )


def _distilbert(config: Config, tensors: Tensors, labels: int) -> Encoder:
    width, inner = config.integer("dim", 768), config.integer("hidden_dim", 3072)

    def layer(number: int) -> Layer:
        name = f"distilbert.transformer.layer.{number}"
        return Layer(
            query=Dense.read(tensors, f"{name}.attention.q_lin", width, width),
            key=Dense.read(tensors, f"{name}.attention.k_lin", width, width),
            value=Dense.read(tensors, f"{name}.attention.v_lin", width, width),
            output=Dense.read(tensors, f"{name}.attention.out_lin", width, width),
            norm1=Norm.read(tensors, f"{name}.sa_layer_norm", width),
            up=Dense.read(tensors, f"{name}.ffn.lin1", width, inner),
            down=Dense.read(tensors, f"{name}.ffn.lin2", inner, width),
            norm2=Norm.read(tensors, f"{name}.output_layer_norm", width),
        )

    return Encoder(
        family="distilbert",
        words=tensors("distilbert.embeddings.word_embeddings.weight", -1, width),
        positions=tensors(
            "distilbert.embeddings.position_embeddings.weight", config.integer("max_position_embeddings", 512), width
        ),
        norm=Norm.read(tensors, "distilbert.embeddings.LayerNorm", width),
        layers=tuple(map(layer, range(config.integer("n_layers", 6)))),
        heads=config.integer("n_heads", 12),
        activation=_activation(config, "activation"),
        epsilon=1e-12,  # DistilBERT's own constant; its config has no such key
        head=(
            (Dense.read(tensors, "pre_classifier", width, width), "relu"),
            (Dense.read(tensors, "classifier", width, labels), None),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Family:
    """How an architecture's weights are read: by `read`; its encoder's tensors begin with `prefix`, `head` are the weights of the
    products of its head, and `unread` begin the encoder's tensors that a classifier never reads.
    """

    read: Callable[[Config, Tensors, int], Encoder]
    prefix: str
    head: tuple[str, ...]
    unread: tuple[str, ...] = ()

    def claims(self, tensor: str) -> bool:
        """Whether an unread tensor contradicts the config; index buffers that old checkpoints carry do not."""
        if tensor.startswith(self.unread) or tensor.endswith((".position_ids", ".token_type_ids")):
            return False
        return tensor.startswith((f"{self.prefix}.", "classifier.", "pre_classifier."))


_ROBERTA: Final = _Family(
    _roberta, "roberta", ("classifier.dense.weight", "classifier.out_proj.weight"), unread=("roberta.pooler.",)
)
FAMILIES: Final[Mapping[str, _Family]] = {
    "bert": _Family(_bert, "bert", ("bert.pooler.dense.weight", "classifier.weight")),
    "distilbert": _Family(_distilbert, "distilbert", ("pre_classifier.weight", "classifier.weight")),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
}
