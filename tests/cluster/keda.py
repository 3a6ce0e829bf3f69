"""KEDA's operator and metrics adapter, as plain programs beside the API server."""

import base64
from pathlib import Path

from tests.cluster import network, programs
from tests.cluster.api import Api, Object, until
from tests.cluster.certificates import Authority
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import until_up

NAMESPACE = "keda"
EXTERNAL_METRICS = "external.metrics.k8s.io"
_ADAPTER_PORT = 16643
_OPERATOR_PORT = 19666
_PROGRAMS = ("keda-operator", "keda-adapter")


def start(cluster: Cluster) -> None:
    """Starts KEDA, and waits until the cluster has its kinds and its metrics. Raises NotInTime."""
    api, keys = cluster.api, cluster.folder / NAMESPACE
    keys.mkdir()
    authority = Authority(keys, "ca")
    names = [f"{name}.{NAMESPACE}.svc" for name in ("keda-operator", "keda-metrics-apiserver")]
    authority.issue("tls", "keda", names=["localhost", "127.0.0.1", *names])
    api.kubectl("apply", "--server-side", "-f", str(programs.keda("crds")))
    api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    served_from_outside(
        api,
        name="keda-metrics-apiserver",
        namespace=NAMESPACE,
        group=EXTERNAL_METRICS,
        address=(network.NODE, _ADAPTER_PORT),
        authority=authority.certificate,
    )
    _start_programs(cluster, keys)
    until_up(cluster.processes, "KEDA", lambda: api.answers(f"/apis/{EXTERNAL_METRICS}/v1beta1"))


def stop(cluster: Cluster) -> None:
    """Ends KEDA, and takes its kinds and its metrics out of the cluster."""
    # Its own objects want it to take leave of them first; the release that made them is gone.
    cluster.api.delete(f"/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.{EXTERNAL_METRICS}")
    cluster.api.kubectl("delete", "-f", str(programs.keda("crds")), "--wait=false", "--ignore-not-found")
    cluster.processes.stop(*_PROGRAMS)
    cluster.api.delete(f"/api/v1/namespaces/{NAMESPACE}")
    until("KEDA's kinds gone", lambda: not cluster.api.answers("/apis/keda.sh/v1alpha1"))


def served_from_outside(
    api: Api, *, name: str, namespace: str, group: str, address: tuple[str, int], authority: Path
) -> None:
    """Has the API server ask a program outside the cluster for a group of its API."""
    host, port = address
    metadata = {"name": name, "namespace": namespace}
    # A Service without selector and an EndpointSlice of its own: an ExternalName is refused here.
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"ports": [{"port": 443, "targetPort": port}]},
    }
    endpoints: Object = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"port": port, "protocol": "TCP", "name": ""}],
        "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
    }
    registration: Object = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"v1beta1.{group}"},
        "spec": {
            "group": group,
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "caBundle": base64.b64encode(authority.read_bytes()).decode(),
            "service": {**metadata, "port": 443},
        },
    }
    api.apply(service, endpoints, registration)


def _start_programs(cluster: Cluster, keys: Path) -> None:
    kubeconfig = cluster.keys / "admin.kubeconfig"
    names = keys / "resolv.conf"
    network.write_resolv_conf(names, NAMESPACE)
    environ = {
        "POD_NAMESPACE": NAMESPACE,
        "KEDA_CLUSTER_OBJECT_NAMESPACE": NAMESPACE,
        "WATCH_NAMESPACE": "",
        "KUBECONFIG": str(kubeconfig),
    }
    operator: list[str | Path] = [
        programs.keda("operator"),
        f"--cert-dir={keys}",
        f"--kubeconfig={kubeconfig}",
        "--metrics-bind-address=127.0.0.1:18080",
        "--health-probe-bind-address=127.0.0.1:18081",
        f"--metrics-service-bind-address=127.0.0.1:{_OPERATOR_PORT}",
        "--enable-apiservice-patching=false",
        "--enable-webhook-patching=false",
        "--zap-log-level=info",
    ]
    adapter: list[str | Path] = [
        programs.keda("adapter"),
        f"--cert-dir={keys}",
        f"--secure-port={_ADAPTER_PORT}",
        f"--tls-cert-file={keys}/tls.crt",
        f"--tls-private-key-file={keys}/tls.key",
        f"--client-ca-file={cluster.keys}/ca.crt",
        f"--lister-kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--port=18082",
        f"--metrics-service-address=localhost:{_OPERATOR_PORT}",
    ]
    for name, command in zip(_PROGRAMS, (operator, adapter), strict=True):
        # The operator looks the scaler's name up as a pod would.
        cluster.processes.start(name, command, environ=environ, inside=network.with_names(names))
