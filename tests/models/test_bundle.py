from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import MANIFEST, MODEL, PROFILE, TOKENIZER, Bundle, BundleError, embedded_bundle
from models.classifier import Classifier


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_the_embedded_bundle_is_whole_and_small() -> None:
    bundle = Bundle.open(embedded_bundle())
    assert bundle.manifest.labels == ["billing", "general", "technical"]
    assert bundle.manifest.max_length == 512
    assert bundle.profile is not None
    assert sum(file.stat().st_size for file in embedded_bundle().iterdir()) <= 25_500_000


@pytest.mark.parametrize("name", [MODEL, PROFILE, TOKENIZER])
def test_a_changed_byte_is_noticed(bundle_copy: Path, name: str) -> None:
    content = bytearray((bundle_copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: its SHA-256 is not the manifest's"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("name", [MODEL, PROFILE, TOKENIZER])
@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"x", lambda _: b""])
def test_a_truncated_or_longer_file_is_noticed(bundle_copy: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (bundle_copy / name).write_bytes(change((bundle_copy / name).read_bytes()))
    with pytest.raises(BundleError, match=name):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("name", [MANIFEST, MODEL, PROFILE, TOKENIZER])
def test_a_missing_file_is_named(bundle_copy: Path, name: str) -> None:
    (bundle_copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: No such file"):
        Bundle.open(bundle_copy)


def test_a_bundle_of_format_2_has_no_profile(bundle_copy: Path) -> None:
    def older(manifest: dict[str, Any]) -> None:
        manifest["format_version"] = 2
        del manifest["files"][PROFILE]

    edit(bundle_copy, older)
    assert Bundle.open(bundle_copy).profile is None
    Classifier.open(bundle_copy).self_check()


def test_a_multi_label_bundle_gives_the_sigmoid_of_its_logits_by_thresholds(bundle_copy: Path) -> None:
    before, thresholds = Classifier.open(bundle_copy), [0.01, 0.5, 0.999]
    edit(
        bundle_copy,
        lambda m: m.update(format_version=4, problem_type="multi-label", thresholds=thresholds, temperature=2.0),
    )
    classifier = Classifier.open(bundle_copy)
    classifier.self_check()
    assert classifier.fingerprint != before.fingerprint
    (prediction,) = classifier.predict([classifier.encode("payment failed")])
    expected = 1 / (1 + np.exp(-np.array(prediction.logits) / 2))
    assert prediction.logits == before.predict([before.encode("payment failed")])[0].logits
    assert prediction.scores == pytest.approx(expected.tolist(), abs=1e-12)
    assert classifier.problem.answer(prediction) == [
        label for label, p, t in zip(before.labels, expected, thresholds, strict=True) if p >= t
    ]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere: no such folder"):
        Bundle.open(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(format_version=1), "reads bundles of formats 2, 3 and 4 only; build the bundle again"),
        (lambda m: m.update(engine="pickled"), "engine"),
        (lambda m: m.update(labels=["one", "one", "two"]), "a label occurs twice"),
        (lambda m: m.update(labels=["one"]), "labels"),
        (lambda m: m.update(temperature=0), "temperature"),
        (lambda m: m.update(max_length="256"), "max_length"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m.pop("goldens"), "goldens"),
        (lambda m: m["goldens"][0].update(logits=[1.0]), r"goldens\.0\.logits: 1 values for 3 labels"),
        (lambda m: m["labels"].reverse(), r"its highest logit is not that of its label"),
        (lambda m: m.update(temperature=1e-320), "temperature"),
        (lambda m: m["files"].pop(TOKENIZER), "must list"),
        (lambda m: m["files"].update({"../../etc/passwd": m["files"][MODEL]}), "must list"),
        (lambda m: m["files"][MODEL].update(bytes=1 << 40), "bytes"),
        (lambda m: m.update(problem_type="multi-label"), "problem_type: a bundle of format 3 is single-label"),
        (lambda m: m.update(format_version=4, problem_type="ranking"), "problem_type"),
        (lambda m: m.update(format_version=4, problem_type="regression"), "labels: a regression model has one, not 3"),
        (lambda m: m.update(format_version=4, thresholds=[0.5] * 3), "thresholds: a single-label model has none"),
        (lambda m: m.update(format_version=4, problem_type="multi-label", thresholds=[0.5]), "thresholds: 1 for 3 labels"),
        (lambda m: m.update(format_version=4, problem_type="multi-label", thresholds=[0.5, 1, 0.5]), "thresholds"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_place(
    bundle_copy: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    edit(bundle_copy, change)
    with pytest.raises(BundleError, match=reason):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_manifest_that_is_no_json_object_is_refused(bundle_copy: Path, content: bytes) -> None:
    (bundle_copy / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=MANIFEST):
        Bundle.open(bundle_copy)


def test_a_pipe_in_place_of_a_file_is_refused_at_once(bundle_copy: Path) -> None:
    (bundle_copy / MANIFEST).unlink()
    os.mkfifo(bundle_copy / MANIFEST)
    with pytest.raises(BundleError, match="not a regular file"):
        Bundle.open(bundle_copy)
