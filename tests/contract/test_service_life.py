"""The life of a service: health, start, drain, stop; as this process and as one of its own."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.provider.v1 import provider_pb2, provider_pb2_grpc

from shared import health, tunnel
from shared.channels import MeshChannel, connect
from shared.runner import App, StartError, running
from tests.contract.example import CACHE, PROVIDER, Example, ExampleSettings, calling, serving, until
from tests.ports import free_ports
from tests.tools import requires_tool, tool
from tests.zygote import Process, zygote

COUNT = provider_pb2.CountTokensRequest(model="four")


async def test_every_health_name_is_serving_once_the_service_runs(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path) as app, grpc.aio.insecure_channel(app.address) as channel:
        statuses = [await health.check(channel, name, 5) for name in ("", "readiness", PROVIDER, CACHE)]
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await health.check(channel, "nobody", 5)
    assert statuses == ["SERVING"] * 4
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_list_tells_every_name(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path) as app, grpc.aio.insecure_channel(app.address) as channel:
        every: Any = channel.unary_unary(
            "/grpc.health.v1.Health/List", response_deserializer=health.message_class("HealthListResponse").FromString
        )
        response: Any = await every(b"")
    assert {name: status.status for name, status in response.statuses.items()} == dict.fromkeys(
        ("", "readiness", PROVIDER, CACHE), health.SERVING
    )


async def test_watch_tells_the_status_at_once_and_each_change(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path) as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(service=name)) for name in (PROVIDER, PROVIDER, "nobody")]
        assert [(await watch.read()).status for watch in watches] == [1, 1, health.SERVICE_UNKNOWN]
        watches[1].cancel()
        app.health.set(PROVIDER, False)
        assert (await watches[0].read()).status == health.NOT_SERVING
        app.health.set(PROVIDER, True)
        assert (await watches[0].read()).status == health.SERVING


async def test_nothing_is_serving_before_the_start_and_only_the_process_while_draining(tmp_path: Path) -> None:
    seen: dict[str, list[str]] = {}

    async def build(_: ExampleSettings, app: App) -> None:
        async def look(when: str) -> None:
            async with grpc.aio.insecure_channel(app.address) as channel:
                seen[when] = [await health.check(channel, name, 5) for name in ("", "readiness", PROVIDER)]

        app.serve(provider_pb2_grpc.add_ProviderServiceServicer_to_server, Example(), PROVIDER)
        app.on_start(lambda: look("starting"))
        app.on_drain(lambda: look("draining"))

    async with running("provider-proxy", settings(tmp_path), build):
        pass
    assert seen["starting"] == ["NOT_SERVING"] * 3
    assert seen["draining"] == ["SERVING", "NOT_SERVING", "NOT_SERVING"]


async def test_a_drain_goes_in_order_and_long_watches_do_not_hold_it_up(tmp_path: Path) -> None:
    order: list[str] = []

    def note(name: str) -> Any:
        async def callback() -> None:
            order.append(name)

        return callback

    # A message that comes together with its stream's error is dropped by gRPC, so the end shall come later.
    async with serving(Example(), tmp_path, MODELMUXER_GRACE_S="30", MODELMUXER_DRAIN_WAIT_S="0.3") as app:
        app.on_drain(note("drain 1"))
        app.on_drain(note("drain 2"))
        app.stack.push_async_callback(note("resource 1"))
        app.stack.push_async_callback(note("resource 2"))
        channel = grpc.aio.insecure_channel(app.address)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=PROVIDER))
        await watch.read()
        changed = asyncio.create_task(watch.read())  # grpc.aio reads nothing more once a call is over
        started = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - started < 5
    assert order == ["drain 2", "drain 1", "resource 2", "resource 1"]
    assert (await changed).status == health.NOT_SERVING
    await channel.close()


async def test_a_tunnelled_watch_that_a_drain_callback_ends_holds_nothing_up(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def watch(request: Any, context: Any) -> AsyncIterator[Any]:
        yield chat_pb2.ChatEvent()
        await ended.wait()

    async def end() -> None:
        ended.set()

    async def build(_: ExampleSettings, app: App) -> None:
        app.serve(provider_pb2_grpc.add_ProviderServiceServicer_to_server, Example(events=watch), PROVIDER)
        app.on_drain(end)

    environ = {"MODELMUXER_DRAIN_WAIT_S": "0", "MODELMUXER_GRACE_S": "30"}
    async with AsyncExitStack() as stack:
        async with running("provider-proxy", settings(tmp_path, **environ), build) as app:
            below = tunnel.connect(app.address, app.settings.max_message_bytes)
            channel = await stack.enter_async_context(MeshChannel(below, app.mesh_token, None))
            call = provider_pb2_grpc.ProviderServiceStub(channel).StreamGenerate(provider_pb2.GenerateRequest())
            await call.read()
            started = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - started < 5
        assert await call.code() is grpc.StatusCode.OK


async def test_a_rolling_restart_under_load_fails_no_call(tmp_path: Path) -> None:
    """Two replicas behind one channel; each is drained and replaced in turn, once the one before has work again."""
    served = [0, 0]

    def replica(index: int, port: int) -> AbstractAsyncContextManager[App]:
        async def count(request: Any, context: Any) -> Any:
            await asyncio.sleep(0.01)
            served[index] += 1
            return provider_pb2.CountTokensResponse()

        environ = {"MODELMUXER_PROVIDER_PROXY_PORT": str(port), "MODELMUXER_PROVIDER_PROXY_METRICS_PORT": "0"}
        return serving(Example(count), tmp_path, **environ, MODELMUXER_DRAIN_WAIT_S="0.3")

    ports, stacks, failed, over = free_ports(2), [AsyncExitStack(), AsyncExitStack()], [], asyncio.Event()
    apps = [await stack.enter_async_context(replica(index, ports[index])) for index, stack in enumerate(stacks)]
    async with MeshChannel(connect(",".join(app.address for app in apps), 2**20), apps[0].mesh_token, None) as channel:
        stub = provider_pb2_grpc.ProviderServiceStub(channel)

        async def caller() -> None:
            while not over.is_set():
                try:
                    await stub.CountTokens(COUNT)
                except grpc.aio.AioRpcError as error:
                    failed.append(f"{error.code()} {error.details()}")

        callers = [asyncio.ensure_future(caller()) for _ in range(8)]
        for index, stack in enumerate(stacks):
            await until(lambda: min(served) > 50)
            await stack.aclose()
            served[index] = 0
            await stack.enter_async_context(replica(index, ports[index]))
        await until(lambda: min(served) > 50)
        over.set()
        await asyncio.gather(*callers)
    for stack in stacks:
        await stack.aclose()
    assert failed == []


async def test_running_calls_end_within_the_grace_period_and_are_cut_after_it(tmp_path: Path) -> None:
    async def count(request: Any, context: Any) -> Any:
        await asyncio.sleep(0.2 if request.model == "short" else 60)
        return provider_pb2.CountTokensResponse()

    async with AsyncExitStack() as stack:
        async with serving(Example(count), tmp_path, MODELMUXER_GRACE_S="0.5") as app:
            stub = await stack.enter_async_context(calling(app))
            short = asyncio.ensure_future(one(stub, "short"))
            long = asyncio.ensure_future(one(stub, "long"))
            await until(lambda: app.slots.taken == 2)
        assert await short == provider_pb2.CountTokensResponse()
        with pytest.raises(grpc.aio.AioRpcError):
            await long


async def one(stub: Any, model: str) -> Any:
    return await stub.CountTokens(provider_pb2.CountTokensRequest(model=model))


async def test_a_second_service_on_a_port_fails_and_names_the_variable(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving(Example(), tmp_path) as app:
        port = app.address.rpartition(":")[2]
        with pytest.raises(StartError, match="MODELMUXER_PROVIDER_PROXY_PORT"):
            async with serving(Example(), tmp_path, MODELMUXER_PROVIDER_PROXY_PORT=port):
                pass
        metrics = app.listening["metrics"].rpartition(":")[2]
        with pytest.raises(StartError, match="MODELMUXER_PROVIDER_PROXY_METRICS_PORT"):
            async with serving(Example(), tmp_path, MODELMUXER_PROVIDER_PROXY_METRICS_PORT=metrics):
                pass


async def test_metrics_are_served_over_http(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path) as app, calling(app) as stub, aiohttp.ClientSession() as session:
        await stub.CountTokens(COUNT)
        async with session.get(f"http://{app.listening['metrics']}/metrics") as response:
            text = await response.text()
    assert f'rpc_server_call_duration_seconds_count{{rpc_method="{PROVIDER}/CountTokens",rpc_status_code="OK"}}' in text
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "modelmuxer_event_loop_lag_seconds"):
        assert name in text


async def test_a_failed_background_task_stops_the_service(tmp_path: Path) -> None:
    async def fail() -> None:
        raise RuntimeError

    async with serving(Example(), tmp_path) as app:
        app.background(fail(), "doomed")
        await asyncio.wait_for(app.stopping.wait(), 5)
        assert app.failed


async def test_a_background_task_whose_driver_swallows_a_cancellation_holds_no_stop_up(tmp_path: Path) -> None:
    swallowed = asyncio.Event()

    async def ask_again_and_again() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.sleep(3600)

    async def build(_: ExampleSettings, app: App) -> None:
        app.background(ask_again_and_again(), "stubborn")

    async with asyncio.timeout(30), running("provider-proxy", settings(tmp_path), build):
        await asyncio.sleep(0)
    assert swallowed.is_set()


async def test_the_mesh_token_is_made_once_for_all_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path) as first, serving(Example(), tmp_path) as second:
        assert first.mesh_token == second.mesh_token
    assert os.listdir(tmp_path) == ["mesh-token"]
    assert os.stat(tmp_path / "mesh-token").st_mode & 0o777 == 0o600


@requires_tool("grpcurl")
async def test_grpcurl_lists_and_describes_the_services(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path) as app:
        listed = await grpcurl("-plaintext", app.address, "list")
        healthy = await grpcurl("-plaintext", app.address, "grpc.health.v1.Health/List")
        described = await grpcurl("-plaintext", app.address, "describe", f"{PROVIDER}.CountTokens")
    assert {PROVIDER, CACHE, "grpc.health.v1.Health"} <= set(listed.split())
    assert json.loads(healthy)["statuses"]["readiness"] == {"status": "SERVING"}
    assert "rpc CountTokens" in described


@requires_tool("grpcurl")
async def test_reflection_can_be_switched_off(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path, MODELMUXER_REFLECTION="false") as app:
        assert "does not support the reflection API" in await grpcurl("-plaintext", app.address, "list")


async def grpcurl(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        tool("grpcurl"), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    return output.decode()


# --- as a process of its own -----------------------------------------------------------------------------------------


def test_a_process_says_where_it_listens_answers_probes_and_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    with process(tmp_path) as (service, said, log):
        host, _, port = said["grpc"].rpartition(":")
        assert (said["service"], said["replica"]) == ("provider-proxy", f"provider-proxy/{said['grpc']}")
        assert run("--health", tmp_path, MODELMUXER_PROVIDER_PROXY_PORT=port).stdout == "SERVING\n"
        service.send_signal(signal.SIGTERM)
        assert service.wait(10) == 0
        assert run("--health", tmp_path, MODELMUXER_PROVIDER_PROXY_PORT=port).returncode == 1
        lines = [json.loads(line) for line in log]
        assert [line["message"] for line in lines] == ["Serving", "Draining", "Stopped"]
        assert host == "127.0.0.1"


def test_a_replica_that_is_given_a_name_bears_it(tmp_path: Path) -> None:
    with process(tmp_path, MODELMUXER_REPLICA="pod-7f") as (_, said, _):
        assert said["replica"] == "provider-proxy/pod-7f"


def test_a_second_signal_ends_the_process_although_calls_still_run(tmp_path: Path) -> None:
    with process(tmp_path, MODELMUXER_GRACE_S="60") as (service, said, log):
        token = (tmp_path / "mesh-token").read_text().strip()
        with grpc.insecure_channel(said["grpc"]) as channel:
            stub = provider_pb2_grpc.ProviderServiceStub(channel)
            watch = stub.WatchProviders(provider_pb2.WatchProvidersRequest(), metadata=(("x-mesh-token", token),))
            next(iter(watch))
            assert "Serving" in log.readline()
            service.send_signal(signal.SIGINT)
            assert "Draining" in log.readline()
            service.send_signal(signal.SIGINT)
            assert service.wait(5) == 0


def test_a_process_can_be_set_aside_and_taken_back(tmp_path: Path) -> None:
    with process(tmp_path) as (service, said, _), grpc.insecure_channel(said["grpc"]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [
            stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=20) for name in ("readiness", PROVIDER)
        ]
        assert [next(watch).status for watch in watches] == [health.SERVING] * 2
        for number, status in ((signal.SIGUSR1, health.NOT_SERVING), (signal.SIGUSR2, health.SERVING)):
            service.send_signal(number)
            assert [next(watch).status for watch in watches] == [status] * 2
            assert stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=20).status == health.SERVING


def test_check_config_prints_where_each_value_came_from_and_masks_secrets(tmp_path: Path) -> None:
    done = run("--check-config", tmp_path, MODELMUXER_MESH_TOKEN="a" * 32, WORKER_CONNECTIONS="7")
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert done.returncode == 0
    assert rows["MODELMUXER_WORKER_CONNECTIONS"] == ["7", "WORKER_CONNECTIONS"]
    assert rows["MODELMUXER_MESH_TOKEN"] == ["********", "MODELMUXER_MESH_TOKEN"]
    assert rows["MODELMUXER_GRACE_S"] == ["30.0", "default"]
    assert "a" * 32 not in done.stdout
    assert not (tmp_path / "mesh-token").exists()


def test_wrong_settings_stop_the_process_with_a_line_each(tmp_path: Path) -> None:
    done = run("--check-config", tmp_path, MODELMUXER_GRACE_S="soon", CELERY_BROKER_URL="redis://localhost")
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 2
    assert "MODELMUXER_GRACE_S='soon' must be a number" in done.stderr
    assert "CELERY_BROKER_URL is set, but this release has no background worker" in done.stderr


def settings(home: Path, **environ: str) -> ExampleSettings:
    return ExampleSettings.load({"MODELMUXER_HOME": str(home), "MODELMUXER_PROVIDER_PROXY_PORT": "0", **environ})


def environment(home: Path, environ: dict[str, str]) -> dict[str, str]:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("MODELMUXER_", "OTEL_"))}
    defaults = {"MODELMUXER_HOME": str(home), "MODELMUXER_PROVIDER_PROXY_PORT": "0", "MODELMUXER_DRAIN_WAIT_S": "0"}
    return quiet | defaults | environ


def run(option: str, home: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    return zygote().run(["tests.contract.example_process", option], environment(home, environ), timeout=60)


@contextmanager
def process(home: Path, **environ: str) -> Iterator[tuple[Process, dict[str, str], IO[str]]]:
    """The example as a process, what it says when it serves, and its log."""
    (said, saying), (logged, logging) = os.pipe(), os.pipe()
    with os.fdopen(said) as output, os.fdopen(logged) as log:
        service = zygote().spawn(["tests.contract.example_process"], environment(home, environ), saying, logging)
        os.close(saying)
        os.close(logging)
        try:
            yield service, json.loads(output.readline()), log
        finally:
            service.kill()
            service.wait(10)
