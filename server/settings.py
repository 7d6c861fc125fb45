"""All settings, from the command line, the environment and an `.env` file, validated at start-up.

A field's name in capitals is its environment variable; with hyphens, the option of `supportbot serve`. docs/settings.md lists them;
a test checks that the list is complete.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from batching import BatchPolicy
from models.bundle import embedded_bundle
from models.windows import DEFAULT_MOST, DEFAULT_OVERLAP, Windows
from server.observe.drift import DriftOptions
from server.observe.prediction_log import PredictionLog, PredictionLogError

ENV_FILE = Path(".env")
NATIVE: Final = "native"
DIALECTS: Final = (NATIVE, "semantic-router", "vllm", "tei", "hugging-face", "open-inference", "kserve", "sagemaker")
# A path without a pattern in it.
_ROUTE: Final = r"^/[A-Za-z0-9._~/:@-]*$"
Milliseconds = Annotated[float, Field(ge=0, le=600_000, allow_inf_nan=False)]


class SettingsError(Exception):
    """Raised when a setting is out of its bounds; the message names each variable, its value and what is wrong."""


Kind = TypeVar("Kind", bound="BundleSetting")


class BundleSetting(BaseSettings):
    """The setting that not only the server has: which model. It is read by itself, so that no other setting is in the way."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True, validate_default=True
    )

    bundle: Annotated[Path, Field(description="folder of the model bundle to serve")] = embedded_bundle()

    @field_validator("bundle", "prediction_log", "drift_profile", "drift_state", mode="before", check_fields=False)
    @classmethod
    def _refuse_empty(cls, value: object) -> object:
        if value == "":  # as a path, it would be the current folder
            raise PydanticCustomError("empty", "must not be empty")
        return value


class Settings(BundleSetting):
    """What an operator can choose. Durations are in milliseconds here, and in seconds everywhere else."""

    host: Annotated[str, Field(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="port to listen on; 0 picks a free one")] = 8000
    dialects: Annotated[
        str, Field(description="dialects to serve beside our own, separated by commas; all, or native for no other")
    ] = "all"
    aip_http_port: Annotated[
        int | None, Field(ge=0, le=65535, description="PORT unless that is set, and HOST is then 0.0.0.0; Vertex AI sets it")
    ] = None
    aip_predict_route: Annotated[
        str | None, Field(pattern=_ROUTE, description="one more path for requests with instances; Vertex AI sets it")
    ] = None
    aip_health_route: Annotated[str | None, Field(pattern=_ROUTE, description="one more path for /ready; Vertex AI sets it")] = None
    bundle_timeout: Annotated[
        float,
        Field(
            ge=0,
            le=86_400,
            allow_inf_nan=False,
            description="seconds to try again while the bundle is missing or cannot be used; then the server stops",
        ),
    ] = 0
    workers: Annotated[
        int,
        Field(
            ge=0, le=256, description="forward passes that run at the same time, each on one core; 0 is one for each usable core"
        ),
    ] = 0
    batch_window_ms: Annotated[
        Milliseconds, Field(description="longest time a text waits for its batch to fill; only with BATCH_IDLE_FLUSH=false")
    ] = 40
    batch_max_texts: Annotated[int, Field(ge=1, le=1024, description="most texts in a batch")] = 32
    batch_max_tokens: Annotated[
        int, Field(ge=1, le=1_000_000, description="most tokens in a batch, unless a single text has more")
    ] = 512
    batch_idle_flush: Annotated[bool, Field(description="send a batch as soon as a worker is free, full or not")] = True
    batch_look_ahead: Annotated[
        int,
        Field(
            ge=0,
            le=10_000,
            description="how many of the oldest queued texts a batch may choose from, to find texts of similar length",
        ),
    ] = 64
    batch_max_passed_over: Annotated[
        int, Field(ge=0, le=1000, description="how many batches may take a younger text before an older one; 0 keeps arrival order")
    ] = 8
    interactive_weight: Annotated[
        float, Field(ge=0.01, le=100, description="tokens of interactive texts for each token of bulk texts, while both are queued")
    ] = 4
    queue_max_texts: Annotated[
        int,
        Field(ge=1, le=1_000_000, description="most queued texts in each priority class; beyond it requests are rejected with 429"),
    ] = 1024
    queue_max_tokens: Annotated[
        int,
        Field(
            ge=1,
            le=1 << 40,
            description="most queued tokens in each priority class, unless one request alone has more; beyond it 429",
        ),
    ] = 65_536
    default_timeout_ms: Annotated[Milliseconds, Field(gt=0, description="deadline of a request that names none; then 504")] = 30_000
    max_timeout_ms: Annotated[Milliseconds, Field(gt=0, description="longest deadline that a request may ask for")] = 60_000
    pass_timeout_ms: Annotated[
        Milliseconds,
        Field(gt=0, description="a forward pass that takes longer counts as hanging: its requests get 504, and /ready says so"),
    ] = 30_000
    bisect_max_passes: Annotated[
        int, Field(ge=0, le=10_000, description="most extra passes spent on finding the text that makes a batch fail")
    ] = 16
    answer_cache_texts: Annotated[
        int, Field(ge=0, le=10_000_000, description="answers kept for texts that come again; 0 turns the cache off")
    ] = 0
    golden_check_seconds: Annotated[
        float, Field(ge=0, le=604_800, allow_inf_nan=False, description="seconds between checks of the golden texts; 0 for none")
    ] = 3600
    strip: Annotated[
        Literal["none", "html"],
        Field(description="html: classify what a person sees of HTML documents, unless a request says otherwise"),
    ] = "none"
    long_texts: Annotated[
        Literal["truncate", "windows"],
        Field(description="windows: classify a text over the model's limit in overlapping windows, and join their logits"),
    ] = "truncate"
    window_overlap: Annotated[int, Field(ge=0, le=100_000, description="tokens that two windows of a text share")] = DEFAULT_OVERLAP
    window_join: Annotated[
        Literal["mean", "max"], Field(description="how the logits of a text's windows are joined, label by label")
    ] = "mean"
    max_windows: Annotated[int, Field(ge=2, le=1000, description="most windows of a text; what lies beyond is not read")] = (
        DEFAULT_MOST
    )
    low_confidence: Annotated[
        float, Field(ge=0, le=1, description="answers below this confidence are counted as low-confidence")
    ] = 0.6
    prediction_log: Annotated[
        Path | None, Field(description="file that gets one JSON line for each answered text; off by default")
    ] = None
    prediction_log_max_bytes: Annotated[
        int,
        Field(ge=65_536, le=1 << 40, description="file size at which the prediction log is rotated"),
    ] = 100_000_000
    prediction_log_files: Annotated[int, Field(ge=1, le=1000, description="rotated prediction logs to keep")] = 5
    prediction_log_text: Annotated[bool, Field(description="log the texts themselves, too")] = False
    prediction_log_secret: Annotated[
        SecretStr, Field(description="key of the text hashes; without one, hashes can be compared within one run only")
    ] = SecretStr("")
    drift: Annotated[bool, Field(description="watch whether texts and answers change, if the bundle has a profile")] = True
    drift_profile: Annotated[
        Path | None, Field(description="your own baseline, made by supportbot drift; without one, the server learns one")
    ] = None
    drift_state: Annotated[
        Path | None, Field(description="file that keeps what drift detection knows over restarts; off by default")
    ] = None
    drift_block_seconds: Annotated[
        float, Field(ge=0.1, le=3600, allow_inf_nan=False, description="seconds of a block, after each of which drift is judged")
    ] = 60
    drift_false_alarm_days: Annotated[
        float, Field(ge=1, le=36_500, allow_inf_nan=False, description="days to a false alarm of each level, at least, on average")
    ] = 365
    drift_learn_texts: Annotated[
        int, Field(ge=200, le=10_000_000, description="least number of texts of a baseline that the server learns")
    ] = 20_000
    drift_learn_days: Annotated[
        float, Field(ge=0, le=366, allow_inf_nan=False, description="least number of days of a baseline that the server learns")
    ] = 7
    feedback_secret: Annotated[
        SecretStr, Field(description="key of the feedback tokens; without one, tokens are good for one run of one server")
    ] = SecretStr("")
    feedback_sample: Annotated[
        float, Field(ge=0, le=1, description="share of the answers that are drawn for review, to prove how many are wrong")
    ] = 0.02
    feedback_answers: Annotated[
        int, Field(ge=0, le=10_000_000, description="last answers that feedback may name by their request's id")
    ] = 100_000
    max_texts_per_request: Annotated[int, Field(ge=1, le=10_000, description="most texts in one request")] = 32
    max_body_bytes: Annotated[int, Field(ge=1, le=1 << 30, description="largest request body; beyond it 413")] = 1 << 20
    body_timeout_ms: Annotated[Milliseconds, Field(ge=1, description="longest time to receive a request body; beyond it 408")] = (
        10_000
    )
    drain_delay_ms: Annotated[
        Milliseconds,
        Field(description="on SIGTERM: time to go on serving, with /ready at 503, until load balancers have noticed"),
    ] = 0
    drain_timeout_ms: Annotated[Milliseconds, Field(description="on SIGTERM: longest time to finish the accepted requests")] = (
        10_000
    )
    drain_linger_ms: Annotated[
        Milliseconds,
        Field(description="on SIGTERM: shortest time to go on answering new requests, with 503, before the port closes"),
    ] = 250
    keep_alive_seconds: Annotated[
        int, Field(ge=1, le=3600, description="longest time a connection may be idle, or take to send its request headers")
    ] = 75
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Field(description="least severe level to log")] = "info"
    log_format: Annotated[Literal["auto", "json", "console"], Field(description="auto: console on a terminal, JSON elsewhere")] = (
        "auto"
    )
    access_log: Annotated[bool, Field(description="log one line for each request, never its text")] = True

    @model_validator(mode="before")
    @classmethod
    def _listen_as_vertex_says(cls, given: object) -> object:
        if isinstance(given, dict) and (port := given.get("aip_http_port")) not in {None, ""}:
            return {"host": "0.0.0.0", "port": port} | given  # noqa: S104 - a container's port is reached from outside only
        return given

    @field_validator("dialects")
    @classmethod
    def _check_dialects(cls, value: str) -> str:
        for name in map(str.strip, value.split(",")):
            if name not in {*DIALECTS, "all"}:
                known = ", ".join(DIALECTS)
                raise PydanticCustomError(
                    "dialect", "there is no dialect {name}; known are {known}", {"name": name, "known": known}
                )
        return value

    def served_dialects(self) -> frozenset[str]:
        """The names of the dialects that are served; our own always is."""
        names = {name.strip() for name in self.dialects.split(",")}
        return frozenset(DIALECTS) if "all" in names else frozenset({NATIVE, *names})

    def open_prediction_log(self) -> PredictionLog | None:
        """The prediction log, if one is wanted. Raises `SettingsError` when it cannot be written."""
        if self.prediction_log is None:
            return None
        try:
            return PredictionLog(
                self.prediction_log,
                max_bytes=self.prediction_log_max_bytes,
                files=self.prediction_log_files,
                include_text=self.prediction_log_text,
                secret=self.prediction_log_secret.get_secret_value(),
            )
        except PredictionLogError as error:
            raise SettingsError(f"PREDICTION_LOG={error}") from error

    def windows(self) -> Windows | None:
        """How texts over the model's limit are cut into windows; None if they are truncated."""
        return Windows(self.window_overlap, self.max_windows, self.window_join) if self.long_texts == "windows" else None

    def drift_options(self) -> DriftOptions:
        """How drift is watched, but for the baseline, which needs the model."""
        return DriftOptions(
            block_seconds=self.drift_block_seconds,
            promise_days=self.drift_false_alarm_days,
            learn_texts=self.drift_learn_texts,
            learn_days=self.drift_learn_days,
            state=self.drift_state,
        )

    def batch_policy(self, cores: int) -> BatchPolicy:
        """The batcher's limits, given the number of cores this process may use. Raises `SettingsError`."""
        if self.max_texts_per_request > self.queue_max_texts:
            raise SettingsError(
                f"MAX_TEXTS_PER_REQUEST ({self.max_texts_per_request}) is over QUEUE_MAX_TEXTS ({self.queue_max_texts}):"
                " such a request could never be accepted"
            )
        if self.long_texts == "windows" and self.max_texts_per_request * self.max_windows > self.queue_max_texts:
            raise SettingsError(
                f"MAX_TEXTS_PER_REQUEST ({self.max_texts_per_request}) times MAX_WINDOWS ({self.max_windows}) is over"
                f" QUEUE_MAX_TEXTS ({self.queue_max_texts}): such a request could never be accepted"
            )
        if self.default_timeout_ms > self.max_timeout_ms:
            raise SettingsError(
                f"DEFAULT_TIMEOUT_MS ({self.default_timeout_ms:g}) is over MAX_TIMEOUT_MS ({self.max_timeout_ms:g})"
            )
        return BatchPolicy(
            max_items=self.batch_max_texts,
            max_cost=self.batch_max_tokens,
            window=self.batch_window_ms / 1000,
            idle_flush=self.batch_idle_flush,
            look_ahead=self.batch_look_ahead,
            max_passed_over=self.batch_max_passed_over,
            interactive_weight=self.interactive_weight,
            max_queued=self.queue_max_texts,
            max_queued_cost=self.queue_max_tokens,
            workers=self.workers or cores,
            max_extra_passes=self.bisect_max_passes,
            pass_timeout=self.pass_timeout_ms / 1000,
        )


def option_of(name: str) -> str:
    """The command line's option for a setting, by its field's name."""
    return f"--{name.replace('_', '-')}"


def load_settings(options: Mapping[str, object] = MappingProxyType({})) -> Settings:
    """Read and validate the settings; `options` are the command line's, by field name, and win over the environment and `.env`.

    Raises `SettingsError` naming every variable or option that is wrong.
    """
    return _load(Settings, options)


def load_bundle() -> Path:
    """The folder of BUNDLE, from the environment and `.env`, for commands that have no other setting. Raises `SettingsError`."""
    return _load(BundleSetting, {}).bundle


def _load(kind: type[Kind], options: Mapping[str, object]) -> Kind:
    try:
        _check_env_file(ENV_FILE)
        return kind(**options)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError("\n".join(_fault(detail, options) for detail in error.errors())) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{ENV_FILE}: {getattr(error, 'strerror', None) or error}") from error


def _check_env_file(path: Path) -> None:
    """Raise `OSError` for a file that is there and cannot be read. pydantic-settings passes over a folder or a broken link.

    Docker makes a folder of a file that is to be mounted and is not there.
    """
    if os.path.lexists(path) and not path.is_fifo():  # a pipe can be opened only once
        path.open("rb").close()


def _fault(detail: ErrorDetails, options: Mapping[str, object]) -> str:
    name = ".".join(map(str, detail["loc"]))
    return f"{option_of(name) if name in options else name.upper()}={detail['input']!s}: {detail['msg']}"
