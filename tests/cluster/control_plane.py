"""etcd, API server, controller manager and scheduler, as plain programs."""

from pathlib import Path

from tests.cluster import network, programs
from tests.cluster.api import Api, NotInTime, until
from tests.cluster.certificates import Authority, write_kubeconfig, write_signing_key
from tests.cluster.processes import Processes

PORT = 6443
SERVER = f"https://{network.NODE}:{PORT}"
NODE = "node-1"
_ETCD, _ETCD_PEER = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
_START_S = 120.0

_CLIENTS = {  # kubeconfigs by name: who it is, and of which group
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "kube-proxy": ("system:kube-proxy", ""),
}


def start(processes: Processes, folder: Path) -> Api:
    """Starts the control plane; its keys and kubeconfigs lie in `folder`/keys. Raises NotInTime."""
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    _write_keys(keys)
    processes.start("etcd", _etcd(folder / "etcd"))
    processes.start("kube-apiserver", _api_server(keys))
    api = Api(SERVER, keys, keys / "admin.kubeconfig")
    until_up(processes, "the API server", lambda: api.answers("/readyz"))
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


def _write_keys(keys: Path) -> None:
    authority, front = Authority(keys, "ca"), Authority(keys, "front-ca")
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    authority.issue("apiserver", "kube-apiserver", names=[*names, "127.0.0.1", network.KUBERNETES, network.NODE])
    authority.issue("kubelet-server", f"system:node:{NODE}", names=[NODE, "127.0.0.1", network.NODE])
    authority.issue("apiserver-kubelet", "kube-apiserver-kubelet-client", group="system:masters")
    front.issue("front-proxy", "front-proxy")
    write_signing_key(keys, "tokens")
    for name, (subject, group) in _CLIENTS.items():
        authority.issue(name, subject, group=group)
        write_kubeconfig(keys, name, SERVER, authority.certificate)


def _etcd(data: Path) -> list[str]:
    return [
        programs.kubernetes("etcd"),
        f"--data-dir={data}",
        "--name=cluster",
        "--log-level=warn",
        "--unsafe-no-fsync",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        f"--listen-peer-urls={_ETCD_PEER}",
        f"--initial-advertise-peer-urls={_ETCD_PEER}",
        f"--initial-cluster=cluster={_ETCD_PEER}",
    ]


def _api_server(keys: Path) -> list[str]:
    return [
        programs.kubernetes("kube-apiserver"),
        f"--etcd-servers={_ETCD}",
        f"--bind-address={network.NODE}",
        f"--advertise-address={network.NODE}",
        f"--secure-port={PORT}",
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
