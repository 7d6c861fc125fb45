"""`config.json` of a checkpoint folder, asked key by key, and the errors that name what is wrong with a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from models.problem import Problem, ProblemType, problem_of

MOST_LABELS: Final = 4096
MAX_CONFIG_BYTES: Final = 8 << 20
# The problem types that transformers writes. It has no word for the probability of one label.
OF_TRANSFORMERS: Final[Mapping[str, ProblemType]] = {
    "single_label_classification": "single-label",
    "multi_label_classification": "multi-label",
    "regression": "regression",
}
# Architectures that number a text's positions from the padding token's id + 1, which is 1 unless the config says otherwise. Their
# first rows of position embeddings are never read.
POSITIONS_AFTER_PADDING: Final = (
    "camembert",
    "data2vec-text",
    "ibert",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)


class CheckpointError(Exception):
    """Raised when a folder is not a checkpoint that can be built; the message names the file and the fault."""


class UnsupportedEncoder(CheckpointError):
    """Raised when the checkpoint is sound but asks for something that the padding-free graph does not have."""


class Config:
    """A `config.json`, asked key by key with clear errors."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def get(self, name: str, default: object = None) -> Any:  # noqa: ANN401 - JSON
        """The value, or the default where the key is absent or null."""
        value = self._values.get(name)
        return default if value is None else value

    @property
    def names(self) -> set[str]:
        """The keys that there are."""
        return set(self._values)

    def integer(self, name: str, default: int | None = None, least: int = 1) -> int:
        """An integer, positive unless `least` is lower. Raises `CheckpointError`."""
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            wanted = "a positive integer" if least == 1 else f"an integer of {least} or more"
            raise CheckpointError(f"config.json: {name} is {value!r}, {wanted} is needed")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false. Raises `CheckpointError`."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"config.json: {name} is {value!r}, true or false is needed")
        return value

    def real(self, name: str, default: float) -> float:
        """A positive finite number. Raises `CheckpointError`."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise CheckpointError(f"config.json: {name} is {value!r}, a positive number is needed")
        return float(value)

    def demand(self, name: str, *allowed: object) -> None:
        """Raise `UnsupportedEncoder` unless the value is one of those; the first is the default."""
        value = self.get(name, allowed[0])
        if value not in allowed:
            raise UnsupportedEncoder(f"config.json: {name} = {value!r} is not supported (only {', '.join(map(repr, allowed))})")


def padding_id(config: Config) -> int:
    """The padding token's id, by default what the family's own default is. Raises `CheckpointError`."""
    pad = config.get("pad_token_id", 1 if config.get("model_type") in POSITIONS_AFTER_PADDING else 0)
    if not isinstance(pad, int) or isinstance(pad, bool) or pad < 0:
        raise CheckpointError(f"config.json: pad_token_id is {pad!r}, a token id is needed")
    return pad


def label_names(config: Config) -> list[str]:
    """The labels in class order. Raises `CheckpointError`."""
    names = config.get("id2label")
    if not isinstance(names, dict) or not names:
        count = config.integer("num_labels", 2)
        names = {str(index): f"LABEL_{index}" for index in range(min(count, MOST_LABELS + 1))}
    if len(names) > MOST_LABELS:
        raise CheckpointError(f"config.json: more than {MOST_LABELS} labels")
    try:
        labels = [names[key] for key in sorted(names, key=int)]
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"config.json: id2label is not numbered: {error}") from error
    numbers = sorted(map(int, names))
    for index, number in enumerate(numbers):
        if number != index:
            raise CheckpointError(f"config.json: id2label must be numbered from 0 without gaps: number {index} is missing")
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label:
            raise CheckpointError(f"config.json: id2label names class {index} {label!r}, a text is needed")
        if labels.index(label) != index:
            raise CheckpointError(f"config.json: id2label names classes {labels.index(label)} and {index} alike: {label!r}")
    return labels


def problem_of_checkpoint(config: Config, asked: ProblemType | None = None) -> Problem:
    """The problem type that was asked for, or the one that the config says; with the checkpoint's labels.

    Without either, one label is a probability, as for transformers' pipelines and text-embeddings-inference, and several are one of
    them for each text. Raises `CheckpointError` where the labels do not fit, or where the config has a problem type of its own.
    """
    labels, stated = label_names(config), config.get("problem_type")
    if asked is None and stated is not None and stated not in list(OF_TRANSFORMERS):
        raise CheckpointError(
            f"config.json: problem_type = {stated!r} is not supported (only {', '.join(map(repr, OF_TRANSFORMERS))})"
        )
    usual: ProblemType = "one-label" if len(labels) == 1 else "single-label"
    kind = asked or (usual if stated is None else OF_TRANSFORMERS[stated])
    try:
        return problem_of(kind, labels)
    except ValueError as error:
        source = "--problem-type" if asked else "config.json: problem_type"
        raise CheckpointError(f"{source} = {asked or stated}, and id2label has {len(labels)}; {error}") from error


def read_config(folder: Path) -> Config:
    """Read `config.json`. Raises `CheckpointError`."""
    file = folder / "config.json"
    values = read_json(file)
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: not a JSON object")
    return Config(values)


def refuse_quantized(config: Config) -> None:
    """Raise `CheckpointError` for weights that bitsandbytes, GPTQ or the like have rounded already."""
    if (quantized := config.get("quantization_config")) is not None:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise CheckpointError(
            f"config.json: the weights are quantized already (quantization_config, {method!r}); take the checkpoint in float32,"
            " float16 or bfloat16 that they were made from"
        )


def positions_of(config: Config) -> int:
    """The most tokens that the position embeddings have room for, special tokens included; 0 or less where there is none."""
    positions = config.integer("max_position_embeddings", 512)
    if config.get("model_type") in POSITIONS_AFTER_PADDING:
        positions -= padding_id(config) + 1
    return positions


def read_json(file: Path) -> Any:  # noqa: ANN401 - JSON
    """The content of a JSON file of bounded size. Raises `CheckpointError`."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_CONFIG_BYTES + 1)
        if len(content) > MAX_CONFIG_BYTES:
            raise CheckpointError(f"{file}: larger than {MAX_CONFIG_BYTES} bytes")
        return json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
