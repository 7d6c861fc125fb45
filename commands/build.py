"""`supportbot build`"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from commands.console import fail, say
from commands.inputs import Delimiter, Encoding, InputFormat, LabelColumn, TextColumn, check_files, table_format
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
            help="packed: padding-free, for BERT, DistilBERT, RoBERTa, XLM-R, CamemBERT. padded: traced, needs torch and"
            " transformers. auto: packed where there is one."
        ),
    ] = EngineChoice.AUTO,
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
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
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
        from models.making.config import CheckpointError
    except ImportError as error:
        fail(f"{NEEDS_BUILD} ({error})")
    table = table_format(input_format, delimiter, encoding, text_column, label_column)
    named = [_named(each) for each in test or []]
    check_files([*(dev or []), *(training or []), *(path for _, path in named), *filter(None, (calibration, goldens))])
    try:
        dev_examples = read_examples([(path, 1.0) for path in dev], table, say) if dev else []
        tests = [TestSet(label, "as named by the builder", read_examples([(path, 1.0)], table, say)) for label, path in named]
        options = BuildOptions(
            name=name or bundle.name,
            version=version,
            precision=precision.value,
            max_length=max_length,
            engine=ENGINE_NAMES[engine],
            calibration=read_texts(calibration, _of_texts(calibration, table), say) if calibration else (),
            reduce_range=reduce_range,
            training=[text for path in training or [] for text in read_texts(path, _of_texts(path, table), say)],
            goldens=tuple(read_texts(goldens, _of_texts(goldens, table), say)) if goldens else GOLDEN_TEXTS,
        )
        manifest = build_bundle(checkpoint, bundle, options, dev_examples, tests, say)
    except OSError as error:
        fail(f"{error.filename or bundle}: {error.strerror or error}")
    except (DatasetError, TableError, UnicodeDecodeError, ValidationError) as error:
        fail(str(error))
    except (BuildError, BundleError, CheckpointError, SelfCheckFailed) as error:
        fail(str(error), 1)
    say(f"{manifest.name}@{manifest.version} written to {bundle}; serve it with: supportbot serve --bundle {bundle}")


def _of_texts(path: Path, table: TableFormat) -> TableFormat:
    """The format without its column for lines of plain text: it is meant for the labelled files."""
    is_lines = kind_of(source_name(path), table) in {None, Kind.LINES}
    return replace(table, text_column=None) if is_lines else table


def _named(argument: str) -> tuple[str, Path]:
    label, separator, path = argument.partition("=")
    if not (label and separator and path):
        fail(f"--test {argument}: must be NAME=FILE")
    return label, Path(path)
