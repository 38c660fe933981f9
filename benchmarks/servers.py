"""The servers that are measured: a bare one, the classifier over a null network and over a real
one, the demo generator, the gateway.

``python -m benchmarks.servers bare|classifier|served-classifier MODEL CONVERTED [PRECISION
[SETTING=VALUE ...]]|generator [SETTING=VALUE ...]|gateway UPSTREAM`` prints where it listens, and
the port of its metrics, and serves until its input closes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from easel.classifier.v1 import classifier_pb2, classifier_pb2_grpc
from gateway.config import Settings
from gateway.service import Gateway
from services.classifier.config import ClassifierSettings
from services.classifier.model import ClassifierModel
from services.classifier.network import Pass, Reading, Traits
from services.classifier.preprocessing import Pixels, Preprocessing, Size
from services.classifier.service import ClassifierApp
from services.core import log
from services.core.config import load_settings
from services.core.memory import share_arena
from services.core.reference import ModelFiles
from services.core.server.app import Address, Application, serve
from services.core.server.loop import ServerLoop

FILES = ModelFiles("null", "1", Path("."), "sha256:0")


class NullNetwork:
    """A network whose pass does nothing."""

    def load(self, directory: Path) -> Traits:
        del directory
        return Traits(
            architecture="Null",
            labels=("nothing", "something"),
            multi_label=False,
            preprocessing=Preprocessing(Size(1, 1), None),
            patch_size=1,
            rows=1,
            columns=1,
            depth=1,
            hidden_size=1,
            parameters=0,
            bytes_in_memory=0,
            backend="null",
            device="cpu",
            device_name="",
            precision="float32",
            threads=1,
        )

    def run(
        self, pixels: Sequence[Pixels], *, head: bool, readings: Mapping[Reading, Sequence[int]]
    ) -> Pass:
        del head, readings
        return Pass(np.zeros((len(pixels), 2), np.float32), {})

    def close(self) -> None:
        """Nothing to free."""


class Echo(classifier_pb2_grpc.ClassifierServiceServicer):
    """The least that a server of the same contract can do."""

    async def Classify(self, request: Any, context: Any) -> classifier_pb2.ClassifyResponse:
        del context
        return classifier_pb2.ClassifyResponse(id=request.id)

    async def ClassifyStream(
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[classifier_pb2.ClassifyResponse]:
        del context
        async for request in request_iterator:
            yield classifier_pb2.ClassifyResponse(id=request.id)


async def bare(stop: asyncio.Event) -> None:
    server = grpc.aio.server()
    classifier_pb2_grpc.add_ClassifierServiceServicer_to_server(Echo(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    announce(Address("127.0.0.1", port, 0))
    await stop.wait()
    await server.stop(0)


def classifier() -> Application:
    settings = load_settings(ClassifierSettings, environ={})
    return ClassifierApp(settings, ClassifierModel(NullNetwork(), lambda: FILES))


def served_classifier(
    model: str, converted: str, precision: str = "auto", *settings: str
) -> Application:
    """As it is served by default, but for ``settings``; ``converted``: where its backend keeps what
    it makes of it.
    """
    from services.classifier.__main__ import application

    given = {"model": model, "converted_directory": converted, "precision": precision}
    given |= _named(settings)
    return application(load_settings(ClassifierSettings, environ={}, **given))


def generator(*settings: str) -> Application:
    """As it is served by default, but for ``settings``."""
    # Not at the top: the others have no use for PyTorch.
    from services.generator.__main__ import application
    from services.generator.config import GeneratorSettings

    return application(load_settings(GeneratorSettings, environ={}, **_named(settings)))


def _named(settings: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (each.partition("=") for each in settings)}


def gateway(upstream: str) -> Application:
    targets = {f"{name}_target": upstream for name in ("classifier", "generator", "ranker")}
    return Gateway(load_settings(Settings, environ={}, **targets))


def announce(address: Address) -> None:
    print(address.target, address.metrics_port, flush=True)


def input_closed() -> asyncio.Event:
    """Set once it is; nobody waits for it who ends before."""
    closed, loop = asyncio.Event(), asyncio.get_running_loop()

    def read() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=read, name="input", daemon=True).start()
    return closed


async def main(kind: str, *arguments: str) -> int:
    """Answers the exit code."""
    stop = input_closed()
    if kind == "bare":
        await bare(stop)
        return 0
    log.configure(kind, "INFO")
    apps: dict[str, Callable[..., Application]] = {
        "classifier": classifier,
        "served-classifier": served_classifier,
        "generator": generator,
        "gateway": gateway,
    }
    app = apps[kind](*arguments)
    return await serve(app, stop=stop, opened=announce, alone=True)


if __name__ == "__main__":
    # What is measured runs as services do, the bare server as one is written by hand.
    loop = None if sys.argv[1] == "bare" else ServerLoop
    if loop is not None:
        share_arena()
    with asyncio.Runner(loop_factory=loop) as runner:
        code = runner.run(main(*sys.argv[1:]))
    sys.exit(code)
