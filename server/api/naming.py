"""What the model is called: by its bundle's name, or `name@version`."""

from __future__ import annotations

from models.types import TextClassifier
from server.http.errors import RequestError


def name_and_version(classifier: TextClassifier) -> tuple[str, str]:
    """(name, version), as the bundle has them."""
    name, _, version = classifier.identity.rpartition("@")
    return name, version


def check_model(classifier: TextClassifier, asked: str, version: str | None = None) -> None:
    """Raise `RequestError` (404) unless the model in service is the one that was asked for."""
    name, its_version = name_and_version(classifier)
    if asked not in {name, classifier.identity} or version not in {None, its_version}:
        wanted = asked if version is None else f"{asked}, version {version}"
        raise RequestError(404, "model_not_found", f"there is no model {wanted[:200]!r} here, only {classifier.identity!r}")
