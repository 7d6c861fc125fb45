"""What KServe's client gets from the server at the URL that is the argument: one JSON object on standard output.

Runs in the environment of `make setup-clients`, so it knows nothing of this project.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceRESTClient, RESTConfig

MODEL = "supportbot"
TEXTS = ["payment failed", "app crashed"]


def tensor() -> InferInput:
    return InferInput(name="text", shape=[2], datatype="BYTES", data=TEXTS)


async def second(url: str) -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    found: dict[str, Any] = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model_ready": [await client.is_model_ready(url, MODEL), await client.is_model_ready(url, "other")],
    }
    answer = await client.infer(url, InferRequest(model_name=MODEL, infer_inputs=[tensor()]), model_name=MODEL)
    found["labels"] = answer.outputs[0].data
    import numpy as np

    binary = InferInput(name="text", shape=[2], datatype="BYTES")
    binary.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=np.object_), binary_data=True)
    asked = InferRequest(model_name=MODEL, infer_inputs=[binary], parameters={"binary_data_output": True}, request_id="ticket-1")
    answer = await client.infer(url, asked, model_name=MODEL)
    by_name = {output.name: output.as_numpy() for output in answer.outputs}
    found["binary"] = {
        "id": answer.id,
        "labels": [label.decode() if isinstance(label, bytes) else label for label in by_name["label"].tolist()],
        "sums": by_name["probabilities"].sum(axis=1).round(3).tolist(),
    }
    try:
        await client.infer(url, InferRequest(model_name="other", infer_inputs=[tensor()]), model_name="other")
    except httpx.HTTPStatusError as error:
        found["unknown_model"] = [error.response.status_code, str(error)]
    await client.close()
    return found


async def first(url: str) -> dict[str, Any]:
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    found = {
        "live": await client.is_server_live(url),
        "model_ready": await client.is_model_ready(url, MODEL),
        "predictions": (await client.infer(url, {"instances": TEXTS}, model_name=MODEL))["predictions"],
    }
    try:
        await client.infer(url, {"instances": "a"}, model_name=MODEL)
    except httpx.HTTPStatusError as error:
        found["wrong"] = [error.response.status_code, str(error)]
    await client.close()
    return found


async def main(url: str) -> dict[str, Any]:
    return {"v1": await first(url), "v2": await second(url)}


if __name__ == "__main__":
    json.dump(asyncio.run(main(sys.argv[1])), sys.stdout)
