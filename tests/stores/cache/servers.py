"""Real Redis servers for tests: one, a Cluster with a replica of each primary, a master with Sentinels."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.ports import free_port
from tests.tools import tool

SLOTS = 16384
NODE_TIMEOUT_MS = 1_000
_START_TIMEOUT_S = 20.0
_MOST_PORTS = 5
_PURE_CACHE = ("--save", "", "--appendonly", "no")


@dataclass
class RedisServer:
    """One process on a port of its own, which can be killed, stopped and started anew."""

    folder: Path
    port: int
    arguments: Sequence[str] = ()
    password: str | None = None
    bus_port: int = 0
    """A Cluster node's."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start_anywhere(self) -> None:
        """Starts it for the first time. A port that was free may be taken a moment later: then on another."""
        for _ in range(_MOST_PORTS):
            try:
                return self.start()
            except RuntimeError as error:
                if "already in use" not in str(error):
                    raise
                self.port = free_port()
                self.bus_port = free_port() if self.bus_port else 0
        raise RuntimeError("no port is to be had")

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        command = [tool("redis-server"), *self._configuration(), "--port", str(self.port), "--dir", str(self.folder)]
        command += ["--bind", "127.0.0.1", *self.arguments]
        if self.bus_port:
            command += ["--cluster-port", str(self.bus_port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._answers, "Redis did not start")

    def client(self) -> redis.Redis:
        """A plain client, to look behind the store's back."""
        return redis.Redis(port=self.port, password=self.password, socket_timeout=5)

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def hang(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def _configuration(self) -> list[str]:
        return list(_PURE_CACHE)

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"Redis ended: {(self.folder / 'log').read_text()[-2000:]}")
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False


class SentinelServer(RedisServer):
    """A Sentinel: the same program by another configuration, which it writes to."""

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        configuration = self.folder / "sentinel.conf"
        configuration.write_text(f"port {self.port}\ndir {self.folder}\nbind 127.0.0.1\n" + "\n".join(self.arguments))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [tool("redis-server"), str(configuration), "--sentinel"], stdout=log, stderr=log
            )
        until(self._answers, "the Sentinel did not start")


@dataclass
class RedisCluster:
    """Three primaries, each with a replica."""

    primaries: list[RedisServer]
    replicas: list[RedisServer]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.primaries)

    @property
    def servers(self) -> list[RedisServer]:
        return self.primaries + self.replicas


@dataclass
class Watched:
    """A master, its replica, and the Sentinels that watch them."""

    master: RedisServer
    replica: RedisServer
    sentinels: list[SentinelServer]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/answers"


@contextmanager
def redis_server(*arguments: str, password: str | None = None, port: int | None = None) -> Iterator[RedisServer]:
    """One server."""
    with _folder() as folder:
        server = RedisServer(folder / "redis", port or free_port(), arguments, password)
        with running(server):
            yield server


@contextmanager
def redis_cluster() -> Iterator[RedisCluster]:
    """A Cluster whose slots are all served and whose replicas have caught up."""
    with _folder() as folder, ExitStack() as stack:
        servers = [
            RedisServer(
                folder / f"node{number}",
                free_port(),
                (
                    *("--cluster-enabled", "yes"),
                    *("--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-replica-validity-factor", "0"),
                    *("--repl-diskless-sync-delay", "0"),
                ),
                bus_port=free_port(),
            )
            for number in range(6)
        ]
        for server in servers:
            stack.enter_context(running(server))
        cluster = RedisCluster(servers[:3], servers[3:])
        _join(cluster)
        yield cluster


@contextmanager
def redis_sentinel() -> Iterator[Watched]:
    """A master that three Sentinels watch."""
    with _folder() as folder, ExitStack() as stack:
        master = RedisServer(folder / "master", free_port())
        stack.enter_context(running(master))
        replica = RedisServer(
            folder / "replica",
            free_port(),
            ("--replicaof", "127.0.0.1 " + str(master.port), "--repl-diskless-sync-delay", "0"),
        )
        stack.enter_context(running(replica))
        watch = (
            f"sentinel monitor answers 127.0.0.1 {master.port} 2",
            f"sentinel down-after-milliseconds answers {NODE_TIMEOUT_MS}",
            "sentinel failover-timeout answers 5000",
        )
        sentinels = [SentinelServer(folder / f"sentinel{number}", free_port(), watch) for number in range(3)]
        for sentinel in sentinels:
            stack.enter_context(running(sentinel))

        def watching() -> bool:
            with sentinels[0].client() as client:
                state = client.execute_command("SENTINEL", "MASTER", "answers")
            values = dict(zip(state[::2], state[1::2], strict=True)) if isinstance(state, list) else state
            said = {_text(name): _text(value) for name, value in values.items()}
            return said["num-slaves"] == "1" and said["num-other-sentinels"] == "2"

        until(watching, "the Sentinels did not find each other")
        yield Watched(master, replica, sentinels)


@contextmanager
def running(server: RedisServer) -> Iterator[RedisServer]:
    """The server inside the block."""
    server.start_anywhere()
    try:
        yield server
    finally:
        server.kill()


def until(condition: Callable[[], bool], complaint: str, timeout_s: float = _START_TIMEOUT_S) -> None:
    """Polls until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.02)


def _join(cluster: RedisCluster) -> None:
    share = SLOTS // len(cluster.primaries) + 1
    first = cluster.primaries[0]
    for number, server in enumerate(cluster.primaries):
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, min((number + 1) * share, SLOTS) - 1)
    with first.client() as client:
        for server in cluster.servers[1:]:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, server.bus_port)
    ids = {server.port: _text(_ask(server, "CLUSTER", "MYID")) for server in cluster.primaries}
    until(
        lambda: all(_text(_ask(server, "CLUSTER", "NODES")).count("\n") == 6 for server in cluster.servers), "no meet"
    )
    for primary, replica in zip(cluster.primaries, cluster.replicas, strict=True):
        _ask(replica, "CLUSTER", "REPLICATE", ids[primary.port])
    until(
        lambda: all("cluster_state:ok" in _text(_ask(server, "CLUSTER", "INFO")) for server in cluster.servers), "down"
    )
    until(lambda: all(_follows(server) for server in cluster.replicas), "replicas do not follow")


def _follows(server: RedisServer) -> bool:
    with server.client() as client:
        return bool(client.info("replication").get("master_link_status") == "up")


def _ask(server: RedisServer, *command: str) -> object:
    with server.client() as client:
        client.response_callbacks.clear()
        return client.execute_command(*command)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mm-redis-", dir=os.environ.get("TMPDIR")) as folder:
        yield Path(folder)
