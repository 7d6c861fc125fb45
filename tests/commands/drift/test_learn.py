"""`supportbot drift learn` from prediction logs, and what the other commands do without a baseline."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from drift import Baseline, Observations, learn_profile
from loadtest.corpus import tickets
from models.bundle import embedded_bundle
from models.classifier import Classifier
from server.observe.drift import DriftOptions, DriftWatch, read_profile
from tests.commands.drift.logs import DAY, LAYOUT, minutes, run, write_labels, write_log


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the profile of the invented model, whose channels are those of its logs."""
    folder = tmp_path_factory.mktemp("bundle")
    rng = np.random.default_rng(0)
    texts = Observations([rng.integers(20, size=8).tolist() for _ in range(120)], rng.integers(2, size=120), rng.random(120))
    profile = learn_profile(texts, texts, rng.integers(2, size=120), labels=("billing", "technical"), vocabulary=20)
    (folder / "profile.json").write_bytes(replace(profile, layout=LAYOUT).to_bytes())
    return folder


def learned(tmp_path: Path, bundle: Path, *arguments: str | Path) -> tuple[Baseline, str]:
    out = tmp_path / "baseline.json"
    result = run("learn", *arguments, "--bundle", bundle, "--out", out)
    assert result.exit_code == 0, result.output
    return Baseline.from_bytes(out.read_bytes()), " ".join(result.stderr.split())


def test_a_baseline_has_the_counts_of_the_log_by_the_hour(tmp_path: Path, bundle: Path) -> None:
    log = write_log(tmp_path / "log", minutes(2 * DAY + 60, texts=2))
    found, said = learned(tmp_path, bundle, log, "--note", "before the launch")
    assert (found.strata, found.texts, found.notes, found.blocks) == (24, 2 * (2 * DAY + 60), ("before the launch",), 2 * DAY + 60)
    first = sum(minute.counts for minute in minutes(2 * DAY + 60, texts=2) if minute.number // 60 % 24 == 0)
    assert found.counts[0].tolist() == np.asarray(first).tolist()
    assert "5,880 texts from 2026-01-01 00:00 to 2026-01-03 01:00 UTC, 24 strata" in said
    assert learned(tmp_path, bundle, log, "--strata", "4")[0].counts[0].sum() == found.counts[:6].sum()


def test_a_part_of_the_log_and_its_labels(tmp_path: Path, bundle: Path) -> None:
    log, labels = write_log(tmp_path / "log", minutes(180)), write_labels(tmp_path / "labels.csv", minutes(60))
    found, said = learned(tmp_path, bundle, log, "--from", "2026-01-01 00:30", "--to", "2026-01-01T02:00:00", "--labels", labels)
    assert (found.strata, found.texts) == (1, 90 * 12)
    assert "from 2026-01-01 00:30 to 2026-01-01 02:00 UTC, 1 strata" in said
    assert found.counts[0, LAYOUT.place("error")].sum() == 30 * 12
    assert found.counts[0, LAYOUT.place("error")].tolist() == np.asarray(
        sum(minute.outcomes for minute in list(minutes(60))[30:])
    )[LAYOUT.place("error")].tolist()  # fmt: skip


def test_reports_without_a_baseline_have_the_channels_of_the_bundle_and_learn_from_the_log(tmp_path: Path, bundle: Path) -> None:
    log = write_log(tmp_path / "log", minutes(30))
    result = run("report", log, "--bundle", bundle)
    assert result.exit_code == 0, result.output
    assert "there is no baseline yet: 360 texts in 30 blocks were counted towards one" in result.stdout
    assert result.stdout.count("learning") == 3
    log = write_log(tmp_path / "log", minutes(600, texts=3))
    result = run("simulate", log, "--bundle", bundle, "--days", "1", "--streams", "8")
    assert result.exit_code == 0, result.output
    assert "1,800 texts in 10 hours" in result.stdout


def test_what_is_wrong_is_said_and_nothing_written(tmp_path: Path, bundle: Path) -> None:
    log, out = write_log(tmp_path / "log", minutes(3)), tmp_path / "out.json"
    for name, content in (("profile.json", "{}"), ("texts.txt", "hello\n"), ("texts.csv", "body\nhello\n"), ("empty.txt", "")):
        (tmp_path / name).write_text(content, encoding="utf-8")
    for arguments, reason in (
        ((log, "--bundle", tmp_path), "profile.json: not a profile"),
        ((log, "--bundle", tmp_path / "none"), "profile.json: No such file"),
        ((log, "--bundle", bundle, "--from", "2027-01-01"), "no text of the log lies within that time"),
        ((log, "--bundle", bundle, "--from", "tomorrow"), "--from"),
        ((log, tmp_path / "texts.txt", "--bundle", bundle), "not both"),
        ((tmp_path / "texts.txt", "--bundle", bundle, "--strata", "2"), "these are files of texts"),
        ((log, "--bundle", bundle, "--text-column", "body"), "--text-column"),
        ((tmp_path / "texts.csv",), "no column 'text'"),
        ((tmp_path / "empty.txt",), "no texts"),
    ):
        result = run("learn", *arguments, "--out", out)
        assert (result.exit_code, reason in " ".join(result.stderr.split())) == (2, True), (arguments, result.stderr)
        assert not out.exists()


def test_files_of_texts_are_classified_each_different_text_once(tmp_path: Path) -> None:
    source, out = tmp_path / "tickets.csv", tmp_path / "baseline.json"
    texts = list(islice(tickets(1), 210))
    source.write_text("body\n" + "".join(f"{text}\n" for text in (*texts, texts[0], " ", texts[1])), encoding="utf-8")
    result = run("learn", source, "--text-column", "body", "--note", "tickets", "--out", out)
    assert result.exit_code == 0, result.output
    assert "210 different texts" in result.stderr
    assert "repeated texts, left out: 2" in " ".join(result.stderr.split())
    found = Baseline.from_bytes(out.read_bytes())
    assert (found.strata, found.texts, found.notes) == (1, 210, ("tickets",))
    # As the server counts them.
    classifier = Classifier.open(embedded_bundle())
    profile = read_profile(classifier.profile or b"", classifier.labels, classifier.vocabulary, classifier.first_width)
    watch = DriftWatch(profile, classifier.pieces, DriftOptions())
    encodings = [classifier.encode(text) for text in texts]
    seen = [
        watch.see(0.0, "r", text, encoding.ids, classifier.observe([encoding])[0])
        for text, encoding in zip(texts, encodings, strict=True)
    ]
    counts = profile.layout.count_bins(profile.layout.decode(watch.codes([each for each in seen if each is not None])))
    assert np.abs(found.counts[0] - counts).sum() <= 4, "but for a text at an edge: vectors differ in the last bit by batch"
