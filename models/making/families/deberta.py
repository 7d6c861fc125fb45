"""DeBERTa-v2 and v3: attention to what a token is, and apart from it to how far away it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from models.making.architecture import Dense, Encoder, HeadLayer, Layer, Norm, Relative, head_size
from models.making.config import Config, UnsupportedEncoder
from models.making.distances import Distances
from models.making.families.family import Family, activation
from models.making.weights import Floats, Tensors

# The terms of a score beside that of both contents: from a query's content to distances, and from distances to a key's content.
CONTENT_TO_POSITION, POSITION_TO_CONTENT = "c2p", "p2c"


def _deberta(config: Config, tensors: Tensors, labels: int) -> Encoder:
    width, inner = config.integer("hidden_size", 1536), config.integer("intermediate_size", 6144)
    heads, longest = config.integer("num_attention_heads", 24), config.integer("max_position_embeddings", 512)
    config.demand("conv_kernel_size", 0)
    config.demand("embedding_size", width)
    config.demand("attention_head_size", head_size(width, heads))
    config.demand("pooler_hidden_size", width)
    epsilon = config.real("layer_norm_eps", 1e-7)
    kinds = _terms(config)
    distances, relative = _relative(config, tensors, longest, epsilon)

    def layer(number: int) -> Layer:
        name = f"deberta.encoder.layer.{number}"
        query = Dense.read(tensors, f"{name}.attention.self.query_proj", width, width)
        key = Dense.read(tensors, f"{name}.attention.self.key_proj", width, width)
        return Layer(
            query=query,
            key=key,
            value=Dense.read(tensors, f"{name}.attention.self.value_proj", width, width),
            output=Dense.read(tensors, f"{name}.attention.output.dense", width, width),
            norm1=Norm.read(tensors, f"{name}.attention.output.LayerNorm", width),
            up=Dense.read(tensors, f"{name}.intermediate.dense", width, inner),
            down=Dense.read(tensors, f"{name}.output.dense", inner, width),
            norm2=Norm.read(tensors, f"{name}.output.LayerNorm", width),
            relative=relative(f"{name}.attention.self", query, key),
        )

    embeddings = "deberta.embeddings"
    words = tensors(f"{embeddings}.word_embeddings.weight", -1, width)
    # All tokens are of type 0, so its embedding can be added to each word's.
    if types := config.integer("type_vocab_size", 0, least=0):
        words = words + tensors(f"{embeddings}.token_type_embeddings.weight", types, width)[0]
    positions = None
    if config.flag("position_biased_input", default=True):
        positions = tensors(f"{embeddings}.position_embeddings.weight", longest, width)
    return Encoder(
        family="deberta-v2",
        words=words,
        positions=positions,
        norm=Norm.read(tensors, f"{embeddings}.LayerNorm", width),
        layers=tuple(map(layer, range(config.integer("num_hidden_layers", 24)))),
        heads=heads,
        activation=activation(config, "hidden_act"),
        epsilon=epsilon,
        head=(
            HeadLayer(Dense.read(tensors, "pooler.dense", width, width), activation(config, "pooler_hidden_act")),
            HeadLayer(Dense.read(tensors, "classifier", width, labels)),
        ),
        longest=longest,
        terms=1 + len(kinds),
        distances=distances,
    )


def _terms(config: Config) -> set[str]:
    """The terms that scores have beside that of both contents: their number counts even where distances are not looked at."""
    kinds = config.get("pos_att_type", [])
    kinds = [kind.strip() for kind in kinds.lower().split("|")] if isinstance(kinds, str) else kinds
    return {CONTENT_TO_POSITION, POSITION_TO_CONTENT} & set(kinds)


def _relative(
    config: Config, tensors: Tensors, longest: int, epsilon: float
) -> tuple[Distances | None, Callable[[str, Dense, Dense], Relative | None]]:
    """The distances told apart, and what makes a layer's tables of them, given its name, query and key."""
    width, heads, kinds = config.integer("hidden_size", 1536), config.integer("num_attention_heads", 24), _terms(config)
    norm = None
    if "layer_norm" in [part.strip() for part in str(config.get("norm_rel_ebd", "none")).lower().split("|")]:
        norm = Norm.read(tensors, "deberta.encoder.LayerNorm", width)
    if not config.flag("relative_attention", default=False):
        return None, lambda _name, _query, _key: None
    distances = _distances(config, longest)
    embeddings = tensors("deberta.encoder.rel_embeddings.weight", 2 * distances.span, width)
    if norm is not None:
        embeddings = _normalized(embeddings, norm, epsilon)
    is_shared = config.flag("share_att_key", default=False)

    def table(dense: Dense) -> Floats:
        return (embeddings @ dense.weight + dense.bias).reshape(-1, heads, width // heads).transpose(1, 0, 2)

    def relative(name: str, query: Dense, key: Dense) -> Relative | None:
        keys = queries = None
        if CONTENT_TO_POSITION in kinds:
            keys = table(key if is_shared else Dense.read(tensors, f"{name}.pos_key_proj", width, width))
        if POSITION_TO_CONTENT in kinds:
            queries = table(query if is_shared else Dense.read(tensors, f"{name}.pos_query_proj", width, width))
        return Relative(keys, queries) if kinds else None

    return distances, relative


def _distances(config: Config, longest: int) -> Distances:
    """The distances told apart, of texts of at most `longest` tokens."""
    farthest, buckets = (config.integer(name, -1, least=-1) for name in ("max_relative_positions", "position_buckets"))
    distances = Distances(longest if farthest < 1 else farthest, max(buckets, 0))
    if distances.buckets and not 1 <= distances.buckets // 2 < distances.farthest - 1:
        raise UnsupportedEncoder(
            f"config.json: position_buckets = {buckets} is not supported for distances up to {distances.farthest}"
        )
    return distances


def _normalized(values: Floats, norm: Norm, epsilon: float) -> Floats:
    exact = values.astype(np.float64)
    exact -= exact.mean(axis=1, keepdims=True)
    exact /= np.sqrt(np.square(exact).mean(axis=1, keepdims=True) + epsilon)
    return np.asarray(exact * norm.gamma + norm.beta, dtype=np.float32)


DEBERTA: Final = Family(
    _deberta,
    "deberta",
    ("pooler.dense.weight", "classifier.weight"),
    others=("pooler.", "classifier."),
    # Some checkpoints of models without them have them all the same; the pretraining's decoder reads them.
    unread=("deberta.embeddings.position_embeddings.",),
)
