"""`supportbot verify`"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.bundle import BundleError
from models.tables import TableError
from server.commands.console import fail, progress_bar, stderr

if TYPE_CHECKING:
    from models.classifier import Classifier


def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    data: Annotated[list[Path] | None, typer.Option(help="Labelled texts to measure on. May be repeated.")] = None,
    reference: Annotated[Path | None, typer.Option(help="Another bundle with the same labels to compare with.")] = None,
    text_column: Annotated[str, typer.Option(help="The column or key of the text.")] = "text",
    label_column: Annotated[str, typer.Option(help="The column or key of the label.")] = "label",
    min_accuracy: Annotated[float, typer.Option(min=0.0, max=1.0, help="Fail below this accuracy.")] = 0.0,
    min_match: Annotated[float, typer.Option(min=0.0, max=1.0, help="Fail below this share of the reference's labels.")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output instead of a table.")] = False,
) -> None:
    """Check a bundle: hashes, golden texts, and with --data its quality on labelled texts.

    Exit status 0 when everything holds, 1 when a check or a bound fails. Needs neither torch nor transformers.
    """
    from models.build.dataset import DatasetError, read_examples
    from models.build.evaluate import agreement, quality, targets_of
    from models.classifier import softmax

    classifier = _open(bundle)
    other = _open(reference) if reference else None
    if other is not None and other.labels != classifier.labels:
        fail(f"the labels differ: {classifier.labels} and {other.labels}")
    report: dict[str, Any] = {"model": classifier.identity, "goldens": len(classifier.manifest.goldens), "sets": {}}
    faults: list[str] = []
    for path in data or []:
        try:
            examples = read_examples([(path, 1.0)], text_column=text_column, label_column=label_column)
            targets = targets_of(examples, classifier.labels)
            texts = [example.text for example in examples]
            logits = _logits(classifier, texts, f"{path.name}: bundle")
        except (DatasetError, TableError) as error:
            fail(f"{path}: {error}")
        measured = quality(targets, logits, classifier.manifest.temperature)
        report["sets"][str(path)] = {"quality": asdict(measured)}
        if measured.accuracy < min_accuracy:
            faults.append(f"{path}: accuracy {measured.accuracy:.4f} is below {min_accuracy}")
        if other is not None:
            expected = softmax(_logits(other, texts, f"{path.name}: reference") / other.manifest.temperature)
            compared = agreement(softmax(logits / classifier.manifest.temperature), expected)
            report["sets"][str(path)]["agreement"] = asdict(compared)
            if compared.label_match < min_match:
                faults.append(f"{path}: label match {compared.label_match:.4f} is below {min_match}")
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _show(report, classifier.labels)
    if faults:
        fail("\n".join(faults), 1)


def _open(folder: Path) -> Classifier:
    from models.classifier import Classifier, SelfCheckFailed

    try:
        classifier = Classifier.open(folder)
        classifier.self_check()
    except (BundleError, SelfCheckFailed) as error:
        fail(str(error), 1)
    return classifier


def _logits(classifier: Classifier, texts: list[str], title: str) -> Any:  # noqa: ANN401 - a numpy array
    from models.build.evaluate import logits_alone

    with progress_bar() as progress:
        task = progress.add_task(title, total=len(texts))
        return logits_alone(classifier, texts, lambda done: progress.advance(task, done))


def _show(report: dict[str, Any], labels: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    stderr.print(f"{report['model']}: hashes and {report['goldens']} golden texts hold")
    console = Console()
    for name, row in report["sets"].items():
        measured = row["quality"]
        table = Table(title=f"{name}: {measured['texts']} texts", title_justify="left")
        for column in ("true \\ predicted", *labels):
            table.add_column(column, justify="right")
        for label, counts in zip(labels, measured["confusion"], strict=True):
            table.add_row(label, *map(str, counts))
        console.print(table)
        console.print(f"accuracy {measured['accuracy']:.4f}  macro-F1 {measured['macro_f1']:.4f}  ECE {measured['ece']:.4f}")
        if "agreement" in row:
            compared = row["agreement"]
            console.print(
                f"label match {compared['label_match']:.4f}  largest probability change"
                f" {compared['largest_probability_change']:.4f}  mean {compared['mean_probability_change']:.6f}"
            )
