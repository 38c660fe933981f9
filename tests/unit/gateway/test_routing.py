"""The routing table, and who is chosen from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing import ROUTES, SERVICE_KEY, SERVICE_OF, UPSTREAMS, Shape, choose
from services.core.errors import InvalidInput

MODELS = ROUTES["/easel.model.v1.ModelService/GetModel"]


@pytest.mark.parametrize(
    ("path", "shape", "upstreams"),
    [
        ("easel.classifier.v1.ClassifierService/Classify", Shape.UNARY, ("classifier",)),
        ("easel.classifier.v1.ClassifierService/EmbedStream", Shape.BIDI, ("classifier",)),
        ("easel.generator.v1.GeneratorService/Generate", Shape.SERVER_STREAM, ("generator",)),
        ("easel.generator.v1.GeneratorService/GenerateStream", Shape.BIDI, ("generator",)),
        ("easel.ranker.v1.RankerService/BestOf", Shape.SERVER_STREAM, ("ranker",)),
        ("easel.trainer.v1.TrainingService/StartJob", Shape.UNARY, ("trainer",)),
        ("inference.GRPCInferenceService/ModelInfer", Shape.UNARY, ("classifier",)),
        ("inference.GRPCInferenceService/ModelStreamInfer", Shape.BIDI, ("classifier",)),
        (
            "easel.model.v1.ModelService/WatchModels",
            Shape.SERVER_STREAM,
            ("classifier", "generator"),
        ),
    ],
)
def test_table(path: str, shape: Shape, upstreams: tuple[str, ...]) -> None:
    route = ROUTES[f"/{path}"]
    assert f"{route.service}/{route.method}" == path
    assert (route.shape, route.upstreams) == (shape, upstreams)


def test_every_upstream_has_routes_and_a_service() -> None:
    assert {name for route in ROUTES.values() for name in route.upstreams} == set(UPSTREAMS)
    assert set(SERVICE_OF) == set(UPSTREAMS)
    assert set(SERVICE_OF.values()) <= {route.service for route in ROUTES.values()}


def test_what_changes_models_needs_administration() -> None:
    administering = {path for path, route in ROUTES.items() if route.administers}
    models = ("LoadModel", "UnloadModel", "SetTraffic")
    catalogue = ("PutCatalogueModel", "DeleteCatalogueModel", "ImportCatalogue")
    index = ("DeleteCollection",)
    arena = ("ImportVotes", "PutContender", "DeleteContender", "PutArenaPrompts", "PutArenaPicture")
    assert administering == {
        *(f"/easel.model.v1.ModelService/{name}" for name in models),
        *(f"/easel.ranker.v1.RankerService/{name}" for name in (*catalogue, *index, *arena)),
    }


def test_a_watch_of_models_never_ends_by_itself() -> None:
    endless = [path for path, route in ROUTES.items() if route.endless]
    assert endless == ["/easel.model.v1.ModelService/WatchModels"]


def test_gateways_own_service_is_not_passed_through() -> None:
    assert not [path for path in ROUTES if "gateway" in path]


def test_one_upstream_needs_no_choice() -> None:
    route = ROUTES["/easel.classifier.v1.ClassifierService/Classify"]
    assert choose(route, ((SERVICE_KEY, "generator"),)) == "classifier"


@pytest.mark.parametrize("name", MODELS.upstreams)
def test_the_key_chooses(name: str) -> None:
    assert choose(MODELS, (("x-other", "1"), (SERVICE_KEY, name))) == name


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        ((SERVICE_KEY, ""),),
        ((SERVICE_KEY, "ranker"),),
        ((SERVICE_KEY, "Classifier"),),
        ((SERVICE_KEY, "classifier"), (SERVICE_KEY, "generator")),
    ],
)
def test_no_clear_choice_names_the_key_and_its_values(
    metadata: tuple[tuple[str, str], ...],
) -> None:
    with pytest.raises(InvalidInput, match="easel-service to classifier or generator") as caught:
        choose(MODELS, metadata)
    assert (caught.value.field, caught.value.limit) == (SERVICE_KEY, "classifier or generator")


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20) | st.binary(max_size=20))))
def test_random_metadata_never_chooses(metadata: list[tuple[str, str | bytes]]) -> None:
    with pytest.raises(InvalidInput):
        choose(MODELS, metadata)
