"""`supportbot verify` on the embedded model: what it measures, and each bound."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from commands.cli import app
from models.bundle import TOKENIZER, embedded_bundle

FIRST = (
    '{"text": "My payment failed twice", "label": "billing"}\n'
    '{"text": "App keeps crashing on iOS", "label": "technical"}\n'
    '{"text": "Question about my plan", "label": "technical"}\n'
)
SECOND = '{"text": "Where is my invoice for May, and who do I ask about it?", "label": "billing"}\n'


def verify(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["verify", str(embedded_bundle()), *map(str, arguments)])


@pytest.fixture
def first(tmp_path: Path) -> Path:
    file = tmp_path / "first.jsonl"
    file.write_text(FIRST, encoding="utf-8")
    return file


@pytest.fixture
def second(tmp_path: Path) -> Path:
    file = tmp_path / "second.jsonl"
    file.write_text(SECOND, encoding="utf-8")
    return file


@pytest.fixture
def sharper(bundle_copy: Path) -> Path:
    """A reference with the same labels and other probabilities."""
    manifest = bundle_copy / "manifest.json"
    values = json.loads(manifest.read_text(encoding="utf-8"))
    values["temperature"] /= 3
    manifest.write_text(json.dumps(values), encoding="utf-8")
    return bundle_copy


def test_json_has_every_figure_also_over_all_files(first: Path, second: Path) -> None:
    result = verify("--data", first, "--data", second, "--reference", embedded_bundle(), "--compositions", "5", "--json")
    assert result.exit_code == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    assert set(report) == {"model", "goldens", "reference", "tokens", "sets", "all", "compositions", "bounds", "faults"}
    assert report["reference"] == report["model"]
    assert set(report["sets"]) == {str(first), str(second)}
    assert report["all"]["quality"]["texts"] == 4
    assert report["all"]["quality"]["accuracy"] == pytest.approx(3 / 4)
    assert set(report["all"]["quality"]) == {"texts", "accuracy", "macro_f1", "ece", "nll", "confusion", "confidence"}
    assert report["all"]["agreement"] == {
        "texts": 4,
        "label_match": 1.0,
        "largest_probability_change": 0.0,
        "mean_probability_change": 0.0,
    }
    tried = report["compositions"]
    assert (tried["batches"], tried["flips"], tried["moved"], tried["largest_probability_change"]) == (5, 0, 0, 0.0)
    assert tried["texts"] >= 5
    assert report["faults"] == []


def test_the_tables_name_each_file_and_all(first: Path, second: Path) -> None:
    result = verify("--data", first, "--data", second, "--compositions", "3")
    assert result.exit_code == 0, result.stderr
    assert "all: 4 texts" in result.stdout
    assert "3 random batches" in result.stdout
    alone = verify("--data", first, "--compositions", "0")
    assert "all:" not in alone.stdout
    assert "random batches" not in alone.stdout


def test_every_broken_bound_is_named_and_the_json_is_written_all_the_same(first: Path, sharper: Path) -> None:
    bounds = ("--min-accuracy", "0.9", "--min-macro-f1", "0.95", "--max-ece", "0.001", "--max-change", "0.001")
    result = verify("--data", first, "--reference", sharper, "--compositions", "2", *bounds, "--max-flips", "0", "--json")
    assert result.exit_code == 1
    for fault in ("accuracy 0.666667 is below 0.9", "is below 0.95", "is above 0.001"):
        assert fault in result.stderr
    faults = json.loads(result.stdout)["faults"]
    assert [fault.removeprefix(f"{first}: ").split(" 0.")[0] for fault in faults] == [
        "accuracy",
        "macro-F1",
        "ECE",
        "largest probability change",
    ]


def test_bounds_on_random_batches_and_label_match() -> None:
    from models.making.evaluate import Agreement, Compositions
    from models.making.judge import LabelQuality
    from models.making.verify import Bounds, Measured, Report

    quality = LabelQuality(10, 0.9, 0.9, 0.01, 0.3, [[9, 1], [0, 0]], 0.9)
    measured = Measured(quality, Agreement(10, 0.9, 0.2, 0.01))
    report = Report({"mine": measured}, measured, Compositions(10, 100, 2, 5, 0.3))
    assert report.faults(Bounds(min_match=0.9, max_flips=2, max_composition_change=0.3, max_change=0.2)) == []
    assert report.faults(Bounds(min_match=0.95, max_flips=1, max_composition_change=0.25)) == [
        "mine: label match 0.9 is below 0.95",
        "random batches: flips 2 is above 1",
        "random batches: largest probability change 0.3 is above 0.25",
    ]
    nothing = Report({"mine": Measured(LabelQuality(1, 0.0, 0.0, float("nan"), 0.0, [], 0.9), None)})
    assert nothing.faults(Bounds(max_ece=1.0)) == ["mine: ECE nan is above 1"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--min-accuracy", "0.5"), "--min-accuracy needs --data"),
        (("--min-match", "0.5", "--data", "x"), "--min-match needs --reference"),
        (("--max-flips", "0", "--compositions", "0", "--data", "x"), "--max-flips needs --compositions"),
    ],
)
def test_a_bound_that_nothing_is_measured_for_is_wrong_usage(arguments: tuple[str, ...], reason: str) -> None:
    result = verify(*arguments)
    assert (result.exit_code, reason in result.stderr) == (2, True)


def test_without_data_nothing_is_measured() -> None:
    result = verify("--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert (report["sets"], report["all"], report["compositions"], report["reference"]) == ({}, None, None, None)


def checkpoint(folder: Path, labels: tuple[str, ...]) -> Path:
    """A tiny random classifier with the embedded bundle's tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    config = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=30522,
        initializer_range=0.2,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    shutil.copy(embedded_bundle() / TOKENIZER, folder / "tokenizer.json")
    return folder


@pytest.mark.build
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_checkpoint_as_reference(first: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    source = checkpoint(tmp_path / "checkpoint", ("billing", "general", "technical"))
    bundle = tmp_path / "tiny"
    dev = ("--dev", first, "--max-length", "64", "--precision", "fp32")
    built = CliRunner().invoke(app, ["build", *map(str, (source, bundle, *dev))])
    assert built.exit_code == 0, built.stderr
    arguments = ("verify", bundle, "--data", first, "--reference", source, "--compositions", "2", "--json")
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["reference"].startswith("checkpoint@")
    assert report["all"]["agreement"]["largest_probability_change"] == 0.0  # the same graph at the same temperature

    other = checkpoint(tmp_path / "other", ("no", "yes"))
    result = verify("--data", first, "--reference", other)
    assert (result.exit_code, "the labels differ" in result.stderr) == (2, True)
    (source / "config.json").write_text("{")
    result = verify("--data", first, "--reference", source)
    assert (result.exit_code, "config.json" in result.stderr) == (1, True)


def test_a_checkpoint_without_the_build_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    monkeypatch.delitem(sys.modules, "models.making.builder", raising=False)
    monkeypatch.setitem(sys.modules, "models.making.graph", None)  # as if onnx were not there
    result = verify("--reference", tmp_path)
    assert result.exit_code == 2
    assert "needs onnx and safetensors" in result.stderr
