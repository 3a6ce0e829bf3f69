"""The life of a service's process.

Settings -> build -> serve -> health SERVING -> a signal -> health NOT_SERVING -> wait until callers have noticed ->
drain callbacks -> running calls end -> background tasks and resources close in reverse -> spans are flushed.
"""

import argparse
import asyncio
import contextlib
import errno
import functools
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context
from typing import Any, NoReturn, TypeVar

import grpc
import uvloop
from modelmuxer.tunnel import TunnelServicer

from shared import channels, health, interceptors, load, reflection, tunnel
from shared.admission import Slots
from shared.interceptors import Registry
from shared.lockfile import Locked
from shared.mesh_token import mesh_token
from shared.settings import PREFIX, ServiceSettings, SettingsError, unknown_variables
from shared.telemetry import export, logs, metrics
from shared.telemetry.tracing import Tracing

S = TypeVar("S", bound=ServiceSettings)

Build = Callable[[S, "App"], Awaitable[None]]
Callback = Callable[[], Awaitable[None]]

METRICS_OFFSET = 1000
GC_THRESHOLDS = (10_000, 20, 20)  # at the default of 700 objects every call pays for a look at all calls under way
PROBE_TIMEOUT_S = 3.0
PORT_WAIT_S = 2.0
SETTLE_TIMEOUT_S = 2.0

log = logging.getLogger("modelmuxer.runner")
_CANCEL_AGAIN_S = 1.0


class StartError(Exception):
    """Why a service cannot start: a sentence for whoever starts it. `passing` if it may be able to before long."""

    def __init__(self, sentence: str, *, passing: bool = False) -> None:
        super().__init__(sentence)
        self.passing = passing


class App:
    """A service being built, and then running: `build` hangs everything onto it.

    `stack` closes in reverse after the last call has ended; what must happen while calls still run is for `on_drain`.
    """

    def __init__(self, name: str, settings: ServiceSettings, address: str, tracer: Tracing | None) -> None:
        self.name = name
        self.settings = settings
        self.address = address
        self.tracer = tracer
        self.mesh_token = mesh_token(settings.mesh_token, settings.home)
        self.health = health.Health()
        self.slots = Slots(settings.worker_connections, self._has_room)
        self.load = load.Load(self.slots)
        metrics.RPC_SERVER_ACTIVE.set_function(lambda: self.slots.taken)
        self.stack = AsyncExitStack()
        self.draining = asyncio.Event()
        self.stopping = asyncio.Event()
        self.failed = False
        self._aside = False
        self.listening = {"grpc": address}
        self.services: list[str] = []
        self.registry = Registry(interceptors.stack(self.mesh_token, self.slots, tracer))
        self.starts: list[Callback] = []
        self.drains: list[Callback] = []
        self.hurry = asyncio.Event()

    @property
    def replica(self) -> str:
        """This process among the replicas of the mesh: "cache/127.0.0.1:50053", or by the name that it was given."""
        return f"{self.name}/{self.settings.replica or self.address}"

    @property
    def port(self) -> int:
        """The gRPC port that this process really has."""
        return int(self.address.rpartition(":")[2])

    def serve(
        self, add_to_server: Callable[[Any, Any], None], servicer: object, full_service_name: str, public: bool = False
    ) -> None:
        """Registers a servicer: its methods, its health name, its reflection. Public methods want no mesh token."""
        self.registry.add(add_to_server, servicer, public=public)
        self.services.append(full_service_name)
        self.health.set(full_service_name, False)

    def channel(self, target: str) -> grpc.aio.Channel:
        """A channel to another service, closed on stop. Calls on it inherit the deadline of the call being served."""
        size = self.settings.max_message_bytes
        if self.settings.mesh_transport == "tunnel":
            channel = channels.MeshChannel(tunnel.connect(target, size), self.mesh_token, self.tracer)
        else:
            homes = channels.homes(target, size)
            channel = channels.MeshChannel(channels.connect(target, size), self.mesh_token, self.tracer, homes)
        self.stack.push_async_callback(channel.close)
        return channel

    def plain_channel(self, target: str) -> grpc.aio.Channel:
        """A channel of its own to one replica, without a tunnel, for a rare call. Whoever opens it closes it."""
        return channels.MeshChannel(
            channels.connect(target, self.settings.max_message_bytes), self.mesh_token, self.tracer
        )

    def background(self, coroutine: Coroutine[Any, Any, object], name: str) -> "asyncio.Task[object]":
        """Runs a coroutine until the service stops. If it fails the service stops too, to be started afresh."""
        # In a context of its own: started by a call, it must not end with that call's deadline.
        task = asyncio.get_running_loop().create_task(coroutine, name=name, context=Context())
        task.add_done_callback(self._ended)
        self.stack.push_async_callback(_cancel, task)
        return task

    def on_start(self, callback: Callback) -> None:
        """Called when the gRPC server runs, before the service says SERVING: the place to open another face."""
        self.starts.append(callback)

    def on_drain(self, callback: Callback) -> None:
        """Called once callers have had time to notice that the service drains: all at once, the last one first."""
        self.drains.append(callback)

    def announce(self, face: str, address: str) -> None:
        """Names another address that the service listens on ("http", "127.0.0.1:8000")."""
        self.listening[face] = address

    def from_mesh(self, context: interceptors.Context) -> bool:
        """Whether a call shows the mesh token: for public servicers that decide by method."""
        return interceptors.shows_token(context, self.mesh_token.encode())

    def stop(self) -> None:
        """Asks the service to drain and stop; asked again, it stops waiting for running calls."""
        if self.stopping.is_set():
            self.hurry.set()
        self.stopping.set()

    def set_aside(self) -> None:
        """Takes the process out of readiness, to be looked at: callers go elsewhere, and an autoscaler replaces it."""
        self._aside = True
        self._tell_readiness()

    def take_back(self) -> None:
        """Ends `set_aside`."""
        self._aside = False
        self._tell_readiness()

    def _tell_readiness(self) -> None:
        if not self.draining.is_set():
            log.info("Set aside" if self._aside else "Taken back")
            self.health.set(health.READINESS, not self._aside)
            self._has_room(self.slots.open)

    def _has_room(self, has_room: bool) -> None:
        if not self.draining.is_set():
            for service in self.services:
                self.health.set(service, has_room and not self._aside)

    def _ended(self, task: "asyncio.Task[object]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("Background task %s failed; the service stops", task.get_name(), exc_info=error)
            self.failed = True
            self.stopping.set()


def main(name: str, settings_class: type[S], build: Build[S]) -> NoReturn:
    """Runs a service until a signal ends it; with --check-config or --health only looks, and exits."""
    parser = argparse.ArgumentParser(
        prog=f"python -m services.{settings_class.service}", description=f"ModelMuxer {name}"
    )
    parser.add_argument("--check-config", action="store_true", help="check the settings, print them, and exit")
    parser.add_argument("--health", action="store_true", help="ask the running service whether it is ready, and exit")
    options = parser.parse_args()
    try:
        settings = settings_class.load(os.environ)
    except SettingsError as error:
        sys.exit("\n".join(f"{name}: {problem}" for problem in error.problems))
    if options.check_config:
        for row in settings.provenance():
            print(f"{row.name:40} {row.value:40} {row.source}")
        sys.exit(0)
    if options.health:
        sys.exit(asyncio.run(_probe(settings)))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(_serve(name, settings, build)))


@asynccontextmanager
async def running(name: str, settings: S, build: Build[S]) -> AsyncIterator[App]:
    """A service in the current event loop: SERVING inside the block, drained and stopped after it.

    Raises StartError where a port cannot be had, SettingsError, and whatever `build` raises.
    """
    server = _server(settings)
    address = await _bind(server, settings)
    replica = f"{name}/{settings.replica or address}"
    tracer = export.start(name, replica, os.environ) if export.wanted(os.environ) else None
    app = App(name, settings, address, tracer)
    async with app.stack:
        app.stack.push_async_callback(server.stop, None)  # where the start fails, the port is free again
        if tracer is not None:
            app.stack.push_async_callback(tracer.stop)
        await _open_metrics(app)
        app.background(metrics.watch_event_loop(), "event loop lag")
        app.background(app.load.watch(), "load")
        await build(settings, app)
        server.add_generic_rpc_handlers(_handlers(app))
        mesh_tunnel = tunnel.servicer(
            app.registry.services, max_message_bytes=settings.max_message_bytes, max_calls=settings.worker_connections
        )
        app.on_drain(functools.partial(mesh_tunnel.drain, settings.grace_s))
        await _open_tunnels(app, mesh_tunnel)
        exchange = Registry([interceptors.errors])
        exchange.wrap(tunnel.SERVICE, mesh_tunnel.methods(), public=True)  # each call in it shows the mesh token
        server.add_generic_rpc_handlers(exchange.handlers)
        await server.start()
        try:
            for start in app.starts:
                await start()
            for service in (health.PROCESS, health.READINESS, *app.services):
                app.health.set(service, True)
            yield app
        finally:
            await _drain(app, server)


def _handlers(app: App) -> list[grpc.GenericRpcHandler]:
    """Everything that the server serves. Health, load and reflection are open to all and take no slot."""
    open_to_all = Registry([interceptors.errors])
    open_to_all.wrap(health.SERVICE, app.health.methods(), public=True)
    open_to_all.wrap(load.SERVICE, app.load.methods(), public=True)
    if app.settings.reflection:
        told = [*app.services, health.SERVICE, load.SERVICE]
        open_to_all.wrap(reflection.SERVICE, reflection.methods(told), public=True)
    return [*app.registry.handlers, *open_to_all.handlers]


def _server(settings: ServiceSettings) -> grpc.aio.Server:
    return grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),  # two services on one port must fail, not share it
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", settings.max_message_bytes),
            ("grpc.max_metadata_size", 16 * 1024),
            # Channels of the mesh ping every 20 s; the default calls that abuse.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            # A caller that vanished without a word frees its slot within half a minute.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
        ],
        # Admission refuses politely at the limit; this is for floods, whose messages would be read before that.
        maximum_concurrent_rpcs=2 * settings.worker_connections + 100,
    )


async def _bind(server: grpc.aio.Server, settings: ServiceSettings) -> str:
    if settings.port:
        await _until_free(settings)
    try:
        return _address(settings, server.add_insecure_port(_address(settings, settings.port)))
    except RuntimeError:
        raise _taken(settings) from None


async def _until_free(settings: ServiceSettings) -> None:
    """Usual ports lie among those that a system gives to outgoing connections, one of which may end any moment."""
    deadline = time.monotonic() + PORT_WAIT_S
    while True:
        with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, settings.port))
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    return  # the server's own attempt says what is wrong
        if time.monotonic() > deadline:
            raise _taken(settings)
        await asyncio.sleep(0.1)


def _taken(settings: ServiceSettings) -> StartError:
    wanted, variable = _address(settings, settings.port), f"{PREFIX}{settings.service.upper()}_PORT"
    return StartError(f"cannot listen on {wanted}: stop what listens there, or set {variable} to a free port")


def _address(settings: ServiceSettings, port: int) -> str:
    return f"[{settings.host}]:{port}" if ":" in settings.host else f"{settings.host}:{port}"


async def _open_metrics(app: App) -> None:
    settings, port = app.settings, app.settings.metrics_port
    if port is None:
        port = settings.port and settings.port + METRICS_OFFSET
    endpoint = metrics.MetricsPort(app.name)
    app.stack.push_async_callback(endpoint.stop)
    try:
        app.announce("metrics", _address(settings, await endpoint.start(settings.host, port)))
    except (OSError, OverflowError):
        variable = f"{PREFIX}{settings.service.upper()}_METRICS_PORT"
        raise StartError(
            f"cannot listen on {_address(settings, port)} for /metrics: stop what listens there, or set {variable}"
        ) from None


async def _open_tunnels(app: App, servicer: TunnelServicer) -> None:
    settings = app.settings
    app.stack.callback(servicer.door.shut)
    try:
        app.announce("tunnel", _address(settings, await servicer.listen(settings.host, settings.tunnel_port)))
    except OSError:
        wanted, variable = _address(settings, settings.tunnel_port), f"{PREFIX}{settings.service.upper()}_TUNNEL_PORT"
        raise StartError(
            f"cannot listen on {wanted} for tunnels: stop what listens there, or set {variable} to a free port, or to 0"
        ) from None


async def _drain(app: App, server: grpc.aio.Server) -> None:
    app.draining.set()
    app.load.drain()  # first: who hears that it is not ready shall know why
    app.health.drain()
    await _unless_hurried(app, asyncio.sleep(app.settings.drain_wait_s))
    # All at once: calls that one of them waits for may be watches that another ends.
    await _unless_hurried(app, asyncio.gather(*(_drained(callback) for callback in reversed(app.drains))))
    app.health.close()
    await _unless_hurried(app, server.stop(app.settings.grace_s))
    await server.stop(None)
    with contextlib.suppress(TimeoutError):  # calls that were just cut still settle and end their spans
        await asyncio.wait_for(app.slots.idle(), SETTLE_TIMEOUT_S)


async def _drained(callback: Callback) -> None:
    try:
        await callback()
    except Exception as error:
        log.error("A drain callback failed", exc_info=error)


async def _unless_hurried(app: App, work: Coroutine[Any, Any, object] | Awaitable[object]) -> None:
    """Waits for `work`, or until a second signal says not to."""
    task, hurry = asyncio.ensure_future(work), asyncio.ensure_future(app.hurry.wait())
    await asyncio.wait((task, hurry), return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if task.done():
        task.result()
    else:
        await _cancel(task)


async def _cancel(task: "asyncio.Future[Any]") -> None:
    """Ends a task. It is told again, since PyMongo was seen to swallow a cancellation: who asks a database again and
    again would do so for ever."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)
    if not task.cancelled():
        task.exception()  # whoever was told to end may fail at it


async def _serve(name: str, settings: S, build: Build[S]) -> int:
    logs.configure(name, level=settings.log_level, format=settings.log_format)
    for variable in unknown_variables(os.environ):
        log.warning("%s is set, but no setting has that name", variable)
    try:
        async with running(name, settings, build) as app:
            loop = asyncio.get_running_loop()
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(signum, app.stop)
            loop.add_signal_handler(signal.SIGUSR1, app.set_aside)
            loop.add_signal_handler(signal.SIGUSR2, app.take_back)
            gc.collect()
            gc.freeze()  # what is left of the start stays: a collection that looks at it again stops calls for 40 ms
            gc.set_threshold(*GC_THRESHOLDS)
            log.info("Serving", extra=app.listening)
            if not sys.stdout.isatty():  # for whoever started the process and waits for it
                print(json.dumps({"service": name, "replica": app.replica, **app.listening}), flush=True)
            await app.stopping.wait()
            log.info("Draining")
    except SettingsError as error:
        for problem in error.problems:
            log.critical(problem)
        return 2
    except (StartError, Locked) as error:
        log.critical("%s", error)
        return 1 if isinstance(error, StartError) and error.passing else 2
    except Exception as error:
        log.critical("The service failed", exc_info=error)
        return 1
    log.info("Stopped")
    return int(app.failed)


async def _probe(settings: ServiceSettings) -> int:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    async with grpc.aio.insecure_channel(f"{host}:{settings.port}") as channel:
        try:
            status = await health.check(channel, health.READINESS, PROBE_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            print(f"{host}:{settings.port} does not answer: {error.code().name}", file=sys.stderr)
            return 1
    print(status)
    return 0 if status == "SERVING" else 1
