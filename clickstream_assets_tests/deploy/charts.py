"""The manifests that the chart in helm/ renders, as Kubernetes and Dagster would take them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from clickstream_assets_tests.deploy.files import ROOT

CHART = ROOT / "helm"
RELEASE = "shop"
NAMESPACE = "clickstream"
KUBERNETES = kubernetes_validate.latest_version()
NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"

Manifest = Mapping[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm, which `make helm` builds into the venv; skips the test where it could not."""
    program = Path(sys.prefix, "bin", "helm")
    if not program.exists():
        reason = (
            "Go is there to build it with: `make helm` says what went wrong"
            if shutil.which("go")
            else "there is no Go to build it with"
        )
        pytest.skip(f"Helm is missing, so the chart is not tested; {reason}")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def template(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Render the chart as an install would."""
    versions = ("--kube-version", KUBERNETES)
    return helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, *versions, *arguments)


def render(*arguments: str) -> Chart:
    """Render the chart; it must be possible."""
    rendered = template(*arguments)
    assert rendered.returncode == 0, rendered.stderr
    return Chart([manifest for manifest in yaml.safe_load_all(rendered.stdout) if manifest])


@dataclass(frozen=True)
class Pod:
    """A pod that a manifest asks for."""

    owner: str
    labels: Mapping[str, str]
    spec: Mapping[str, Any]

    @property
    def component(self) -> str:
        """The part of the release that it is."""
        return self.labels[COMPONENT]

    @property
    def container(self) -> Mapping[str, Any]:
        """Its container; of several, the one that does what the component is for."""
        container, *others = self.spec["containers"]
        assert not others or container["name"] == self.component
        return container

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """All of its containers."""
        return self.spec["containers"]

    @property
    def named_ports(self) -> dict[str, int]:
        """The ports that its containers name."""
        ports = [port for container in self.containers for port in container.get("ports", [])]
        return {port["name"]: port["containerPort"] for port in ports}

    def mounts(self, kind: str = "") -> dict[str, str]:
        """Where that container has its volumes, by their names; only those of a kind, if one is given."""
        of_kind = {volume["name"] for volume in self.spec["volumes"] if kind in volume} if kind else None
        return {
            mount["name"]: mount["mountPath"]
            for mount in self.container["volumeMounts"]
            if of_kind is None or mount["name"] in of_kind
        }

    def port(self, name: str | int) -> int:
        """The number of a port that a container of it names."""
        return name if isinstance(name, int) else self.named_ports[name]

    def environment(self, chart: Chart) -> dict[str, str]:
        """Its variables; of what is only known once it runs, a value that could be."""
        variables: dict[str, str] = {}
        for source in self.container.get("envFrom", []):
            for kind, field in (("ConfigMap", "data"), ("Secret", "stringData")):
                reference = source.get(f"{kind[0].lower()}{kind[1:]}Ref")
                if reference and (manifest := chart.find(kind, reference["name"])):
                    variables |= manifest[field]
        for variable in self.container.get("env", []):
            variables[variable["name"]] = (
                variable["value"] if "value" in variable else _once_it_runs(variable["valueFrom"])
            )
        return variables


class Chart:
    """The manifests of one set of values."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self.manifests = manifests

    def of_kind(self, kind: str) -> list[Manifest]:
        """All manifests of a kind."""
        return [manifest for manifest in self.manifests if manifest["kind"] == kind]

    def find(self, kind: str, name: str) -> Manifest | None:
        """The manifest of this kind and name; None where the chart does not make it."""
        found = [manifest for manifest in self.of_kind(kind) if manifest["metadata"]["name"] == name]
        assert len(found) <= 1, f"two of {kind} {name}"
        return found[0] if found else None

    @cached_property
    def settings(self) -> dict[str, str]:
        """The variables that all processes share."""
        settings = self.find("ConfigMap", f"{RELEASE}-clickstream-assets")
        assert settings
        return settings["data"]

    @cached_property
    def dagster_yaml(self) -> str:
        """The configuration of Dagster's instance."""
        dagster = self.find("ConfigMap", f"{RELEASE}-clickstream-assets-dagster")
        assert dagster
        return dagster["data"]["dagster.yaml"]

    @cached_property
    def pods(self) -> list[Pod]:
        """The pods of the release; those that Dagster or Spark make later are not in it."""
        specs = [
            (manifest["kind"], manifest["spec"].get("jobTemplate", manifest)["spec"])
            for manifest in self.manifests
            if "spec" in manifest
        ]
        return [
            Pod(kind, template["metadata"]["labels"], template["spec"])
            for kind, spec in specs
            if (template := spec.get("template"))
        ]

    @cached_property
    def executor(self) -> Pod | None:
        """The executors' pod, where Kubernetes is Spark's cluster."""
        form = self.find("ConfigMap", f"{RELEASE}-clickstream-assets-spark-executor")
        if not form:
            return None
        pod = yaml.safe_load(form["data"]["pod.yaml"])
        return Pod("spark", pod["metadata"]["labels"], pod["spec"])

    def pod(self, component: str) -> Pod:
        """The pod of a component."""
        (pod,) = [pod for pod in self.pods if pod.component == component]
        return pod

    def lets_in(self, source: Pod | Mapping[str, str], target: Pod, port: int) -> bool:
        """Return whether the network policies let a pod of this namespace reach a port of another.

        A pod that no policy selects is reached by everybody.
        """
        labels = source.labels if isinstance(source, Pod) else source
        policies = [
            policy["spec"]
            for policy in self.of_kind("NetworkPolicy")
            if selects(policy["spec"]["podSelector"], target.labels)
        ]
        rules = [rule for policy in policies for rule in policy.get("ingress", [])]
        return not policies or any(_is_from(rule, labels) and _is_to(rule, target, port) for rule in rules)


# Of those that have a form.
_SECRETS = {
    "ALERT_WEBHOOK_URL": "https://hooks.example.com/alerts",
    "INCIDENT_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "API_KEYS": f"analyst:read:{'ab' * 32}",
    "SESSION_SECRET": "s" * 32,
    "INCIDENT_WEBHOOK_URLS": "https://hooks.example.com/services/x",
}


def _once_it_runs(source: Mapping[str, Any]) -> str:
    match source:
        case {"fieldRef": {"fieldPath": "status.podIP"}}:
            return "10.1.2.3"
        case {"fieldRef": {"fieldPath": "metadata.name"}}:
            return "a-pod"
        case {"resourceFieldRef": {"resource": "limits.cpu"}}:
            return "2"
        case {"secretKeyRef": {"key": key}}:
            return _SECRETS.get(key, f"the {key} of a Secret")
    raise AssertionError(f"nobody knows {source}")


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a label selector selects what has these labels."""
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _is_from(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    peers = rule.get("from", [])
    return not peers or any(
        "podSelector" in peer and "namespaceSelector" not in peer and selects(peer["podSelector"], labels)
        for peer in peers
    )


def _is_to(rule: Mapping[str, Any], target: Pod, port: int) -> bool:
    ports = rule.get("ports", [])
    named = target.named_ports
    return not ports or any(named.get(entry["port"], entry["port"]) == port for entry in ports)


def references(spec: Any) -> Iterator[tuple[str, str]]:
    """Kind and name of everything that a pod's spec needs to be there."""
    match spec:
        case dict():
            for key, value in spec.items():
                match key, value:
                    case "configMapRef" | "configMapKeyRef" | "configMap", {"name": name}:
                        yield "ConfigMap", name
                    case "secretRef" | "secretKeyRef", {"name": name}:
                        yield "Secret", name
                    case "secret", {"secretName": name}:
                        yield "Secret", name
                    case "persistentVolumeClaim", {"claimName": name}:
                        yield "PersistentVolumeClaim", name
                    case "serviceAccountName", name:
                        yield "ServiceAccount", name
                    case "imagePullSecrets", secrets:
                        yield from (("Secret", secret["name"]) for secret in secrets)
                    case _:
                        yield from references(value)
        case list():
            for item in spec:
                yield from references(item)
