"""One real node: containerd and runc, a bridge for pods, kubelet, kube-proxy, and CoreDNS beside it."""

import json
import subprocess
from pathlib import Path

from tests.cluster import network, programs
from tests.cluster.api import Api
from tests.cluster.control_plane import NODE, until_up
from tests.cluster.processes import Processes

KUBELET_PORT = 20250
PAUSE = "localhost/pause:1"

_CONTAINERD = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "{folder}/socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""

# As kubeadm has it: names of the cluster are not cached, so that replicas are found as they come.
_COREFILE = """
.:53 {{
  errors
  ready 127.0.0.1:8181
  cache 30 {{
    disable success {domain}
    disable denial {domain}
  }}
  kubernetes {domain} in-addr.arpa {{
    kubeconfig {keys}/admin.kubeconfig cluster
    ttl 30
  }}
}}
"""


class Node:
    """The node whose state lies in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._containerd = folder / "containerd"
        self._kubelet = folder / "kubelet"
        self._keys = folder / "keys"

    def start_runtime(self, processes: Processes) -> None:
        """Starts containerd: images can come in. Raises NotInTime."""
        cni = self._containerd / "cni"
        cni.mkdir(parents=True)
        (cni / "10-bridge.conflist").write_text(json.dumps(_bridge(self._containerd / "addresses")))
        config = self._containerd / "config.toml"
        config.write_text(_CONTAINERD.format(folder=self._containerd, pause=PAUSE, plugins=programs.PLUGINS))
        processes.start("containerd", ["containerd", "--config", config])
        until_up(processes, "containerd", lambda: self._ctr("version") is not None)

    def load_image(self, archive: Path) -> None:
        """Takes in an image as Docker saves it. Raises CalledProcessError."""
        subprocess.run([*self._client, "images", "import", str(archive)], check=True, stdout=subprocess.DEVNULL)

    def start(self, processes: Processes, api: Api) -> None:
        """Starts what makes it a node, and waits until it is ready. Raises NotInTime."""
        self._kubelet.mkdir()
        config = self._kubelet / "config.json"
        config.write_text(json.dumps(self._kubelet_configuration()))
        kubelet = [
            programs.kubernetes("kubelet"),
            f"--kubeconfig={self._keys}/kubelet.kubeconfig",
            f"--config={config}",
            f"--root-dir={self._kubelet}",
            f"--cert-dir={self._kubelet}/pki",
            f"--hostname-override={NODE}",
            f"--node-ip={network.NODE}",
        ]
        processes.start("kubelet", kubelet)
        proxy = self._folder / "kube-proxy.json"
        proxy.write_text(json.dumps(self._proxy_configuration()))
        processes.start("kube-proxy", [programs.kubernetes("kube-proxy"), f"--config={proxy}"])
        names = self._folder / "Corefile"
        names.write_text(_COREFILE.format(domain=network.DOMAIN, keys=self._keys))
        processes.start("coredns", [programs.kubernetes("coredns"), "-conf", names])
        until_up(processes, "the node", lambda: _is_ready(api))

    def process_of(self, container_id: str) -> int:
        """The process id, on this machine, of a container's first process."""
        listing = self._ctr("tasks", "ls") or ""
        fields = next(line.split() for line in listing.splitlines() if line.startswith(container_id))
        return int(fields[1])

    def containers(self) -> int:
        """How many containers run, each pod's own one among them."""
        return len((self._ctr("tasks", "ls", "-q") or "").split())

    def stop_containers(self) -> None:
        """Ends all containers, for who has no kubelet any more."""
        for task in (self._ctr("tasks", "ls", "-q") or "").split():
            self._ctr("tasks", "kill", "-s", "KILL", task)
        for container in (self._ctr("containers", "ls", "-q") or "").split():
            self._ctr("tasks", "rm", "-f", container)
            self._ctr("containers", "rm", container)

    @property
    def _client(self) -> list[str]:
        return ["ctr", "--address", str(self._containerd / "socket"), "--namespace", "k8s.io"]

    def _ctr(self, *arguments: str) -> str | None:
        command = ["timeout", "10", *self._client, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return None if done.returncode else done.stdout

    def _kubelet_configuration(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": network.NODE,
            "port": KUBELET_PORT,
            "healthzPort": 0,
            "readOnlyPort": 0,
            "authentication": {
                "x509": {"clientCAFile": f"{self._keys}/ca.crt"},
                "webhook": {"enabled": True},
                "anonymous": {"enabled": False},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{self._keys}/kubelet-server.crt",
            "tlsPrivateKeyFile": f"{self._keys}/kubelet-server.key",
            "containerRuntimeEndpoint": f"unix://{self._containerd}/socket",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "enforceNodeAllocatable": [],
            "enableControllerAttachDetach": False,
            "evictionHard": {"memory.available": "100Mi"},
            "imageGCHighThresholdPercent": 100,
            "resolvConf": "",
            "clusterDNS": [network.DNS],
            "clusterDomain": network.DOMAIN,
            "podLogsDir": f"{self._kubelet}/pod-logs",
            "volumePluginDir": f"{self._kubelet}/plugins",
            "nodeStatusUpdateFrequency": "5s",
            "syncFrequency": "10s",
            "maxPods": 60,
        }

    def _proxy_configuration(self) -> dict[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": f"{self._keys}/kube-proxy.kubeconfig"},
            "mode": "iptables",
            "hostnameOverride": NODE,
            "clusterCIDR": network.PODS,
            "healthzBindAddress": "",
            "metricsBindAddress": "127.0.0.1:10249",
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "iptables": {"minSyncPeriod": "100ms"},
        }


def _bridge(state: Path) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "dataDir": str(state),
        "ranges": [[{"subnet": network.NODES_PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": network.BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": False}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}


def _is_ready(api: Api) -> bool:
    if not api.answers(f"/api/v1/nodes/{NODE}"):
        return False
    conditions = api.get(f"/api/v1/nodes/{NODE}").get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
