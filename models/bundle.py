"""The folder that a model ships as: `model.onnx`, `tokenizer.json`, `manifest.json`, perhaps `profile.json` and, for people,
`MODEL_CARD.md`.

Reading a bundle is a trust border. The manifest is validated as a whole, sizes are bounded, and the bytes that are handed on are
the very bytes whose SHA-256 was checked. Nothing in a bundle is code, and nothing is unpickled.

In format 3, the graph may give the first-token vectors too, and the bundle may have the profile that drift
detection measures texts against. In format 4, the manifest has the problem type. Bundles of formats 2 and 3 are read as before:
they give one of several labels.
"""

from __future__ import annotations

import hashlib
import stat
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import ErrorDetails

from models.problem import ProblemType, problem_of

FORMAT_VERSION: Final = 4
FORMATS: Final = (2, 3, 4)
MANIFEST = "manifest.json"
MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"
# What the training texts looked like, in numbers; see `drift.profile`.
PROFILE = "profile.json"
CARD = "MODEL_CARD.md"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$"
MAX_MANIFEST_BYTES = 8 * 1024 * 1024
# protobuf, and so a self-contained ONNX file, ends at 2 GiB.
MAX_FILE_BYTES = 2 * 1024 * 1024 * 1024 - 1


EngineName = Literal["packed", "padded"]


class BundleError(Exception):
    """Raised when a folder is not a usable bundle; the message names the file and what is wrong with it."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileRecord(_Record):
    """Size and hash of one file of the bundle."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(gt=0, le=MAX_FILE_BYTES)]


class Golden(_Record):
    """A text, its most probable label and the logits, shape [labels], that this bundle gave for it, alone in its pass, where it was
    made.
    """

    text: Annotated[str, Field(min_length=1)]
    label: str
    logits: list[float]


class Manifest(_Record):
    """What a bundle says of itself.

    `engine` is how its graph is run (see `models.engines`). `temperature` divides the logits before softmax or sigmoid;
    `max_length` counts special tokens too. `golden_tolerance` bounds the difference of any golden logit on the machine that serves.
    `thresholds` has one for each label of a multi-label model, or none where all are 0.5.
    """

    format_version: Literal[2, 3, 4]
    name: Annotated[str, Field(pattern=NAME)]
    version: Annotated[str, Field(pattern=NAME)]
    engine: EngineName
    precision: Literal["int8", "fp32"]
    labels: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    max_length: Annotated[int, Field(ge=3, le=8192)]
    pad_token_id: Annotated[int, Field(ge=0)]
    temperature: Annotated[float, Field(ge=0.05, le=20)]
    files: dict[str, FileRecord]
    goldens: Annotated[list[Golden], Field(min_length=1)]
    golden_tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    provenance: dict[str, JsonValue]
    verification: dict[str, JsonValue]
    problem_type: ProblemType = "single-label"
    thresholds: list[Annotated[float, Field(gt=0, lt=1)]] = []

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: a label occurs twice")
        if self.format_version < 4 and self.problem_type != "single-label":
            raise ValueError(f"problem_type: a bundle of format {self.format_version} is single-label")
        problem_of(self.problem_type, self.labels, self.thresholds)
        if self.problem_type == "regression" and self.temperature != 1:
            raise ValueError("temperature: numbers have none, it must be 1")
        if set(self.files) - {PROFILE} != {MODEL, TOKENIZER}:
            raise ValueError(f"files: must list {MODEL} and {TOKENIZER}, and may list {PROFILE}")
        for number, golden in enumerate(self.goldens):
            if len(golden.logits) != len(self.labels):
                raise ValueError(f"goldens.{number}.logits: {len(golden.logits)} values for {len(self.labels)} labels")
            if self.labels[golden.logits.index(max(golden.logits))] != golden.label:
                raise ValueError(f"goldens.{number}: its highest logit is not that of its label, {golden.label!r}")
        return self


class Bundle:
    """An opened bundle: the manifest and the checked bytes of its files; `profile` is None where there is none."""

    def __init__(self, manifest: Manifest, model: bytes, tokenizer: bytes, profile: bytes | None = None) -> None:
        self.manifest = manifest
        self.model = model
        self.tokenizer = tokenizer
        self.profile = profile

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read and check a bundle folder. Raises `BundleError`."""
        if not folder.is_dir():
            raise BundleError(f"{folder}: no such folder")
        manifest = _read_manifest(folder / MANIFEST)
        found = {name: _read_checked(folder / name, record) for name, record in manifest.files.items()}
        return cls(manifest, found[MODEL], found[TOKENIZER], found.get(PROFILE))


def embedded_bundle() -> Path:
    """The folder of the model that ships with the package."""
    return Path(str(resources.files("models"))) / "supportbot"


def _read_manifest(path: Path) -> Manifest:
    content = _read(path, MAX_MANIFEST_BYTES)
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(f"{path}: {'; '.join(map(_fault, error.errors()[:5]))}") from error


def _fault(detail: ErrorDetails) -> str:
    if detail["loc"] == ("format_version",):
        formats = f"{', '.join(map(str, FORMATS[:-1]))} and {FORMATS[-1]}"
        return f"this version reads bundles of formats {formats} only; build the bundle again with `supportbot build`"
    place = ".".join(map(str, detail["loc"]))
    return f"{place}: {detail['msg']}" if place else detail["msg"]


def _read_checked(path: Path, record: FileRecord) -> bytes:
    content = _read(path, record.bytes)
    if len(content) != record.bytes:
        raise BundleError(f"{path}: {len(content)} bytes, the manifest says {record.bytes}; the file is damaged or incomplete")
    if hashlib.sha256(content).hexdigest() != record.sha256:
        raise BundleError(f"{path}: its SHA-256 is not the manifest's; the file is damaged or was replaced")
    return content


def _read(path: Path, limit: int) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BundleError(f"{path}: not a regular file")
        with path.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}") from error
    if len(content) > limit:
        raise BundleError(f"{path}: larger than {limit} bytes")
    return content
