"""`supportbot drift accept`"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from commands.console import fail, say
from commands.drift.monitoring import write_baseline
from commands.inputs import check_files
from drift import Baseline, BaselineError, Monitor

TIMEOUT_SECONDS: Final = 30.0


def accept(
    target: Annotated[
        str, typer.Argument(help="A server on this machine, http://HOST:PORT; or the state of a server or of `watch`.")
    ],
    note: Annotated[str, typer.Option(help="Why this is normal now; kept in the baseline.")],
    out: Annotated[Path | None, typer.Option(help="The baseline to write, for a state.")] = None,
) -> None:
    """Take the present as normal: what was counted since the last alarm becomes the baseline.

    Without an alarm, it is what was counted since the last baseline. The fewer texts, the less can be noticed afterwards. A running
    server goes on with it at once; of a state (DRIFT_STATE), a baseline is written, for DRIFT_PROFILE.

    Examples:

        supportbot drift accept http://localhost:8000 --note "the new product"

        supportbot drift accept watch.json --note "the new product" --out baseline.json
    """
    if target.startswith(("http://", "https://")):
        if out is not None:
            fail("--out is for a state; a server keeps its baseline itself")
        say(f"{target}: the baseline has {_at_server(target.rstrip('/'), note):,} texts now")
        return
    state = Path(target)
    if out is None:
        fail("give --out for the baseline")
    check_files([state], out)
    accepted = _of_state(state, note)
    write_baseline(accepted, out)
    say(f"{out}: {accepted.texts:,} texts since the last alarm or baseline; {'; '.join(accepted.notes)}")


def _at_server(url: str, note: str) -> int:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/drift/accept", orjson.dumps({"note": note}), headers)  # noqa: S310 - http, checked
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - http, checked
            return int(orjson.loads(response.read())["baseline_texts"])
    except urllib.error.HTTPError as error:
        fail(f"{url}: {_message(error)}", 1)
    except (OSError, http.client.HTTPException) as error:
        fail(f"{url}: does not answer ({getattr(error, 'reason', error)})", 1)
    except (ValueError, TypeError, KeyError):
        fail(f"{url}: is another server", 1)


def _message(error: urllib.error.HTTPError) -> str:
    """What the server says of an error."""
    try:
        return str(orjson.loads(error.read())["error"]["message"])
    except (OSError, ValueError, TypeError, KeyError):
        return f"answers {error.code}"


def _of_state(state: Path, note: str) -> Baseline:
    try:
        saved = orjson.loads(state.read_bytes())
        saved = saved.get("timeline", saved)
        saved = saved.get("monitor", saved)
        present = Baseline.from_json(saved["present"])
        monitor = Monitor(present.layout, strata=present.strata)
        monitor.restore(saved)
        return monitor.accept(note)
    except OSError as error:
        fail(f"{state}: {error.strerror or error}")
    except BaselineError as error:
        fail(f"{state}: {error}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        fail(f"{state}: not the state of drift detection ({error!r})")
