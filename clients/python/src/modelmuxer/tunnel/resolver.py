"""Turns a target into the addresses of replicas."""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence


class Resolver:
    """Looks up a target: `host:port`, `dns:///host:port`, `unix:/path`, or several of them with commas between.

    Each address of each host is a replica. A host that cannot be looked up is skipped if another one can.
    """

    def __init__(self, target: str) -> None:
        parts = [_bare(part.strip()) for part in target.split(",")]
        self._targets = [part for part in parts if part]
        if not self._targets:
            raise ValueError(f"no address in {target!r}")

    @property
    def authority(self) -> str:
        """The host that the peers' certificates should name."""
        host, _, _ = self._targets[0].rpartition(":")
        return host.strip("[]")

    async def resolve(self) -> Sequence[str]:
        """The addresses, each once, in order. Raises OSError if there are none."""
        found: dict[str, None] = {}
        failure: OSError | None = None
        for target in self._targets:
            try:
                found |= dict.fromkeys(await _addresses(target))
            except OSError as error:
                failure = error
        if not found and failure is not None:
            raise failure
        return list(found)


def _bare(part: str) -> str:
    """The part without the scheme that gRPC's own resolvers want."""
    if part.startswith("unix:"):
        return part
    for scheme in ("dns:", "ipv4:", "ipv6:"):
        part = part.removeprefix(scheme)
    return part.lstrip("/")


async def _addresses(target: str) -> list[str]:
    host, colon, port = target.rpartition(":")
    if target.startswith("unix:"):
        return [target]
    if not colon or not port.isdigit():
        raise ValueError(f"{target!r} is not host:port")
    host = host.strip("[]")
    try:
        return [_join(str(ipaddress.ip_address(host)), port)]
    except ValueError:
        pass
    infos = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    return [_join(str(sockaddr[0]), port) for *_, sockaddr in infos]


def _join(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
