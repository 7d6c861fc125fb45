"""`supportbot capacity`"""

from __future__ import annotations

import ipaddress
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import orjson
import typer

from commands.console import fail, progress_bar, say
from commands.inputs import (
    FILE_OF_TEXTS,
    BundleOption,
    Delimiter,
    Encoding,
    InputFormat,
    TextColumn,
    check_files,
    check_used,
    table_format,
)
from models.bundle import BundleError
from models.tables import TableError, TableFormat
from server.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from rich.table import Table

    from capacity.planning import Sizing
    from capacity.report import Report

# More than are sent while one of them is on its way; equal ones would be computed once.
TEXTS = 10_000
ENOUGH_TEXTS = 2_000
TERMINATED = 128 + signal.SIGTERM


def capacity(
    slo_p99_ms: Annotated[float, typer.Option(min=1, max=10_000, help="The bound on the 99th percentile of latency.")] = 250,
    load: Annotated[float | None, typer.Option(min=0.1, max=1e9, help="Texts a second to count the machines for.")] = None,
    bundle: BundleOption = None,
    url: Annotated[str | None, typer.Option(help="A running server to measure instead, http://HOST:PORT.")] = None,
    remote: Annotated[bool, typer.Option("--remote", help="Allow a --url on another machine.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(help=f"Texts like those that will be served: {FILE_OF_TEXTS}.", show_default="lengths as tickets have"),
    ] = None,
    text_column: TextColumn = None,
    input_format: InputFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    seconds: Annotated[int, typer.Option(min=5, max=3600, help="How long to measure.")] = 90,
    write_json: Annotated[Path | None, typer.Option("--json", help="A file to write all figures into, as JSON.")] = None,
) -> None:
    """Find the highest rate of single texts with p99 within a bound on this machine, and how many machines a load needs.

    A server is started on a free port, with the settings that `serve` would have. Requests come at random moments, whatever becomes
    of the earlier ones, and latency counts from the moment at which a request was to start. What other numbers of cores would do is
    simulated (the server's queue in virtual time, on costs measured here), and the simulation is compared with what was measured.
    Do nothing else on the machine meanwhile. A running server (--url) is measured only.

    Example:

        supportbot capacity --slo-p99-ms 250 --load 3000
    """
    from capacity.load import Load
    from capacity.planning import measure, measure_and_size
    from capacity.report import Report
    from loadtest.processes import ServerFailed
    from models.making.dataset import DatasetError

    table = table_format(input_format, delimiter, encoding, text_column)
    check_used(table, data, "--data")
    check_files([data] if data else [], *filter(None, [write_json]))
    _check(url, bundle, write_json, remote=remote)
    bound = slo_p99_ms / 1000
    try:
        texts = _texts(data, table)
        with _terminated_in_order(), progress_bar() as progress:
            task = progress.add_task("measuring, in seconds", total=seconds)

            def on_time(passed: float) -> None:
                progress.advance(task, passed)

            if url is None:
                settings = load_settings()
                found = measure_and_size(settings, bundle or settings.bundle, texts, bound, seconds, on_time)
                report = Report(found[0], bound, load, *found[1:])
            else:
                report = Report(url, bound, load, measure(Load(url.rstrip("/"), texts), bound, seconds, on_time), None)
    except (DatasetError, TableError, SettingsError) as error:
        fail(str(error))
    except (BundleError, ServerFailed) as error:
        fail(str(error), 1)
    _show(report)
    if write_json is not None:
        try:
            write_json.write_bytes(orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2) + b"\n")
        except OSError as error:
            fail(str(error), 1)
        say(f"all figures are in {write_json}")
    if report.measured.found.confirmed is None:
        raise typer.Exit(1)


def _check(url: str | None, bundle: Path | None, write_json: Path | None, *, remote: bool) -> None:
    """Find now what would spoil the result after a minute of work."""
    if write_json is not None:
        if not write_json.parent.is_dir():
            fail(f"{write_json.parent}: no such folder")
        if write_json.exists() and not write_json.is_file():
            fail(f"{write_json}: not a regular file")
    if url is None:
        if remote:
            fail("--remote is about --url")
        return
    if bundle is not None:
        fail("--bundle is for a server that is started here; the one at --url has its own")
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in {"http", "https"} and parts.port != 0 else None
    except ValueError:
        host = None
    if host is None:
        fail(f"--url {url}: must be the URL of a server, http://HOST:PORT")
    if not remote and not _is_loopback(host):
        fail(f"--url {url}: is not this machine; say --remote if that server may be loaded as far as it goes")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _texts(data: Path | None, table: TableFormat) -> list[str]:
    from loadtest.corpus import tickets
    from models.making.dataset import read_texts

    if data is None:
        return list(islice(tickets(1), TEXTS))
    texts = read_texts(data, table, say)[:TEXTS]
    if (different := len(set(texts))) < ENOUGH_TEXTS:
        say(f"{data}: {different} different texts; equal ones that meet in the server are computed once, which flatters it")
    return texts


@contextmanager
def _terminated_in_order() -> Iterator[None]:
    """A SIGTERM ends this process as an exception would, and so the server that it has started."""
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _show(report: Report) -> None:
    from rich.console import Console

    from capacity.report import trust

    console = Console(highlight=False, soft_wrap=True)
    found, bound = report.measured.found, f"p99 within {report.bound * 1e3:g} ms"
    if found.confirmed is None:
        worst = f"; {found.rejected:.3g} texts/s are too many" if found.rejected else ""
        console.print(f"{report.target}: no rate with {bound} was found{worst}")
        return
    rejected = f"; {found.rejected:.0f} are too many" if found.rejected else ""
    console.print(
        f"{report.target}: {found.confirmed:.0f} texts/s with {bound}{rejected} (never idle: {report.measured.saturated:.0f})"
    )
    if machines := report.machines(found.confirmed):
        beside = ", with the client beside the server as here" if report.sizing is not None else ""
        console.print(f"{report.load:g} texts/s need {machines} of them{beside}")
    if report.sizing is None:
        return
    console.print(_points_table(report.sizing))
    say(trust(report.sizing, found.confirmed))
    console.print(_sizes_table(report, report.sizing))
    say(
        "Simulated, with one worker a core, and clients elsewhere, as is not so above. One event loop serves all of a machine's"
        " requests; where it is busy, more cores bring nothing, but more servers would. Numbers of cores other than here are an"
        " extrapolation: of cores like these, whose caches and memory are shared no worse."
    )


def _points_table(sizing: Sizing) -> Table:
    from rich.table import Table

    table = Table(title="the simulation against what was measured, ms", title_justify="left")
    for heading in ("texts/s", "p50", "simulated", "error", "p99", "simulated", "error"):
        table.add_column(heading, justify="right")
    for point in sizing.points:
        cells = [f"{point.rate:.0f}"]
        pairs = (point.p50, point.simulated_p50), (point.p99, point.simulated_p99)
        for (measured, simulated), error in zip(pairs, point.errors, strict=True):
            cells += [f"{measured * 1e3:.1f}", f"{simulated * 1e3:.1f}", f"{error:+.0%}"]
        table.add_row(*cells)
    return table


def _sizes_table(report: Report, sizing: Sizing) -> Table:
    from rich.table import Table

    table = Table(title=f"one machine, p99 within {report.bound * 1e3:g} ms", title_justify="left")
    headings = ["cores", "texts/s", "event loop busy"]
    if report.load is not None:
        headings.append(f"machines for {report.load:g}/s")
    for heading in headings:
        table.add_column(heading, justify="right")
    for size in sizing.sizes:
        cells = [str(size.cores), "-" if size.rate is None else f"{size.rate:.0f}", f"{size.loop:.0%}"]
        if report.load is not None:
            cells.append(str(report.machines(size.rate) or "-"))
        table.add_row(*cells, style="bold" if size.cores == sizing.cores else None)
    return table
