"""SHA-256 of files, read in pieces."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's bytes. Raises `OSError` when it cannot be read."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
