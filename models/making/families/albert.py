"""ALBERT: layers that share their weights, and embeddings narrower than they."""

from __future__ import annotations

from typing import Final

from models.making.architecture import Dense, Encoder, HeadLayer, Layer, Norm
from models.making.config import CheckpointError, Config
from models.making.families.bert import demand_plain_attention, position_table
from models.making.families.family import Family, activation
from models.making.weights import Tensors


def _albert(config: Config, tensors: Tensors, labels: int) -> Encoder:
    demand_plain_attention(config)
    width, inner = config.integer("hidden_size", 4096), config.integer("intermediate_size", 16384)
    embedding = config.integer("embedding_size", 128)
    count, groups = config.integer("num_hidden_layers", 12), config.integer("num_hidden_groups", 1)
    if groups > count:
        raise CheckpointError(f"config.json: num_hidden_groups is {groups}, more than the {count} layers")
    positions = position_table(config, tensors, "albert.embeddings", embedding)

    def layer(group: int, number: int) -> Layer:
        name = f"albert.encoder.albert_layer_groups.{group}.albert_layers.{number}"
        return Layer(
            query=Dense.read(tensors, f"{name}.attention.query", width, width),
            key=Dense.read(tensors, f"{name}.attention.key", width, width),
            value=Dense.read(tensors, f"{name}.attention.value", width, width),
            output=Dense.read(tensors, f"{name}.attention.dense", width, width),
            norm1=Norm.read(tensors, f"{name}.attention.LayerNorm", width),
            up=Dense.read(tensors, f"{name}.ffn", width, inner),
            down=Dense.read(tensors, f"{name}.ffn_output", inner, width),
            norm2=Norm.read(tensors, f"{name}.full_layer_layer_norm", width),
        )

    inside = range(config.integer("inner_group_num", 1))
    read = [[layer(group, number) for number in inside] for group in range(groups)]
    return Encoder(
        family="albert",
        words=tensors("albert.embeddings.word_embeddings.weight", -1, embedding),
        positions=positions,
        norm=Norm.read(tensors, "albert.embeddings.LayerNorm", embedding),
        # Each group is used by as many layers, one after the other.
        layers=tuple(shared for number in range(count) for shared in read[int(number / (count / groups))]),
        heads=config.integer("num_attention_heads", 64),
        activation=activation(config, "hidden_act", "gelu_new"),
        epsilon=config.real("layer_norm_eps", 1e-12),
        head=(
            HeadLayer(Dense.read(tensors, "albert.pooler", width, width), "tanh"),
            HeadLayer(Dense.read(tensors, "classifier", width, labels)),
        ),
        longest=len(positions),
        project=Dense.read(tensors, "albert.encoder.embedding_hidden_mapping_in", embedding, width),
    )


ALBERT: Final = Family(_albert, "albert", ("albert.pooler.weight", "classifier.weight"))
