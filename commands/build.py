"""`supportbot build`"""

from __future__ import annotations

import resource
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer
from pydantic import ValidationError

from commands.console import fail, say
from commands.inputs import (
    Delimiter,
    Encoding,
    InputFormat,
    LabelColumn,
    LabelColumns,
    ProblemChoice,
    TextColumn,
    check_files,
    check_labels,
    table_format,
)
from commands.train import NEEDS_BUILD
from models.bundle import BundleError, EngineName
from models.tables import Kind, TableError, TableFormat, kind_of, source_name


class Precision(StrEnum):
    """Of the weights and the products with them."""

    INT8 = "int8"
    FP32 = "fp32"


class EngineChoice(StrEnum):
    """How the graph is made and run."""

    AUTO = "auto"
    PACKED = "packed"
    PADDED = "padded"


ENGINE_NAMES: dict[EngineChoice, EngineName | None] = {
    EngineChoice.AUTO: None,
    EngineChoice.PACKED: "packed",
    EngineChoice.PADDED: "padded",
}


def build(
    checkpoint: Annotated[Path, typer.Argument(help="A Hugging Face checkpoint folder of a text classifier.")],
    bundle: Annotated[Path, typer.Argument(help="The bundle folder to make.")],
    name: Annotated[str | None, typer.Option(help="The model's name.", show_default="the bundle folder's name")] = None,
    version: Annotated[str | None, typer.Option(help="The model's version.", show_default="8 digits of its hash")] = None,
    precision: Annotated[Precision, typer.Option(help="Of the weights and the products with them.")] = Precision.INT8,
    engine: Annotated[
        EngineChoice,
        typer.Option(
            help="packed: padding-free, for BERT, DistilBERT, RoBERTa, XLM-R, CamemBERT, ELECTRA, ALBERT, ModernBERT and DeBERTa."
            " padded: traced, needs torch and transformers. auto: packed where there is one."
        ),
    ] = EngineChoice.AUTO,
    problem_type: Annotated[
        ProblemChoice | None, typer.Option(help="What the model gives to a text.", show_default="what the checkpoint says")
    ] = None,
    thresholds: Annotated[
        str, typer.Option(help="Multi-label: the least probability of a predicted label, or f1: each label's best one on --dev.")
    ] = "0.5",
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A file of texts like those that will be served, for INT8.", show_default="the --dev texts, else built-in"
        ),
    ] = None,
    reduce_range: Annotated[
        bool, typer.Option("--reduce-range", help="INT8 with 7-bit weights, for x86 CPUs without VNNI.")
    ] = False,
    max_length: Annotated[int | None, typer.Option(min=8, help="Tokens read.", show_default="the checkpoint's")] = None,
    dev: Annotated[list[Path] | None, typer.Option(help="Labelled files to calibrate the confidences on.")] = None,
    training: Annotated[
        list[Path] | None,
        typer.Option(
            help="Files of texts that the model was trained on: what drift detection takes as usual.",
            show_default="half of the --dev texts",
        ),
    ] = None,
    test: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE: labelled texts to measure fp32 and the bundle on. May be repeated.")
    ] = None,
    goldens: Annotated[
        Path | None,
        typer.Option(help="Texts for the start-up self-check; they are stored in the bundle.", show_default="built-in ones"),
    ] = None,
    max_size: Annotated[
        float | None, typer.Option(min=0.001, help="Refuse to build a bundle of more MB.", show_default="no bound")
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_columns: LabelColumns = None,
    input_format: InputFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
) -> None:
    """Turn a Hugging Face checkpoint into a bundle: write the graph, calibrate, quantize, verify, record.

    The bundle appears only when everything held. Needs the build extra; torch and transformers only for padded.

    Example:

        supportbot build my-checkpoint my-bundle --dev dev.csv --test mine=test.csv

        supportbot serve --bundle my-bundle
    """
    from models.classifier import SelfCheckFailed
    from models.making.dataset import DatasetError, read_examples, read_texts

    try:
        from models.making.builder import GOLDEN_TEXTS, BuildError, BuildOptions, TestSet, build_bundle
        from models.making.config import CheckpointError, problem_of_checkpoint, read_config
        from models.making.formats import require_files
        from models.making.judge import JUDGES
    except ImportError as error:
        fail(f"{NEEDS_BUILD} ({error})")
    table = table_format(input_format, delimiter, encoding, text_column, label_column, label_columns)
    named = [_named(each) for each in test or []]
    check_files([*(dev or []), *(training or []), *(path for _, path in named), *filter(None, (calibration, goldens))])
    wanted = None if problem_type is None else problem_type.problem
    try:
        require_files(checkpoint)
        problem = problem_of_checkpoint(read_config(checkpoint), wanted)
    except CheckpointError as error:
        fail(str(error), 1)
    labels = JUDGES[problem.type].kind
    check_labels(table, labels)
    try:
        dev_examples = read_examples([(path, 1.0) for path in dev], table, say, labels) if dev else []
        tests = [
            TestSet(label, "as named by the builder", read_examples([(path, 1.0)], table, say, labels)) for label, path in named
        ]
        options = BuildOptions(
            name=name or bundle.name,
            version=version,
            precision=precision.value,
            max_length=max_length,
            engine=ENGINE_NAMES[engine],
            calibration=read_texts(calibration, _of_texts(calibration, table), say) if calibration else (),
            reduce_range=reduce_range,
            training=[text for path in training or [] for text in read_texts(path, _of_texts(path, table), say)],
            problem_type=wanted,
            threshold=_threshold(thresholds),
            max_bytes=None if max_size is None else int(max_size * 1e6),
            goldens=tuple(read_texts(goldens, _of_texts(goldens, table), say)) if goldens else GOLDEN_TEXTS,
        )
        started = perf_counter()

        def progress(what: str) -> None:
            say(f"[{perf_counter() - started:4.0f} s] {what}")

        manifest = build_bundle(checkpoint, bundle, options, dev_examples, tests, progress)
    except OSError as error:
        fail(f"{error.filename or bundle}: {error.strerror or error}")
    except (DatasetError, TableError, UnicodeDecodeError, ValidationError) as error:
        fail(str(error))
    except (BuildError, BundleError, CheckpointError, SelfCheckFailed) as error:
        fail(str(error), 1)
    size = sum(path.stat().st_size for path in bundle.iterdir()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts in KiB
    say(f"{perf_counter() - started:.0f} s, {peak:,.0f} MB of memory at the peak; the bundle has {size:,.1f} MB")
    say(f"{manifest.name}@{manifest.version} written to {bundle}; serve it with: supportbot serve --bundle {bundle}")


def _of_texts(path: Path, table: TableFormat) -> TableFormat:
    """The format without its column for lines of plain text: it is meant for the labelled files."""
    is_lines = kind_of(source_name(path), table) in {None, Kind.LINES}
    return replace(table, text_column=None) if is_lines else table


def _threshold(argument: str) -> float | None:
    """The threshold of all labels, None to choose one for each."""
    if argument == "f1":
        return None
    try:
        found = float(argument)
    except ValueError:
        found = 0.0
    if not 0 < found < 1:
        fail(f"--thresholds {argument}: must be f1, or between 0 and 1")
    return round(found, 6)


def _named(argument: str) -> tuple[str, Path]:
    label, separator, path = argument.partition("=")
    if not (label and separator and path):
        fail(f"--test {argument}: must be NAME=FILE")
    return label, Path(path)
