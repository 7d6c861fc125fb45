"""What NVIDIA's `tritonclient` gets from the server at the URL that is the argument: one JSON object on standard output.

Runs in the environment of `make setup-clients`, so it knows nothing of this project.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from tritonclient import http
from tritonclient.utils import InferenceServerException

MODEL = "supportbot"
TEXTS = ["payment failed", "app crashed", "h\u00e9llo"]


def tensor(texts: list[str], *, binary: bool = True, column: bool = False) -> http.InferInput:
    array = np.array([text.encode() for text in texts], dtype=np.object_).reshape((-1, 1) if column else (-1,))
    found = http.InferInput("text", array.shape, "BYTES")
    found.set_data_from_numpy(array, binary_data=binary)
    return found


def labels(result: http.InferResult) -> list[str]:
    return [label.decode() if isinstance(label, bytes) else label for label in result.as_numpy("label").tolist()]


def main(url: str) -> dict[str, Any]:
    client = http.InferenceServerClient(url.removeprefix("http://"), concurrency=4)
    found: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": [client.is_model_ready(MODEL), client.is_model_ready(MODEL, "1.2.0"), client.is_model_ready("other")],
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata(MODEL),
        "repository": client.get_model_repository_index(),
    }
    usual = client.infer(MODEL, [tensor(TEXTS)], request_id="ticket-1")
    found["binary"] = {
        "id": usual.get_response()["id"],
        "labels": labels(usual),
        "sums": usual.as_numpy("probabilities").sum(axis=1).round(3).tolist(),
        "shape": list(usual.as_numpy("probabilities").shape),
        "truncated": usual.as_numpy("truncated").tolist(),
        "dtype": str(usual.as_numpy("score").dtype),
    }
    wishes = [http.InferRequestedOutput("label", binary_data=False), http.InferRequestedOutput("score", binary_data=False)]
    found["json"] = labels(client.infer(MODEL, [tensor(TEXTS, binary=False)], outputs=wishes))
    found["column"] = labels(client.infer(MODEL, [tensor(TEXTS, column=True)], model_version="1.2.0"))
    classes = client.infer(MODEL, [tensor(TEXTS)], outputs=[http.InferRequestedOutput("probabilities", class_count=2)])
    found["classes"] = [[label.decode() for label in row] for row in classes.as_numpy("probabilities").tolist()]
    asked = [client.async_infer(MODEL, [tensor([text])], priority=2, timeout=20_000_000) for text in TEXTS]
    found["async"] = [labels(request.get_result())[0] for request in asked]
    many = [tensor(["payment failed"] * 32)]
    for coding in ("gzip", "deflate"):
        squeezed = client.infer(MODEL, many, request_compression_algorithm=coding, response_compression_algorithm=coding)
        found[coding] = labels(squeezed)
    faults: dict[str, Callable[[], object]] = {
        "unknown_model": lambda: client.infer("other", [tensor(TEXTS)]),
        "unknown_output": lambda: client.infer(MODEL, [tensor(TEXTS)], outputs=[http.InferRequestedOutput("classes")]),
        "no_such_route": lambda: client.get_model_config(MODEL),
        "late": lambda: client.infer(MODEL, [tensor(TEXTS)], timeout=1),
    }
    for name, asking in faults.items():
        try:
            asking()
        except InferenceServerException as error:
            found[name] = [error.status(), error.message()]
    client.close()
    return found


if __name__ == "__main__":
    json.dump(main(sys.argv[1]), sys.stdout)
