"""Files of texts for drift detection: each different text once, classified by the bundle and sorted into bins. No text is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import orjson

from commands.console import fail, progress_bar, say
from commands.inputs import bundle_folder, rows_in
from drift import Layout, Profile, ProfileError
from drift.channels import Bins
from models.bundle import BundleError
from models.classifier import Classifier
from models.tables import STANDARD_INPUT, BadRow, TableFormat, open_text, read_table

AT_ONCE: Final = 256
SHOWN_FAULTS: Final = 5


def is_log(path: Path) -> bool:
    """Whether a file is a prediction log, by its first line; standard input, which can be read only once, is one.

    Raises `TableError` if it cannot be opened.
    """
    if path in STANDARD_INPUT:
        return True
    with open_text(path) as file:
        try:
            record = orjson.loads(next(file, "") or "")
        except (orjson.JSONDecodeError, UnicodeEncodeError):
            return False
    return isinstance(record, dict) and "time" in record and ("text_hash" in record or "drift" in record)


def text_bins(path: Path, table: TableFormat, bundle: Path | None, layout: Layout) -> Iterator[Bins]:
    """The bins of a file's different texts in these channels, shape [texts, channels], some at a time.

    Raises `TableError` if it cannot be read; ends the command for a bundle without a profile, or with other channels.
    """
    from models.making.profile import observe

    try:
        classifier = Classifier.open(bundle_folder(bundle))
        if classifier.profile is None:
            fail("the bundle has no profile to measure texts by")
        profile = Profile.from_bytes(classifier.profile)
    except (BundleError, ProfileError) as error:
        fail(str(error), 1)
    if profile.layout.fingerprint != layout.fingerprint:
        fail("the bundle's profile has other channels than the baseline: give the bundle that the baseline was learned with")
    with progress_bar() as progress:
        task = progress.add_task("classifying", total=rows_in([path], table))
        texts = _different(path, table)
        while chunk := list(islice(texts, AT_ONCE)):
            yield profile.layout.bins(profile.channels(observe(classifier, chunk)))
            progress.advance(task, len(chunk))


def _different(path: Path, table: TableFormat) -> Iterator[str]:
    seen, bad, repeated = set[bytes](), 0, 0
    for row in read_table(path, table, notice=say):
        if isinstance(row, BadRow):
            bad += 1
            if bad <= SHOWN_FAULTS:
                say(str(row))
            continue
        key = hashlib.blake2b(row.text.encode(), digest_size=12).digest()
        if key in seen:
            repeated += 1
            continue
        seen.add(key)
        yield row.text
    if bad > SHOWN_FAULTS:
        say(f"{path}: rows that cannot be used: {bad:,}; the first are named")
    if repeated:
        say(f"{path}: repeated texts, left out: {repeated:,}")
