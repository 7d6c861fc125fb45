"""What another `max_length` would cost and save, on a file's own texts. Needs no torch.

Texts are tokenized without the bundle's limit and counted. A sample of them is then cut at each of several limits and run through
the bundle's own engine, in batches as they come. All limits take turns at the same chunk of texts, so that a disturbance of the
machine falls on all alike. Each chunk is drawn evenly from short to long: a few rare long texts decide what a limit costs, and a
random chunk would have them or not.

A bundle's table of positions ends at its limit. To measure a higher limit, `LongEngine` reads later positions as the last one: the
answers are worthless, the work is the same.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from models import passes
from models.bundle import TOKENIZER, Bundle, BundleError
from models.engines import Engine, PackedEngine, PaddedEngine
from models.lengths import LONGEST, Lengths, logged_length, percent
from models.tables import BadRow, Kind, Notice, TableFormat, TextFile, fault_of, kind_of, open_text, read_rows
from models.tokenizer import Tokenizer, TokenizerError
from models.types import BlankTextError, Encoding

LEAST_LIMIT: Final = 32
# The positions of nearly all encoders that have a padding-free graph; a bundle does not say how many its checkpoint had.
USUAL_POSITIONS: Final = 512
# One text of this length takes half a second, and its mask 16 MB.
MOST_MEASURED: Final = 2048
# Texts kept to draw those from that are measured: enough that one in a thousand is among them.
KEPT: Final = 4096
# Texts that are measured at a time, and how many such chunks.
CHUNK, CHUNKS = 32, 8
# How often a text by itself is measured at a time: it takes a few milliseconds, and any interrupt shows.
ALONE: Final = 5
# Measured differences below this share are the machine's.
NOISE: Final = 0.02
SNIFFED_LINES: Final = 20
SHOWN_BAD_ROWS: Final = 20


class LongEngine(PackedEngine):
    """The padding-free passes for texts of any length: right in cost, wrong in answers beyond the bundle's `max_length`."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.model, bundle.manifest)
        self._last_position = bundle.manifest.max_length - 1

    def logits(self, encodings: Sequence[Encoding]) -> npt.NDArray[np.floating[Any]]:
        """Logits, shape [texts, labels], in the order of the passes."""
        outputs = []
        for group in passes.plan([len(encoding) for encoding in encodings]):
            feeds = passes.feeds([encodings[index] for index in group])
            feeds["positions"] = np.minimum(feeds["positions"], self._last_position)
            outputs.append(self._session.run(None, feeds)[0][: len(group)])
        return np.concatenate(outputs)


def open_engine(bundle: Bundle) -> tuple[Engine, int]:
    """The engine to measure with, and the highest limit that it can measure. Raises `BundleError`."""
    longest = bundle.manifest.max_length
    if bundle.manifest.engine == "packed":
        return LongEngine(bundle), min(MOST_MEASURED, max(longest, USUAL_POSITIONS))
    return PaddedEngine(bundle.model, bundle.manifest), min(MOST_MEASURED, longest)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a file holds: the lengths of its texts, and a sample of them to measure with, cut at the highest limit there may be.

    `left_out`: blank texts, or in a log those that nobody counted. Of the `bad_rows`, `bad` are the first. `is_log`: lengths from a
    log, not from texts.
    """

    lengths: Lengths
    sample: list[Encoding]
    left_out: int
    bad_rows: int
    bad: list[BadRow]
    is_log: bool


def survey(path: Path, bundle: Bundle, table: TableFormat, on_row: Callable[[], object], notice: Notice) -> Survey:
    """Count the lengths of a file's texts, or of the server's prediction log; `table` and `notice` as for `read_table`.

    Each text is tokenized up to `LONGEST` tokens and up to 64 * `LONGEST` characters. A log without texts has lengths up to the
    limit that was served. Raises `TableError` for the file and `BundleError` for the tokenizer.
    """
    try:
        tokenizer = Tokenizer(bundle.tokenizer, LONGEST)
    except TokenizerError as error:
        raise BundleError(f"{TOKENIZER}: {error}") from error
    lengths, sample = Lengths(), _Reservoir(max(USUAL_POSITIONS, bundle.manifest.max_length))
    left_out, bad_rows, bad = 0, 0, []
    with open_text(path, table.encoding) as file:
        record = _log_record(file, table)
        is_log = record is not None and not isinstance(record.get(table.text_name), str)
        if is_log:
            found = _log_lengths(file, tokenizer.encode(bundle.manifest.goldens[0].text))
        else:
            found = _texts(file, table if record is None else replace(table, kind=Kind.JSONL), tokenizer, notice)
        for row in found:
            on_row()
            if row is None:
                left_out += 1
            elif isinstance(row, BadRow):
                bad_rows += 1
                if bad_rows <= SHOWN_BAD_ROWS:
                    bad.append(row)
            else:
                lengths.add(len(row), cut=row.truncated)
                sample.add(row)
    return Survey(lengths, sample.kept, left_out, bad_rows, bad, is_log)


def _log_record(file: TextFile, table: TableFormat) -> dict[str, object] | None:
    """A record of a prediction log, whatever the file's name (but .json, which is one document); None if the file is none.

    A rotated log has another name, and the first line of one that is being written may be anything.
    """
    if table.kind in {None, Kind.JSONL} and kind_of(file.name, table) is not Kind.JSON:
        for line in file.peek(SNIFFED_LINES):
            if line is not None and logged_length(_encoded(line)) is not None:
                record: dict[str, object] = orjson.loads(line)
                return record
    return None


def _encoded(line: str) -> bytes:
    return line.encode("utf-8", "surrogateescape")


def _texts(file: TextFile, table: TableFormat, tokenizer: Tokenizer, notice: Notice) -> Iterator[Encoding | BadRow | None]:
    """The file's texts, tokenized; None for a blank one."""
    blank = fault_of("", table.text_name)
    for row in read_rows(file, table, notice=notice):
        if isinstance(row, BadRow):
            yield None if row.reason == blank else row
            continue
        try:
            encoding = tokenizer.encode(row.text)
        except BlankTextError:
            yield None
        else:
            # A text of white space mostly may have few tokens and still not have been looked at to its end.
            yield Encoding(encoding.ids, encoding.truncated and len(encoding) == LONGEST)


def _log_lengths(file: TextFile, golden: Encoding) -> Iterator[Encoding | BadRow | None]:
    """Texts as long as those in the log, of a golden text's tokens, which cost the same; None for one that nobody counted."""
    ids = golden.ids * -(-LONGEST // len(golden))
    for number, line in enumerate(file, start=1):
        if line is not None and (logged := logged_length(_encoded(line))) is not None:
            tokens, truncated = logged
            yield None if tokens is None else Encoding(ids[:tokens], truncated)
        elif line is None or line.strip():
            yield BadRow(file.name, number, "not a record with an integer 'tokens' and a boolean 'truncated'")


class _Reservoir:
    """Keeps `KEPT` of any number of texts, each with the same chance, cut at `longest` tokens; seeded."""

    def __init__(self, longest: int) -> None:
        self._random = random.Random(1)
        self._longest = longest
        self._seen = 0
        self.kept: list[Encoding] = []

    def add(self, encoding: Encoding) -> None:
        self._seen += 1
        if len(self.kept) < KEPT:
            self.kept.append(shortened(encoding, self._longest))
        elif (place := self._random.randrange(self._seen)) < KEPT:
            self.kept[place] = shortened(encoding, self._longest)


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds of a core for a text, tokenizing not counted.

    `served`: the texts, cut at the limit, in batches as they come. `alone`: a text of median length by itself. `batch_padded` and
    `limit_padded`: the same engine if each text were padded to the longest in a full batch, and to the limit.
    """

    served: float
    alone: float
    batch_padded: float
    limit_padded: float


@dataclass(frozen=True, slots=True)
class Limit:
    """What a limit means for a file: the shares of texts cut and of tokens lost, the mean tokens of a text, and what it costs.

    `cost` is None for a limit that was not measured.
    """

    limit: int
    truncated: float
    lost: float
    tokens: float
    cost: Cost | None


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The server's BATCH_MAX_TEXTS and BATCH_MAX_TOKENS."""

    texts: int
    tokens: int


def limits_of(lengths: Lengths, max_length: int) -> list[int]:
    """The limits to look at: the bundle's own and the powers of two around it, as far as it is known which texts are over them."""
    highest = max(max_length, USUAL_POSITIONS)
    powers = [1 << bits for bits in range(LEAST_LIMIT.bit_length() - 1, highest.bit_length())]
    return sorted(limit for limit in {*powers, max_length} if limit <= lengths.horizon)


def compare(found: Survey, bundle: Bundle, batch: BatchLimits, seconds: float, on_time: Callable[[float], object]) -> list[Limit]:
    """What each limit means, measured for some `seconds`; with 0, nothing is measured. `on_time` is told the seconds that went by.

    Raises `BundleError` when the runtime cannot load the model.
    """
    limits = limits_of(found.lengths, bundle.manifest.max_length)
    costs: dict[int, Cost] = {}
    if seconds:
        engine, highest = open_engine(bundle)
        costs = measure(engine, found.sample, [limit for limit in limits if limit <= highest], batch, seconds, on_time)
    lengths = found.lengths
    return [Limit(limit, lengths.truncated(limit), lengths.lost(limit), lengths.mean(limit), costs.get(limit)) for limit in limits]


def measure(
    engine: Engine,
    sample: Sequence[Encoding],
    limits: Sequence[int],
    batch: BatchLimits,
    seconds: float,
    on_time: Callable[[float], object],
) -> dict[int, Cost]:
    """The cost of each limit: chunk by chunk, all limits for each, until the time is up, and at least one chunk."""
    start = told = time.perf_counter()
    middle = sorted(sample, key=len)[len(sample) // 2]
    stretch = max(sample, key=len).ids
    for limit in limits:  # the first pass of a shape pays for its memory
        _padded(engine, stretch, limit)
    parts = chunks(sample)
    longest = longest_of_batches(sample, batch.texts, len(parts))
    visits: dict[int, list[list[Cost]]] = {limit: [[] for _ in parts] for limit in limits}
    turn = 0
    while not turn or time.perf_counter() - start < seconds:
        for limit in limits:
            number = turn % len(parts)
            texts = [shortened(encoding, limit) for encoding in parts[number]]
            visits[limit][number].append(
                Cost(
                    served=sum(_milliseconds(engine, some) for some in batches(texts, batch)) / len(texts),
                    alone=statistics.median(_milliseconds(engine, [shortened(middle, limit)]) for _ in range(ALONE)),
                    batch_padded=_padded(engine, stretch, min(longest[number], limit)),
                    limit_padded=_padded(engine, stretch, limit),
                )
            )
            now = time.perf_counter()
            on_time(now - told)
            told = now
        turn += 1
    return {limit: _typical([costs for costs in visits[limit] if costs]) for limit in limits}


def chunks(sample: Sequence[Encoding]) -> list[list[Encoding]]:
    """Up to `CHUNKS` times `CHUNK` texts, each chunk drawn evenly from short to long and then shuffled, seeded."""
    ordered = sorted(sample, key=len)
    count = max(1, min(CHUNKS, len(ordered) // CHUNK))
    wanted = min(len(ordered), count * CHUNK)
    drawn = [ordered[(2 * number + 1) * len(ordered) // (2 * wanted)] for number in range(wanted)]
    parts = [drawn[number::count] for number in range(count)]
    for number, part in enumerate(parts):
        random.Random(number).shuffle(part)
    return parts


def longest_of_batches(sample: Sequence[Encoding], texts: int, count: int) -> list[int]:
    """The tokens of the longest of so many texts drawn at random: `count` quantiles, in the middle of equal shares, in any order.

    All of n texts are among the shortest share q of them with probability q ** n.
    """
    ordered = sorted(map(len, sample))
    shares = [((number + 0.5) / count) ** (1 / texts) for number in range(count)]
    random.Random(0).shuffle(shares)  # there may not be time for all
    return [ordered[int(share * len(ordered))] for share in shares]


def batches(encodings: Sequence[Encoding], batch: BatchLimits) -> list[list[Encoding]]:
    """Fill batches in the order of the texts; a text with more tokens than a batch may have is one by itself."""
    filled: list[list[Encoding]] = []
    tokens = 0
    for encoding in encodings:
        tokens += len(encoding)
        if not filled or len(filled[-1]) == batch.texts or tokens > batch.tokens:
            filled.append([])
            tokens = len(encoding)
        filled[-1].append(encoding)
    return filled


def shortened(encoding: Encoding, limit: int) -> Encoding:
    """The text cut at `limit` tokens. (The tokenizer would keep the last, special token; the work is the same.)"""
    return Encoding(encoding.ids[:limit], truncated=True) if len(encoding) > limit else encoding


def _padded(engine: Engine, ids: tuple[int, ...], length: int) -> float:
    """Milliseconds a text of exactly `length` tokens, in a pass as full as passes are."""
    text = Encoding((ids * -(-length // len(ids)))[:length], truncated=False)
    texts = [text] * max(1, passes.MOST_TOKENS // length)
    return _milliseconds(engine, texts) / len(texts)


def _milliseconds(engine: Engine, encodings: Sequence[Encoding]) -> float:
    """Processor time of this thread, in which a session of one thread does all its work: waiting for a core is not a cost."""
    before = time.thread_time()
    engine.logits(encodings)
    return (time.thread_time() - before) * 1e3


def _typical(visited: Sequence[Sequence[Cost]]) -> Cost:
    """The mean over the chunks, which differ, of the medians over the visits of each, which only noise makes differ."""
    return Cost(
        **{
            field.name: statistics.fmean(statistics.median(getattr(cost, field.name) for cost in costs) for costs in visited)
            for field in fields(Cost)
        }
    )


def recommendation(limits: Sequence[Limit], lengths: Lengths, current: int, most: float) -> str:
    """One sentence on the limit to choose when a share of `most` of the texts may be cut; `current` is the bundle's."""
    enough = [limit for limit in limits if limit.truncated <= most]
    now = next((limit for limit in limits if limit.limit == current), None)
    if now is None or (lengths.horizon == current and now not in enough):
        cut = f"{percent(lengths.truncated(lengths.horizon))} of the texts were cut at {lengths.horizon} tokens"
        return f"{cut}; how long they are is not in the log: run this command on the texts themselves"
    if now in enough:
        return f"keep {current}: it cuts {percent(now.truncated)} of the texts{_lower(enough[0], now)}"
    if enough:
        return _higher(enough[0], now)
    if (highest := limits[-1]) is not now:
        return f"{_higher(highest, now)}; most encoders cannot read more"
    over = f"{percent(now.truncated)} of the texts are longer, and most encoders cannot read more"
    return f"keep {current}: {over}; if the ends matter, shorten the texts before they come here"


def _lower(least: Limit, now: Limit) -> str:
    if least is now:
        return ", and every lower limit would cut too many"
    saving = ""
    if least.cost and now.cost:
        share = 1 - least.cost.served / now.cost.served
        saving = f" and save {percent(share)} of the compute" if share >= NOISE else " and save nothing"
    return f"; {least.limit} would cut {percent(least.truncated)}{saving}, since short texts pay nothing for a high limit"


def _higher(wanted: Limit, now: Limit) -> str:
    cost = ""
    if wanted.cost and now.cost:
        share = wanted.cost.served / now.cost.served - 1
        cost = f", at {percent(share)} more compute" if share >= NOISE else ", at the same compute"
    return (
        f"build the bundle with --max-length {wanted.limit}, if the checkpoint has as many positions: that cuts"
        f" {percent(wanted.truncated)} of the texts instead of {percent(now.truncated)}{cost}"
    )
