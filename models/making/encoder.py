"""A Hugging Face checkpoint folder as one record of weights, whatever its family.

Reads `config.json` and the weights with neither torch nor transformers. What the config asks and the graph cannot do, and any
tensor of the encoder or its head that nobody reads, is an error that names it: a model is built exactly or not at all. Tensors
that belong to something else, such as the head of the pretraining, are left out and named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from models.making.architecture import Encoder
from models.making.config import CheckpointError, Config, UnsupportedEncoder, label_names, read_config
from models.making.families.albert import ALBERT
from models.making.families.bert import BERT, DISTILBERT, ELECTRA, ROBERTA
from models.making.families.deberta import DEBERTA
from models.making.families.family import Family
from models.making.families.modernbert import MODERNBERT
from models.making.formats import WEIGHTS
from models.making.weights import read_tensors

FAMILIES: Final[Mapping[str, Family]] = {
    "bert": BERT,
    "distilbert": DISTILBERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "electra": ELECTRA,
    "albert": ALBERT,
    "modernbert": MODERNBERT,
    "deberta-v2": DEBERTA,
}
# Tensors that a message names before it counts the others.
MOST_NAMED: Final = 10


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
