"""Random interleavings of calls, cancels, stalls and cuts, against a model of what each call must come to."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc import aio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from modelmuxer.tunnel import TunnelChannel, TunnelOptions, TunnelServicer

from tests.tunnel.wire import FakeChannel, Wire, serve

OPTIONS = TunnelOptions(
    window_bytes=1024, max_message_bytes=8192, buffer_bytes=8192, max_calls=8, ping_interval_s=60, backoff_s=0.001
)
Code = grpc.StatusCode


@dataclass
class Expected:
    """One call, and what the model knows of it."""

    call: Any
    size: int = 0
    count: int = 0
    read: int = 0
    written: list[int] = field(default_factory=list)
    code: Code | None = None
    """The only status that it may end with; None while it runs."""


class Service:
    """A byte `n` asks for messages: size and count are in the request."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()

    async def unary(self, request: bytes, context: Any) -> bytes:
        await self.gate.wait()
        return request

    async def stream(self, request: bytes, context: Any) -> None:
        size, count = map(int, request.split())
        for _ in range(count):
            await context.write(b"s" * size)

    async def duplex(self, requests: Any, context: Any) -> None:
        async for request in requests:
            await context.write(request)


class Tunnels(RuleBasedStateMachine):
    """The model: unary calls wait at a gate, streams wait for their readers, duplex calls echo."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.unary: list[Expected] = []
        self.streams: list[Expected] = []
        self.duplexes: list[Expected] = []
        self.wires: list[Wire] = []
        self.servers: list[asyncio.Task[str]] = []

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 5))

    def settle(self) -> None:
        async def turns() -> None:
            for _ in range(60):
                await asyncio.sleep(0)

        self.do(turns())

    @initialize()
    def open(self) -> None:
        async def prepare() -> None:
            self.service = Service()
            self.servicer = TunnelServicer(options=OPTIONS)
            handlers: Any = {
                "Unary": grpc.unary_unary_rpc_method_handler(self.service.unary),
                "Stream": grpc.unary_stream_rpc_method_handler(self.service.stream),
                "Duplex": grpc.stream_stream_rpc_method_handler(self.service.duplex),
            }
            self.servicer.add_registered_method_handlers("m", handlers)
            self.channel = TunnelChannel("127.0.0.1:1", tunnel=OPTIONS, health_service=None)
            self.channel._dial = lambda address: FakeChannel(self.answer)  # type: ignore[assignment,method-assign,return-value]
            await self.channel.channel_ready()

        self.do(prepare())

    def answer(self, wire: Wire) -> None:
        self.wires.append(wire)
        self.servers.append(asyncio.get_running_loop().create_task(serve(self.servicer, wire)))

    def running(self) -> list[Expected]:
        return [expected for expected in self.all() if expected.code is None]

    def all(self) -> list[Expected]:
        return self.unary + self.streams + self.duplexes

    @rule(size=st.sampled_from([0, 1, 900, 1100, 8000]))
    def start_unary(self, size: int) -> None:
        async def start() -> None:
            call = self.channel.unary_unary("/m/Unary")(b"u" * size)
            self.unary.append(Expected(call, size))

        self.do(start())
        self.settle()

    @rule(size=st.sampled_from([0, 1, 500, 1100, 8000]), count=st.integers(0, 40))
    def start_stream(self, size: int, count: int) -> None:
        async def start() -> None:
            call = self.channel.unary_stream("/m/Stream")(b"%d %d" % (size, count))
            self.streams.append(Expected(call, size, count))

        self.do(start())

    @rule()
    def start_duplex(self) -> None:
        async def start() -> None:
            self.duplexes.append(Expected(self.channel.stream_stream("/m/Duplex")()))

        self.do(start())

    def see_answers(self) -> None:
        """A unary call that has ended by itself has ended well."""
        for expected in self.unary:
            if expected.code is None and expected.call.done():
                expected.code = Code.OK

    def live(self, calls: list[Expected]) -> list[Expected]:
        """Calls that run in the tunnel, rather than wait for a place in it."""
        return [expected for expected in calls if expected.code is None and expected.call.carrier is not None]

    @precondition(lambda self: self.live(self.streams))
    @rule(data=st.data(), messages=st.integers(1, 20))
    def read_stream(self, data: Any, messages: int) -> None:
        expected = data.draw(st.sampled_from(self.live(self.streams)))

        async def read() -> None:
            for _ in range(messages):
                message = await expected.call.read()
                if expected.read == expected.count:
                    assert message is aio.EOF
                    expected.code = Code.OK
                    return
                assert message == b"s" * expected.size
                expected.read += 1

        self.do(read())

    @precondition(lambda self: self.live(self.duplexes))
    @rule(data=st.data(), size=st.sampled_from([0, 10, 2000]), times=st.integers(1, 5))
    def echo(self, data: Any, size: int, times: int) -> None:
        expected = data.draw(st.sampled_from(self.live(self.duplexes)))

        async def exchange() -> None:
            for _ in range(times):
                await expected.call.write(b"d" * size)
                assert await expected.call.read() == b"d" * size

        self.do(exchange())

    @precondition(lambda self: self.live(self.duplexes))
    @rule(data=st.data())
    def end_duplex(self, data: Any) -> None:
        expected = data.draw(st.sampled_from(self.live(self.duplexes)))

        async def end() -> None:
            await expected.call.done_writing()
            assert await expected.call.read() is aio.EOF

        self.do(end())
        expected.code = Code.OK

    @rule()
    def shut_gate(self) -> None:
        self.settle()
        self.service.gate.clear()

    @rule()
    def open_gate(self) -> None:
        self.service.gate.set()
        self.settle()

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        self.see_answers()
        if not self.running():
            return
        expected = data.draw(st.sampled_from(self.running()))

        async def cancel() -> bool:
            return bool(expected.call.cancel())

        if self.do(cancel()):
            expected.code = Code.CANCELLED
        else:
            assert any(expected is stream for stream in self.streams)
            assert expected.read == expected.count
            expected.code = Code.OK

    @rule()
    def cut(self) -> None:
        async def cut() -> None:
            for wire in self.wires:
                wire.cut()

        self.settle()
        self.see_answers()
        for expected in self.live(self.unary):
            expected.code = Code.UNAVAILABLE
        for expected in self.live(self.duplexes):
            expected.code = Code.UNAVAILABLE
        lost = self.live(self.streams)
        self.do(cut())
        self.settle()

        async def read_rest(expected: Expected) -> None:
            """What had arrived is still to be had; then the loss shows, or the end if that had arrived too."""
            try:
                while await expected.call.read() is not aio.EOF:
                    expected.read += 1
            except aio.AioRpcError:
                pass
            expected.code = await expected.call.code()
            assert expected.code is Code.UNAVAILABLE or expected.read == expected.count, (expected.call, expected)

        for expected in lost:
            self.do(read_rest(expected))
        self.do(self.channel.channel_ready())

    @invariant()
    def statuses_are_as_expected(self) -> None:
        self.see_answers()
        for expected in self.all():
            if expected.code is not None and expected.call.done():
                assert self.do(expected.call.code()) is expected.code

    @invariant()
    def stalled_readers_hold_no_more_than_their_windows(self) -> None:
        for expected in self.streams:
            longest = max(OPTIONS.window_bytes, expected.size + 32)
            assert sum(len(message) + 32 for message in expected.call.inbox) <= longest

    def teardown(self) -> None:
        if not hasattr(self, "channel"):
            self.loop.close()
            return
        self.service.gate.set()
        self.settle()
        self.see_answers()
        for expected in self.unary:
            if expected.code is Code.OK:
                assert self.do(_value(expected.call)) == b"u" * expected.size
        self.do(self.channel.close())
        for expected in self.all():
            code = self.do(expected.call.code())
            assert code is (expected.code or code)
        self.do(asyncio.gather(*self.servers))
        self.settle()
        assert self.servicer.open_calls == 0
        assert not self.servicer._links
        assert not [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        self.loop.close()


async def _value(call: Any) -> Any:
    return await call


TestTunnels = Tunnels.TestCase
TestTunnels.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
