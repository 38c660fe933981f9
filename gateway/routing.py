"""Which service answers which method: a pure table from method path to upstream.

The shape of every RPC comes from the generated descriptors, so a unary call stays unary on both
sides of the gateway. ``ModelService`` is served by both model services; its callers choose with
the metadata key ``easel-service``. The Open Inference Protocol is the classifier's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor

from easel.classifier.v1 import classifier_pb2
from easel.generator.v1 import generator_pb2
from easel.model.v1 import model_pb2
from easel.ranker.v1 import ranker_pb2
from easel.trainer.v1 import trainer_pb2
from services.core.errors import InvalidInput
from services.inference import open_inference_pb2

CLASSIFIER: Final = "classifier"
GENERATOR: Final = "generator"
RANKER: Final = "ranker"
TRAINER: Final = "trainer"
UPSTREAMS: Final = (CLASSIFIER, GENERATOR, RANKER, TRAINER)
MODEL_UPSTREAMS: Final = (CLASSIFIER, GENERATOR)
SERVICE_KEY: Final = "easel-service"

_CLASSIFIER_SERVICE: Final = classifier_pb2.DESCRIPTOR.services_by_name["ClassifierService"]
_GENERATOR_SERVICE: Final = generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"]
_RANKER_SERVICE: Final = ranker_pb2.DESCRIPTOR.services_by_name["RankerService"]
_TRAINING_SERVICE: Final = trainer_pb2.DESCRIPTOR.services_by_name["TrainingService"]
_MODEL_SERVICE: Final = model_pb2.DESCRIPTOR.services_by_name["ModelService"]
_INFERENCE_SERVICE: Final = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_ADMIN_METHODS: Final[Mapping[str, frozenset[str]]] = {
    _MODEL_SERVICE.full_name: frozenset({"LoadModel", "UnloadModel", "SetTraffic"}),
    _RANKER_SERVICE.full_name: frozenset(
        {
            "PutCatalogueModel",
            "DeleteCatalogueModel",
            "ImportCatalogue",
            "DeleteCollection",
            "ImportVotes",
            "PutContender",
            "DeleteContender",
            "PutArenaPrompts",
            "PutArenaPicture",
        }
    ),
}

SERVICE_OF: Final[Mapping[str, str]] = {
    CLASSIFIER: _CLASSIFIER_SERVICE.full_name,
    GENERATOR: _GENERATOR_SERVICE.full_name,
    RANKER: _RANKER_SERVICE.full_name,
    TRAINER: _TRAINING_SERVICE.full_name,
}
"""Upstream to the full name of the service that only it serves; its health stands for both."""


class Shape(Enum):
    """How many messages go each way: (the client streams, the server streams)."""

    UNARY = (False, False)
    SERVER_STREAM = (False, True)
    CLIENT_STREAM = (True, False)
    BIDI = (True, True)


@dataclass(frozen=True, slots=True)
class Route:
    """One method and who may answer it: one upstream, or several that the caller chooses from.

    ``administers`` tells that it needs the scope ``admin``, ``endless`` that no call of it ends by
    itself.
    """

    path: str
    service: str
    method: str
    shape: Shape
    upstreams: tuple[str, ...]
    administers: bool = False
    endless: bool = False


def routes_of(service: ServiceDescriptor, upstreams: tuple[str, ...]) -> list[Route]:
    """Return a route for every method that ``service``'s descriptor declares."""
    return [
        Route(
            path=f"/{service.full_name}/{method.name}",
            service=service.full_name,
            method=method.name,
            shape=Shape((method.client_streaming, method.server_streaming)),
            upstreams=upstreams,
            administers=method.name in _ADMIN_METHODS.get(service.full_name, ()),
            endless=method.name == "WatchModels",
        )
        for method in service.methods
    ]


def by_path(routes: Iterable[Route]) -> dict[str, Route]:
    """Index ``routes`` by their method path, ``/package.Service/Method``."""
    return {route.path: route for route in routes}


ROUTES: Final[Mapping[str, Route]] = by_path(
    [
        *routes_of(_CLASSIFIER_SERVICE, (CLASSIFIER,)),
        *routes_of(_GENERATOR_SERVICE, (GENERATOR,)),
        *routes_of(_RANKER_SERVICE, (RANKER,)),
        *routes_of(_TRAINING_SERVICE, (TRAINER,)),
        *routes_of(_MODEL_SERVICE, MODEL_UPSTREAMS),
        *routes_of(_INFERENCE_SERVICE, (CLASSIFIER,)),
    ]
)


def choose(route: Route, metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the name of the upstream that answers this call.

    Raises ``InvalidInput`` naming ``easel-service`` and its values where several upstreams serve
    the method and the caller has not said which.
    """
    if len(route.upstreams) == 1:
        return route.upstreams[0]
    given = [value for key, value in metadata if key == SERVICE_KEY]
    if len(given) == 1 and given[0] in route.upstreams:
        return str(given[0])
    names = " or ".join(route.upstreams)
    raise InvalidInput(
        SERVICE_KEY,
        f"More than one service answers {route.service}; "
        f"set the metadata key {SERVICE_KEY} to {names}.",
        limit=names,
        given=", ".join(map(str, given)) or "nothing",
    )
