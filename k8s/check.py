"""Renders a kustomization and checks every object in it: `python k8s/check.py [FOLDER]`.

Three layers: `kubectl kustomize` (or, where kubectl is missing, a small composition in Python of
the keys that the base uses), the Kubernetes schemas in strict mode, and the mistakes that no
schema sees. Every fault is printed; any fault exits with 1. Nothing here was ever applied to a
cluster: there is none to apply it to.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import yaml

Manifest = Mapping[str, Any]

BASE: Final = Path(__file__).parent / "base"
# The oldest release whose users we answer, and the newest that the schemas know.
KUBERNETES_VERSIONS: Final = ("1.30", "1.37")
RENDER_TIMEOUT_SECONDS: Final = 60
MODEL_SERVICES: Final = frozenset({"classifier", "generator"})
PROBES: Final = ("startupProbe", "readinessProbe", "livenessProbe")
_KUSTOMIZATION_KEYS: Final = frozenset({"apiVersion", "kind", "namespace", "resources", "images"})
_CLUSTER_KINDS: Final = frozenset({"Namespace"})
_UNITS: Final = {
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One mistake and the object that has it, ``Kind/name``."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class RenderError(Exception):
    """The kustomization cannot be rendered; the message is kubectl's own."""


def render(folder: Path, kubectl: str | None) -> list[Manifest]:
    """Return the objects of the kustomization in ``folder``, by ``kubectl`` where it is given."""
    if kubectl is None:
        return compose(folder)
    done = subprocess.run(
        [kubectl, "kustomize", str(folder)],
        capture_output=True,
        text=True,
        timeout=RENDER_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RenderError(done.stderr.strip())
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def compose(folder: Path) -> list[Manifest]:
    """Return the objects of a kustomization that uses only resources, namespace and images."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    unknown = sorted(set(kustomization) - _KUSTOMIZATION_KEYS)
    if unknown:
        raise RenderError(f"only kubectl can render these keys: {', '.join(unknown)}")
    tags = {image["name"]: image["newTag"] for image in kustomization.get("images", ())}
    return [
        _composed(manifest, kustomization.get("namespace"), tags)
        for resource in kustomization["resources"]
        for manifest in yaml.safe_load_all((folder / resource).read_text(encoding="utf-8"))
    ]


def _composed(manifest: dict[str, Any], namespace: str | None, tags: Mapping[str, str]) -> Manifest:
    if namespace and manifest["kind"] not in _CLUSTER_KINDS:
        manifest["metadata"]["namespace"] = namespace
    for container in _containers(manifest):
        image = container["image"]
        container["image"] = f"{image}:{tags[image]}" if image in tags else image
    return manifest


def schema_faults(
    manifests: Iterable[Manifest], versions: Sequence[str] = KUBERNETES_VERSIONS
) -> Iterator[Fault]:
    """Check against the strict schemas; an object without a schema is a fault, not a warning."""
    for manifest in manifests:
        for version in versions:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                path = ".".join(map(str, error.path)) or "object"
                yield Fault(_where(manifest), f"{path}: {error.message} (Kubernetes {version})")
            except kubernetes_validate.SchemaNotFoundError as error:
                yield Fault(_where(manifest), error.message)


def probe_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """Every probe is there, and asks a port that its container declares."""
    for manifest, container in _all_containers(manifests):
        ports = container.get("ports", ())
        known = {port[key] for port in ports for key in ("name", "containerPort") if key in port}
        for probe in PROBES:
            port = _probe_port(container.get(probe, {}))
            if port is None:
                yield Fault(_where(manifest), f"{probe} is missing or has no grpc or httpGet port")
            elif port not in known:
                yield Fault(_where(manifest), f"{probe} asks port {port}, not a containerPort")


def selector_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """Deployments select their own pods, and every Service selects the pods of some Deployment."""
    pods = [_pod_labels(manifest) for manifest in _of_kind(manifests, "Deployment")]
    for manifest in _of_kind(manifests, "Deployment"):
        selector = manifest["spec"]["selector"].get("matchLabels", {})
        if not selector or not _selects(selector, _pod_labels(manifest)):
            yield Fault(_where(manifest), f"selector {selector} does not match its pods' labels")
    for manifest in _of_kind(manifests, "Service"):
        selector = manifest["spec"].get("selector", {})
        if not selector or not any(_selects(selector, labels) for labels in pods):
            yield Fault(_where(manifest), f"selector {selector} matches no Deployment's pods")


def service_port_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """Every targetPort is a port name of the pods that the Service selects."""
    for manifest in _of_kind(manifests, "Service"):
        names = {
            port.get("name")
            for deployment in _of_kind(manifests, "Deployment")
            if _selects(manifest["spec"].get("selector", {}), _pod_labels(deployment))
            for container in _containers(deployment)
            for port in container.get("ports", ())
        }
        for port in manifest["spec"].get("ports", ()):
            if port.get("targetPort") not in names:
                yield Fault(
                    _where(manifest),
                    f"targetPort {port.get('targetPort')} is not a named port of its pods",
                )


def headless_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """Services called headless are: with a cluster IP a gRPC channel would stick to one pod."""
    for manifest in _of_kind(manifests, "Service"):
        name, address = manifest["metadata"]["name"], manifest["spec"].get("clusterIP")
        if name.endswith("-headless") and address != "None":
            yield Fault(_where(manifest), f"clusterIP is {address}, a headless Service has None")


def target_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """Every EASEL_*_TARGET names a Service and one of its ports."""
    known = {
        f"dns:///{service['metadata']['name']}:{port['port']}"
        for service in _of_kind(manifests, "Service")
        for port in service["spec"].get("ports", ())
    }
    for manifest, container in _all_containers(manifests):
        for name, value in _environment(container).items():
            if name.endswith("_TARGET") and value not in known:
                yield Fault(_where(manifest), f"{name} is {value}, which no Service answers")


def resource_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """CPU and memory have a request and a limit, and no request is above its limit."""
    for manifest, container in _all_containers(manifests):
        resources = container.get("resources", {})
        for kind in ("cpu", "memory"):
            request = resources.get("requests", {}).get(kind)
            limit = resources.get("limits", {}).get(kind)
            if request is None or limit is None:
                yield Fault(_where(manifest), f"{kind} needs a request and a limit")
            elif quantity(request) > quantity(limit):
                yield Fault(_where(manifest), f"{kind} request {request} is above limit {limit}")


def memory_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """Half of the memory limit holds a message of the largest size for every call; the rest is for
    the process, its model and decoded pictures."""
    for manifest, container in _all_containers(manifests):
        message = _setting(container, "MAX_MESSAGE_BYTES")
        calls = _setting(container, "MAX_CONCURRENT_RPCS")
        limit = container.get("resources", {}).get("limits", {}).get("memory", 0)
        if message is None or calls is None:
            yield Fault(
                _where(manifest), "sets no largest message, or no number of calls at a time"
            )
        elif 2 * float(message) * float(calls) > quantity(limit):
            yield Fault(
                _where(manifest), f"memory limit {limit} is below twice {calls} x {message} bytes"
            )


def thread_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """A model has as many threads as its container has cores."""
    for manifest, container in _all_containers(manifests):
        threads = _setting(container, "THREADS")
        cores = container.get("resources", {}).get("limits", {}).get("cpu", 0)
        if container["name"] in MODEL_SERVICES and threads is None:
            yield Fault(_where(manifest), "sets no threads: PyTorch takes all cores of the node")
        elif threads is not None and float(threads) != quantity(cores):
            yield Fault(_where(manifest), f"has {threads} threads on a cpu limit of {cores}")


def security_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """Pods run as a numeric non-root user, read-only, without capabilities or API token."""
    for manifest, container in _all_containers(manifests):
        pod = manifest["spec"]["template"]["spec"]
        context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        wanted = {
            "runAsNonRoot must be true": context.get("runAsNonRoot") is True,
            "runAsUser must be above 0": context.get("runAsUser", 0) > 0,
            "readOnlyRootFilesystem must be true": context.get("readOnlyRootFilesystem") is True,
            "allowPrivilegeEscalation must be false": context.get("allowPrivilegeEscalation")
            is False,
            "capabilities must drop ALL": context.get("capabilities", {}).get("drop") == ["ALL"],
            "seccompProfile must be RuntimeDefault": context.get("seccompProfile", {}).get("type")
            == "RuntimeDefault",
            "automountServiceAccountToken must be false": pod.get("automountServiceAccountToken")
            is False,
        }
        yield from (Fault(_where(manifest), rule) for rule, holds in wanted.items() if not holds)


def image_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """All images carry one tag, so that services of one release run together; none is latest."""
    tags = {
        container["image"]: container["image"].rpartition("/")[2].partition(":")[2]
        for _, container in _all_containers(manifests)
    }
    for image, tag in tags.items():
        if tag in ("", "latest"):
            yield Fault(image, "needs a tag of a release")
    if len(set(tags.values())) > 1:
        yield Fault("images", f"do not share one tag: {', '.join(sorted(tags))}")


def drain_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """A pod is given longer than its service's own drain takes."""
    for manifest, container in _all_containers(manifests):
        drain = [
            float(value)
            for name, value in _environment(container).items()
            if name.endswith(("_DRAIN_NOTICE_SECONDS", "_DRAIN_TIMEOUT_SECONDS"))
        ]
        grace = manifest["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)
        if len(drain) != 2:
            yield Fault(_where(manifest), "sets no drain notice and timeout to compare with")
        elif grace <= sum(drain):
            yield Fault(
                _where(manifest),
                f"terminationGracePeriodSeconds {grace} is not above the drain of {sum(drain):g} s",
            )


def volume_faults(manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """What a service keeps is on a claim that is there, and no two pods have it at a time."""
    claims = {
        each["metadata"]["name"]: each for each in _of_kind(manifests, "PersistentVolumeClaim")
    }
    for manifest, container in _all_containers(manifests):
        mounted = _claims_mounted(manifest, container)
        for path, name in mounted.items():
            if name not in claims:
                yield Fault(_where(manifest), f"{path} is on the claim {name}, which is not there")
            elif "ReadWriteOnce" in claims[name]["spec"]["accessModes"] and not _is_alone(manifest):
                yield Fault(
                    _where(manifest),
                    f"two of its pods may want {name} at a time: it needs one replica and Recreate",
                )
        directory = _setting(container, "DATA_DIR")
        if directory is not None and directory not in mounted:
            yield Fault(_where(manifest), f"keeps what it has in {directory}, which is on no claim")


OWN_CHECKS: Final[tuple[Callable[[Sequence[Manifest]], Iterator[Fault]], ...]] = (
    probe_faults,
    selector_faults,
    service_port_faults,
    headless_faults,
    target_faults,
    resource_faults,
    memory_faults,
    thread_faults,
    security_faults,
    image_faults,
    drain_faults,
    volume_faults,
)


def faults_of(manifests: Sequence[Manifest]) -> list[Fault]:
    """Return the faults of all layers; own checks need objects that fit their schemas."""
    found = list(schema_faults(manifests))
    return found or [fault for check in OWN_CHECKS for fault in check(manifests)]


def quantity(text: str | float) -> float:
    """Return a Kubernetes quantity ("500m", "2Gi", 1) as a number of cores or bytes."""
    digits = str(text).rstrip("mkMGTi")
    unit = str(text)[len(digits) :]
    return float(digits) * (_UNITS[unit] if unit else 1.0)


def _where(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def _of_kind(manifests: Iterable[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def _containers(manifest: Manifest) -> list[dict[str, Any]]:
    pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
    return [*pod.get("initContainers", ()), *pod.get("containers", ())]


def _all_containers(manifests: Iterable[Manifest]) -> Iterator[tuple[Manifest, dict[str, Any]]]:
    for manifest in _of_kind(manifests, "Deployment"):
        for container in _containers(manifest):
            yield manifest, container


def _pod_labels(deployment: Manifest) -> Mapping[str, str]:
    labels: Mapping[str, str] = deployment["spec"]["template"]["metadata"].get("labels", {})
    return labels


def _selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return selector.items() <= labels.items()


def _probe_port(probe: Mapping[str, Any]) -> str | int | None:
    asked: Mapping[str, Any] = probe.get("grpc") or probe.get("httpGet") or {}
    return asked.get("port")


def _environment(container: Mapping[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container.get("env", ()) if "value" in item}


def _setting(container: Mapping[str, Any], name: str) -> str | None:
    return _environment(container).get(f"EASEL_{container['name']}_{name}".upper())


def _claims_mounted(deployment: Manifest, container: Mapping[str, Any]) -> dict[str, str]:
    """The claims that a container has, by where."""
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in deployment["spec"]["template"]["spec"].get("volumes", ())
        if "persistentVolumeClaim" in volume
    }
    return {
        mount["mountPath"]: claims[mount["name"]]
        for mount in container.get("volumeMounts", ())
        if mount["name"] in claims
    }


def _is_alone(deployment: Manifest) -> bool:
    """Whether its pods are one at a time, while it is renewed too."""
    spec: Mapping[str, Any] = deployment["spec"]
    strategy = spec.get("strategy", {}).get("type", "RollingUpdate")
    return bool(spec.get("replicas", 1) == 1 and strategy == "Recreate")


def main(arguments: Sequence[str]) -> int:
    folder = Path(arguments[0]) if arguments else BASE
    kubectl = shutil.which("kubectl")
    try:
        manifests = render(folder, kubectl)
    except (RenderError, OSError) as error:
        print(f"{folder}: {error}", file=sys.stderr)
        return 1
    faults = faults_of(manifests)
    for fault in faults:
        print(fault, file=sys.stderr)
    means = "kubectl kustomize" if kubectl else "our own composition, as kubectl is missing"
    print(f"{folder.name}: {len(manifests)} objects by {means}, {len(faults)} faults")
    return 1 if faults or not manifests else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
