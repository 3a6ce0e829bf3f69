"""A metrics server: metrics.k8s.io, by what the kubelet measures, for HorizontalPodAutoscalers on CPU and memory."""

from __future__ import annotations

import json
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.cluster import network
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.certificates import Authority
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import NODE, until_up
from tests.cluster.keda import served_from_outside

GROUP = "metrics.k8s.io"
NAMESPACE = "kube-system"
NAME = "metrics-server"
_VERSION = f"{GROUP}/v1beta1"
_WINDOW = "10s"  # over which the kubelet takes its rates


@contextmanager
def serving(cluster: Cluster) -> Iterator[None]:
    """The API has the group inside the block. Raises NotInTime."""
    folder = cluster.folder / NAME
    folder.mkdir()
    authority = Authority(folder, "ca")
    authority.issue("tls", NAME, names=[f"{NAME}.{NAMESPACE}.svc"])
    server = ThreadingHTTPServer((network.HOST, 0), _handler(cluster.api))
    server.socket = _tls(folder).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        served_from_outside(
            cluster.api,
            name=NAME,
            namespace=NAMESPACE,
            group=GROUP,
            address=(network.HOST, server.server_port),
            authority=authority.certificate,
        )
        until_up(cluster.processes, "the metrics server", lambda: cluster.api.answers(f"/apis/{_VERSION}/pods"))
        yield
    finally:
        server.shutdown()
        server.server_close()


def pods(api: Api, namespace: str, selector: str) -> list[Object]:
    """What the pods use, as PodMetrics. Raises ApiError."""
    where = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
    chosen = {
        (pod["metadata"]["namespace"], pod["metadata"]["name"]): pod["metadata"].get("labels", {})
        for pod in api.items(f"{where}?labelSelector={urllib.parse.quote(selector)}")
    }
    measured = api.get(f"/api/v1/nodes/{NODE}/proxy/stats/summary")["pods"]
    return [
        _pod_metrics(each, chosen[place])
        for each in measured
        if (place := (each["podRef"]["namespace"], each["podRef"]["name"])) in chosen and _is_measured(each)
    ]


def _is_measured(pod: Object) -> bool:
    containers = pod.get("containers", [])
    return bool(containers) and all(
        "usageNanoCores" in each.get("cpu", {}) and "workingSetBytes" in each.get("memory", {}) for each in containers
    )


def _pod_metrics(measured: Object, labels: Object) -> Object:
    containers = [
        {
            "name": each["name"],
            "usage": {"cpu": f"{each['cpu']['usageNanoCores']}n", "memory": str(each["memory"]["workingSetBytes"])},
        }
        for each in measured["containers"]
    ]
    metadata = {"name": measured["podRef"]["name"], "namespace": measured["podRef"]["namespace"], "labels": labels}
    when = min(each["cpu"]["time"] for each in measured["containers"])
    return {"metadata": metadata, "timestamp": when, "window": _WINDOW, "containers": containers}


def _handler(api: Api) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urllib.parse.urlsplit(self.path)
            place = parts.path.strip("/").split("/")[3:]
            selector = urllib.parse.parse_qs(parts.query).get("labelSelector", [""])[0]
            try:
                if not place:
                    self._answer(200, _resources())
                elif place[-1] == "pods":
                    namespace = place[1] if place[0] == "namespaces" else ""
                    self._answer(200, _listed(pods(api, namespace, selector)))
                else:
                    self._answer(404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})
            except ApiError as error:
                said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503, "message": str(error)}
                self._answer(503, said)

        def _answer(self, status: int, body: Object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    return Handler


def _resources() -> Object:
    pod = {"name": "pods", "singularName": "", "namespaced": True, "kind": "PodMetrics", "verbs": ["get", "list"]}
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": _VERSION, "resources": [pod]}


def _listed(items: list[Object]) -> Object:
    return {"kind": "PodMetricsList", "apiVersion": _VERSION, "metadata": {}, "items": items}


def _tls(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context
