"""A Hugging Face checkpoint folder as one record of weights, whatever its family: BERT, DistilBERT, RoBERTa.

Reads `config.json` and `model.safetensors` with neither torch nor transformers. What the config asks and the graph cannot do, and
any tensor that nobody reads, is an error that names it: a model is built exactly or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from models.making.checkpoint import CheckpointError, Config, UnsupportedEncoder, label_names, padding_id, read_config

Floats = npt.NDArray[np.float32]
Activation = Literal["gelu", "gelu_tanh", "relu", "tanh"]


@dataclass(frozen=True, slots=True)
class Dense:
    """x @ weight + bias: `weight` shape [inputs, outputs], `bias` shape [outputs]."""

    weight: Floats
    bias: Floats


# Products, each with the activation that follows it.
Head: TypeAlias = tuple[tuple[Dense, Activation | None], ...]


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalization, both of shape [hidden]."""

    gamma: Floats
    beta: Floats


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


class Tensors:
    """The tensors of a checkpoint by name; remembers which were read."""

    def __init__(self, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        self._tensors = tensors
        self._read: set[str] = set()

    def __call__(self, name: str, *shape: int) -> Floats:
        """One tensor in fp32. Raises `CheckpointError` when it is missing, not finite, or of another shape (-1 fits any size)."""
        if name not in self._tensors:
            raise CheckpointError(f"model.safetensors: no tensor {name!r}")
        value = self._tensors[name]
        if len(value.shape) != len(shape) or any(want not in (-1, have) for want, have in zip(shape, value.shape, strict=True)):
            raise CheckpointError(f"model.safetensors: {name!r} has shape {list(value.shape)}, the config asks for {list(shape)}")
        self._read.add(name)
        value = np.asarray(value, dtype=np.float32)
        if not np.isfinite(value).all():
            raise CheckpointError(f"model.safetensors: {name!r} has values that are not finite")
        return value

    def dense(self, name: str, inputs: int, outputs: int) -> Dense:
        """A linear layer, which checkpoints keep as [outputs, inputs]."""
        weight = np.ascontiguousarray(self(f"{name}.weight", outputs, inputs).T)
        return Dense(weight, self(f"{name}.bias", outputs))

    def norm(self, name: str, width: int) -> Norm:
        """A layer normalization."""
        return Norm(self(f"{name}.weight", width), self(f"{name}.bias", width))

    def unread(self) -> list[str]:
        """Tensors nobody asked for; index buffers that old checkpoints carry do not count."""
        ignored = ("position_ids", "token_type_ids")
        return sorted(name for name in self._tensors if name not in self._read and not name.endswith(ignored))


def read_tensors(folder: Path) -> Tensors:
    """Read `model.safetensors`. Raises `CheckpointError`."""
    from safetensors import SafetensorError, safe_open

    file = folder / "model.safetensors"
    tensors: dict[str, npt.NDArray[Any]] = {}
    try:
        with safe_open(file, framework="np") as stream:
            for name in stream.keys():  # noqa: SIM118 - it is no mapping
                kind = stream.get_slice(name).get_dtype()
                if kind not in {"F64", "F32", "F16", "I64"}:
                    raise UnsupportedEncoder(f"{file}: {name!r} has type {kind}; save the checkpoint in float32 or float16")
                tensors[name] = stream.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: {error}") from error
    return Tensors(tensors)


ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}


def read_encoder(folder: Path) -> Encoder:
    """The weights of a checkpoint folder.

    Raises `UnsupportedEncoder` for another architecture or an option that the graph does not have, `CheckpointError` for files
    that are missing, damaged or do not fit together.
    """
    config = read_config(folder)
    family = str(config.get("model_type"))
    if family not in FAMILIES:
        raise UnsupportedEncoder(f"config.json: model_type = {family!r} is not supported (only {', '.join(map(repr, FAMILIES))})")
    config.demand("pruned_heads", {}, [])
    tensors = read_tensors(folder)
    encoder = FAMILIES[family](config, tensors, len(label_names(config)))
    if unread := tensors.unread():
        raise UnsupportedEncoder(f"model.safetensors: tensors with no place in a {family} classifier: {', '.join(unread[:5])}")
    if encoder.hidden % encoder.heads:
        raise CheckpointError(f"config.json: a hidden size of {encoder.hidden} cannot be divided into {encoder.heads} heads")
    return encoder


def _activation(config: Config, name: str) -> Activation:
    config.demand(name, *ACTIVATIONS)
    return ACTIVATIONS[config.get(name, "gelu")]


def _bert(config: Config, tensors: Tensors, labels: int) -> Encoder:
    width = config.integer("hidden_size", 768)
    head: Head = (
        (tensors.dense("bert.pooler.dense", width, width), "tanh"),
        (tensors.dense("classifier", width, labels), None),
    )
    return _bert_like(config, tensors, "bert", head, skipped_positions=0)


def _roberta(config: Config, tensors: Tensors, labels: int) -> Encoder:
    width = config.integer("hidden_size", 768)
    head: Head = (
        (tensors.dense("classifier.dense", width, width), "tanh"),
        (tensors.dense("classifier.out_proj", width, labels), None),
    )
    # RoBERTa numbers positions from the padding token's id + 1.
    return _bert_like(config, tensors, "roberta", head, skipped_positions=int(padding_id(config)) + 1)


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
            query=tensors.dense(f"{name}.attention.self.query", width, width),
            key=tensors.dense(f"{name}.attention.self.key", width, width),
            value=tensors.dense(f"{name}.attention.self.value", width, width),
            output=tensors.dense(f"{name}.attention.output.dense", width, width),
            norm1=tensors.norm(f"{name}.attention.output.LayerNorm", width),
            up=tensors.dense(f"{name}.intermediate.dense", width, inner),
            down=tensors.dense(f"{name}.output.dense", inner, width),
            norm2=tensors.norm(f"{name}.output.LayerNorm", width),
        )

    return Encoder(
        family=str(config.get("model_type")),
        words=tensors(f"{embeddings}.word_embeddings.weight", -1, width),
        positions=positions[skipped_positions:] + types[0],
        norm=tensors.norm(f"{embeddings}.LayerNorm", width),
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
            query=tensors.dense(f"{name}.attention.q_lin", width, width),
            key=tensors.dense(f"{name}.attention.k_lin", width, width),
            value=tensors.dense(f"{name}.attention.v_lin", width, width),
            output=tensors.dense(f"{name}.attention.out_lin", width, width),
            norm1=tensors.norm(f"{name}.sa_layer_norm", width),
            up=tensors.dense(f"{name}.ffn.lin1", width, inner),
            down=tensors.dense(f"{name}.ffn.lin2", inner, width),
            norm2=tensors.norm(f"{name}.output_layer_norm", width),
        )

    return Encoder(
        family="distilbert",
        words=tensors("distilbert.embeddings.word_embeddings.weight", -1, width),
        positions=tensors(
            "distilbert.embeddings.position_embeddings.weight", config.integer("max_position_embeddings", 512), width
        ),
        norm=tensors.norm("distilbert.embeddings.LayerNorm", width),
        layers=tuple(map(layer, range(config.integer("n_layers", 6)))),
        heads=config.integer("n_heads", 12),
        activation=_activation(config, "activation"),
        epsilon=1e-12,  # DistilBERT's own constant; its config has no such key
        head=(
            (tensors.dense("pre_classifier", width, width), "relu"),
            (tensors.dense("classifier", width, labels), None),
        ),
    )


FAMILIES: Final[Mapping[str, Callable[[Config, Tensors, int], Encoder]]] = {
    "bert": _bert,
    "distilbert": _distilbert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
}
