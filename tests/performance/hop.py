"""What one hop of the mesh costs, plain beside tunnel: `python -m tests.performance.hop [--seconds 1] [--json file]`.

One server process, one client process, the same servicer and the same interceptors on both transports, run as the
services are, and measured in turns of a fraction of a second, so that whatever else the machine does weighs on both
alike. Only the ratios mean anything.
"""

import argparse
import asyncio
import gc
import json
import multiprocessing
import random
import resource
import statistics
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import grpc
import uvloop
from grpc import aio
from modelmuxer.tunnel import TunnelChannel, TunnelOptions, TunnelServicer

from shared.runner import GC_THRESHOLDS

REQUEST = b"q" * 200
RESPONSE = b"r" * 400
TOKEN = b"t" * 40
CASES = {"unary": 1, "unary that waits": 1, "stream of 1": 1, "stream of 100": 100}
CALLERS = (1, 8, 32, 128)
ROUNDS = 4


async def _unary(request: bytes, context: Any) -> bytes:
    return RESPONSE


async def _wait(request: bytes, context: Any) -> bytes:
    """Answers after 1 to 3 ms, as a provider would: frames come one by one."""
    await asyncio.sleep(random.uniform(0.001, 0.003))
    return RESPONSE


async def _hold(request: bytes, context: Any) -> None:
    """Stays open: a call beside the ones that are measured."""
    await asyncio.sleep(3600)


async def _stream(request: bytes, context: Any) -> None:
    for _ in range(int(request)):
        await context.write(TOKEN)


class _ServerPass(aio.ServerInterceptor):
    """Does nothing, at the price of an interceptor."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        return await continuation(handler_call_details)


class _UnaryPass(aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(client_call_details, request)


class _StreamPass(aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(client_call_details, request)


async def _serve(pipe: Connection, intercept: bool, options: TunnelOptions) -> None:
    interceptors = [_ServerPass()] if intercept else []
    server, tunnel = aio.server(interceptors=interceptors), TunnelServicer(interceptors=interceptors, options=options)
    handlers: Any = {
        "Unary": grpc.unary_unary_rpc_method_handler(_unary),
        "Hold": grpc.unary_stream_rpc_method_handler(_hold),
        "Wait": grpc.unary_unary_rpc_method_handler(_wait),
        "Stream": grpc.unary_stream_rpc_method_handler(_stream),
    }
    for registrar in (server, tunnel):
        registrar.add_registered_method_handlers("bench.Hop", handlers)
    tunnel.add_to_server(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await tunnel.listen("127.0.0.1")
    pipe.send(port)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def answer() -> None:
        if pipe.recv() == "stop":
            stopped.set()
        else:
            pipe.send(_cpu_s())

    loop.add_reader(pipe.fileno(), answer)
    await stopped.wait()
    loop.remove_reader(pipe.fileno())
    await server.stop(None)


def _run_server(pipe: Connection, intercept: bool, options: TunnelOptions) -> None:
    _collect_as_services_do()
    uvloop.run(_serve(pipe, intercept, options))


def _collect_as_services_do() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure."""

    seconds: float = 1.0
    """For each transport in each case."""
    callers: tuple[int, ...] = CALLERS
    cases: tuple[str, ...] = tuple(CASES)
    interceptors: bool = True
    options: TunnelOptions = field(default_factory=TunnelOptions)


class _Turn:
    """What one transport did in one case, summed over its turns."""

    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.wall_s = self.client_s = self.server_s = 0.0

    def row(self, case: str, transport: str, callers: int, units: int) -> dict[str, Any]:
        calls = len(self.latencies_s)
        ordered = sorted(self.latencies_s)
        return {
            "suite": "hop",
            "errors": 0,
            "rss_mb": {},
            "case": f"{case}, {transport}",
            "callers": callers,
            "rps": round(calls * units / self.wall_s),
            "p50_ms": round(statistics.median(ordered) * 1000, 3),
            "p99_ms": round(ordered[int(calls * 0.99)] * 1000, 3),
            "cpu_us": {
                "client": round(self.client_s / calls / units * 1e6, 1),
                "server": round(self.server_s / calls / units * 1e6, 1),
            },
        }


async def _measure(
    turn: _Turn,
    work: Callable[[], Coroutine[Any, Any, None]],
    callers: int,
    seconds: float,
    ask_cpu: Callable[[], float],
) -> None:
    latencies = turn.latencies_s
    clock = time.perf_counter

    async def caller(until: float) -> None:
        while (start := clock()) < until:
            await work()
            latencies.append(clock() - start)

    server_s, client_s, start = ask_cpu(), _cpu_s(), clock()
    await asyncio.gather(*(caller(start + seconds) for _ in range(callers)))
    turn.wall_s += clock() - start
    turn.client_s += _cpu_s() - client_s
    turn.server_s += ask_cpu() - server_s


def _work(case: str, channel: aio.Channel) -> Callable[[], Coroutine[Any, Any, None]]:
    unary: Any = channel.unary_unary("/bench.Hop/Wait" if "waits" in case else "/bench.Hop/Unary")
    stream: Any = channel.unary_stream("/bench.Hop/Stream")
    count = str(CASES[case]).encode()

    async def call_once() -> None:
        await unary(REQUEST)

    async def read_all() -> None:
        async for _ in stream(count):
            pass

    return call_once if case.startswith("unary") else read_all


async def _bench(plan: Plan, port: int, pipe: Connection) -> list[dict[str, Any]]:
    def ask_cpu() -> float:
        pipe.send("cpu")
        return float(pipe.recv())

    interceptors = [_UnaryPass(), _StreamPass()] if plan.interceptors else []
    target = f"127.0.0.1:{port}"
    channels: dict[str, aio.Channel] = {
        "plain": aio.insecure_channel(target, interceptors=interceptors),
        "tunnel": TunnelChannel(target, interceptors=interceptors, tunnel=plan.options),
    }
    rows = []
    for case in plan.cases:
        for callers in plan.callers:
            work = {name: _work(case, channel) for name, channel in channels.items()}
            turns = {name: _Turn() for name in channels}
            for name in channels:
                await work[name]()
            for _ in range(ROUNDS):
                for name in channels:
                    await _measure(turns[name], work[name], callers, plan.seconds / ROUNDS, ask_cpu)
            pair = [turns[name].row(case, name, callers, CASES[case]) for name in channels]
            _show(*pair)
            rows += pair
    for channel in channels.values():
        await channel.close()
    return rows


def measure(plan: Plan) -> list[dict[str, Any]]:
    """Runs the plan against a server process of its own; prints each pair as it is measured, returns the rows."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=_run_server, args=(there, plan.interceptors, plan.options))
    server.start()
    _collect_as_services_do()
    try:
        rows = uvloop.run(_bench(plan, here.recv(), here))
        here.send("stop")
        server.join(5)
    finally:
        server.kill()
    return rows


def _show(plain: dict[str, Any], tunnel: dict[str, Any]) -> None:
    for row in (plain, tunnel):
        cpu = row["cpu_us"]
        speed = f"{row['rps']:9,} /s  p50 {row['p50_ms']:7.2f} ms  p99 {row['p99_ms']:7.2f} ms"
        costs = f"CPU client {cpu['client']:6.1f}  server {cpu['server']:6.1f} µs"
        print(f"{row['case']:26} {row['callers']:3} {speed}  {costs}", end="" if row is tunnel else "\n")
    cpu = sum(plain["cpu_us"].values()) / sum(tunnel["cpu_us"].values())
    rate, p50 = tunnel["rps"] / plain["rps"], tunnel["p50_ms"] / plain["p50_ms"]
    print(f"   rate ×{rate:.1f}  p50 ×{p50:.2f}  CPU ÷{cpu:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each transport in each case")
    parser.add_argument("--callers", type=int, action="append")
    parser.add_argument("--case", choices=list(CASES), action="append")
    parser.add_argument("--interceptors", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--pace-ms", type=float, default=TunnelOptions().pace_s * 1000)
    parser.add_argument("--direct", action=argparse.BooleanOptionalAction, default=True, help="or tunnels on gRPC")
    parser.add_argument("--json", help="file for the rows")
    arguments = parser.parse_args()
    plan = Plan(
        seconds=arguments.seconds,
        callers=tuple(arguments.callers or CALLERS),
        cases=tuple(arguments.case or CASES),
        interceptors=arguments.interceptors,
        options=TunnelOptions(
            pace_s=arguments.pace_ms / 1000,
            direct_timeout_s=TunnelOptions().direct_timeout_s if arguments.direct else 0,
        ),
    )
    rows = measure(plan)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
