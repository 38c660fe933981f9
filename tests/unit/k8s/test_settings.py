"""Every variable that a manifest or an image sets is a setting of its service."""

from __future__ import annotations

import pytest

from gateway.config import Settings
from k8s import check
from ranker.config import RankerSettings
from services.classifier.config import ClassifierSettings
from services.core.config import ServiceSettings, load_settings
from services.generator.config import GeneratorSettings
from tests.unit.k8s.test_dockerfile import SERVICES, stage

SETTINGS: dict[str, type[ServiceSettings]] = {
    "classifier": ClassifierSettings,
    "generator": GeneratorSettings,
    "ranker": RankerSettings,
    "gateway": Settings,
}
DEPLOYMENTS = {
    m["metadata"]["name"]: m for m in check.compose(check.BASE) if m["kind"] == "Deployment"
}


def load(service: str, environ: dict[str, str]) -> ServiceSettings:
    return load_settings(SETTINGS[service], environ=environ)


def variables_of(service: str) -> dict[str, str]:
    (container,) = DEPLOYMENTS[service]["spec"]["template"]["spec"]["containers"]
    secrets = {"EASEL_RANKER_DATABASE_URL": "postgresql://someone:secret@host/easel"}
    return {item["name"]: item.get("value") or secrets[item["name"]] for item in container["env"]}


@pytest.mark.parametrize("service", SETTINGS)
def test_manifest_starts_its_service(service: str) -> None:
    settings = load(service, variables_of(service))
    (container,) = DEPLOYMENTS[service]["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": settings.port, "metrics": settings.metrics_port}


@pytest.mark.parametrize("service", SERVICES)
def test_image_exposes_the_ports_of_its_service(service: str) -> None:
    instructions = stage(service)
    pairs = dict(pair.split("=", 1) for pair in instructions["ENV"].split())
    settings = load(service, {**variables_of(service), **pairs})
    assert instructions["EXPOSE"].split() == [str(settings.port), str(settings.metrics_port)]
