"""`supportbot drift watch`"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import orjson
import typer

from commands.console import fail, say
from commands.drift.history import History
from commands.drift.monitoring import BaselineOption, chosen_baseline, new_monitor, read_baseline
from commands.drift.words import cells, change_cells
from commands.output import Output
from drift import BaselineError, Layout, Replicas

TIMEOUT_SECONDS: Final = 10.0


def watch(
    urls: Annotated[list[str], typer.Argument(help="The replicas, http://HOST:PORT.")],
    baseline: BaselineOption = None,
    state: Annotated[Path | None, typer.Option(help="A file to go on from after a restart; without, evidence begins anew.")] = None,
    every: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between looks.")] = 20.0,
    seconds: Annotated[float | None, typer.Option(min=0, help="How long to watch; 0 looks once.", show_default="for ever")] = None,
) -> None:
    """Decide about several replicas as one: asks each for its counts, adds them up, and says when a level changes its state.

    The sum comes to the decision of one server with all the texts, in the same minute, so that small changes are noticed that no
    replica would notice alone. Without a baseline, one is learned, as a server does. The exit status is 0 if all is well at the
    end, 1 if a level is in drift, 2 if no replica could be asked.

    Example:

        supportbot drift watch http://replica-1:8000 http://replica-2:8000 --baseline baseline.json --state watch.json
    """
    _check(urls, state)
    watched = _Watched(urls, baseline, state)
    end = None if seconds is None else time.monotonic() + seconds
    try:
        while True:
            watched.look()
            if end is not None and time.monotonic() + every > end:
                break
            time.sleep(every)
    except KeyboardInterrupt:
        say("stopped")
    history = watched.history
    if history is None:
        fail("no replica could be asked")
    for verdict in history.verdicts.values():
        typer.echo("  ".join(filter(None, (verdict.level, *cells(history.timeline, verdict)))))
    if history.drifted:
        raise typer.Exit(1)


def _check(urls: list[str], state: Path | None) -> None:
    if len(set(urls)) < len(urls):
        fail("a replica is named twice: its texts would count twice")
    for url in urls:
        try:
            parts = urlsplit(url)
            is_server = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            is_server = False
        if not is_server:
            fail(f"{url}: must be the URL of a server, http://HOST:PORT")
    if state is not None and not state.absolute().parent.is_dir():
        fail(f"{state.parent}: no such folder")


class _Watched:
    """The replicas, and what has been said of them."""

    def __init__(self, urls: list[str], baseline: Path | None, state: Path | None) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        chosen = chosen_baseline(baseline)
        self._baseline = read_baseline(chosen) if chosen else None
        self._state = state
        self._silent: dict[str, str] = {}
        self._replicas: Replicas | None = None
        self.history: History | None = None
        if self._baseline:
            self._begin(self._baseline.layout)

    def look(self) -> None:
        """Ask all once, and say what has changed."""
        for url in self._urls:
            try:
                told = _counts(url, self._replicas.next[url] if self._replicas else None)
                if self._replicas is None:
                    self._begin(Layout.from_json(told["channels"]))
                    assert self._replicas is not None
                self._replicas.take(url, told)
            except (OSError, http.client.HTTPException, ValueError, TypeError, KeyError) as error:
                self._is_silent(url, _reason(error))
            else:
                if self._silent.pop(url, None):
                    say(f"{url}: answers again")
        if self._replicas is None or self.history is None:
            return
        self._replicas.close()
        for change in self.history.changes:
            typer.echo("  ".join(filter(None, change_cells(change))))
        is_further = bool(self.history.times)
        self.history.forget()
        if self._state is not None and is_further:
            with Output(self._state) as stream:
                stream.write(orjson.dumps(self._replicas.save()).decode())

    def _begin(self, layout: Layout) -> None:
        self.history = History(new_monitor(layout, self._baseline))
        self._replicas = Replicas(self.history.timeline, self._urls)
        if self._state is None or not self._state.exists():
            return
        try:
            self._replicas.restore(orjson.loads(self._state.read_bytes()))
        except (OSError, ValueError) as error:
            fail(f"{self._state}: {error}")
        self.history.resume()

    def _is_silent(self, url: str, reason: str) -> None:
        if self._silent.get(url) != reason:
            say(f"{url}: {reason}; the others are watched without it")
        self._silent[url] = reason


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return "no drift detection there (404)" if error.code == 404 else f"answers {error.code}"
    if isinstance(error, BaselineError):
        return str(error)
    if isinstance(error, (OSError, http.client.HTTPException)):
        return f"does not answer ({getattr(error, 'reason', error)})"
    return "does not tell counts"


def _counts(url: str, since: int | None) -> dict[str, Any]:
    query = "" if since is None else f"?since={since}"
    with urllib.request.urlopen(f"{url}/drift/counts{query}", timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - http, checked
        told: dict[str, Any] = orjson.loads(response.read())
    return told
