"""`supportbot tune`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.console import fail, progress_bar, say
from commands.inputs import (
    FILE_OF_TEXTS,
    BundleArgument,
    Delimiter,
    Encoding,
    InputFormat,
    TextColumn,
    bundle_folder,
    check_files,
    check_used,
    table_format,
)
from models.bundle import BundleError
from models.tables import TableError, TableFormat

if TYPE_CHECKING:
    from models.classifier import Classifier
    from models.making.tune import Tuning, Workload

NEEDS_MATPLOTLIB = "--plot needs matplotlib: run `make setup-build`, or install supportbot[build]"


def tune(
    bundle: BundleArgument = None,
    data: Annotated[
        Path | None,
        typer.Option(help=f"Texts like those that will be served: {FILE_OF_TEXTS}.", show_default="lengths as tickets have"),
    ] = None,
    text_column: TextColumn = None,
    input_format: InputFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="How long to measure.")] = 60,
    plot: Annotated[Path | None, typer.Option(help="Draw the cost curve into this .png file.")] = None,
    write: Annotated[Path | None, typer.Option(help="An env file, such as .env, to set the recommended settings in.")] = None,
) -> None:
    """Measure a bundle on this machine and recommend BATCH_MAX_TOKENS and WORKERS.

    First the cost of a token in batches of up to 16 to 1024 tokens, in one thread: BATCH_MAX_TOKENS is the fewest whose cost is
    within 5 % of the best. Then the throughput of one worker and of several: WORKERS is the fewest within 5 % of the best. Do
    nothing else on the machine meanwhile.

    Example:

        supportbot tune my-bundle --data tickets.csv --write .env --plot cost.png
    """
    from machine.cores import usable_cores
    from models.classifier import Classifier, SelfCheckFailed
    from models.making.dataset import DatasetError
    from models.making.tune import draw, write_settings
    from models.making.tune import tune as measure
    from server.settings import Settings

    table = table_format(input_format, delimiter, encoding, text_column)
    check_used(table, data, "--data")
    check_files([data] if data else [], *filter(None, (plot, write)))
    _check_outputs(plot, write)
    folder, cores = bundle_folder(bundle), usable_cores()
    try:
        classifier = Classifier.open(folder)
        classifier.self_check()
        threaded = Classifier.open(folder, threads=cores) if cores > 1 else None
        workload = _workload(classifier, data, table)
    except (DatasetError, TableError) as error:
        fail(str(error))
    except (BundleError, SelfCheckFailed) as error:
        fail(str(error), 1)
    with progress_bar() as progress:
        task = progress.add_task("measuring, in seconds", total=seconds)
        tuning = measure(classifier, threaded, workload, cores, seconds, lambda passed: progress.advance(task, passed))
    _show(tuning, classifier.identity)
    texts = tuning.budget / workload.mean
    if texts > (usual := Settings.model_fields["batch_max_texts"].default):
        say(f"{tuning.budget} tokens are some {texts:.0f} of these texts: set BATCH_MAX_TEXTS to that at least, not {usual}")
    try:
        if plot is not None:
            draw(tuning, f"{classifier.identity}, {cores} cores", plot)
            say(f"the cost curve is in {plot}")
        if write is not None:
            write_settings(write, tuning.settings())
            say(f"{', '.join(tuning.settings())} set in {write}")
    except (OSError, UnicodeDecodeError) as error:
        fail(str(error), 1)


def _check_outputs(plot: Path | None, write: Path | None) -> None:
    """Find now what would spoil the result after a minute of work."""
    for path in filter(None, (plot, write)):
        if not path.parent.is_dir():
            fail(f"{path.parent}: no such folder")
        if path.exists() and not path.is_file():
            fail(f"{path}: not a regular file")
    if plot is None:
        return
    if plot.suffix.lower() != ".png":
        fail(f"--plot {plot}: must end in .png")
    try:
        import matplotlib as mpl  # noqa: F401 - only whether it is there
    except ImportError as error:
        fail(f"{NEEDS_MATPLOTLIB} ({error})")


def _workload(classifier: Classifier, data: Path | None, table: TableFormat) -> Workload:
    from models.making.dataset import read_texts
    from models.making.evaluate import encode_all
    from models.making.tune import Workload

    if data is None:
        typical = encode_all(classifier, [golden.text for golden in classifier.manifest.goldens])
        return Workload.of_tickets(typical, classifier.manifest.max_length)
    typical = encode_all(classifier, read_texts(data, table, say))
    return Workload(typical, [len(encoding) for encoding in typical])


def _show(tuning: Tuning, model: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from models.making.tune import COUNTS

    console = Console()
    # 11 columns have to fit into 80 characters.
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False, title_justify="left", caption_justify="left")
    table.title = f"{model}: one thread, median of {tuning.rounds} rounds"
    for heading in ("budget", "tokens", "texts", "ms", "µs/token", *(f"in {count}" for count in COUNTS)):
        table.add_column(heading, justify="right")
    cells = {(point.budget, point.count): f"{point.per_token:.0f}" for point in tuning.points}
    for point in tuning.curve():
        mean = (f"{point.tokens:.0f}", f"{point.texts:.1f}", f"{point.milliseconds:.2f}", f"{point.per_token:.1f}")
        counted = [cells.get((point.budget, count), "") for count in COUNTS]
        table.add_row(str(point.budget), *mean, *counted, style="bold" if point.budget == tuning.budget else None)
    table.caption = "a batch filled up to the budget as texts come; in N: µs/token of N texts that fill it exactly"
    console.print(table)

    table = Table(title=f"batches of {tuning.budget} tokens", title_justify="left")
    for heading in ("workers", "threads in a pass", "texts/s", "ratio"):
        table.add_column(heading, justify="right")
    for rate in tuning.rates:
        ratio = rate.texts_per_second / tuning.rates[0].texts_per_second
        table.add_row(str(rate.workers), str(rate.threads), f"{rate.texts_per_second:.0f}", f"{ratio:.2f}")
    console.print(table)
    for name, value in tuning.settings().items():
        console.print(f"{name}={value}", highlight=False)
