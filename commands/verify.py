"""`supportbot verify`"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from commands.console import fail, progress_bar, say, stderr
from commands.inputs import (
    BundleArgument,
    Delimiter,
    Encoding,
    InputFormat,
    LabelColumn,
    LabelColumns,
    TextColumn,
    bundle_folder,
    check_files,
    check_labels,
    check_used,
    table_format,
)
from models.bundle import MANIFEST, BundleError
from models.tables import TableError, source_name

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from models.classifier import Classifier
    from models.making.judge import Quality
    from models.making.tokens import Comparison
    from models.making.verify import Bounds, Measured, Report
    from models.problem import Problem

NEEDS_ONNX = "a checkpoint as reference needs onnx and safetensors: run `make setup-build`, or install supportbot[build]"


def verify(
    bundle: BundleArgument = None,
    data: Annotated[list[Path] | None, typer.Option(help="Labelled texts to measure on, as for train. May be repeated.")] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="A bundle, or the Hugging Face checkpoint it was built from, with the same labels, to compare with."),
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_columns: LabelColumns = None,
    input_format: InputFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    compositions: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Random batches to try all the texts in; 0 tries none.")
    ] = 1000,
    min_accuracy: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Fail below this accuracy on any file.")] = None,
    min_macro_f1: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Fail below this macro-F1 on any file.")] = None,
    min_micro_f1: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Multi-label: fail below this micro-F1 on any file.")
    ] = None,
    min_map: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Multi-label: fail below this mean average precision on any file.")
    ] = None,
    min_exact_match: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Multi-label: fail below this share of exact matches on any file.")
    ] = None,
    max_mae: Annotated[
        float | None, typer.Option(min=0.0, help="Numbers: fail above this mean absolute error on any file.")
    ] = None,
    min_spearman: Annotated[
        float | None, typer.Option(min=-1.0, max=1.0, help="Numbers: fail below this rank correlation on any file.")
    ] = None,
    max_ece: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Fail above this expected calibration error on any file.")
    ] = None,
    min_match: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Fail below this share of the reference's labels on any file.")
    ] = None,
    max_change: Annotated[
        float | None, typer.Option(min=0.0, help="Fail if a probability or number is further than this from the reference's.")
    ] = None,
    max_flips: Annotated[
        int | None, typer.Option(min=0, help="Fail if more answers than this get another label in a random batch.")
    ] = None,
    max_composition_change: Annotated[
        float | None, typer.Option(min=0.0, help="Fail if a random batch changes a probability or number by more than this.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output instead of tables.")] = False,
) -> None:
    """Check a bundle: hashes, golden texts, and with --data its quality, its nearness to a reference, and what batch-mates change.

    Exit status 0 when everything holds, 1 when a check or a bound fails. Needs neither torch nor transformers; a checkpoint as
    reference runs in fp32 at the bundle's temperature and needs onnx and safetensors. Where transformers is installed, the token
    ids of texts that tokenizers disagree about are compared with those of the checkpoint's own tokenizer.

    Example:

        supportbot verify my-bundle --data test.csv --reference my-checkpoint --min-match 0.98 --max-flips 0
    """
    from models.making.dataset import DatasetError, read_examples
    from models.making.judge import judge_of
    from models.making.verify import Bounds, impossible, measure

    bounds = Bounds(
        min_accuracy=min_accuracy,
        min_macro_f1=min_macro_f1,
        min_micro_f1=min_micro_f1,
        min_map=min_map,
        min_exact_match=min_exact_match,
        max_mae=max_mae,
        min_spearman=min_spearman,
        max_ece=max_ece,
        min_match=min_match,
        max_change=max_change,
        max_flips=max_flips,
        max_composition_change=max_composition_change,
    )
    _demand(bounds, data, reference, compositions)
    table = table_format(input_format, delimiter, encoding, text_column, label_column, label_columns)
    check_used(table, data, "--data")
    check_files(data or [])
    classifier = _open(bundle_folder(bundle))
    judge = judge_of(classifier.problem)
    check_labels(table, judge.kind)
    if found := impossible(bounds, classifier.problem):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in found)
        fail(f"{options}: nothing of that kind is measured of a {classifier.problem.type} model")
    other = _open_reference(reference, classifier) if reference else None
    tokens = _compare_tokens(reference, classifier) if reference and _is_checkpoint(reference) else None
    try:
        with progress_bar() as progress:
            sets = {source_name(path): read_examples([(path, 1.0)], table, say, judge.kind) for path in data or []}
            report = measure(
                classifier,
                sets,
                other,
                compositions,
                lambda title, total: partial(progress.advance, progress.add_task(title, total=total)),
            )
    except (DatasetError, TableError) as error:
        fail(str(error))
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):  # its exceptions share no public base class
            raise
        fail(f"the graph fails: {' '.join(str(error).split())[:300]}; build the bundle again", 1)
    faults = report.faults(bounds)
    if tokens is not None and tokens.differences:
        faults.append(str(tokens))
    goldens = len(classifier.manifest.goldens)
    if as_json:
        head = {
            "model": classifier.identity,
            "goldens": goldens,
            "reference": other.identity if other else None,
            "tokens": asdict(tokens) if tokens else None,
        }
        typer.echo(json.dumps(head | report.as_json() | {"bounds": asdict(bounds), "faults": faults}, indent=2))
    else:
        stderr.print(f"{classifier.identity}: hashes and {goldens} golden texts hold")
        if tokens is not None and not tokens.differences:
            stderr.print(escape(str(tokens)))
        _show(report, classifier.problem, other.identity if other else "")
    if faults:
        fail("\n".join(faults), 1)


def _demand(bounds: Bounds, data: list[Path] | None, reference: Path | None, compositions: int) -> None:
    """Refuse a bound that nothing would be measured for: it would seem to hold."""
    for name in (name for name, value in asdict(bounds).items() if value is not None):
        option = f"--{name.replace('_', '-')}"
        if not data:
            fail(f"{option} needs --data")
        if name in {"min_match", "max_change"} and reference is None:
            fail(f"{option} needs --reference")
        if name in {"max_flips", "max_composition_change"} and not compositions:
            fail(f"{option} needs --compositions")


def _open(folder: Path) -> Classifier:
    from models.classifier import Classifier, SelfCheckFailed

    try:
        classifier = Classifier.open(folder)
        classifier.self_check()
    except (BundleError, SelfCheckFailed) as error:
        fail(str(error), 1)
    return classifier


def _is_checkpoint(folder: Path) -> bool:
    return not (folder / MANIFEST).exists() and (folder / "config.json").is_file()


def _compare_tokens(folder: Path, classifier: Classifier) -> Comparison | None:
    from models.making.tokens import NotCompared, compare_tokens

    manifest = classifier.manifest
    try:
        return compare_tokens(folder, classifier.encode, manifest.max_length, [golden.text for golden in manifest.goldens])
    except NotCompared as error:
        say(f"token ids were not compared: {error}")
    return None


def _open_reference(folder: Path, classifier: Classifier) -> Classifier:
    other = _open_checkpoint(folder, classifier) if _is_checkpoint(folder) else _open(folder)
    if other.labels != classifier.labels:
        fail(f"the labels differ: {classifier.labels} and {other.labels}")
    if other.problem.type != classifier.problem.type:
        fail(f"the problem types differ: {classifier.problem.type} and {other.problem.type}")
    return other


def _open_checkpoint(folder: Path, classifier: Classifier) -> Classifier:
    try:
        from models.making.builder import open_checkpoint
        from models.making.config import CheckpointError, UnsupportedEncoder
    except ImportError as error:
        fail(f"{NEEDS_ONNX} ({error})")
    try:
        # As long as the bundle reads and at its temperature, so that nothing but the weights and products differs.
        manifest = classifier.manifest
        return open_checkpoint(folder, manifest.max_length, manifest.temperature, manifest.problem_type, manifest.thresholds)
    except ImportError as error:
        fail(f"{NEEDS_ONNX} ({error})")
    except UnsupportedEncoder as error:
        fail(f"{error}; build a reference with --engine padded --precision fp32 instead", 1)
    except (BundleError, CheckpointError, OSError) as error:
        fail(str(error), 1)


def _show(report: Report, problem: Problem, reference: str) -> None:
    from rich.console import Console

    console = Console()
    for name, measured in report.sets.items():
        _show_set(console, name, measured, problem, reference)
    if report.together is not None and len(report.sets) > 1:
        _show_set(console, "all", report.together, problem, reference)
    if (tried := report.compositions) is not None:
        flips = f"flips {tried.flips}  " if problem.gives_labels else ""
        console.print(
            f"{tried.batches} random batches, {tried.texts} answers: {flips}moved {tried.moved}  largest {_changing(problem)}"
            f" change {tried.largest_probability_change:.4f}"
        )


def _show_set(console: Console, name: str, measured: Measured, problem: Problem, reference: str) -> None:
    from models.making.verify import figures_of

    judged, compared = measured.quality, measured.agreement
    title = f"{escape(name)}: {judged.texts} texts"
    if (table := _table(judged, problem, title)) is not None:
        console.print(table)
    else:
        console.print(title)
    console.print("  ".join(f"{words} {value:.4f}" for words, value in figures_of(judged).items()))
    if compared is not None:
        matched = f"label match {compared.label_match:.4f}  " if problem.gives_labels else ""
        console.print(
            f"against {reference}: {matched}largest {_changing(problem)} change"
            f" {compared.largest_probability_change:.4f}  mean {compared.mean_probability_change:.6f}"
        )


def _changing(problem: Problem) -> str:
    return "number" if problem.type == "regression" else "probability"


def _table(judged: Quality, problem: Problem, title: str) -> Table | None:
    """The figures by label, if there are any."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from models.making.judge import LabelQuality, LabelsQuality

    if isinstance(judged, LabelQuality):
        table = Table(title=title, title_justify="left")
        for column in ("true \\ predicted", *map(escape, problem.labels)):
            table.add_column(column, justify="right")
        for label, counts in zip(problem.labels, judged.confusion, strict=True):
            table.add_row(escape(label), *map(str, counts))
        return table
    if not isinstance(judged, LabelsQuality):
        return None
    # 8 columns have to fit into 80 characters.
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for column in ("label", "texts", "threshold", "precision", "recall", "F1", "AP", "ECE"):
        table.add_column(column, justify="left" if column == "label" else "right")
    for label, found in judged.labels.items():
        shares = (found.precision, found.recall, found.f1, found.average_precision, found.ece)
        cells = (f"{value:.4f}" if value == value else "" for value in shares)  # noqa: PLR0124 - not a number
        table.add_row(escape(label), str(found.texts), f"{found.threshold:g}", *cells)
    return table
