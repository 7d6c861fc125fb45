"""Train, build, verify, classify and serve tiny models that give several labels, a probability or a number."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from commands.cli import app
from models.bundle import MANIFEST, TOKENIZER, embedded_bundle
from models.classifier import Classifier
from models.problem import PROBLEM_TYPES, ProblemType
from tests.server.conftest import real_server, wait_until_ready

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.build,
    # The libraries' own deprecations, on their way through each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

Json: TypeAlias = Any  # an answer, whatever its shape
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 30522,
    "initializer_range": 0.2,
}
WORDS = {"billing": "refund", "sales": "demo", "technical": "crash"}
OTHERS = [kind for kind in PROBLEM_TYPES if kind != "single-label"]
# What trains, by problem type: options of `train`, and bounds for `verify` on the same texts.
TRAIN = {
    "multi-label": ("--problem-type", "multi-label"),
    "one-label": ("--problem-type", "one-label", "--label-column", "billing"),
    "regression": ("--problem-type", "regression", "--label-column", "words"),
}
BOUNDS = {
    "multi-label": ("--min-micro-f1", "0.95", "--min-map", "0.95", "--min-exact-match", "0.9", "--min-macro-f1", "0.9"),
    "one-label": ("--max-mae", "0.2", "--min-spearman", "0.7", "--max-ece", "0.2"),
    "regression": ("--max-mae", "0.5", "--min-spearman", "0.8"),
}
BOTH, NEITHER = "please refund and crash", "please thank you"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@dataclass(frozen=True)
class Made:
    """What was made of one problem type, and the output of the commands."""

    kind: ProblemType
    data: Path
    checkpoint: Path
    bundle: Path
    said: str

    @property
    def label(self) -> tuple[str, ...]:
        """The options that name the labels in the data."""
        return TRAIN[self.kind][2:]


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
    """Each label is told by one word; with labels in one column, a column of 0 and 1 for each, and how many there are."""
    file = tmp_path_factory.mktemp("data") / "data.csv"
    with file.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["text", "label", *WORDS, "words"])
        for number in range(240):
            flags = [number >> bit & 1 for bit in range(len(WORDS))]
            chosen = [label for label, flag in zip(WORDS, flags, strict=True) if flag]
            text = " and ".join(WORDS[label] for label in chosen) or "thank you"
            table.writerow([f"please {text}", "|".join(chosen), *flags, len(chosen)])
    return file


@pytest.fixture(scope="module")
def make(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[ProblemType], Made]:
    """Trains and builds a model of a problem type, once."""
    found: dict[ProblemType, Made] = {}

    def made(kind: ProblemType) -> Made:
        if kind in found:
            return found[kind]
        folder = tmp_path_factory.mktemp(kind)
        checkpoint, bundle = folder / "checkpoint", folder / "bundle"
        options = ("--batch-size", "8", "--learning-rate", "0.002", "--epochs", "6", "--max-length", "32", "--threads", "1")
        trained = run("train", "--data", data, "--dev", data, "--base", base, "--out", checkpoint, *options, *TRAIN[kind])
        assert trained.exit_code == 0, trained.stderr
        more = ("--thresholds", "f1") if kind == "multi-label" else ()
        result = run("build", checkpoint, bundle, "--dev", data, "--test", f"mine={data}", *TRAIN[kind][2:], *more)
        assert result.exit_code == 0, result.stderr
        found[kind] = Made(kind, data, checkpoint, bundle, trained.stderr + result.stderr)
        return found[kind]

    return made


@pytest.fixture(params=OTHERS)
def model(request: pytest.FixtureRequest, make: Callable[[ProblemType], Made]) -> Made:
    return make(request.param)


def test_a_checkpoint_says_its_problem_type_and_the_build_follows_it(model: Made) -> None:
    config = json.loads((model.checkpoint / "config.json").read_text())
    stated = {"multi-label": "multi_label_classification", "one-label": None, "regression": "regression"}[model.kind]
    assert config.get("problem_type") == stated
    manifest = json.loads((model.bundle / MANIFEST).read_text())
    labels = {"multi-label": list(WORDS), "one-label": ["billing"], "regression": ["words"]}[model.kind]
    assert (manifest["problem_type"], manifest["labels"]) == (model.kind, labels)
    assert [0 < threshold < 1 for threshold in manifest["thresholds"]] == [True] * (3 if model.kind == "multi-label" else 0)
    assert (manifest["temperature"] == 1) == (model.kind == "regression")
    assert "no profile for drift detection: drift detection needs a model that gives one label" in model.said
    figures = manifest["verification"]["sets"]["mine"]["bundle"]
    calibration = manifest["verification"]["calibration"]
    if model.kind == "multi-label":
        assert figures["micro_f1"] > 0.95
        assert set(figures["labels"]) == set(calibration["labels"]) == set(WORDS)
        assert calibration["thresholds"] == "f1"
        assert all(0 <= row["ece"] <= 0.2 for row in calibration["labels"].values())
    else:
        assert figures["spearman"] > 0.7
    card = (model.bundle / "MODEL_CARD.md").read_text()
    assert f"| problem type | {model.kind} |" in card
    assert ("| billing | 120 |" in card) == (model.kind == "multi-label")
    assert not list(model.bundle.glob("profile.json"))


def test_verify_measures_what_there_is_and_compares_with_the_checkpoint(model: Made) -> None:
    options: tuple[str | Path, ...] = ("--data", model.data, *model.label, "--reference", model.checkpoint, "--compositions", "20")
    held = run("verify", model.bundle, *options, *BOUNDS[model.kind], "--max-change", "0.5", "--json")
    assert held.exit_code == 0, held.stderr
    report = json.loads(held.stdout)
    assert report["all"]["quality"]["texts"] == 240
    assert report["all"]["agreement"]["largest_probability_change"] < 0.5
    assert (report["compositions"]["moved"], report["compositions"]["flips"]) == (0, 0)
    bound, words = ("--max-mae", "mean absolute error") if model.kind == "regression" else ("--max-ece", "ECE")
    broken = run("verify", model.bundle, *options, bound, "0")
    assert broken.exit_code == 1
    assert re.search(rf": {words} \S+ is above 0", broken.stderr)
    shown = run("verify", model.bundle, *options)
    for words in {"multi-label": ("threshold", "micro-F1", "exact match")}.get(model.kind, ("mean absolute error", "Spearman")):
        assert words in shown.stdout
    for bound in ("--min-accuracy", *(() if model.kind == "multi-label" else ("--min-match", "--max-flips"))):
        refused = run("verify", model.bundle, *options, bound, "0")
        assert refused.exit_code == 2
        assert f"{bound}: nothing of that kind is measured of a {model.kind} model" in refused.stderr


def test_it_is_served_for_real_in_every_dialect(model: Made, tmp_path: Path) -> None:
    classifier = Classifier.open(model.bundle)
    with real_server(tmp_path, BUNDLE=str(model.bundle), PREDICTION_LOG="log.jsonl") as server:
        wait_until_ready(server.url)

        def ask(path: str, body: object) -> Json:
            response = httpx2.post(server.url + path, json=body)
            assert response.status_code == 200, response.text
            return response.json()

        native = ask("/classify", {"texts": [BOTH, NEITHER], "scores": True})
        name = native["model"].partition("@")[0]
        predictions = classifier.predict([classifier.encode(text) for text in (BOTH, NEITHER)])
        assert native["predictions"] == [classifier.problem.answer(prediction) for prediction in predictions]
        if model.kind == "multi-label":
            assert [set(labels) for labels in native["predictions"]] == [{"billing", "technical"}, set()]
            assert [len(each) for each in native["confidences"]] == [2, 0]
        else:
            assert "confidences" not in native
            least = {"one-label": 0.8, "regression": 1.5}[model.kind]
            assert native["predictions"][0] > least > 0.5 > native["predictions"][1]
        scores = native["scores"][0]
        hugging = {row["label"]: row["score"] for row in ask("/", {"inputs": BOTH})[0]}
        assert hugging == scores
        tei = {row["label"]: row["score"] for row in ask("/predict", {"inputs": BOTH})}
        logits = {row["label"]: row["score"] for row in ask("/predict", {"inputs": BOTH, "raw_scores": True})}
        temperature = classifier.manifest.temperature
        assert tei == {label: pytest.approx(1 / (1 + np.exp(-logit / temperature)), abs=2e-6) for label, logit in logits.items()}
        assert {row["label"]: row["score"] for row in ask("/classify", {"inputs": BOTH})} == tei
        (row,) = ask("/v1/classify", {"input": BOTH})["data"]
        assert (row["probs"], row["num_classes"]) == (list(scores.values()), len(scores))
        kserve = ask(f"/v1/models/{name}:predict", {"instances": [BOTH, NEITHER]})["predictions"]
        assert isinstance(kserve[0], list) == (model.kind == "multi-label")
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [BOTH]}
        infer = ask(f"/v2/models/{name}/infer", {"inputs": [tensor], "outputs": [{"name": "probabilities"}]})
        assert infer["outputs"][0]["data"] == [tei[label] for label in classifier.labels]
        assert httpx2.get(f"{server.url}/").json()["problem_type"] == model.kind
        assert httpx2.get(f"{server.url}/drift").json()["enabled"] is False
        remote = run("classify", "--url", server.url, "--file", model.data, "--format", "csv", "--no-text", "--scores")
        assert server.stop() == 0
    assert any("it needs a model that gives one label" in line for line in server.log)
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert logged[0].items() >= classifier.problem.record(predictions[0]).items()
    local = run("classify", "--bundle", model.bundle, "--file", model.data, "--format", "csv", "--no-text", "--scores")
    assert (local.exit_code, remote.exit_code) == (0, 0)
    assert local.stdout == remote.stdout
    rows = list(csv.DictReader(local.stdout.splitlines()))
    if model.kind == "multi-label":
        # The texts and their labels come again after 8 rows, and the last of these has all.
        assert (rows[0]["labels"], rows[0]["confidences"]) == ("", "")
        assert set(rows[7]["labels"].split("|")) == set(WORDS)
        assert len(rows[7]["confidences"].split("|")) == 3
    else:
        assert float(rows[7]["value"]) > float(rows[0]["value"])


def test_probabilities_are_transformers_sigmoids(make: Callable[[ProblemType], Made], tmp_path: Path) -> None:
    model = make("multi-label")
    assert run("build", model.checkpoint, tmp_path / "fp32", "--precision", "fp32").exit_code == 0
    classifier = Classifier.open(tmp_path / "fp32")
    assert classifier.problem.thresholds == (0.5, 0.5, 0.5)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(model.checkpoint).eval()
    encodings = [classifier.encode(text) for text in (BOTH, NEITHER, "demo " * 40, "a")]
    with torch.inference_mode():
        expected = [torch.sigmoid(theirs(input_ids=torch.tensor([each.ids])).logits)[0].tolist() for each in encodings]
    found = [prediction.scores for prediction in classifier.predict(encodings)]
    assert np.abs(np.array(found) - np.array(expected)).max() < 1e-5


def test_labels_may_be_a_column_each_and_the_problem_type_another_one(make: Callable[[ProblemType], Made], tmp_path: Path) -> None:
    model = make("multi-label")
    columns = ("--label-columns", ",".join(WORDS))
    one, other = (run("verify", model.bundle, "--data", model.data, *more, "--json") for more in ((), columns))
    assert one.exit_code == other.exit_code == 0, other.stderr
    assert json.loads(one.stdout)["all"] == json.loads(other.stdout)["all"]
    for more, reason in (
        (("--problem-type", "regression"), "--problem-type = regression, and id2label has 3"),
        (("--problem-type", "single-label", "--thresholds", "0.7"), "thresholds are for multi-label models"),
        (("--thresholds", "f1"), "needs labelled texts (--dev)"),
        (("--thresholds", "1.5"), "--thresholds 1.5: must be f1, or between 0 and 1"),
        (("--problem-type", "single-label", *columns), "--label-columns: is for multi-label models"),
    ):
        refused = run("build", model.checkpoint, tmp_path / "never", *more)
        assert refused.exit_code in {1, 2}
        assert reason in refused.stderr
    probability = make("one-label")
    assert (
        run("build", probability.checkpoint, tmp_path / "yes", "--problem-type", "multi-label", "--thresholds", "0.6").exit_code
        == 0
    )
    answered = Classifier.open(tmp_path / "yes")
    assert answered.problem.thresholds == (0.6,)
    both, neither = answered.predict([answered.encode(text) for text in (BOTH, NEITHER)])
    assert (answered.problem.answer(both), answered.problem.answer(neither)) == (["billing"], [])
