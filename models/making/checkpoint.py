"""A Hugging Face checkpoint folder: its config, labels, tokenizer and limits. Needs neither torch nor transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.making.config import (
    CheckpointError,
    Config,
    padding_id,
    positions_of,
    problem_of_checkpoint,
    read_config,
    read_json,
    refuse_quantized,
)
from models.making.formats import require_files
from models.making.tokenization import prepare_tokenizer
from models.problem import Problem, ProblemType

# What a manifest allows.
SHORTEST_LIMIT, LONGEST_LIMIT = 3, 8192
# No limit, in tokens.
ENDLESS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a bundle needs besides the weights; `max_length` in tokens, special tokens included.

    `tokenizer` is the content of `tokenizer.json` as transformers would have it after loading, `notes` are sentences about what
    that changed.
    """

    folder: Path
    config: Config
    problem: Problem
    max_length: int
    pad_token_id: int
    tokenizer: bytes
    notes: tuple[str, ...]


def read_checkpoint(folder: Path, max_length: int | None = None, problem_type: ProblemType | None = None) -> Checkpoint:
    """Read a sequence classifier's folder; `max_length` is by default what the tokenizer says, at most what the model can, and
    `problem_type` what the config says.

    Raises `CheckpointError`.
    """
    require_files(folder)
    config = read_config(folder)
    refuse_quantized(config)
    problem = problem_of_checkpoint(config, problem_type)
    pad = padding_id(config)
    positions = positions_of(config)
    longest = max_length or min(_tokenizer_limit(folder), positions)
    if longest > positions:
        raise CheckpointError(f"max length {longest} is over the model's {positions} positions")
    if not SHORTEST_LIMIT <= longest <= LONGEST_LIMIT:
        raise CheckpointError(f"max length {longest}: must be {SHORTEST_LIMIT} to {LONGEST_LIMIT} tokens")
    tokenizer, notes = prepare_tokenizer(folder, config)
    return Checkpoint(folder, config, problem, longest, pad, tokenizer, notes)


def _tokenizer_limit(folder: Path) -> int:
    """`model_max_length` of `tokenizer_config.json`; a huge number where there is none, as the libraries have it."""
    file = folder / "tokenizer_config.json"
    if not file.exists():
        return ENDLESS
    values = read_json(file)
    limit = values.get("model_max_length") if isinstance(values, dict) else 0
    # The libraries write 10^30 where there is no limit, as a float.
    limit = ENDLESS if limit is None else limit
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 1:
        raise CheckpointError(f"{file}: model_max_length is {limit!r}, a positive number is needed")
    return int(min(limit, ENDLESS))
