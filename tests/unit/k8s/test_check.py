"""The check of the manifests: the base passes, and every planted mistake is found."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from k8s import check

Objects = list[dict[str, Any]]
BASE = check.compose(check.BASE)


@pytest.fixture
def objects() -> Objects:
    return [dict(copy.deepcopy(manifest)) for manifest in BASE]


def find(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    return next(o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))


def pod_of(objects: Objects, name: str = "ranker") -> dict[str, Any]:
    spec: dict[str, Any] = find(objects, "Deployment", name)["spec"]["template"]["spec"]
    return spec


def container_of(objects: Objects, name: str = "ranker") -> dict[str, Any]:
    container: dict[str, Any] = pod_of(objects, name)["containers"][0]
    return container


def service_of(objects: Objects) -> dict[str, Any]:
    spec: dict[str, Any] = find(objects, "Service", "ranker-headless")["spec"]
    return spec


def set_variable(objects: Objects, name: str, value: str) -> None:
    next(v for v in container_of(objects)["env"] if v["name"] == name)["value"] = value


def remove_variable(objects: Objects, deployment: str, name: str) -> None:
    variables = container_of(objects, deployment)["env"]
    variables[:] = [variable for variable in variables if variable["name"] != name]


def test_base_is_without_fault(objects: Objects) -> None:
    assert check.faults_of(objects) == []
    names = {o["metadata"]["name"] for o in objects if o["kind"] == "Deployment"}
    assert names == {"classifier", "generator", "ranker", "gateway"}


def test_what_is_rendered_here_equals_the_composition() -> None:
    """By kubectl where there is one; the composition itself stands in where there is none."""

    def key(manifest: check.Manifest) -> tuple[str, str]:
        return manifest["kind"], manifest["metadata"]["name"]

    rendered = check.render(check.BASE, shutil.which("kubectl"))
    assert sorted(rendered, key=key) == sorted(BASE, key=key)


def probe_asks_a_port_that_is_not_there(objects: Objects) -> None:
    container_of(objects)["readinessProbe"]["grpc"]["port"] = 1234


def probe_asks_a_name_that_is_not_there(objects: Objects) -> None:
    container_of(objects)["livenessProbe"]["httpGet"]["port"] = "http"


def probe_is_missing(objects: Objects) -> None:
    del container_of(objects)["startupProbe"]


def service_selects_nobody(objects: Objects) -> None:
    service_of(objects)["selector"] = {"app.kubernetes.io/name": "rnaker"}


def deployment_does_not_select_its_pods(objects: Objects) -> None:
    find(objects, "Deployment", "ranker")["spec"]["selector"]["matchLabels"] = {"a": "b"}


def target_port_has_no_such_name(objects: Objects) -> None:
    service_of(objects)["ports"][0]["targetPort"] = "rpc"


def headless_has_a_cluster_ip(objects: Objects) -> None:
    service_of(objects)["clusterIP"] = "10.0.0.7"


def headless_is_not(objects: Objects) -> None:
    del service_of(objects)["clusterIP"]


def target_has_no_service(objects: Objects) -> None:
    set_variable(objects, "EASEL_RANKER_CLASSIFIER_TARGET", "dns:///classifer-headless:50051")


def target_has_another_port(objects: Objects) -> None:
    set_variable(objects, "EASEL_RANKER_CLASSIFIER_TARGET", "dns:///classifier-headless:50052")


def request_is_above_the_limit(objects: Objects) -> None:
    container_of(objects)["resources"]["requests"]["memory"] = "1Ti"


def limit_is_missing(objects: Objects) -> None:
    del container_of(objects)["resources"]["limits"]["cpu"]


def runs_as_root(objects: Objects) -> None:
    del pod_of(objects)["securityContext"]["runAsNonRoot"]


def user_is_root(objects: Objects) -> None:
    container_of(objects)["securityContext"]["runAsUser"] = 0


def root_is_writable(objects: Objects) -> None:
    container_of(objects)["securityContext"]["readOnlyRootFilesystem"] = False


def keeps_capabilities(objects: Objects) -> None:
    del container_of(objects)["securityContext"]["capabilities"]


def has_an_api_token(objects: Objects) -> None:
    del pod_of(objects)["automountServiceAccountToken"]


def has_another_tag(objects: Objects) -> None:
    container_of(objects)["image"] = "registry.local:5000/easel/ranker:0.0.9"


def has_no_tag(objects: Objects) -> None:
    container_of(objects)["image"] = "registry.local:5000/easel/ranker"


def is_killed_before_it_drained(objects: Objects) -> None:
    set_variable(objects, "EASEL_RANKER_DRAIN_TIMEOUT_SECONDS", "55")


def drain_is_not_set(objects: Objects) -> None:
    remove_variable(objects, "ranker", "EASEL_RANKER_DRAIN_NOTICE_SECONDS")


def calls_outgrow_the_memory(objects: Objects) -> None:
    set_variable(objects, "EASEL_RANKER_MAX_CONCURRENT_RPCS", "65")


def calls_are_not_limited(objects: Objects) -> None:
    remove_variable(objects, "ranker", "EASEL_RANKER_MAX_CONCURRENT_RPCS")


def threads_are_more_than_cores(objects: Objects) -> None:
    container_of(objects, "generator")["resources"]["limits"]["cpu"] = "2"


def threads_are_not_set(objects: Objects) -> None:
    remove_variable(objects, "generator", "EASEL_GENERATOR_THREADS")


def claim_is_not_there(objects: Objects) -> None:
    find(objects, "PersistentVolumeClaim", "ranker-data")["metadata"]["name"] = "data"


def pods_share_a_claim(objects: Objects) -> None:
    find(objects, "Deployment", "ranker")["spec"]["replicas"] = 2


def pods_overlap_while_they_are_renewed(objects: Objects) -> None:
    find(objects, "Deployment", "ranker")["spec"]["strategy"] = {"type": "RollingUpdate"}


def what_is_kept_is_on_no_claim(objects: Objects) -> None:
    set_variable(objects, "EASEL_RANKER_DATA_DIR", "/tmp/easel")


PLANTED: list[tuple[Callable[[Objects], None], str, str]] = [
    (probe_asks_a_port_that_is_not_there, "Deployment/ranker", "asks port 1234"),
    (probe_asks_a_name_that_is_not_there, "Deployment/ranker", "asks port http"),
    (probe_is_missing, "Deployment/ranker", "startupProbe is missing"),
    (service_selects_nobody, "Service/ranker-headless", "matches no Deployment's pods"),
    (deployment_does_not_select_its_pods, "Deployment/ranker", "does not match its pods"),
    (target_port_has_no_such_name, "Service/ranker-headless", "targetPort rpc"),
    (headless_has_a_cluster_ip, "Service/ranker-headless", "clusterIP is 10.0.0.7"),
    (headless_is_not, "Service/ranker-headless", "clusterIP is None, a"),
    (target_has_no_service, "Deployment/ranker", "which no Service answers"),
    (target_has_another_port, "Deployment/ranker", "which no Service answers"),
    (request_is_above_the_limit, "Deployment/ranker", "request 1Ti is above limit 4Gi"),
    (limit_is_missing, "Deployment/ranker", "cpu needs a request and a limit"),
    (runs_as_root, "Deployment/ranker", "runAsNonRoot"),
    (user_is_root, "Deployment/ranker", "runAsUser"),
    (root_is_writable, "Deployment/ranker", "readOnlyRootFilesystem"),
    (keeps_capabilities, "Deployment/ranker", "drop ALL"),
    (has_an_api_token, "Deployment/ranker", "automountServiceAccountToken"),
    (has_another_tag, "images", "do not share one tag: easel/classifier:0.1.0, "),
    (has_no_tag, "registry.local:5000/easel/ranker", "needs a tag"),
    (is_killed_before_it_drained, "Deployment/ranker", "not above the drain of 60 s"),
    (drain_is_not_set, "Deployment/ranker", "no drain notice"),
    (calls_outgrow_the_memory, "Deployment/ranker", "4Gi is below twice 65 x 33554432 bytes"),
    (calls_are_not_limited, "Deployment/ranker", "no number of calls at a time"),
    (threads_are_more_than_cores, "Deployment/generator", "4 threads on a cpu limit of 2"),
    (threads_are_not_set, "Deployment/generator", "sets no threads"),
    (claim_is_not_there, "Deployment/ranker", "claim ranker-data, which is not there"),
    (pods_share_a_claim, "Deployment/ranker", "want ranker-data at a time"),
    (pods_overlap_while_they_are_renewed, "Deployment/ranker", "want ranker-data at a time"),
    (what_is_kept_is_on_no_claim, "Deployment/ranker", "/tmp/easel, which is on no claim"),
]


@pytest.mark.parametrize(
    ("plant", "where", "message"), PLANTED, ids=[plant.__name__ for plant, _, _ in PLANTED]
)
def test_planted_mistake_is_found(
    plant: Callable[[Objects], None], where: str, message: str, objects: Objects
) -> None:
    plant(objects)
    found = check.faults_of(objects)
    assert [fault for fault in found if fault.where == where and message in fault.message]
    assert {fault.where for fault in found} <= {where, "images"}


def test_misspelt_field_is_a_fault(objects: Objects) -> None:
    container_of(objects)["readinesProbe"] = {}
    faults = check.faults_of(objects)
    assert {fault.where for fault in faults} == {"Deployment/ranker"}
    assert all("readinesProbe" in fault.message for fault in faults)


def test_object_without_a_schema_is_a_fault(objects: Objects) -> None:
    crd = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "x"}}
    faults = check.faults_of([*objects, crd])
    assert {fault.where for fault in faults} == {"ScaledObject/x"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", 0.5), ("2", 2.0), (1, 1.0), ("1Gi", 2.0**30), ("1G", 1e9), ("0.5", 0.5)],
)
def test_quantity(text: str, value: float) -> None:
    assert check.quantity(text) == value


class TestMain:
    def test_base(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert check.main([]) == 0
        assert "10 objects" in capsys.readouterr().out

    def test_fault_exits_with_1(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.copytree(check.BASE, tmp_path / "base")
        manifest = tmp_path / "base" / "gateway.yaml"
        manifest.write_text(manifest.read_text().replace("clusterIP: None", "clusterIP: 10.0.0.7"))
        assert check.main([str(tmp_path / "base")]) == 1
        assert "Service/gateway-headless: clusterIP is 10.0.0.7" in capsys.readouterr().err

    def test_nothing_to_render_exits_with_1(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert check.main([str(tmp_path)]) == 1
        assert capsys.readouterr().err

    def test_composition_refuses_what_it_does_not_know(self, tmp_path: Path) -> None:
        (tmp_path / "kustomization.yaml").write_text("resources: []\npatches: []\n")
        with pytest.raises(check.RenderError, match="patches"):
            check.render(tmp_path, kubectl=None)
