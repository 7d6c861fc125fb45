"""Opening the bundle that is to be served: is it there, does it hold, and if not yet, how long to try."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

import structlog

from machine.cores import bounded_cores
from models.bundle import MANIFEST
from models.classifier import Classifier
from models.types import TextClassifier
from server.settings import Settings, SettingsError

log = structlog.stdlib.get_logger("supportbot.opening")

# Between two tries to open a model that is waited for.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0


def open_default_classifier(settings: Settings) -> Classifier:
    """Open, check and warm the bundle that the settings name. Raises `BundleError` or `SelfCheckFailed`."""
    classifier = Classifier.open(settings.bundle)
    classifier.self_check()
    classifier.warm_up(settings.batch_policy(bounded_cores().number).workers)
    return classifier


def check_bundle(settings: Settings) -> None:
    """Raise `SettingsError` when BUNDLE names nothing that is a bundle, and is not to be waited for."""
    if settings.bundle_timeout or (settings.bundle / MANIFEST).is_file():
        return
    if not settings.bundle.exists():
        what = "no such folder"
    elif not settings.bundle.is_dir():
        what = "not a folder"
    else:
        what = f"not a bundle, it has no {MANIFEST}"
    raise SettingsError(f"BUNDLE={settings.bundle}: {what}")


def open_patiently(
    open_classifier: Callable[[], TextClassifier],
    seconds: float,
    tell: Callable[[str], None],
    wait: Callable[[float], object] = sleep,
    clock: Callable[[], float] = monotonic,
) -> TextClassifier:
    """Open a model that may not be there yet: try for so many seconds, with pauses of 1 s, then 2, 4 and up to 30.

    `tell` is told why a try failed, before each pause. Raises what the last try raised.
    """
    started, pause = clock(), FIRST_PAUSE_SECONDS
    while True:
        try:
            return open_classifier()
        except Exception as error:
            left = started + seconds - clock()
            if left <= 0:
                raise
            reason = f"{type(error).__name__}: {error}"
        pause = min(pause, left)
        log.warning("model cannot be used yet", reason=reason, next_try_in_seconds=round(pause, 1), seconds_left=round(left, 1))
        tell(reason)
        wait(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
