"""ModernBERT: normalized before each part, gated, with rotary positions, and most layers see near tokens only."""

from __future__ import annotations

from typing import Final

from models.making.architecture import Dense, Encoder, HeadLayer, Layer, Norm, Pooling, head_size
from models.making.config import CheckpointError, Config, UnsupportedEncoder
from models.making.families.family import Family, activation
from models.making.weights import Tensors

FULL, SLIDING = "full_attention", "sliding_attention"
# By which base positions are rotated, where the config does not say it; and what older configs called it.
THETAS: Final = {FULL: ("global_rope_theta", 160_000.0), SLIDING: ("local_rope_theta", 10_000.0)}
POOLINGS: Final[dict[str, Pooling]] = {"cls": "first", "mean": "mean"}


def _modernbert(config: Config, tensors: Tensors, labels: int) -> Encoder:
    config.demand("classifier_pooling", *POOLINGS)
    config.demand("rope_scaling", None)
    width, inner = config.integer("hidden_size", 768), config.integer("intermediate_size", 1152)
    heads = config.integer("num_attention_heads", 12)
    if (size := head_size(width, heads)) % 2:
        raise UnsupportedEncoder(f"config.json: heads of {size} numbers cannot be rotated in pairs")
    kinds = _kinds(config, config.integer("num_hidden_layers", 22))
    thetas = {kind: _theta(config, kind) for kind in set(kinds)}
    window = config.integer("local_attention", 128) // 2
    norms, attention, feed = (config.flag(name, default=False) for name in ("norm_bias", "attention_bias", "mlp_bias"))

    def layer(number: int) -> Layer:
        name = f"model.layers.{number}"
        query, key, value = Dense.read(tensors, f"{name}.attn.Wqkv", width, 3 * width, bias=attention).divide(3)
        return Layer(
            query=query,
            key=key,
            value=value,
            output=Dense.read(tensors, f"{name}.attn.Wo", width, width, bias=attention),
            # The embeddings are normalized already.
            norm1=None if number == 0 else Norm.read(tensors, f"{name}.attn_norm", width, bias=norms),
            up=Dense.read(tensors, f"{name}.mlp.Wi", width, 2 * inner, bias=feed),
            down=Dense.read(tensors, f"{name}.mlp.Wo", inner, width, bias=feed),
            norm2=Norm.read(tensors, f"{name}.mlp_norm", width, bias=norms),
            rotary=thetas[kinds[number]],
            window=window if kinds[number] == SLIDING else None,
        )

    dense = Dense.read(tensors, "head.dense", width, width, bias=config.flag("classifier_bias", default=False))
    norm = Norm.read(tensors, "head.norm", width, bias=norms)
    return Encoder(
        family="modernbert",
        words=tensors("model.embeddings.tok_embeddings.weight", -1, width),
        positions=None,
        norm=Norm.read(tensors, "model.embeddings.norm", width, bias=norms),
        layers=tuple(map(layer, range(len(kinds)))),
        heads=heads,
        activation=activation(config, "hidden_activation"),
        epsilon=config.real("norm_eps", 1e-5),
        head=(
            HeadLayer(dense, activation(config, "classifier_activation"), norm),
            HeadLayer(Dense.read(tensors, "classifier", width, labels)),
        ),
        longest=config.integer("max_position_embeddings", 8192),
        is_pre_norm=True,
        is_gated=True,
        final_norm=Norm.read(tensors, "model.final_norm", width, bias=norms),
        pooling=POOLINGS[config.get("classifier_pooling", "cls")],
    )


def _kinds(config: Config, count: int) -> list[str]:
    """Each layer's kind of attention. Raises `CheckpointError`."""
    kinds = config.get("layer_types")
    if kinds is None:
        period = config.integer("global_attn_every_n_layers", 3)
        return [SLIDING if number % period else FULL for number in range(count)]
    if not isinstance(kinds, list) or len(kinds) != count or not all(kind in THETAS for kind in kinds):
        raise CheckpointError(f"config.json: layer_types must name {FULL} or {SLIDING} for each of {count} layers")
    return kinds


def _theta(config: Config, kind: str) -> float:
    """The base of one kind's rotary positions. Raises `UnsupportedEncoder` for positions that are scaled in any way."""
    parameters = config.get("rope_parameters", {})
    if not isinstance(parameters, dict) or not set(parameters) <= set(THETAS):
        raise UnsupportedEncoder(f"config.json: rope_parameters = {parameters!r} is not supported (only by kind of layer)")
    own = Config(parameters.get(kind) or {})
    own.demand("rope_type", "default")
    if odd := sorted(own.names - {"rope_type", "rope_theta"}):
        raise UnsupportedEncoder(f"config.json: rope_parameters with {', '.join(odd)} is not supported")
    name, default = THETAS[kind]
    return own.real("rope_theta", config.real(name, default))


MODERNBERT: Final = Family(_modernbert, "model", ("head.dense.weight", "classifier.weight"), others=("head.", "classifier."))
