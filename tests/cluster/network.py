"""The cluster's network: one namespace with a pair of interfaces, and two routes by which this machine reaches pods and
Services. Deleting the namespace undoes all of it; no port, rule or address of the host is touched.
"""

import subprocess
from pathlib import Path

NAMESPACE = "modelmuxer"
BRIDGE = "modelmuxer0"
HOST, NODE = "10.245.0.1", "10.245.0.2"  # the two ends of the pair
PODS, NODES_PODS = "10.244.0.0/16", "10.244.0.0/24"
SERVICES, KUBERNETES, DNS = "10.96.0.0/16", "10.96.0.1", "10.96.0.10"
DOMAIN = "cluster.local"


class NetworkTaken(Exception):
    """Why the network cannot be made."""


def create() -> None:
    """Makes the namespace and the way to it. Raises NetworkTaken and CalledProcessError."""
    if PODS in _run("ip", "-4", "route") or SERVICES in _run("ip", "-4", "route"):
        raise NetworkTaken(f"This machine has routes to {PODS} or {SERVICES}: does another cluster run here?")
    _run("ip", "netns", "add", NAMESPACE)
    _run("ip", "link", "add", NAMESPACE, "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE)
    _run("ip", "addr", "add", f"{HOST}/30", "dev", NAMESPACE)
    _run("ip", "link", "set", NAMESPACE, "up")
    _inside("addr", "add", f"{NODE}/30", "dev", "eth0")
    _inside("addr", "add", f"{DNS}/32", "dev", "lo")
    for link in ("lo", "eth0"):
        _inside("link", "set", link, "up")
    _inside("route", "add", "default", "via", HOST)
    for destination in (PODS, SERVICES):
        _run("ip", "route", "add", destination, "via", NODE)
    _run(*inside(), "sysctl", "-qw", "net.ipv4.ip_forward=1")


def remove(pods_before: set[str]) -> None:
    """Takes it away, and the namespaces that pods have left. What is not there is passed over."""
    for name in namespaces() - pods_before:
        if name.startswith("cni-"):
            _try("ip", "netns", "del", name)
    _try("ip", "link", "del", NAMESPACE)
    _try("ip", "netns", "del", NAMESPACE)


def namespaces() -> set[str]:
    """Names of the network namespaces that there are."""
    folder = Path("/run/netns")
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def inside() -> list[str]:
    """What stands before a command that is to run in the cluster's network."""
    # `ip netns exec` will not do: it mounts another /sys, in which there are no cgroups.
    return ["nsenter", f"--net=/run/netns/{NAMESPACE}"]


def with_names(resolv_conf: Path) -> list[str]:
    """The same, for one that is also to look names up as a pod does."""
    script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    return [*inside(), "unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(resolv_conf)]


def write_resolv_conf(path: Path, namespace: str) -> None:
    """Writes what a pod of a namespace has as /etc/resolv.conf."""
    search = " ".join((f"{namespace}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN))
    path.write_text(f"nameserver {DNS}\nsearch {search}\noptions ndots:5\n")


def _inside(*arguments: str) -> None:
    _run("ip", "-n", NAMESPACE, *arguments)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _try(*command: str) -> None:
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
