"""etcd, API server, controller manager and scheduler, as plain programs."""

from dataclasses import dataclass
from pathlib import Path

from tests.cluster import network, programs
from tests.cluster.api import Api, NotInTime, until
from tests.cluster.certificates import Authority, write_kubeconfig, write_signing_key
from tests.cluster.processes import Processes
from tests.ports import free_port

NODE = "node-1"
_START_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the API server and its etcd listen."""

    host: str
    advertised: str
    """The address that the cluster's own Service has for it; a loopback one is refused."""
    port: int
    etcd_port: int
    etcd_peer_port: int

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.host}:{self.port}"

    @property
    def etcd(self) -> str:
        """etcd's URL for the API server."""
        return f"http://127.0.0.1:{self.etcd_port}"


IN_THE_NETWORK = Place(host=network.NODE, advertised=network.NODE, port=6443, etcd_port=2379, etcd_peer_port=2380)

_CLIENTS = {  # kubeconfigs by name: who it is, and of which group
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "kube-proxy": ("system:kube-proxy", ""),
}


def on_loopback() -> Place:
    """A place outside the cluster's network, for an API server that no node is to reach. No root is needed there."""
    port, etcd_port, etcd_peer_port = (free_port() for _ in range(3))
    return Place(
        host="127.0.0.1", advertised="192.0.2.1", port=port, etcd_port=etcd_port, etcd_peer_port=etcd_peer_port
    )


def start_api_server(processes: Processes, folder: Path, place: Place) -> Api:
    """Starts etcd and the API server; keys and kubeconfigs lie in `folder`/keys. Raises NotInTime."""
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    _write_keys(keys, place)
    inside = network.inside() if place is IN_THE_NETWORK else []
    processes.start("etcd", _etcd(folder / "etcd", place), inside=inside)
    processes.start("kube-apiserver", _api_server(keys, place), inside=inside)
    api = Api(place.server, keys, keys / "admin.kubeconfig")
    until_up(processes, "the API server", lambda: api.answers("/readyz"))
    return api


def start(processes: Processes, folder: Path) -> Api:
    """Starts the control plane in the cluster's network. Raises NotInTime."""
    api, keys = start_api_server(processes, folder, IN_THE_NETWORK), folder / "keys"
    processes.start("kube-controller-manager", _controller_manager(keys))
    processes.start("kube-scheduler", _scheduler(keys))
    until_up(processes, "the first service account", lambda: api.answers(_ACCOUNT))
    return api


_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


def until_up(processes: Processes, what: str, condition: object) -> None:
    """Waits for a part of the cluster, and says why if it has ended. Raises NotInTime."""
    assert callable(condition)

    def looked() -> bool:
        for name, status in processes.ended().items():
            raise NotInTime(f"{name} has ended with {status}:\n{processes.log(name)}")
        return bool(condition())

    until(what, looked, _START_S)


def _write_keys(keys: Path, place: Place) -> None:
    authority, front = Authority(keys, "ca"), Authority(keys, "front-ca")
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    authority.issue("apiserver", "kube-apiserver", names=[*names, "127.0.0.1", network.KUBERNETES, place.host])
    authority.issue("kubelet-server", f"system:node:{NODE}", names=[NODE, "127.0.0.1", network.NODE])
    authority.issue("apiserver-kubelet", "kube-apiserver-kubelet-client", group="system:masters")
    front.issue("front-proxy", "front-proxy")
    write_signing_key(keys, "tokens")
    for name, (subject, group) in _CLIENTS.items():
        authority.issue(name, subject, group=group)
        write_kubeconfig(keys, name, place.server, authority.certificate)


def _etcd(data: Path, place: Place) -> list[str]:
    peers = f"http://127.0.0.1:{place.etcd_peer_port}"
    return [
        programs.kubernetes("etcd"),
        f"--data-dir={data}",
        "--name=cluster",
        "--log-level=warn",
        "--unsafe-no-fsync",
        f"--listen-client-urls={place.etcd}",
        f"--advertise-client-urls={place.etcd}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=cluster={peers}",
    ]


def _api_server(keys: Path, place: Place) -> list[str]:
    return [
        programs.kubernetes("kube-apiserver"),
        f"--etcd-servers={place.etcd}",
        f"--bind-address={place.host}",
        f"--advertise-address={place.advertised}",
        f"--secure-port={place.port}",
        f"--tls-cert-file={keys}/apiserver.crt",
        f"--tls-private-key-file={keys}/apiserver.key",
        f"--client-ca-file={keys}/ca.crt",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={keys}/tokens.pub",
        f"--service-account-signing-key-file={keys}/tokens.key",
        f"--service-cluster-ip-range={network.SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--kubelet-client-certificate={keys}/apiserver-kubelet.crt",
        f"--kubelet-client-key={keys}/apiserver-kubelet.key",
        f"--kubelet-certificate-authority={keys}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={keys}/front-ca.crt",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={keys}/front-proxy.crt",
        f"--proxy-client-key-file={keys}/front-proxy.key",
        "--enable-aggregator-routing",  # to endpoints: what serves an aggregated API may run outside the cluster
        "--profiling=false",
    ]


def _controller_manager(keys: Path) -> list[str]:
    return [
        programs.kubernetes("kube-controller-manager"),
        f"--kubeconfig={keys}/controller-manager.kubeconfig",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--use-service-account-credentials",
        f"--root-ca-file={keys}/ca.crt",
        f"--service-account-private-key-file={keys}/tokens.key",
        "--allocate-node-cidrs=false",
        f"--service-cluster-ip-range={network.SERVICES}",
        f"--cluster-signing-cert-file={keys}/ca.crt",
        f"--cluster-signing-key-file={keys}/ca.key",
        # A cluster has 15 s, 5 min and 30 s: the same decisions, sooner.
        "--horizontal-pod-autoscaler-sync-period=2s",
        "--horizontal-pod-autoscaler-downscale-stabilization=5s",
        "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
        "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
    ]


def _scheduler(keys: Path) -> list[str]:
    return [
        programs.kubernetes("kube-scheduler"),
        f"--kubeconfig={keys}/scheduler.kubeconfig",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--leader-elect=false",
        "--secure-port=0",
    ]
