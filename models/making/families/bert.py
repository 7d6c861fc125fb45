"""BERT, those that differ from it in names and heads (RoBERTa, XLM-R, CamemBERT, ELECTRA), and DistilBERT."""

from __future__ import annotations

from typing import Final

from models.making.architecture import Dense, Encoder, HeadLayer, Layer, Norm
from models.making.config import Config, padding_id
from models.making.families.family import Family, activation
from models.making.weights import Floats, Tensors


def _bert(config: Config, tensors: Tensors, labels: int) -> Encoder:
    width = config.integer("hidden_size", 768)
    head = (
        HeadLayer(Dense.read(tensors, "bert.pooler.dense", width, width), "tanh"),
        HeadLayer(Dense.read(tensors, "classifier", width, labels)),
    )
    return _bert_like(config, tensors, "bert", head)


def _roberta(config: Config, tensors: Tensors, labels: int) -> Encoder:
    width = config.integer("hidden_size", 768)
    head = (
        HeadLayer(Dense.read(tensors, "classifier.dense", width, width), "tanh"),
        HeadLayer(Dense.read(tensors, "classifier.out_proj", width, labels)),
    )
    # RoBERTa numbers positions from the padding token's id + 1.
    return _bert_like(config, tensors, "roberta", head, skipped_positions=padding_id(config) + 1)


def _electra(config: Config, tensors: Tensors, labels: int) -> Encoder:
    width, embedding = config.integer("hidden_size", 256), config.integer("embedding_size", 128)
    head = (
        HeadLayer(Dense.read(tensors, "classifier.dense", width, width), "gelu"),  # whatever the layers have
        HeadLayer(Dense.read(tensors, "classifier.out_proj", width, labels)),
    )
    project = None if embedding == width else Dense.read(tensors, "electra.embeddings_project", embedding, width)
    return _bert_like(config, tensors, "electra", head, project=project)


def demand_plain_attention(config: Config) -> None:
    """Raise `UnsupportedEncoder` where attention knows other positions than the embeddings', or other tokens than the text's."""
    config.demand("position_embedding_type", "absolute")
    config.demand("is_decoder", False)
    config.demand("add_cross_attention", False)


def position_table(config: Config, tensors: Tensors, name: str, width: int) -> Floats:
    """The embeddings of positions under this name, with that of token type 0 added. Raises `CheckpointError`."""
    types = tensors(f"{name}.token_type_embeddings.weight", config.integer("type_vocab_size", 2), width)
    positions = tensors(f"{name}.position_embeddings.weight", config.integer("max_position_embeddings", 512), width)
    table: Floats = positions + types[0]
    return table


def _bert_like(
    config: Config,
    tensors: Tensors,
    prefix: str,
    head: tuple[HeadLayer, ...],
    skipped_positions: int = 0,
    project: Dense | None = None,
) -> Encoder:
    demand_plain_attention(config)
    width, inner = head[0].dense.weight.shape[0], config.integer("intermediate_size", 1024 if prefix == "electra" else 3072)
    embedding = width if project is None else len(project.weight)
    embeddings = f"{prefix}.embeddings"
    positions = position_table(config, tensors, embeddings, embedding)[skipped_positions:]

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
        words=tensors(f"{embeddings}.word_embeddings.weight", -1, embedding),
        positions=positions,
        norm=Norm.read(tensors, f"{embeddings}.LayerNorm", embedding),
        layers=tuple(map(layer, range(config.integer("num_hidden_layers", 12)))),
        heads=config.integer("num_attention_heads", 4 if prefix == "electra" else 12),
        activation=activation(config, "hidden_act"),
        epsilon=config.real("layer_norm_eps", 1e-12),
        head=head,
        longest=len(positions),
        project=project,
    )


def _distilbert(config: Config, tensors: Tensors, labels: int) -> Encoder:
    width, inner = config.integer("dim", 768), config.integer("hidden_dim", 3072)
    longest = config.integer("max_position_embeddings", 512)

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
        positions=tensors("distilbert.embeddings.position_embeddings.weight", longest, width),
        norm=Norm.read(tensors, "distilbert.embeddings.LayerNorm", width),
        layers=tuple(map(layer, range(config.integer("n_layers", 6)))),
        heads=config.integer("n_heads", 12),
        activation=activation(config, "activation"),
        epsilon=1e-12,  # DistilBERT's own constant; its config has no such key
        head=(
            HeadLayer(Dense.read(tensors, "pre_classifier", width, width), "relu"),
            HeadLayer(Dense.read(tensors, "classifier", width, labels)),
        ),
        longest=longest,
    )


_DENSE_AND_PROJECTION: Final = ("classifier.dense.weight", "classifier.out_proj.weight")
BERT: Final = Family(_bert, "bert", ("bert.pooler.dense.weight", "classifier.weight"))
ROBERTA: Final = Family(_roberta, "roberta", _DENSE_AND_PROJECTION, unread=("roberta.pooler.",))
DISTILBERT: Final = Family(_distilbert, "distilbert", ("pre_classifier.weight", "classifier.weight"))
ELECTRA: Final = Family(_electra, "electra", _DENSE_AND_PROJECTION)
