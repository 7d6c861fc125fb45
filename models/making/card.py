"""The model card: what a person should know before trusting a bundle, written from its manifest."""

from __future__ import annotations

from typing import Any

from models.bundle import Manifest
from models.making.coverage import TABLE

DEFAULT_TEMPLATE = """# {identity}

A text classifier with {label_count} labels: {labels}.

{facts}

## Measured

{measurements}
"""


def render_card(manifest: Manifest, template: str | None = None) -> str:
    """Fill a card template; the placeholders are identity, label_count, labels, facts and measurements."""
    return (template or DEFAULT_TEMPLATE).format(
        identity=f"{manifest.name}@{manifest.version}",
        label_count=len(manifest.labels),
        labels=", ".join(manifest.labels),
        facts=_facts(manifest),
        measurements=_measurements(manifest),
    )


def _facts(manifest: Manifest) -> str:
    size = sum(record.bytes for record in manifest.files.values()) / 1e6
    rows = {
        "engine": {"packed": "padding-free passes", "padded": "padded passes"}[manifest.engine],
        "precision": manifest.precision,
        "size": f"{size:.1f} MB",
        "longest input": f"{manifest.max_length} tokens, longer texts are cut",
        "temperature": f"{manifest.temperature}",
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
    parts = [
        "| texts | domain | n | accuracy fp32 | accuracy | macro-F1 fp32 | macro-F1 | ECE |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in sets.items():
        fp32, bundle = row["fp32"], row["bundle"]
        parts.append(
            f"| {name} | {row['domain']} | {bundle['texts']} | {fp32['accuracy']:.4f} | {bundle['accuracy']:.4f} |"
            f" {fp32['macro_f1']:.4f} | {bundle['macro_f1']:.4f} | {bundle['ece']:.4f} |"
        )
    if verification.get("wrapped"):
        parts += ["", *_wrapped(verification["wrapped"])]
    if verification.get("curves"):
        parts += ["", *_curves(verification["curves"])]
    parts += ["", *_agreements(verification), "", "Confusion matrices of the bundle (rows: true label, columns: predicted)"]
    for name, row in sets.items():
        parts += ["", f"{name}:", "", *_confusion(manifest.labels, row["bundle"]["confusion"])]
    return "\n".join(parts)


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


def _agreements(verification: dict[str, Any]) -> list[str]:
    fp32, tried = verification["against_fp32"], verification["compositions"]
    calibration = verification["calibration"]
    same = (
        f"- Same label as fp32: {fp32['label_match']:.2%} of {fp32['texts']} texts; largest change of a probability"
        f" {fp32['largest_probability_change']:.3f}, mean {fp32['mean_probability_change']:.5f}."
    )
    mates = (
        f"- In {tried['batches']} random batches ({tried['texts']} places) against alone: {tried['flips']} other labels, largest"
        f" change of a probability {tried['largest_probability_change']:.3f}, {tried['moved']} answers with any other bit."
    )
    lines = [same, mates]
    if calibration:
        lines.append(
            f"- The temperature was fitted on {calibration['texts']} held-out texts: ECE {calibration['ece_before']:.4f} before,"
            f" {calibration['ece_after']:.4f} after."
        )
    return lines


def _confusion(labels: list[str], matrix: list[list[int]]) -> list[str]:
    lines = [f"| | {' | '.join(labels)} |", f"| --- |{' --- |' * len(labels)}"]
    return lines + [f"| {label} | {' | '.join(map(str, row))} |" for label, row in zip(labels, matrix, strict=True)]
