"""`python -m loadtest.baselines.mosec_server BUNDLE`: the model behind mosec, on the port that PORT names.

mosec is a model server with an HTTP front in Rust and worker processes in Python. Here it has as many workers as there are cores,
and batches of one, the best setting that was found for texts of mixed lengths: padded batches cost more than they save. `POST
/classify` takes `{"text": ...}` and answers `{"prediction": ..., "confidence": ...}`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from mosec import Runtime, Server, ValidationError, Worker

from loadtest.baselines.padded import PaddedModel, one_thread_a_pass
from machine.cores import usable_cores

TIMEOUT_SECONDS = 30
# The bundle's folder, for the worker processes.
BUNDLE = "SUPPORTBOT_BASELINE_BUNDLE"


class Classify(Worker):
    """One worker process: a text at a time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model = PaddedModel.open(Path(os.environ[BUNDLE]), one_thread_a_pass())

    def forward(self, data: Any) -> dict[str, str | float]:  # noqa: ANN401 - what JSON can be
        """Classify one text. Raises `ValidationError`, which mosec answers with 422."""
        if not isinstance(data, dict) or not isinstance(text := data.get("text"), str):
            raise ValidationError('the body must be {"text": "..."}')
        (answer,) = self._model.predict([text])
        return {"prediction": answer.prediction, "confidence": answer.confidence}


def main(bundle: str, worker: type[Classify] = Classify) -> None:
    """Serve until SIGTERM comes."""
    os.environ[BUNDLE] = bundle
    # mosec reads its own options from the environment.
    os.environ["MOSEC_ADDRESS"] = os.environ.get("HOST", "127.0.0.1")
    os.environ["MOSEC_PORT"] = os.environ.get("PORT", "8000")
    os.environ["MOSEC_LOG_LEVEL"] = "warning"
    sys.argv = sys.argv[:1]
    server = Server()  # type: ignore[no-untyped-call]
    runtime = Runtime(worker, num=usable_cores(), max_batch_size=1, timeout=TIMEOUT_SECONDS)
    server.register_runtime({"/classify": [runtime]})
    server.run()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(sys.argv[1])
