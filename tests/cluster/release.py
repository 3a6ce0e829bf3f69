"""The chart as a release in the cluster, by real helm, and its pods as the cluster sees them."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import urllib.request
from pathlib import Path
from typing import Any

from tests.chart.charts import CHART
from tests.chart.image import IMAGE
from tests.cluster.api import Api, Object, until
from tests.cluster.cluster import Cluster

NAMESPACE = "llm"
NAME = "mux"
FULL = f"{NAME}-modelmuxer"
SELECTOR = f"app.kubernetes.io%2Finstance%3D{NAME}"
ACCOUNTING = "accounting"
SERVICES = ("router", "provider-proxy", "cache", ACCOUNTING, "scaler")
"""What is rolled. Not the simulated providers, which stand for what is no part of the mesh."""

_VALUES = Path(__file__).with_name("values.yaml")
_OWNER = 65532  # as whom the chart's pods run
_METRICS_OFFSET = 1_000
_A_NAMESPACES_OWN = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
_PORTS = {"router": 50051, "provider-proxy": 50052, "cache": 50053, ACCOUNTING: 50054, "scaler": 50055}


class Release:
    """The release of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.api: Api = cluster.api
        self._installed: tuple[str, ...] = ()

    def prepare(self) -> None:
        """Makes what an administrator has ready: a namespace that takes safe pods only, and a volume for the ledger."""
        folder = self._cluster.folder / f"ledger-{secrets.token_hex(4)}"  # a volume is named after it
        folder.mkdir()
        os.chown(folder, _OWNER, _OWNER)
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        volume: Object = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": folder.name},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(folder)},
            },
        }
        namespace: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
        self.api.apply(namespace, volume)

    def install(self, *values: str) -> None:
        """Installs, and waits until everything is ready. Raises ApiError."""
        self._installed = values
        self._helm("install", NAME, str(CHART), *_values(*values), "--wait", "--timeout", "300s")

    def upgrade(self, *values: str, timeout_s: int = 180) -> None:
        """Upgrades to further values, and waits until everything is ready. Raises ApiError."""
        given = _values(*self._installed, *values)
        self._helm("upgrade", NAME, str(CHART), *given, "--wait", "--timeout", f"{timeout_s}s")

    def rollback(self) -> None:
        """Goes back to the revision before. Raises ApiError."""
        self._helm("rollback", NAME, "--wait", "--timeout", "180s")

    def test(self) -> str:
        """Runs `helm test`, and returns what helm says of it. Raises ApiError."""
        return self._helm("test", NAME, "--timeout", "120s")

    def uninstall(self) -> None:
        """Uninstalls. Raises ApiError."""
        self._helm("uninstall", NAME, "--wait", "--timeout", "180s")

    def manifest(self) -> str:
        """What was installed."""
        return self._helm("get", "manifest", NAME)

    def revision(self) -> int:
        """The number of the revision that is deployed."""
        return int(json.loads(self._helm("status", NAME, "-o", "json"))["version"])

    @property
    def key(self) -> str:
        """The administrator's key, as the notes say how to get it."""
        secret = self.api.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{FULL}-auth")
        return base64.b64decode(secret["data"]["admin-key"]).decode()

    def pods(self, service: str = "") -> list[Object]:
        """The pods, of one service or all, those among them that are on their way out too."""
        selector = SELECTOR + (f",app.kubernetes.io%2Fcomponent%3D{service}" if service else "")
        return self.api.items(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={selector}")

    def ready(self, service: str) -> list[Object]:
        """Its pods that are ready and stay."""
        return [pod for pod in self.pods(service) if is_ready(pod) and not is_leaving(pod)]

    def until_settled(self, service: str, replicas: int | None = None, timeout_s: float = 90.0) -> list[Object]:
        """Waits until all of a service's pods are ready and none is on its way out. Raises NotInTime."""

        def settled() -> list[Object] | None:
            pods = self.pods(service)
            as_many = len(pods) == replicas if replicas is not None else bool(pods)
            return pods if as_many and all(is_ready(pod) and not is_leaving(pod) for pod in pods) else None

        wanted = "all" if replicas is None else str(replicas)
        return until(f"{wanted} {service} pods ready and no other there", settled, timeout_s)

    def workload(self, service: str) -> str:
        """The path of what owns a service's pods."""
        kind = "statefulsets" if service == ACCOUNTING else "deployments"
        return f"/apis/apps/v1/namespaces/{NAMESPACE}/{kind}/{FULL}-{service}"

    def restart(self, service: str) -> None:
        """Replaces every pod of a service, and waits until the last old one has gone. Raises ApiError and NotInTime."""
        before = {uid(pod) for pod in self.pods(service)}
        kind = "statefulset" if service == ACCOUNTING else "deployment"
        self.api.kubectl("rollout", "restart", f"{kind}/{FULL}-{service}", "--namespace", NAMESPACE)

        def replaced() -> bool:
            pods = self.pods(service)
            mine = {uid(pod) for pod in pods}
            return bool(pods) and not mine & before and all(is_ready(pod) and not is_leaving(pod) for pod in pods)

        until(f"every {service} pod replaced", replaced, 180.0)

    def autoscaler(self, service: str) -> Object:
        """The HorizontalPodAutoscaler of a service, KEDA's or the chart's own. Raises ApiError."""
        path = f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers"
        found = [each for each in self.api.items(path) if each["spec"]["scaleTargetRef"]["name"] == f"{FULL}-{service}"]
        return found[0] if found else {}

    def wanted(self, service: str) -> int:
        """How many replicas the autoscaler wants."""
        return int(self.autoscaler(service).get("status", {}).get("desiredReplicas", 0))

    def process_of(self, pod: Object) -> int:
        """The process id, on this machine, of what a pod runs."""
        name = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        return self._cluster.node.process_of(name)

    def leftovers(self) -> set[str]:
        """What is in the release's namespace but its own, and what bears the label elsewhere, by "kind/name"."""
        here = self._names("get", ",".join(self._kinds(namespaced=True)), "--namespace", NAMESPACE)
        label = f"app.kubernetes.io/instance={NAME}"
        elsewhere = self._names("get", ",".join(self._kinds(namespaced=False)), "--selector", label)
        return {*here, *elsewhere} - _A_NAMESPACES_OWN

    def _kinds(self, *, namespaced: bool) -> list[str]:
        listed = ("api-resources", "--verbs=list", f"--namespaced={str(namespaced).lower()}", "--output=name")
        return [kind for kind in self.api.kubectl(*listed).split() if not kind.startswith("events")]

    def _names(self, *arguments: str) -> list[str]:
        return self.api.kubectl(*arguments, "-o", "name", "--ignore-not-found").split()

    def _helm(self, *arguments: str) -> str:
        return self.api.helm(*arguments, "--namespace", NAMESPACE)


def name(pod: Object) -> str:
    """A pod's name."""
    return str(pod["metadata"]["name"])


def uid(pod: Object) -> str:
    """What tells a pod from any other that ever was."""
    return str(pod["metadata"]["uid"])


def is_ready(pod: Object) -> bool:
    """Whether its readiness probe says so."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def is_leaving(pod: Object) -> bool:
    """Whether it has been told to end."""
    return "deletionTimestamp" in pod["metadata"]


def metric(pod: Object, wanted: str, **labels: str) -> float:
    """The sum of a metric's samples at a pod. Raises OSError."""
    service = pod["metadata"]["labels"]["app.kubernetes.io/component"]
    port = _PORTS[service] + _METRICS_OFFSET
    with urllib.request.urlopen(f"http://{pod['status']['podIP']}:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    asked = [f'{label}="{value}"' for label, value in labels.items()]
    samples = [line for line in lines if re.match(rf"{wanted}[{{ ]", line) and all(part in line for part in asked)]
    return sum(float(line.rpartition(" ")[2]) for line in samples)


def _values(*values: str) -> list[str]:
    repository, _, tag = IMAGE.rpartition(":")
    given: list[Any] = ["--values", str(_VALUES), "--set", f"image.repository={repository},image.tag={tag}"]
    for value in values:
        given += ["--set", value]
    return given
