"""`python -m loadtest.baselines.models`: one checkpoint as two INT8 bundles, made by the command line and kept in dist/comparison.

A classifier is fine-tuned on the tickets in this repository. From that checkpoint come the padding-free bundle, which our server
runs, and the padded one, which the baselines run: traced by torch and quantized by ONNX Runtime's `quantize_dynamic`, as everybody
does it. Needs the build extra, and four minutes on two cores. What is there already is not made again.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("dist/comparison")
TICKETS = Path("models/making/tickets")
# Written tickets with their labels, on which no system was trained: all must give about the same labels for them.
LABELLED = TICKETS / "test.jsonl"
CPU_FLAGS = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Bundles:
    """Two bundle folders of one model."""

    packed: Path
    padded: Path


def made(folder: Path = FOLDER) -> Bundles:
    """The two bundles; what is missing is made. Raises `subprocess.CalledProcessError` when a command fails."""
    checkpoint = folder / "checkpoint"
    bundles = Bundles(folder / "packed", folder / "padded")
    if not (bundles.packed.exists() and bundles.padded.exists()) and not checkpoint.exists():
        _supportbot(
            "train", *_files("--data", "train"), *_files("--dev", "dev"), "--out", str(checkpoint), "--epochs", "3", *_fast()
        )
    for engine, bundle in (("packed", bundles.packed), ("padded", bundles.padded)):
        if not bundle.exists():
            texts = (*_files("--dev", "dev"), *_files("--calibration", "train"), "--test", f"tickets={LABELLED}")
            _supportbot("build", str(checkpoint), str(bundle), "--engine", engine, "--name", "comparison", *texts)
    return bundles


def _files(option: str, name: str) -> tuple[str, str]:
    return option, str(TICKETS / f"{name}.jsonl")


def _fast() -> tuple[str, ...]:
    """Training in bfloat16 takes a third of the time, but only on CPUs that have it."""
    flags = CPU_FLAGS.read_text(encoding="utf-8") if CPU_FLAGS.exists() else ""
    return ("--bfloat16",) if "avx512_bf16" in flags or "amx_bf16" in flags else ()


def _supportbot(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "commands", *arguments], check=True)  # noqa: S603 - our own command


if __name__ == "__main__":
    try:
        made()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
