"""Train, export, quantize, verify and serve a tiny model for real. Needs the build extra: `make test-build`."""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from commands.cli import app
from drift import Profile
from models.bundle import TOKENIZER, Bundle, EngineName, embedded_bundle
from models.classifier import Classifier
from models.making.config import CheckpointError
from models.making.dataset import Example

if TYPE_CHECKING:
    from models.making.augment import Augmenter

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

pytestmark = [
    pytest.mark.build,
    # The libraries' own deprecations, on their way through each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

WORDS = {"billing": "refund", "general": "hello", "sales": "demo", "technical": "crash"}
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 30522,
    "initializer_range": 0.2,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder with the embedded bundle's tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(3)
    transformers.BertModel(transformers.BertConfig(**TINY)).save_pretrained(folder)
    shutil.copy(embedded_bundle() / TOKENIZER, folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizerFast", "pad_token": "[PAD]"}')
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four labels, each told by one word."""
    file = tmp_path_factory.mktemp("data") / "data.csv"
    rows = [f"please {word} number {number},{label}" for number in range(60) for label, word in WORDS.items()]
    file.write_text("text,label\n" + "\n".join(rows) + "\n")
    return file


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def train(base: Path, data: Path, out: Path, *more: str) -> Result:
    options = (
        "--batch-size",
        "8",
        "--learning-rate",
        "0.002",
        "--epochs",
        "4",
        "--patience",
        "4",
        "--max-length",
        "32",
        "--threads",
        "1",
    )
    return run("train", "--data", data, "--base", base, "--out", out, *options, *more)


@pytest.fixture(scope="module")
def checkpoint(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checkpoint") / "tiny"
    result = train(base, data, out)
    assert result.exit_code == 0, result.stderr
    assert "dev accuracy 1.0000" in result.stderr
    return out


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "tiny"
    result = run("build", checkpoint, out, "--dev", data, "--test", f"mine={data}")
    assert result.exit_code == 0, result.stderr
    return out


def test_a_checkpoint_is_complete_and_tells_how_it_was_made(checkpoint: Path) -> None:
    summary = json.loads((checkpoint / "training.json").read_text())
    assert summary["labels"] == sorted(WORDS)
    assert summary["best_epoch"] in range(1, 5)
    assert not checkpoint.with_name("tiny.partial").exists()
    assert {file.suffix for file in checkpoint.iterdir()} == {".json", ".safetensors"}


def test_training_is_seeded_and_continues_an_interrupted_run_to_the_same_weights(
    base: Path, data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.making import train as module

    out = tmp_path / "tiny"
    whole_epoch = module._Trainer.run_epoch

    def interrupted(self: module._Trainer, epoch: int, progress: module.Progress) -> module.EpochResult:
        if epoch == 3:
            raise KeyboardInterrupt
        return whole_epoch(self, epoch, progress)

    with monkeypatch.context() as patched:
        patched.setattr(module._Trainer, "run_epoch", interrupted)
        first = train(base, data, out)
    assert first.exit_code == 130
    assert "continues after the last finished epoch" in first.stderr
    assert not out.exists()
    changed = train(base, data, out, "--seed", "99")
    assert changed.exit_code == 1
    assert "unfinished run with other data or options" in changed.stderr
    assert train(base, data, out).exit_code == 0
    assert (out / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()


def test_augmented_training_is_recorded_and_continues_an_interrupted_run_to_the_same_weights(
    base: Path, data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.making import train as module

    augment = ("--augment", "typos,references@2", "--augment-chance", "0.7")
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert train(base, data, whole, *augment).exit_code == 0
    found = json.loads((whole / "training.json").read_text())["augmentation"]
    assert (found["kinds"], found["chance"]) == ({"typos": 1.0, "references": 2.0}, 0.7)
    weights = (whole / "model.safetensors").read_bytes()
    assert weights != (checkpoint / "model.safetensors").read_bytes()

    whole_epoch = module._Trainer.run_epoch

    def interrupted(self: module._Trainer, epoch: int, progress: module.Progress) -> module.EpochResult:
        if epoch == 2:
            raise KeyboardInterrupt
        return whole_epoch(self, epoch, progress)

    with monkeypatch.context() as patched:
        patched.setattr(module._Trainer, "run_epoch", interrupted)
        assert train(base, data, resumed, *augment).exit_code == 130
    other = train(base, data, resumed, "--augment", "typos")
    assert other.exit_code == 1
    assert "unfinished run with other data or options" in other.stderr
    assert train(base, data, resumed, *augment).exit_code == 0
    assert (resumed / "model.safetensors").read_bytes() == weights


def test_augmentation_leaves_fixed_examples_as_they_are(base: Path, tmp_path: Path) -> None:
    from models.making import train as module

    class Quiet:
        def step(self, epoch: int, step: int, steps: int, loss: float) -> None: ...

        def epoch(self, result: module.EpochResult, *, best: bool) -> None: ...

        def note(self, text: str) -> None: ...

    class Recorder:
        def __init__(self) -> None:
            self.seen: set[str] = set()

        def __call__(self, text: str, generator: random.Random) -> str:
            self.seen.add(text)
            return f"{text} {generator.random()}"

        def record(self) -> dict[str, object]:
            return {}

    rows = [Example(f"{word} {number}", label) for label, word in WORDS.items() for number in range(4)]
    training = [replace(row, fixed=row.label == "sales") for row in rows]
    recorder = Recorder()
    options = module.TrainingOptions(epochs=1, batch_size=4, max_length=32)
    module.train(base, tmp_path / "out", training, rows, options, Quiet(), cast("Augmenter", recorder))
    assert recorder.seen == {row.text for row in training if not row.fixed}


def test_an_average_is_the_mean_of_the_weights_and_a_checkpoint(checkpoint: Path, base: Path, data: Path, tmp_path: Path) -> None:
    assert train(base, data, tmp_path / "other", "--seed", "8").exit_code == 0
    from models.making.average import average
    from models.making.builder import open_checkpoint

    average([checkpoint, tmp_path / "other"], tmp_path / "mean")
    one, two, mean = (
        safetensors.load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "other", tmp_path / "mean")
    )
    assert one.keys() == mean.keys()
    for name in one:
        assert torch.allclose(mean[name], (one[name] + two[name]) / 2, atol=1e-6)
    assert not torch.equal(one["classifier.weight"], two["classifier.weight"])
    open_checkpoint(tmp_path / "mean")
    with pytest.raises(FileExistsError):
        average([checkpoint], tmp_path / "mean")
    safetensors.save_file({"classifier.weight": torch.zeros(1)}, tmp_path / "other" / "model.safetensors")
    with pytest.raises(CheckpointError, match="other tensors"):
        average([checkpoint, tmp_path / "other"], tmp_path / "never")


def test_an_existing_checkpoint_is_not_overwritten(base: Path, data: Path, checkpoint: Path) -> None:
    result = train(base, data, checkpoint)
    assert result.exit_code == 1
    assert "exists" in result.stderr


def test_a_folder_without_an_encoder_is_refused(data: Path, tmp_path: Path) -> None:
    result = run("train", "--data", data, "--base", tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "no config.json" in result.stderr


def test_a_bundle_classifies_any_number_of_labels_and_records_its_figures(bundle: Path) -> None:
    classifier = Classifier.open(bundle)
    classifier.self_check()
    texts = [f"please {word} it" for word in WORDS.values()]
    predictions = classifier.predict([classifier.encode(text) for text in texts])
    assert [prediction.label for prediction in predictions] == list(WORDS)
    measured: Any = classifier.manifest.verification["sets"]
    assert measured["mine"]["bundle"]["accuracy"] == 1.0
    assert measured["mine"]["fp32"]["accuracy"] == 1.0
    assert "| mine |" in (bundle / "MODEL_CARD.md").read_text()
    assert classifier.manifest.max_length == 32


def test_a_bundle_has_a_profile_where_there_are_texts_enough(checkpoint: Path, data: Path, bundle: Path, tmp_path: Path) -> None:
    missing: Any = Classifier.open(bundle).manifest.provenance["profile"]
    assert "240 dev texts; it takes 300" in missing["missing"]
    assert "no profile (240 dev texts" in (bundle / "MODEL_CARD.md").read_text()
    result = run("build", checkpoint, tmp_path / "profiled", "--dev", data, "--training", data)
    assert result.exit_code == 0, result.stderr
    profiled = Classifier.open(tmp_path / "profiled")
    assert profiled.profile is not None
    profile = Profile.from_bytes(profiled.profile)
    assert profile.labels == profiled.labels
    assert len(profile.center) == TINY["hidden_size"]
    assert profiled.manifest.provenance["profile"] == {"training_texts": 240, "held_out_texts": 240, "first_token_vectors": True}


def test_weights_are_signed_and_scaled_per_channel(bundle: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_from_string(Bundle.open(bundle).model).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 8  # four in each of two layers
    for node in products:
        assert weights[node.input[1]].data_type == onnx.TensorProto.INT8
        assert len(weights[node.input[3]].dims) == 1


@pytest.mark.parametrize(("family", "engine"), [("bert", "padded"), ("distilbert", "packed"), ("electra", None), ("mpnet", None)])
def test_the_fp32_graph_gives_the_checkpoint_s_own_logits(
    family: str, engine: EngineName | None, base: Path, tmp_path: Path
) -> None:
    from models.making.builder import BuildOptions, build_bundle

    torch.manual_seed(5)
    labels = {"num_labels": 3, "id2label": {0: "x", 1: "y", 2: "z"}}
    if family == "bert":
        model = transformers.BertForSequenceClassification(transformers.BertConfig(**TINY, **labels))
    elif family == "electra":
        model = transformers.ElectraForSequenceClassification(transformers.ElectraConfig(**TINY, embedding_size=32, **labels))
    elif family == "mpnet":
        model = transformers.MPNetForSequenceClassification(transformers.MPNetConfig(**TINY, **labels))
    else:
        config = transformers.DistilBertConfig(vocab_size=30522, dim=32, n_layers=2, n_heads=2, hidden_dim=64, **labels)
        model = transformers.DistilBertForSequenceClassification(config)
    folder = tmp_path / "checkpoint"
    model.eval().save_pretrained(folder)
    for name in (TOKENIZER, "tokenizer_config.json"):
        shutil.copy(base / name, folder)
    build_bundle(folder, tmp_path / "bundle", BuildOptions("tiny", precision="fp32", max_length=64, engine=engine), [], [])
    classifier = Classifier.open(tmp_path / "bundle")
    assert classifier.manifest.engine == (engine or ("padded" if family == "mpnet" else "packed"))
    encodings = [classifier.encode(text) for text in ("hi", "a somewhat longer text, with more tokens", "word " * 100)]
    with torch.inference_mode():
        expected = [model(input_ids=torch.tensor([encoding.ids])).logits.numpy()[0] for encoding in encodings]
    assert np.abs(classifier.logits(encodings) - np.stack(expected)).max() < 1e-4


def test_a_padded_int8_bundle_is_served_too(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    result = run("build", checkpoint, tmp_path / "padded", "--engine", "padded", "--dev", data)
    assert result.exit_code == 0, result.stderr
    classifier = Classifier.open(tmp_path / "padded")
    classifier.self_check()
    texts = ["please refund it", "please crash it now or later, whenever you like", "hello"]
    predictions = classifier.predict([classifier.encode(text) for text in texts])
    assert [prediction.label for prediction in predictions] == ["billing", "technical", "general"]


def test_the_padding_free_build_needs_no_torch(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)  # makes importing it an error
    monkeypatch.delitem(sys.modules, "models.making.trace", raising=False)
    assert run("build", checkpoint, tmp_path / "packed", "--calibration", data, "--reduce-range").exit_code == 0
    assert Classifier.open(tmp_path / "packed").manifest.engine == "packed"
    onnx = pytest.importorskip("onnx")
    for tensor in onnx.load_from_string(Bundle.open(tmp_path / "packed").model).graph.initializer:
        if tensor.name.startswith("layer.") and tensor.data_type == onnx.TensorProto.INT8:
            assert 32 < np.abs(onnx.numpy_helper.to_array(tensor).astype(int)).max() <= 63
    refused = run("build", checkpoint, tmp_path / "padded", "--engine", "padded")
    assert refused.exit_code == 1
    assert "tracing needs torch and transformers" in refused.stderr


def test_the_ladder_s_steps_compute_the_same_model(tmp_path: Path) -> None:
    from models.making.ladder import STEPS, Result, as_json, draw, markdown, run_ladder

    torch.manual_seed(5)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**TINY, num_labels=3))
    model.eval().save_pretrained(tmp_path / "checkpoint")
    generator = np.random.default_rng(1)
    texts = [generator.integers(1000, 30000, length).tolist() for length in (5, 40, 17, 64, 9, 33, 100, 3)]
    result = Result("tiny", len(texts), 1, 1, 34.0)
    (tmp_path / "work").mkdir()
    run_ladder(tmp_path / "checkpoint", tmp_path / "work", result, texts, texts[0], texts[::-1], lambda _: None)
    assert set(result.steps) == {step.name for step in STEPS}
    for step in STEPS:
        measured = result.steps[step.name]["mixed"]
        assert measured.largest_probability_change < (1e-5 if step.name in {"1", "2", "3"} else 0.2)
        assert result.peaks[step.name] > 10
    assert json.loads(as_json(result))["limit_gmacs"] > 0
    assert markdown(result).count("padding-free INT8") == 2
    draw(result, tmp_path / "ladder.png")
    assert (tmp_path / "ladder.png").read_bytes().startswith(b"\x89PNG")


def test_a_bundle_that_misses_an_expected_label_is_not_left_behind(checkpoint: Path, tmp_path: Path) -> None:
    from models.making.builder import BuildError, BuildOptions, build_bundle

    options = BuildOptions("tiny", expected={"please crash it": "billing"})
    with pytest.raises(BuildError, match="must be billing, but the bundle says technical"):
        build_bundle(checkpoint, tmp_path / "out", options, [Example("a", "billing")], [])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BuildError, match="exists"):
        build_bundle(checkpoint, tmp_path, replace(options, expected={}), [], [])


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_bundle_over_the_allowed_size_is_refused_before_anything_is_measured(
    checkpoint: Path, tmp_path: Path, precision: str
) -> None:
    result = run("build", checkpoint, tmp_path / "out", "--precision", precision, "--max-size", "0.001")
    assert result.exit_code == 1
    assert "more than the 0.001 MB allowed" in result.stderr
    assert "goldens" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_build_says_how_much_memory_it_took(checkpoint: Path, tmp_path: Path) -> None:
    result = run("build", checkpoint, tmp_path / "out", "--max-size", "1000")
    assert result.exit_code == 0
    assert re.search(r"\d+ s, [\d,]+ MB of memory at the peak; the bundle has [\d.]+ MB", result.stderr)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    result = run("build", tmp_path, tmp_path / "bundle")
    assert result.exit_code == 1
    assert "config.json" in result.stderr
