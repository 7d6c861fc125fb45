"""Makes the goldens beside it: for each family a tiny fp32 graph, token ids, and the logits that torch gives for them.

The quick tests run the graphs where neither torch nor onnx is installed. Run it where they are, from the repository root, when
`models.making.graph` has changed what it writes:

    python -m tests.models.goldens.make
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Final

from models.making.encoder import read_encoder
from models.making.graph import Writer
from tests.models.making.checkpoints import logits_alone, random_encodings, save

FOLDER: Final = Path(__file__).parent
FAMILIES: Final = ("bert", "distilbert", "roberta", "albert", "modernbert", "deberta-v2")
VOCABULARY: Final = 64
# One text a row and several, full rows and rows with a rest.
LENGTHS: Final = (3, 4, 5, 7, 8, 9, 11, 15, 16, 17, 23, 30, 31, 32, 33, 40, 47, 48)


def write(family: str, folder: Path) -> None:
    """Write `<family>.onnx` and `<family>.json` into the folder."""
    with tempfile.TemporaryDirectory() as checkpoint:
        model = save(
            Path(checkpoint),
            family,
            seed=FAMILIES.index(family),
            vocab_size=VOCABULARY,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=max(LENGTHS) + 2,  # RoBERTa's begin at 2
        )
        graph = Writer(read_encoder(Path(checkpoint))).write()
    encodings = random_encodings(FAMILIES.index(family), list(LENGTHS), VOCABULARY)
    logits = logits_alone(model, encodings).tolist()
    (folder / f"{family}.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    lines = ",\n  ".join(json.dumps(encoding.ids) for encoding in encodings)
    rows = ",\n  ".join(json.dumps([round(value, 6) for value in row]) for row in logits)
    (folder / f"{family}.json").write_text(f'{{\n"ids": [\n  {lines}\n],\n"logits": [\n  {rows}\n]\n}}\n', encoding="utf-8")


def main() -> None:
    """Write the goldens of all families."""
    for family in FAMILIES:
        write(family, FOLDER)


if __name__ == "__main__":
    main()
