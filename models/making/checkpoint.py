"""A Hugging Face checkpoint folder: its config, labels, tokenizer and limits. Needs neither torch nor transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# What a manifest allows.
SHORTEST_LIMIT, LONGEST_LIMIT, MOST_LABELS = 3, 8192, 4096
MAX_CONFIG_BYTES, MAX_TOKENIZER_BYTES = 8 << 20, 256 << 20
ROBERTA: Final = ("roberta", "xlm-roberta")
FILES: Final = ("config.json", "tokenizer.json", "model.safetensors")


class CheckpointError(Exception):
    """Raised when a folder is not a checkpoint that can be built; the message names the file and the fault."""


class UnsupportedEncoder(CheckpointError):
    """Raised when the checkpoint is sound but asks for something that the padding-free graph does not have."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a bundle needs besides the weights; `max_length` in tokens, special tokens included."""

    folder: Path
    config: Config
    labels: list[str]
    max_length: int
    pad_token_id: int
    tokenizer: bytes


def read_checkpoint(folder: Path, max_length: int | None = None) -> Checkpoint:
    """Read a sequence classifier's folder; `max_length` is by default what the tokenizer says, at most what the model can.

    Raises `CheckpointError`.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: no {name}; a Hugging Face checkpoint with a fast tokenizer is needed")
    config = read_config(folder)
    # With several labels at once, or none but a number, confidences by softmax would be wrong.
    if (problem := config.get("problem_type", "single_label_classification")) != "single_label_classification":
        raise CheckpointError(f"config.json: problem_type = {problem!r} is not supported (only 'single_label_classification')")
    positions = config.integer("max_position_embeddings", 512)
    pad = padding_id(config)
    if not isinstance(pad, int) or isinstance(pad, bool) or pad < 0:
        raise CheckpointError(f"config.json: pad_token_id is {pad!r}, a token id is needed")
    if config.get("model_type") in ROBERTA:
        positions -= pad + 1  # its positions are numbered from there
    longest = max_length or min(_tokenizer_limit(folder), positions)
    if longest > positions:
        raise CheckpointError(f"max length {longest} is over the model's {positions} positions")
    if not SHORTEST_LIMIT <= longest <= LONGEST_LIMIT:
        raise CheckpointError(f"max length {longest}: must be {SHORTEST_LIMIT} to {LONGEST_LIMIT} tokens")
    if (size := (folder / "tokenizer.json").stat().st_size) > MAX_TOKENIZER_BYTES:
        raise CheckpointError(f"{folder / 'tokenizer.json'}: {size} bytes is over the limit of {MAX_TOKENIZER_BYTES}")
    return Checkpoint(folder, config, label_names(config), longest, pad, (folder / "tokenizer.json").read_bytes())


class Config:
    """A `config.json`, asked key by key with clear errors."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def get(self, name: str, default: object = None) -> Any:  # noqa: ANN401 - JSON
        """The value, or the default where the key is absent or null."""
        value = self._values.get(name)
        return default if value is None else value

    def integer(self, name: str, default: int | None = None) -> int:
        """A positive integer. Raises `CheckpointError`."""
        value = self.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(f"config.json: {name} is {value!r}, a positive integer is needed")
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


def padding_id(config: Config) -> Any:  # noqa: ANN401 - JSON
    """The padding token's id, by default what the family's own default is."""
    return config.get("pad_token_id", 1 if config.get("model_type") in ROBERTA else 0)


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
    is_numbered = sorted(map(int, names)) == list(range(len(labels)))
    if not is_numbered or not all(isinstance(label, str) and label for label in labels) or not 2 <= len(set(labels)) == len(labels):
        raise CheckpointError(f"config.json: id2label must name two or more different labels, numbered from 0: {names}")
    return labels


def read_config(folder: Path) -> Config:
    """Read `config.json`. Raises `CheckpointError`."""
    file = folder / "config.json"
    values = _read_json(file)
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: not a JSON object")
    return Config(values)


def _tokenizer_limit(folder: Path) -> int:
    """`model_max_length` of `tokenizer_config.json`; a huge number where there is none, as the libraries have it."""
    file = folder / "tokenizer_config.json"
    if not file.exists():
        return 10**9
    values = _read_json(file)
    limit = values.get("model_max_length") if isinstance(values, dict) else 0
    # The libraries write 10^30 where there is no limit, as a float.
    limit = 10**9 if limit is None else limit
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 1:
        raise CheckpointError(f"{file}: model_max_length is {limit!r}, a positive number is needed")
    return int(min(limit, 10**9))


def _read_json(file: Path) -> Any:  # noqa: ANN401 - JSON
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_CONFIG_BYTES + 1)
        if len(content) > MAX_CONFIG_BYTES:
            raise CheckpointError(f"{file}: larger than {MAX_CONFIG_BYTES} bytes")
        return json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
