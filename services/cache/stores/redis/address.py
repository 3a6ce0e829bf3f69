"""What a REDIS_URL says: one server, Sentinels and the master they watch, or some nodes of a Cluster. Pure.

    redis://user:password@host:6379/0             rediss:// with TLS, unix:///path/of/socket?db=0
    redis+sentinel://user:password@s1:26379,s2:26379/mymaster/0?sentinel_password=…      rediss+sentinel://
    redis+cluster://user:password@n1:7000,n2:7000                                        rediss+cluster://

The query takes redis-py's own options (ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_check_hostname, …).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio.connection import SSLConnection, parse_url

_SENTINEL, _CLUSTER = "sentinel", "cluster"
_PORTS = {_SENTINEL: 26379, _CLUSTER: 6379}


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where Redis is. `options` are those of redis-py's connections to the servers that hold the data."""

    hosts: tuple[tuple[str, int], ...] = ()
    master: str = ""
    cluster: bool = False
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    sentinel_options: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.options.get("connection_class") is SSLConnection


def parse(url: str) -> Address:
    """Raises ValueError with a sentence that shows nothing of the URL's secrets."""
    scheme, _, rest = url.partition("://")
    base, _, kind = scheme.partition("+")
    if kind not in ("", _SENTINEL, _CLUSTER) or base not in ("redis", "rediss", "unix") or (kind and base == "unix"):
        raise ValueError(
            "must begin with redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, redis+cluster:// or "
            "rediss+cluster://"
        )
    try:
        if not kind:
            return Address(options=dict(parse_url(url)))
        return _several(base, kind, rest)
    except ValueError as error:
        raise ValueError(f"is not a Redis address: {error}") from None


def _several(base: str, kind: str, rest: str) -> Address:
    parts = urlsplit(f"{base}://{rest}")
    login, at, listed = parts.netloc.rpartition("@")
    hosts = tuple(_host(each, _PORTS[kind]) for each in listed.split(",") if each)
    if not hosts:
        raise ValueError("it names no host")
    path = parts.path.strip("/").split("/")
    query = dict(parse_qsl(parts.query))
    own = {name.removeprefix("sentinel_"): query.pop(name) for name in list(query) if name.startswith("sentinel_")}
    database = ""
    if kind == _SENTINEL:
        if not path[0] or len(path) > 2:
            raise ValueError("after the Sentinels comes the master's name, as in …:26379/mymaster")
        database = path[1] if len(path) == 2 else ""
    elif path[0] not in ("", "0"):
        raise ValueError("a Cluster has database 0 only")
    options = dict(parse_url(f"{base}://{login}{at}host/{database}?{urlencode(query)}"))
    del options["host"]
    if kind == _CLUSTER:
        options.pop("db", None)
        return Address(hosts=hosts, cluster=True, options=options)
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    return Address(hosts=hosts, master=path[0], options=options, sentinel_options={**tls, **own})


def _host(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a host is empty")
    return parts.hostname, parts.port or port
