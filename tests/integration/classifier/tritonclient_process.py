"""What tritonclient gets of a server, as JSON: ``python tritonclient_process.py TARGET PICTURE``.

Runs by the interpreter of an environment that has tritonclient and nothing of ours: its stubs and
ours register the same names, and it needs an older protobuf.
"""

from __future__ import annotations

import json
import queue
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

MODEL = "fake"


def tensor(batch: Any, datatype: str) -> Any:
    image = triton.InferInput("image", list(batch.shape), datatype)
    image.set_data_from_numpy(batch)
    return image


def classes(count: int) -> list[Any]:
    return [triton.InferRequestedOutput("probabilities", class_count=count)]


def texts(answer: Any) -> list[list[str]]:
    return [[text.decode() for text in row] for row in answer.as_numpy("probabilities")]


def described(client: Any) -> dict[str, Any]:
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "other_ready": client.is_model_ready("other"),
        "server": client.get_server_metadata(as_json=True),
        "metadata": client.get_model_metadata(MODEL, as_json=True),
        "config": client.get_model_config(MODEL, as_json=True),
        "index": client.get_model_repository_index(as_json=True),
    }


def inferred(client: Any, file: bytes) -> dict[str, Any]:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    pixels[0, ..., 0] = pixels[1, ..., 2] = 255
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2) / np.float32(255))
    files = np.array([file, file], dtype=np.object_)
    whole = client.infer(MODEL, [tensor(pixels, "UINT8")], request_id="a")
    return {
        "id": whole.get_response().id,
        "logits": whole.as_numpy("logits").tolist(),
        "probabilities": whole.as_numpy("probabilities").tolist(),
        "uint8": texts(client.infer(MODEL, [tensor(pixels, "UINT8")], outputs=classes(1))),
        "fp32": texts(client.infer(MODEL, [tensor(planes, "FP32")], outputs=classes(1))),
        "bytes": texts(client.infer(MODEL, [tensor(files, "BYTES")], outputs=classes(2))),
        "options": texts(
            client.infer(
                MODEL,
                [tensor(pixels, "UINT8")],
                model_version="1",
                outputs=classes(1),
                priority=1,
                timeout=30_000_000,
                client_timeout=30,
                parameters={"fit": "center_crop"},
                compression_algorithm="gzip",
            )
        ),
    }


def refused(client: Any) -> dict[str, str]:
    pixels = np.zeros((1, 8, 8, 1), np.uint8)
    try:
        client.infer(MODEL, [tensor(pixels, "UINT8")])
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    return {}


def streamed(client: Any, file: bytes) -> list[dict[str, Any]]:
    """Three requests of which the second is bad, then one with a stream of its own."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    good = tensor(np.array([file], dtype=np.object_), "BYTES")
    bad = tensor(np.array([b"nothing"], dtype=np.object_), "BYTES")
    for number, image in enumerate((good, bad, good)):
        client.async_stream_infer(
            MODEL,
            [image],
            request_id=str(number),
            outputs=classes(1),
            enable_empty_final_response=True,
        )
    found = []
    for _ in range(3):
        result, error = answers.get(timeout=30)
        found.append(
            {"error": error.message()}
            if error
            else {"id": result.get_response().id, "best": texts(result)}
        )
    client.stop_stream()
    return found


def main(target: str, picture: str) -> None:
    file = Path(picture).read_bytes()
    with triton.InferenceServerClient(target) as client:
        told = {
            **described(client),
            "inferred": inferred(client, file),
            "refused": refused(client),
            "streamed": streamed(client, file),
            "statistics": client.get_inference_statistics(MODEL, as_json=True),
        }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
