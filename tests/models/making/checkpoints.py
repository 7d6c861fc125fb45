"""Tiny random checkpoints of each family, as transformers saves them. Needs torch and transformers."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers

from models.types import Encoding

VOCABULARY: Final = 200
# The lowest id that has no meaning of its own: RoBERTa's positions depend on which tokens are padding.
FIRST_ID: Final = 6
CLASSES: Final = {
    "bert": ("BertConfig", "BertForSequenceClassification"),
    "distilbert": ("DistilBertConfig", "DistilBertForSequenceClassification"),
    "roberta": ("RobertaConfig", "RobertaForSequenceClassification"),
    "xlm-roberta": ("XLMRobertaConfig", "XLMRobertaForSequenceClassification"),
    "camembert": ("CamembertConfig", "CamembertForSequenceClassification"),
    "electra": ("ElectraConfig", "ElectraForSequenceClassification"),
    "albert": ("AlbertConfig", "AlbertForSequenceClassification"),
    "modernbert": ("ModernBertConfig", "ModernBertForSequenceClassification"),
    "deberta-v2": ("DebertaV2Config", "DebertaV2ForSequenceClassification"),
}
# Some have names of their own.
NAMES: Final[dict[str, dict[str, str]]] = {
    "distilbert": {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
    },
    "modernbert": {"hidden_act": "hidden_activation"},
}
DEFAULTS: Final = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 200,
    "vocab_size": VOCABULARY,
    "num_labels": 3,
}


# What a family has beside these, so that all of it matters in a tiny model.
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "electra": {"embedding_size": 24},
    "albert": {"embedding_size": 24, "num_hidden_groups": 2, "inner_group_num": 2},
    # Texts are longer than the window, and the fourth layer is the second that sees all of them.
    "modernbert": {
        "local_attention": 16,
        "num_hidden_layers": 4,
        "norm_bias": True,
        "attention_bias": True,
        "mlp_bias": True,
        "classifier_bias": True,
        "pad_token_id": 0,
    },
    # As version 3 has it. Near distances are told apart, far ones share buckets, and the farthest are beyond them.
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 16,
        "max_relative_positions": 64,
        "position_biased_input": False,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
    },
}
# With others, texts of a model that uses its layers again and again hardly differ.
SEEDS: Final = {"albert": 6}


def save(folder: Path, family: str, seed: int | None = None, **options: Any) -> Any:  # noqa: ANN401 - a torch module
    """Save a checkpoint and return its model. All its numbers are random and large enough that every one of them matters.

    They come from numpy, whose numbers are the same on every machine; a fresh model's biases and norms would all be 0 or 1.
    """
    values = DEFAULTS | OPTIONS.get(family, {}) | options
    values = {NAMES.get(family, {}).get(name, name): value for name, value in values.items()}
    config_class, model_class = (getattr(transformers, name) for name in CLASSES[family])
    model = model_class(config_class(**values)).eval()
    generator = np.random.default_rng(SEEDS.get(family, 1) if seed is None else seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if "norm" in name.lower() and name.endswith(".weight") else 0.0
            numbers = around + 0.25 * generator.normal(size=tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(numbers.astype(np.float32)))
    model.save_pretrained(folder)
    return model


def random_encodings(seed: int, lengths: list[int], vocabulary: int = VOCABULARY) -> list[Encoding]:
    """Random texts of these lengths, in tokens."""
    generator = np.random.default_rng(seed)
    return [Encoding(tuple(generator.integers(FIRST_ID, vocabulary, length).tolist()), False) for length in lengths]


def logits_alone(model: Any, encodings: list[Encoding]) -> Any:  # noqa: ANN401 - a torch module; float32, shape [texts, labels]
    """What torch says of each text in a batch of its own."""
    with torch.inference_mode():
        rows = [model(input_ids=torch.tensor([encoding.ids])).logits.numpy() for encoding in encodings]
    return np.concatenate(rows)


def saturates() -> bool:
    """True on x86 CPUs without VNNI, where products of 8-bit weights can saturate, and bundles are built with a reduced range."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.exists() else []
    return platform.machine() == "x86_64" and not {"avx512_vnni", "avx_vnni"} & set(flags)
