"""Checkpoint to bundle: write the graph, calibrate, quantize, verify, and only then the manifest that makes it a bundle."""

from __future__ import annotations

import hashlib
import platform
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import JsonValue

from drift import ProfileError
from models.bundle import (
    CARD,
    FORMAT_VERSION,
    MANIFEST,
    MAX_FILE_BYTES,
    MODEL,
    NAME,
    PROFILE,
    TOKENIZER,
    Bundle,
    EngineName,
    FileRecord,
    Golden,
    Manifest,
)
from models.classifier import Classifier
from models.hashing import sha256_of_file
from models.making.architecture import Encoder
from models.making.calibrate import make_recipes
from models.making.card import render_card
from models.making.checkpoint import SHORTEST_LIMIT, Checkpoint, read_checkpoint
from models.making.config import CheckpointError, UnsupportedEncoder
from models.making.coverage import coverage_at, curve
from models.making.dataset import Example, read_examples
from models.making.encoder import read_encoder
from models.making.evaluate import agreement, compositions, encode_all, logits_alone
from models.making.formats import WEIGHTS
from models.making.graph import Writer
from models.making.judge import Judge, Quality, choose_thresholds, judge_of, with_thresholds
from models.making.metrics import Floats, Indices, expected_calibration_error
from models.making.profile import ProfileTexts, make_profile, texts_of
from models.making.tokens import NotCompared, compare_tokens
from models.making.weights import weight_files
from models.problem import DEFAULT_THRESHOLD, Problem, ProblemType
from models.tokenizer import Tokenizer, TokenizerError
from models.types import BlankTextError, Encoding

# Texts whose logits the manifest records, unless the caller names others. One is longer than most limits, to cover truncation.
GOLDEN_TEXTS = (
    "My payment failed twice",
    "Where's my invoice?",
    "App keeps crashing on iOS",
    "Can't log in",
    "Question about my plan",
    "Hello, I was charged 49.90 on the 3rd although I had cancelled in September. Please send the money back to the same card.",
    "error 0x80070005 when I open the export page, reinstalling did not help",
    "Which of your two plans includes the public API, and can I switch later?",
    "thanks, all good now :)",
    "Ich habe meine Rechnung noch nicht bekommen",
    "The invoice page shows a white screen in Firefox 131, the console says TypeError: total is undefined. " * 16,
)
# Logits move a little between CPUs: other vector widths round floats otherwise, and a rounding at the edge of a quantization step
# moves an activation by a whole step. The padded graph's logits of 178 texts differed by 0.024 at most with the runtime's operator
# fusions on and off (INT8, MiniLM-L6); the bound is some 4 times that, and far below what saturating products do.
GOLDEN_TOLERANCE = {"fp32": 0.001, "int8": 0.1}

# Without other texts to calibrate on, these: tickets of many kinds, in English.
TICKETS = Path(__file__).parent / "tickets" / "train.jsonl"
# For the graph itself beside the weights.
MARGIN_BYTES = 8 << 20
# Random batches that each test set is tried in; `supportbot verify --compositions` tries more.
COMPOSITIONS = 300

Precision = Literal["int8", "fp32"]


class BuildError(Exception):
    """Raised when the bundle would not be fit to serve; nothing is left at its path."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build; `max_length` in tokens, None for what the checkpoint was trained with.

    `engine` None takes the padding-free graph where the checkpoint has one, and traces others. `calibration` are texts like
    those that will be served, by default the dev texts, else built-in tickets. `profile` is what drift detection measures texts
    against; by default it is learned from `training`, texts that the model was trained on, and from the dev texts. `reduce_range`
    keeps weights to 7 bits, for x86 CPUs without VNNI. `expected` maps texts to the labels they must get, or the build fails.
    `max_bytes` bounds the bundle's size; a larger one is refused as soon as it is known.
    `problem_type` None is what the checkpoint's config says. `threshold` is that of all labels of a multi-label model; None chooses
    each label's own on the dev texts, for the highest F1.
    """

    name: str
    version: str | None = None
    precision: Precision = "int8"
    max_length: int | None = None
    engine: EngineName | None = None
    calibration: Sequence[str] = ()
    reduce_range: bool = False
    goldens: Sequence[str] = GOLDEN_TEXTS
    expected: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, JsonValue] = field(default_factory=dict)
    card_template: str | None = None
    training: Sequence[str] = ()
    profile: ProfileTexts | None = None
    problem_type: ProblemType | None = None
    threshold: float | None = DEFAULT_THRESHOLD
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class TestSet:
    """Labelled texts to measure on; `domain` says how near they are to the training data, in words.

    `wrapped` sets are texts of other sets inside e-mail and the like: the card has them in a table of their own. The texts of all
    sets with the same `curve` make one curve of coverage and accuracy.
    """

    __test__ = False

    name: str
    domain: str
    examples: Sequence[Example]
    wrapped: bool = False
    curve: str | None = None


def build_bundle(
    checkpoint_folder: Path,
    out: Path,
    options: BuildOptions,
    dev: Sequence[Example],
    tests: Sequence[TestSet],
    say: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Build `out` from a checkpoint folder; the temperature is fitted on `dev` (1.0 without any, and for numbers), `tests` are
    recorded.

    Raises `CheckpointError` for an unusable checkpoint, `BuildError` when `out` exists, options are wrong or an expected label is
    missed, `DatasetError` for labels or texts that the model cannot take.
    """
    if out.exists():
        raise BuildError(f"{out} exists; choose another folder or remove it")
    _check_options(options)
    checkpoint = read_checkpoint(checkpoint_folder, options.max_length, options.problem_type)
    _check_threshold(checkpoint.problem, options, dev)
    for note in checkpoint.notes:
        say(note)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".build-") as temporary:
        work = Path(temporary)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found by trying the graph
            graphs = _packed_graphs(checkpoint, options, dev, say) or _padded_graphs(checkpoint, options, work, say)
        _check_size(checkpoint, len(graphs.model), options)
        manifest, profile = _finish(checkpoint, graphs, options, dev, tests, say)
        folder = work / "bundle"
        folder.mkdir()
        (folder / MODEL).write_bytes(graphs.model)
        (folder / TOKENIZER).write_bytes(checkpoint.tokenizer)
        if profile is not None:
            (folder / PROFILE).write_bytes(profile)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (folder / CARD).write_text(render_card(manifest, options.card_template), encoding="utf-8")
        Classifier.open(folder).self_check()
        folder.rename(out)
    return manifest


def _check_size(checkpoint: Checkpoint, model_bytes: int, options: BuildOptions) -> None:
    size = model_bytes + len(checkpoint.tokenizer)
    if options.max_bytes is not None and size > options.max_bytes:
        raise BuildError(f"the bundle would have {size / 1e6:.0f} MB, more than the {options.max_bytes / 1e6:g} MB allowed")


@dataclass(frozen=True, slots=True)
class _Graphs:
    """A checkpoint as ONNX: in fp32, and as the bundle will have it."""

    engine: EngineName
    fp32: bytes
    model: bytes


def _packed_graphs(
    checkpoint: Checkpoint, options: BuildOptions, dev: Sequence[Example], say: Callable[[str], None]
) -> _Graphs | None:
    """The padding-free graphs, or None where the checkpoint is to be traced."""
    if options.engine == "padded":
        say("engine: padded, as asked for; tracing the model")
        return None
    try:
        encoder, tokenizer = _encoder(checkpoint, say)
        # A byte for each weight is the least; what is kept in more, and the graph, is seen when they are written.
        _check_size(checkpoint, encoder.parameters * (4 if options.precision == "fp32" else 1), options)
    except UnsupportedEncoder as error:
        if options.engine is None:
            say(f"engine: padded, since there is no padding-free graph for this checkpoint: {error}; tracing the model")
            return None
        raise UnsupportedEncoder(f"{error}; --engine padded traces the model instead") from error
    say(f"engine: packed (padding-free), which has a graph for {encoder.family}; {len(encoder.layers)} layers of {encoder.hidden}")
    fp32 = Writer(encoder).write().SerializeToString()
    if options.precision == "fp32":
        return _Graphs("packed", fp32, fp32)
    texts = list(options.calibration or [example.text for example in dev])
    if not texts:
        texts = [example.text for example in read_examples([(TICKETS, 1.0)])]
    say(f"calibrating on {len(texts)} texts")
    recipes = make_recipes(encoder, encode_all(tokenizer, texts), reduce_range=options.reduce_range)
    return _Graphs("packed", fp32, Writer(encoder, recipes).write().SerializeToString())


def _padded_graphs(checkpoint: Checkpoint, options: BuildOptions, work: Path, say: Callable[[str], None]) -> _Graphs:
    """The traced graphs. Needs torch and transformers."""
    try:
        from models.making.trace import quantize_int8, trace
    except ImportError as error:
        raise BuildError(f"tracing needs torch and transformers: run `make setup-build` ({error})") from error
    _tokenizer(checkpoint, checkpoint.config.integer("vocab_size"))
    say("tracing the fp32 graph")
    fp32, int8 = work / "fp32.onnx", work / "int8.onnx"
    trace(checkpoint.folder, checkpoint.max_length, fp32, say)
    if options.precision == "fp32":
        return _Graphs("padded", fp32.read_bytes(), fp32.read_bytes())
    say("quantizing to INT8")
    quantize_int8(fp32, int8, reduce_range=options.reduce_range)
    return _Graphs("padded", fp32.read_bytes(), int8.read_bytes())


def _encoder(checkpoint: Checkpoint, say: Callable[[str], None] = lambda _: None) -> tuple[Encoder, Tokenizer]:
    """The weights, with as many positions as are read, and the tokenizer that goes with them. Raises `CheckpointError`."""
    encoder = read_encoder(checkpoint.folder, say)
    if encoder.parameters * 4 > MAX_FILE_BYTES - MARGIN_BYTES:
        raise CheckpointError(
            f"{checkpoint.folder}: {encoder.parameters / 1e6:.0f} million parameters; an ONNX graph ends at 2 GiB, some 530 million"
            " in fp32"
        )
    if encoder.longest < checkpoint.max_length:
        raise CheckpointError(f"max length {checkpoint.max_length} is over the model's {encoder.longest} positions")
    encoder = encoder.cut(checkpoint.max_length)
    return encoder, _tokenizer(checkpoint, len(encoder.words))


def _tokenizer(checkpoint: Checkpoint, words: int) -> Tokenizer:
    """The tokenizer, if all its ids are among so many. Raises `CheckpointError`."""
    try:
        tokenizer = Tokenizer(checkpoint.tokenizer, checkpoint.max_length)
    except TokenizerError as error:
        raise CheckpointError(f"{checkpoint.folder / TOKENIZER}: {error}") from error
    if tokenizer.vocabulary > words:
        raise CheckpointError(
            f"tokenizer.json has token ids up to {tokenizer.vocabulary - 1}, the model {words} words: not a pair; if tokens were"
            " added to the tokenizer after training, take them out again"
        )
    return tokenizer


def open_checkpoint(
    folder: Path,
    max_length: int | None = None,
    temperature: float = 1.0,
    problem_type: ProblemType | None = None,
    thresholds: Sequence[float] = (),
) -> Classifier:
    """A checkpoint folder as an fp32 classifier in memory, on the padding-free graph; `max_length` and `problem_type` as in
    `read_checkpoint`.

    It has no golden texts, so there is nothing that `self_check` could check. Raises `CheckpointError`, `UnsupportedEncoder` where
    there is no padding-free graph, and `BundleError` when the runtime cannot load the graph.
    """
    checkpoint = read_checkpoint(folder, max_length, problem_type)
    model = Writer(_encoder(checkpoint)[0]).write().SerializeToString()
    draft = _draft(checkpoint, _Graphs("packed", model, model), BuildOptions("checkpoint", precision="fp32"))
    return Classifier(
        Bundle(draft.model_copy(update={"temperature": temperature, "thresholds": list(thresholds)}), model, checkpoint.tokenizer)
    )


def _draft(checkpoint: Checkpoint, graphs: _Graphs, options: BuildOptions) -> Manifest:
    """The manifest as far as it is known before anything was measured."""
    return Manifest(
        format_version=FORMAT_VERSION,
        name=options.name,
        version=options.version or hashlib.sha256(graphs.model).hexdigest()[:8],
        engine=graphs.engine,
        precision=options.precision,
        labels=list(checkpoint.problem.labels),
        max_length=checkpoint.max_length,
        pad_token_id=checkpoint.pad_token_id,
        temperature=1.0,
        files={MODEL: _record(graphs.model), TOKENIZER: _record(checkpoint.tokenizer)},
        goldens=[Golden(text="draft", label=checkpoint.problem.labels[0], logits=[0.0] * len(checkpoint.problem.labels))],
        golden_tolerance=GOLDEN_TOLERANCE[options.precision],
        provenance={},
        verification={},
        problem_type=checkpoint.problem.type,
    )


def _finish(
    checkpoint: Checkpoint,
    graphs: _Graphs,
    options: BuildOptions,
    dev: Sequence[Example],
    tests: Sequence[TestSet],
    say: Callable[[str], None],
) -> tuple[Manifest, bytes | None]:
    """The manifest, and the profile if there is one."""
    model, tokenizer = graphs.model, checkpoint.tokenizer
    draft = _draft(checkpoint, graphs, options)
    built = Classifier(Bundle(draft, model, tokenizer))
    fp32 = Classifier(Bundle(draft, graphs.fp32, tokenizer))
    _try_lengths(options.goldens[0], fp32, built)
    say("comparing token ids with the checkpoint's own tokenizer")
    tokens = _tokens(checkpoint, built, options.goldens, say)
    found = _calibrate(built, options, dev, say)
    temperature = found.temperature
    say("recording the goldens")
    goldens = [_golden(built, text) for text in options.goldens]
    manifest = draft.model_copy(
        update={
            "temperature": temperature,
            "thresholds": list(found.judge.problem.thresholds),
            "goldens": goldens,
            "provenance": _provenance(checkpoint.folder, graphs.engine, options) | {"tokens": tokens},
            "verification": {"calibration": found.record} | _verify(built, fp32, found, tests, say),
        }
    )
    finished = Classifier(Bundle(manifest, model, tokenizer))
    _check_expected(finished, options.expected)
    profile, record = _profile(finished, options, dev, say)
    files = manifest.files | ({PROFILE: _record(profile)} if profile is not None else {})
    return manifest.model_copy(update={"files": files, "provenance": manifest.provenance | {"profile": record}}), profile


@dataclass(frozen=True, slots=True)
class _Calibration:
    """What was fitted on the dev texts: the temperature, and the thresholds of the judge's problem; `record` tells how well."""

    judge: Judge
    temperature: float
    record: dict[str, JsonValue]

    def scores(self, logits: Floats) -> Floats:
        """The scores as the bundle will give them."""
        return self.judge.problem.scores(logits / self.temperature)


def _calibrate(built: Classifier, options: BuildOptions, dev: Sequence[Example], say: Callable[[str], None]) -> _Calibration:
    """Fit the temperature, and choose thresholds, as far as the problem type has them and there are dev texts."""
    judge = judge_of(built.problem)
    thresholds = built.problem.thresholds and (options.threshold or DEFAULT_THRESHOLD,) * len(built.labels)
    if thresholds:
        judge = judge_of(with_thresholds(built.problem, thresholds))
    if not dev:
        return _Calibration(judge, 1.0, {})
    if judge.has_temperature:
        say(f"fitting the temperature on {len(dev)} texts")
    truth = judge.truth(dev)
    logits = logits_alone(built, [example.text for example in dev])
    temperature = round(judge.fit_temperature(truth, logits), 4)
    if thresholds and options.threshold is None:
        say(f"choosing the thresholds of {len(thresholds)} labels for F1 on {len(dev)} texts")
        scores = judge.problem.scores(logits / temperature)
        judge = judge_of(with_thresholds(built.problem, choose_thresholds(truth, scores)))
    record: dict[str, JsonValue] = {"texts": len(dev)}
    if judge.has_temperature:
        before, after = (judge.quality(truth, judge.problem.scores(logits / each)) for each in (1.0, temperature))
        record |= {"ece_before": _round(before.ece), "ece_after": _round(after.ece)}
        if thresholds:
            record |= {"thresholds": "f1" if options.threshold is None else options.threshold, "labels": _recorded(after)["labels"]}
    return _Calibration(judge, temperature, record)


def _profile(
    classifier: Classifier, options: BuildOptions, dev: Sequence[Example], say: Callable[[str], None]
) -> tuple[bytes | None, JsonValue]:
    """The profile for drift detection, or None; and what the manifest says of it."""
    texts: ProfileTexts | str = "drift detection needs a model that gives one label"
    if classifier.problem.gives_one_label:
        texts = options.profile or texts_of(options.training, dev)
    if isinstance(texts, str):
        say(f"no profile for drift detection: {texts}")
        return None, {"missing": texts}
    say(f"learning the profile for drift detection from {len(texts.training)} texts, and {len(texts.held_out)} held-out ones")
    try:
        profile = make_profile(classifier, texts)
    except ProfileError as error:
        say(f"no profile for drift detection: {error}")
        return None, {"missing": str(error)}
    vectors = bool(len(profile.center))
    if not vectors:
        say("this engine gives no first-token vectors: the profile is without the channel that needs them")
    return profile.to_bytes(), {
        "training_texts": len(texts.training),
        "held_out_texts": len(texts.held_out),
        "first_token_vectors": vectors,
    }


def _verify(
    built: Classifier, fp32: Classifier, found: _Calibration, tests: Sequence[TestSet], say: Callable[[str], None]
) -> dict[str, JsonValue]:
    """Measure each set in fp32 and as built, each text alone and in random batches; agreement is over all sets together."""
    sets: dict[str, JsonValue] = {}
    wrapped: dict[str, JsonValue] = {}
    curves: dict[str, list[tuple[Indices, Floats]]] = {}
    references: list[Floats] = []
    alones: list[Floats] = []
    all_texts: list[str] = []
    for test in tests:
        say(f"measuring on {test.name} ({len(test.examples)} texts)")
        truth = found.judge.truth(test.examples)
        texts = [example.text for example in test.examples]
        references.append(logits_alone(fp32, texts))
        alones.append(logits_alone(built, texts))
        all_texts += texts
        fp32_quality, bundle_quality = (
            _recorded(found.judge.quality(truth, found.scores(logits))) for logits in (references[-1], alones[-1])
        )
        (wrapped if test.wrapped else sets)[test.name] = {"domain": test.domain, "fp32": fp32_quality, "bundle": bundle_quality}
        if test.curve is not None:
            curves.setdefault(test.curve, []).append((truth, found.scores(alones[-1])))
    if not alones:
        return {"sets": sets}
    say(f"trying {COMPOSITIONS} random batches")
    reference, alone = np.concatenate(references), np.concatenate(alones)
    tried = compositions(built, encode_all(built, all_texts), alone, COMPOSITIONS, found.temperature, found.judge.problem)
    if tried.moved and built.manifest.engine == "packed":
        raise BuildError(f"{tried.moved} of {tried.texts} answers in random batches are not, to the bit, those of the texts alone")
    return {
        "sets": sets,
        "wrapped": wrapped,
        "curves": {name: _curve(parts) for name, parts in curves.items()},
        "against_fp32": _rounded(asdict(agreement(found.judge.problem, found.scores(alone), found.scores(reference)))),
        "compositions": _rounded(asdict(tried)),
    }


def _curve(parts: Sequence[tuple[Indices, Floats]]) -> JsonValue:
    targets, probabilities = (np.concatenate(values) for values in zip(*parts, strict=True))
    return {
        "texts": len(targets),
        "ece": _round(expected_calibration_error(targets, probabilities)),
        "coverage_at_0.98": _round(coverage_at(targets, probabilities, 0.98)),
        "points": [_rounded(asdict(point)) for point in curve(targets, probabilities)],
    }


def _try_lengths(text: str, *classifiers: Classifier) -> None:
    """Raise `BuildError` unless each takes texts of the shortest and longest length, alone and together, with finite logits.

    The texts have the tokens of `text`, again and again.
    """
    for classifier in classifiers:
        ids = _encode_golden(classifier, text).ids
        shortest, longest = (
            Encoding((ids * length)[:length], truncated=False) for length in (SHORTEST_LIMIT, classifier.max_length)
        )
        for batch in ([shortest], [longest], [longest, shortest]):
            try:
                logits = classifier.logits(batch)
            except Exception as error:  # the runtime's exceptions share no public base class
                reason = " ".join(str(error).split())[:300]
                raise BuildError(f"the graph fails on a text of {len(batch[0])} tokens: {reason}; try --max-length") from error
            if not np.isfinite(logits).all():
                raise BuildError(
                    f"the graph gives values that are not finite for a text of {len(batch[0])} tokens: the weights are too large,"
                    " or were damaged in training"
                )


def _tokens(checkpoint: Checkpoint, built: Classifier, texts: Sequence[str], say: Callable[[str], None]) -> JsonValue:
    """Compare the bundle's token ids with those of transformers; the record for the manifest. A difference is said, not refused."""
    try:
        compared = compare_tokens(checkpoint.folder, built.encode, checkpoint.max_length, texts)
    except NotCompared as error:
        say(f"token ids were not compared: {error}")
        return None
    say(f"{'WARNING: ' if compared.differences else ''}{compared}")
    return {"compared_with": compared.tokenizer, "texts": compared.texts, "different": len(compared.differences)}


def _encode_golden(classifier: Classifier, text: str) -> Encoding:
    try:
        return classifier.encode(text)
    except BlankTextError as error:
        raise BuildError(f"the golden text {text[:40]!r}: {error}") from error


def _golden(classifier: Classifier, text: str) -> Golden:
    encoding = _encode_golden(classifier, text)
    logits = [round(float(value), 5) for value in classifier.logits([encoding])[0]]
    return Golden(text=text, label=classifier.labels[logits.index(max(logits))], logits=logits)


def _check_options(options: BuildOptions) -> None:
    """Find now what would spoil the manifest after minutes of work."""
    for what, value in (("name", options.name), ("version", options.version)):
        if value is not None and not re.fullmatch(NAME, value):
            raise BuildError(f"{what} {value!r}: must begin with a letter or digit, and have only those and . _ + -")
    if not options.goldens or not all(text.strip() for text in options.goldens):
        raise BuildError("the golden texts: there must be at least one, and none may be blank")


def _check_threshold(problem: Problem, options: BuildOptions, dev: Sequence[Example]) -> None:
    if not problem.thresholds and options.threshold != DEFAULT_THRESHOLD:
        raise BuildError(f"thresholds are for multi-label models, and this one is {problem.type}")
    if options.threshold is None and not dev:
        raise BuildError("choosing thresholds for F1 needs labelled texts (--dev)")
    if options.threshold is not None and not 0 < options.threshold < 1:
        raise BuildError(f"threshold {options.threshold:g}: must be between 0 and 1")


def _check_expected(classifier: Classifier, expected: dict[str, str]) -> None:
    for text, label in expected.items():
        (prediction,) = classifier.predict([classifier.encode(text)])
        if prediction.label != label:
            raise BuildError(f"{text!r} must be {label}, but the bundle says {prediction.label} ({prediction.confidence:.2f})")


def _provenance(source: Path, engine: EngineName, options: BuildOptions) -> dict[str, JsonValue]:
    packages = ["onnx", "onnxruntime", "tokenizers"]
    if engine == "padded":
        packages += ["torch", "transformers"]
    return {
        "created": datetime.now(UTC).date().isoformat(),
        "checkpoint_sha256": _hash(source),
        "python": platform.python_version(),
        "packages": {name: installed_version(name) for name in packages},
        **options.provenance,
    }


def _hash(source: Path) -> JsonValue:
    """The SHA-256 of the weights; by file where they are in several."""
    hashes = {file.name: sha256_of_file(file) for file in weight_files(source)}
    return hashes[WEIGHTS] if list(hashes) == [WEIGHTS] else dict(hashes)


def _record(content: bytes) -> FileRecord:
    return FileRecord(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def _round(value: float) -> float:
    return round(value, 5)


def _rounded(record: dict[str, Any]) -> dict[str, JsonValue]:
    return {name: _rounded_value(value) for name, value in record.items()}


def _rounded_value(value: Any) -> JsonValue:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return _rounded(value)
    return _round(value) if isinstance(value, float) else value


def _recorded(quality: Quality) -> dict[str, JsonValue]:
    return _rounded(quality.as_json())
