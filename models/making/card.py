"""The model card: what a person should know before trusting a bundle, written from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from models.bundle import Manifest
from models.making.coverage import TABLE
from models.problem import ProblemType

DEFAULT_TEMPLATE = """# {identity}

A text classifier. Labels ({label_count}): {labels}. {answer}

{facts}

## Measured

{measurements}
"""


# What a text is given, by problem type.
_ANSWERS: Final[Mapping[ProblemType, str]] = {
    "single-label": "A text gets one of them.",
    "multi-label": "A text gets any number of them, or none.",
    "one-label": "A text gets its probability, a number from 0 to 1.",
    "regression": "A text gets a number.",
}
# The figures of a set's table in fp32 and of the bundle, and those of the bundle alone, each by its name.
_FIGURES: Final[Mapping[ProblemType, tuple[Mapping[str, str], Mapping[str, str]]]] = {
    "single-label": ({"accuracy": "accuracy", "macro_f1": "macro-F1"}, {"ece": "ECE"}),
    "multi-label": (
        {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "mean_average_precision": "mean average precision"},
        {"exact_match": "exact match", "ece": "ECE"},
    ),
    "one-label": ({"mae": "mean absolute error", "spearman": "Spearman"}, {"ece": "ECE"}),
    "regression": ({"mae": "mean absolute error", "spearman": "Spearman"}, {}),
}


def render_card(manifest: Manifest, template: str | None = None) -> str:
    """Fill a card template; the placeholders are identity, label_count, labels, answer, facts and measurements."""
    return (template or DEFAULT_TEMPLATE).format(
        identity=f"{manifest.name}@{manifest.version}",
        label_count=len(manifest.labels),
        labels=", ".join(manifest.labels),
        answer=_ANSWERS[manifest.problem_type],
        facts=_facts(manifest),
        measurements=_measurements(manifest),
    )


def _facts(manifest: Manifest) -> str:
    size = sum(record.bytes for record in manifest.files.values()) / 1e6
    rows = {
        "engine": {"packed": "padding-free passes", "padded": "padded passes"}[manifest.engine],
        "precision": manifest.precision,
        "problem type": manifest.problem_type,
        "size": f"{size:.1f} MB",
        "longest input": f"{manifest.max_length} tokens, longer texts are cut",
        "temperature": f"{manifest.temperature}" if manifest.problem_type != "regression" else "none, numbers are as they come",
        "made": str(manifest.provenance.get("created", "")),
        "drift detection": _drift(manifest.provenance.get("profile")),
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def _drift(record: object) -> str:
    """What the manifest says of the profile."""
    if not isinstance(record, dict) or "missing" in record:
        return f"no profile ({record['missing']})" if isinstance(record, dict) else "no profile"
    vectors = "" if record["first_token_vectors"] else ", without first-token vectors"
    return f"profile of {record['training_texts']} training texts and {record['held_out_texts']} held-out ones{vectors}"


def _measurements(manifest: Manifest) -> str:
    verification: dict[str, Any] = dict(manifest.verification)
    sets: dict[str, Any] = verification["sets"]
    if not sets:
        return "Nothing: the bundle was built without test files."
    compared, alone = _FIGURES[manifest.problem_type]
    heads = ["texts", "domain", "n", *(f"{name} fp32 | {name}" for name in compared.values()), *alone.values()]
    parts = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in ' | '.join(heads).split(' | '))} |"]
    for name, row in sets.items():
        fp32, bundle = row["fp32"], row["bundle"]
        cells = [_cell(quality[figure]) for figure in compared for quality in (fp32, bundle)]
        cells += [_cell(bundle[figure]) for figure in alone]
        parts.append(f"| {name} | {row['domain']} | {bundle['texts']} | {' | '.join(cells)} |")
    if verification.get("wrapped"):
        parts += ["", *_wrapped(verification["wrapped"])]
    if verification.get("curves"):
        parts += ["", *_curves(verification["curves"])]
    parts += ["", *_agreements(manifest)]
    if manifest.problem_type == "single-label":
        parts += ["", "Confusion matrices of the bundle (rows: true label, columns: predicted)"]
        for name, row in sets.items():
            parts += ["", f"{name}:", "", *_confusion(manifest.labels, row["bundle"]["confusion"])]
    if manifest.problem_type == "multi-label":
        parts += ["", "Each label of the bundle"]
        for name, row in sets.items():
            parts += ["", f"{name}:", "", *_labels(row["bundle"]["labels"])]
    return "\n".join(parts)


def _cell(value: float | None) -> str:
    """A figure; empty where there is none."""
    return "" if value is None else f"{value:.4f}"


def _labels(rows: dict[str, Any]) -> list[str]:
    shares = ("precision", "recall", "f1", "average_precision", "ece")
    lines = [
        "| label | n | threshold | precision | recall | F1 | average precision | ECE |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for label, row in rows.items():
        cells = " | ".join(_cell(row[name]) for name in shares)
        lines.append(f"| {label} | {row['texts']} | {row['threshold']:g} | {cells} |")
    return lines


def _wrapped(rows: dict[str, Any]) -> list[str]:
    lines = [
        "| texts | n | accuracy fp32 | accuracy | mean confidence | ECE |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        fp32, bundle = row["fp32"], row["bundle"]
        lines.append(
            f"| {name} | {bundle['texts']} | {fp32['accuracy']:.4f} | {bundle['accuracy']:.4f} | {bundle['confidence']:.4f} |"
            f" {bundle['ece']:.4f} |"
        )
    return lines


def _curves(curves: dict[str, Any]) -> list[str]:
    """What share of the texts is answered at a least confidence, and how many of these answers are right."""
    names = list(curves)
    lines = [
        f"| least confidence | {' | '.join(f'{name}: answered | right' for name in names)} |",
        f"| --- |{' --- | --- |' * len(names)}",
    ]
    points = {name: {point["threshold"]: point for point in curves[name]["points"]} for name in names}
    for threshold in TABLE:
        cells = (f"{points[name][threshold]['coverage']:.3f} | {points[name][threshold]['accuracy']:.4f}" for name in names)
        lines.append(f"| {threshold:g} | {' | '.join(cells)} |")
    for name in names:
        found = curves[name]
        said = f"{name.capitalize()} ({found['texts']} texts): ECE {found['ece']:.4f}"
        lines += ["", f"{said}; of the most confident {found['coverage_at_0.98']:.1%} of the answers, 98% are right."]
    return lines


def _agreements(manifest: Manifest) -> list[str]:
    verification: dict[str, Any] = dict(manifest.verification)
    numbers = manifest.problem_type in {"one-label", "regression"}
    what = "number" if manifest.problem_type == "regression" else "probability"
    fp32, tried = verification["against_fp32"], verification["compositions"]
    calibration = verification["calibration"]
    same_label = "Against fp32: " if numbers else f"Same label as fp32: {fp32['label_match']:.2%} of {fp32['texts']} texts; "
    flips = "" if numbers else f"{tried['flips']} other labels, "
    same = (
        f"- {same_label}largest change of a {what}"
        f" {fp32['largest_probability_change']:.3f}, mean {fp32['mean_probability_change']:.5f}."
    )
    mates = (
        f"- In {tried['batches']} random batches ({tried['texts']} places) against alone: {flips}largest"
        f" change of a {what} {tried['largest_probability_change']:.3f}, {tried['moved']} answers with any other bit."
    )
    lines = [same, mates]
    if "ece_before" in calibration:
        lines.append(
            f"- The temperature was fitted on {calibration['texts']} held-out texts: ECE {calibration['ece_before']:.4f} before,"
            f" {calibration['ece_after']:.4f} after."
        )
    if calibration.get("thresholds") == "f1":
        lines.append(f"- Each label's threshold was chosen for F1 on the same {calibration['texts']} texts.")
    return lines


def _confusion(labels: list[str], matrix: list[list[int]]) -> list[str]:
    lines = [f"| | {' | '.join(labels)} |", f"| --- |{' --- |' * len(labels)}"]
    return lines + [f"| {label} | {' | '.join(map(str, row))} |" for label, row in zip(labels, matrix, strict=True)]
