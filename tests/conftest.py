"""What several rooms' tests share: the embedded model, opened once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from models.bundle import embedded_bundle
from models.classifier import Classifier


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    return Classifier.open(embedded_bundle())


@pytest.fixture
def bundle_copy(tmp_path: Path) -> Path:
    """The embedded bundle in a folder that a test may damage."""
    return Path(shutil.copytree(embedded_bundle(), tmp_path / "bundle"))
