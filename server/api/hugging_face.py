"""`POST /` with `inputs`: the Hugging Face API, as `huggingface_hub.InferenceClient.text_classification` speaks it."""

from __future__ import annotations

from typing import Final

from server.api.exchange import Dialect, Endpoint, Exchange
from server.api.pipeline import OPERATION, error_body, parse_pipeline
from server.service import Service

NAME: Final = "hugging-face"
DIALECT: Final = Dialect(NAME, error_body)


def endpoints(service: Service) -> list[Endpoint]:
    """The routes."""
    return [Exchange(service, DIALECT, "/", parse_pipeline, OPERATION)]
