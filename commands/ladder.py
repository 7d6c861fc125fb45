"""`supportbot ladder`"""

from __future__ import annotations

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from commands.console import fail, say, stderr
from commands.train import NEEDS_BUILD


class Shape(StrEnum):
    """The shapes that can be measured without a checkpoint."""

    MINILM = "minilm"
    DISTILBERT = "distilbert"


def ladder(
    shape: Annotated[Shape, typer.Option(help="A model of this shape with random weights.")] = Shape.MINILM,
    checkpoint: Annotated[Path | None, typer.Option(help="A real checkpoint instead.")] = None,
    out: Annotated[Path, typer.Option(help="The folder for ladder.json, ladder.md and ladder.png.")] = Path("dist/ladder"),
    texts: Annotated[int, typer.Option(min=32, max=4096, help="Tickets in the mixed workload.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often each step is measured.")] = 5,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Compute threads of each step.")] = 1,
) -> None:
    """Measure the way from PyTorch, one text at a time, to the engine that is served, on this machine, in one run.

    Needs the build extra. A few minutes; do nothing else on the machine meanwhile.

    Example:

        supportbot ladder --shape distilbert
    """
    from models.making.config import CheckpointError

    try:
        import torch  # noqa: F401 - before minutes of work

        from models.making import ladder as module
    except ImportError as error:
        fail(f"{NEEDS_BUILD} ({error})")
    try:
        with tempfile.TemporaryDirectory(prefix="ladder-") as temporary:
            work = Path(temporary)
            if checkpoint is None:
                module.random_checkpoint(shape.value, work / "checkpoint")
            folder = checkpoint or work / "checkpoint"
            load, article = _texts(folder, texts + module.CALIBRATION_TEXTS, real=checkpoint is not None)
            load, calibration = load[:texts], load[texts:]
            title = f"{checkpoint.name}" if checkpoint else f"{shape.value} shape, random weights"
            result = module.Result(title, texts, rounds, threads, sum(map(len, load)) / len(load))
            with stderr.status("starting", spinner="dots") as status:
                module.run_ladder(folder, work, result, load, article, calibration, status.update if stderr.is_terminal else say)
    except CheckpointError as error:
        fail(str(error), 1)
    out.mkdir(parents=True, exist_ok=True)
    (out / "ladder.json").write_text(module.as_json(result), encoding="utf-8")
    (out / "ladder.md").write_text(module.markdown(result), encoding="utf-8")
    module.draw(result, out / "ladder.png")
    _show(result)
    say(f"written to {out}: ladder.json, ladder.md, ladder.png")


def _texts(folder: Path, count: int, *, real: bool) -> tuple[list[list[int]], list[int]]:
    """Token ids of mixed lengths, and of the article's text: of real tickets for a real model, else at random."""
    import numpy as np

    from models.making.builder import TICKETS
    from models.making.checkpoint import read_checkpoint
    from models.making.dataset import read_examples
    from models.making.tune import LONGEST, ticket_lengths
    from models.tokenizer import Tokenizer

    lengths = ticket_lengths(count)
    if not real:
        generator = np.random.default_rng(5)
        return [generator.integers(1000, 30000, length).tolist() for length in lengths], generator.integers(1000, 30000, 7).tolist()
    tokenizer = Tokenizer(read_checkpoint(folder).tokenizer, LONGEST)
    tickets = [example.text for example in read_examples([(TICKETS, 1.0)])]
    joined = [" ".join(tickets[(start + step) % len(tickets)] for step in range(6)) for start in range(count)]
    load = []
    for text, length in zip(joined, lengths, strict=True):
        ids = tokenizer.encode(text).ids
        # The closing token belongs at the end, wherever the text was cut.
        load.append([*ids[: length - 1], ids[-1]])
    return load, list(tokenizer.encode("My payment failed twice").ids)


def _show(result: object) -> None:
    from rich.console import Console
    from rich.table import Table

    from models.making.ladder import HEADINGS, NARROW, Result, captions, table

    assert isinstance(result, Result)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    columns = range(len(HEADINGS)) if console.width >= 170 else NARROW
    for workload, caption in captions(result).items():
        shown = Table(title=f"{result.title}: {caption}", title_justify="left")
        for column in columns:
            shown.add_column(HEADINGS[column], justify="right" if HEADINGS[column] else "left")
        for row in table(result, workload):
            shown.add_row(*(row[column] for column in columns))
        console.print(shown)
    console.print(f"the limit, a plain INT8 product at the model's shapes: {result.limit_gmacs:.0f} GMAC/s")
