"""The settings of a server that a load test starts: those that the environment and an `.env` file give it, by name.

They belong to the result of a run, since they change it; but a result is passed on, so what is nobody else's business, a secret or
where a log is, is recorded as set and no more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from loadtest.processes import ServerFailed

# Besides HOST and PORT, which a load test chooses itself. SERVER is the load test's own: the command that starts the server.
NAMES = frozenset(
    {
        *("BUNDLE", "BUNDLE_TIMEOUT", "WORKERS", "SERVER"),
        *(
            "BATCH_WINDOW_MS",
            "BATCH_MAX_TEXTS",
            "BATCH_MAX_TOKENS",
            "BATCH_IDLE_FLUSH",
            "BATCH_LOOK_AHEAD",
            "BATCH_MAX_PASSED_OVER",
        ),
        *("INTERACTIVE_WEIGHT", "QUEUE_MAX_TEXTS", "QUEUE_MAX_TOKENS"),
        *("DEFAULT_TIMEOUT_MS", "MAX_TIMEOUT_MS", "PASS_TIMEOUT_MS", "BISECT_MAX_PASSES"),
        *("ANSWER_CACHE_TEXTS", "LOW_CONFIDENCE", "STRIP", "GOLDEN_CHECK_SECONDS"),
        *("LONG_TEXTS", "WINDOW_OVERLAP", "WINDOW_JOIN", "MAX_WINDOWS"),
        *("DRIFT", "DRIFT_PROFILE", "DRIFT_STATE", "DRIFT_BLOCK_SECONDS", "DRIFT_FALSE_ALARM_DAYS"),
        *("DRIFT_LEARN_TEXTS", "DRIFT_LEARN_DAYS", "FEEDBACK_SECRET", "FEEDBACK_SAMPLE", "FEEDBACK_ANSWERS"),
        *("PREDICTION_LOG", "PREDICTION_LOG_MAX_BYTES", "PREDICTION_LOG_FILES", "PREDICTION_LOG_TEXT", "PREDICTION_LOG_SECRET"),
        *("MAX_TEXTS_PER_REQUEST", "MAX_BODY_BYTES", "BODY_TIMEOUT_MS"),
        *("DRAIN_DELAY_MS", "DRAIN_TIMEOUT_MS", "DRAIN_LINGER_MS", "KEEP_ALIVE_SECONDS"),
        *("LOG_LEVEL", "LOG_FORMAT", "ACCESS_LOG"),
    }
)
PRIVATE = frozenset({"DRIFT_PROFILE", "DRIFT_STATE", "FEEDBACK_SECRET", "PREDICTION_LOG", "PREDICTION_LOG_SECRET"})
SET = "(set)"
ENV_FILE = Path(".env")


def server_settings(environment: Mapping[str, str], env_file: Path = ENV_FILE) -> dict[str, str]:
    """What is set for a server that is started here, in upper case and in order; `(set)` in place of what is private."""
    given = {name.upper(): value for values in (dotenv_values(env_file), environment) for name, value in values.items() if value}
    return {name: SET if name in PRIVATE else value for name, value in sorted(given.items()) if name in NAMES}


def check_defaults() -> None:
    """Raise `ServerFailed` if a server started here would not have its default settings."""
    if given := server_settings(os.environ):
        raise ServerFailed(f"{', '.join(given)}: must not be set, in the environment or .env, since defaults are measured")
