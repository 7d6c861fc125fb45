"""What a folder holds where it is no checkpoint that can be read, and the lines of Python that make one of it.

Pickles (`pytorch_model.bin`) are never read: loading one runs whatever code its maker put in. Who trusts the file converts it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from models.making.config import CheckpointError

CONFIG, TOKENIZER, WEIGHTS, INDEX = "config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json"
PICKLES: Final = ("pytorch_model.bin", "pytorch_model.bin.index.json")
ADAPTERS: Final = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
# Weights of other frameworks, which transformers reads up to version 4 only, and graphs, which have lost what a build needs.
OTHERS: Final = ("tf_model.h5", "flax_model.msgpack", "model.onnx", "openvino_model.xml", "model.gguf")
VOCABULARIES: Final = ("vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model")


def require_files(folder: Path, model_class: str = "AutoModelForSequenceClassification") -> None:
    """Raise `CheckpointError` unless the folder has a config, a fast tokenizer and weights in safetensors.

    The message says what is there in their place and how to convert it; `model_class` is the class of transformers to do it with.
    """
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: not a folder; a Hugging Face checkpoint folder is needed")
    if _first(folder, ADAPTERS) and not _has_weights(folder):
        raise CheckpointError(_adapter(folder, model_class))
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: no {CONFIG}; a Hugging Face checkpoint folder is needed{_nested(folder)}")
    if not _has_weights(folder):
        raise CheckpointError(_weights(folder, model_class))
    if not (folder / TOKENIZER).is_file():
        raise CheckpointError(_tokenizer(folder))


def _has_weights(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


def _first(folder: Path, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if (folder / name).is_file()), None)


def _nested(folder: Path) -> str:
    """Old sentence-transformers folders have the checkpoint in a folder of its own, and hub caches one a revision."""
    inner = sorted(file.parent for pattern in ("*/config.json", "snapshots/*/config.json") for file in folder.glob(pattern))
    return f" (there is one at {inner[0]})" if inner else ""


def _convert(import_name: str, statement: str, package: str = "transformers") -> str:
    return f"\n    from {package} import {import_name}\n    {statement}"


def _adapter(folder: Path, model_class: str) -> str:
    auto = model_class.replace("AutoModel", "AutoPeftModel", 1)
    merge = f"{auto}.from_pretrained({str(folder)!r}, num_labels=N).merge_and_unload().save_pretrained('merged')"
    return (
        f"{folder}: only an adapter's weights (PEFT); merge it into its base model, N being its number of labels, and put the"
        f" base's tokenizer beside it:{_convert(auto, merge, 'peft')}"
    )


def _weights(folder: Path, model_class: str) -> str:
    lines = _convert(model_class, f"{model_class}.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})")
    if pickle := _first(folder, PICKLES):
        return f"{folder}: no {WEIGHTS}, only {pickle}, a pickle, which is never read here; if you trust it, convert it:{lines}"
    if other := _first(folder, OTHERS):
        return f"{folder}: no {WEIGHTS}, only {other}, which is not read; save the model that it was made from with transformers"
    if named := sorted(file.name for file in folder.glob("*.safetensors")):
        return f"{folder}: no {WEIGHTS} and no {INDEX}, only {named[0]}; if these are all the weights, rename it to {WEIGHTS}"
    return f"{folder}: no {WEIGHTS}; a Hugging Face checkpoint with its weights in safetensors is needed"


def _tokenizer(folder: Path) -> str:
    lines = _convert("AutoTokenizer", f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})")
    if vocabulary := _first(folder, VOCABULARIES):
        return f"{folder}: no {TOKENIZER}, only {vocabulary}; make the fast tokenizer of it:{lines}"
    return f"{folder}: no {TOKENIZER}; put the tokenizer that the model was trained with beside it"
