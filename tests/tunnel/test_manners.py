"""grpc.aio's manners beyond the interoperability cases, over both transports."""

import asyncio
import contextvars
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio

from tests.tunnel.conftest import Client, Connect, Server, eventually

Code = grpc.StatusCode


async def status_of(call: Any) -> tuple[Code, str]:
    return await call.code(), await call.details()


async def failure(awaitable: Any) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as error:
        await awaitable
    return error.value


class TestCancel:
    async def test_reaches_the_handler(self, client: Client, server: Server) -> None:
        call = client.hang({"name": "a"})
        await eventually(lambda: server.service.started == ["a"])
        assert not call.done()
        assert call.cancel()
        assert not call.cancel()
        assert call.cancelled()
        assert call.done()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await status_of(call) == (Code.CANCELLED, "Locally cancelled by application!")
        await eventually(lambda: server.service.cancelled == ["a"])

    async def test_of_the_awaiting_task_is_one_of_the_call(self, client: Client, server: Server) -> None:
        call = client.hang({"name": "a"})

        async def wait() -> None:
            await call

        task = asyncio.create_task(wait())
        await eventually(lambda: server.service.started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert call.cancelled()
        await eventually(lambda: server.service.cancelled == ["a"])

    async def test_of_a_reader_is_one_of_the_call(self, client: Client) -> None:
        call = client.duplex()
        task = asyncio.create_task(call.read())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert call.cancelled()

    async def test_stops_iteration(self, client: Client) -> None:
        call = client.output({"sizes": [1, 1, 1]})
        async for _ in call:
            break
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            async for _ in call:
                pass

    async def test_is_seen_by_the_context(self, client: Client, server: Server) -> None:
        seen: list[bool] = []

        async def behaviour(request: Any, context: Any) -> None:
            context.add_done_callback(lambda context: seen.append(True))
            server.service.started.append("x")
            await asyncio.sleep(3600)

        server.service.behaviour = behaviour
        call = client.run({})
        await eventually(lambda: server.service.started)
        call.cancel()
        await eventually(lambda: seen == [True])


class TestDeadline:
    async def test_is_told_to_the_handler(self, client: Client, server: Server) -> None:
        remaining: list[float | None] = []

        async def behaviour(request: Any, context: Any) -> Any:
            remaining.append(context.time_remaining())
            return {}

        server.service.behaviour = behaviour
        await client.run({}, timeout=20)
        await client.run({})
        assert remaining[0] is not None
        assert 18 < remaining[0] <= 20.1
        assert remaining[1] is None

    async def test_that_has_passed_ends_the_call_at_once(self, client: Client) -> None:
        assert (await failure(client.empty({}, timeout=-1))).code() is Code.DEADLINE_EXCEEDED

    async def test_is_told_by_the_call(self, client: Client) -> None:
        call = client.empty({}, timeout=10)
        assert 8 < call.time_remaining() <= 10
        await call
        assert client.empty({}).time_remaining() is None


class TestStatus:
    async def test_abort(self, client: Client, server: Server) -> None:
        async def behaviour(request: Any, context: Any) -> None:
            await context.abort(Code.RESOURCE_EXHAUSTED, "no more", (("k", "v"), ("details-bin", b"\x00\xff")))

        server.service.behaviour = behaviour
        error = await failure(client.run({}))
        assert (error.code(), error.details()) == (Code.RESOURCE_EXHAUSTED, "no more")
        assert tuple(error.trailing_metadata()) == (("k", "v"), ("details-bin", b"\x00\xff"))
        call = client.run_stream({})
        with pytest.raises(aio.AioRpcError):
            await call.read()
        assert await status_of(call) == (Code.RESOURCE_EXHAUSTED, "no more")

    async def test_abort_that_is_swallowed_still_ends_the_call(self, client: Client, server: Server) -> None:
        async def behaviour(request: Any, context: Any) -> Any:
            try:
                await context.abort(Code.ABORTED, "stop")
            except BaseException:
                return {"still": "here"}

        server.service.behaviour = behaviour
        assert (await failure(client.run({}))).code() is Code.ABORTED

    async def test_set_code_and_return(self, client: Client, server: Server) -> None:
        async def behaviour(request: Any, context: Any) -> Any:
            context.set_code(Code.NOT_FOUND)
            context.set_details("gone")
            context.set_trailing_metadata((("a", "b"),))
            return {}

        server.service.behaviour = behaviour
        error = await failure(client.run({}))
        assert (error.code(), error.details()) == (Code.NOT_FOUND, "gone")
        assert error.trailing_metadata()["a"] == "b"

    async def test_of_an_unexpected_exception_is_unknown(self, client: Client, server: Server) -> None:
        async def behaviour(request: Any, context: Any) -> Any:
            if code := request.get("code"):
                context.set_code(getattr(Code, code))
            raise KeyError("oops")

        server.service.behaviour = behaviour
        assert (await failure(client.run({}))).code() is Code.UNKNOWN
        assert (await failure(client.run({"code": "DATA_LOSS"}))).code() is Code.DATA_LOSS

    async def test_comes_after_the_messages_before_it(self, client: Client, server: Server) -> None:
        async def behaviour(request: Any, context: Any) -> None:
            for number in range(3):
                await context.write(number)
            await context.abort(Code.INTERNAL, "late")

        server.service.behaviour = behaviour
        call, seen = client.run_stream({}), []

        async def read_slowly() -> None:
            async for number in call:
                seen.append(number)
                await asyncio.sleep(0.01)

        assert (await failure(read_slowly())).details() == "late"
        assert seen == [0, 1, 2]

    async def test_ok_has_no_details_and_is_final(self, client: Client) -> None:
        call = client.empty({})
        await call
        assert await status_of(call) == (Code.OK, "")
        assert call.done()
        assert not call.cancelled()
        assert not call.cancel()
        assert await call == {}

    async def test_read_after_the_end_is_eof(self, client: Client) -> None:
        call = client.output({"sizes": [1]})
        assert await call.read() == {"body": "0"}
        assert await call.read() is aio.EOF
        assert await call.read() is aio.EOF

    async def test_a_stream_may_end_with_a_code_set(self, client: Client, server: Server) -> None:
        async def behaviour(request: Any, context: Any) -> None:
            await context.write(1)
            context.set_code(Code.OUT_OF_RANGE)

        server.service.behaviour = behaviour
        call = client.run_stream({})
        assert await call.read() == 1
        with pytest.raises(aio.AioRpcError):
            await call.read()
        assert await call.code() is Code.OUT_OF_RANGE


class TestMetadata:
    async def test_initial_comes_before_the_answer(self, client: Client, server: Server) -> None:
        go = asyncio.Event()

        async def behaviour(request: Any, context: Any) -> None:
            await context.send_initial_metadata((("early", "bird"),))
            await go.wait()

        server.service.behaviour = behaviour
        call = client.run_stream({})
        assert (await call.initial_metadata())["early"] == "bird"
        assert not call.done()
        go.set()
        assert await call.read() is aio.EOF

    async def test_initial_is_sent_once(self, client: Client, server: Server) -> None:
        refused: list[str] = []

        async def behaviour(request: Any, context: Any) -> Any:
            await context.send_initial_metadata(())
            try:
                await context.send_initial_metadata(())
            except aio.UsageError:
                refused.append("yes")
            return {}

        server.service.behaviour = behaviour
        await client.run({})
        assert refused == ["yes"]

    async def test_of_the_invocation(self, client: Client, server: Server) -> None:
        seen: list[Any] = []

        async def behaviour(request: Any, context: Any) -> Any:
            seen.extend(context.invocation_metadata())
            return {}

        server.service.behaviour = behaviour
        given = (("a", "1"), ("a", "2"), ("b-bin", b"\xfe"))
        await client.run({}, metadata=given)
        await client.run({}, metadata=aio.Metadata(*given))
        ours = [tuple(item) for item in seen if item.key in ("a", "b-bin")]
        assert ours == [*given, *given]

    async def test_peer_is_the_client(self, client: Client, server: Server) -> None:
        peers: list[Any] = []

        async def behaviour(request: Any, context: Any) -> Any:
            peers.append((context.peer(), context.peer_identities(), context.auth_context(), context.code()))
            return {}

        server.service.behaviour = behaviour
        await client.run({})
        peer, identities, _, code = peers[0]
        assert peer.startswith("ipv4:127.0.0.1:")
        assert identities is None
        assert code is None


class TestCallbacks:
    async def test_run_once_the_call_is_done(self, client: Client) -> None:
        done: list[Any] = []
        call = client.empty({})
        call.add_done_callback(done.append)
        await call
        await eventually(lambda: done == [call])
        call.add_done_callback(done.append)
        assert done == [call, call]

    async def test_run_on_failure_and_cancel(self, client: Client) -> None:
        done: list[Any] = []
        failing, cancelled = client.missing({}), client.hang({"name": "x"})
        for call in (failing, cancelled):
            call.add_done_callback(done.append)
        await failure(failing)
        cancelled.cancel()
        await eventually(lambda: done == [failing, cancelled])


class TestWriting:
    async def test_after_half_close_is_refused(self, client: Client) -> None:
        call = client.duplex()
        await call.write({"sizes": []})
        await call.done_writing()
        with pytest.raises(asyncio.InvalidStateError):
            await call.write({"sizes": []})
        assert await call.read() is aio.EOF
        with pytest.raises(asyncio.InvalidStateError):
            await call.write({"sizes": []})
        await call.done_writing()

    async def test_and_iterators_do_not_mix(self, client: Client) -> None:
        async def nothing() -> AsyncIterator[Any]:
            return
            yield

        call = client.duplex(nothing())
        with pytest.raises(aio.UsageError):
            await call.write({})
        assert [response async for response in call] == []
        call = client.output({"sizes": [1, 2]})
        async for _ in call:
            break
        with pytest.raises(aio.UsageError):
            await call.read()

    @pytest.mark.parametrize("of", [list, tuple, iter, lambda requests: (request for request in requests)])
    @pytest.mark.parametrize("count", [0, 1, 3, 500])
    async def test_plain_iterables_are_requests_too(self, client: Client, of: Any, count: int) -> None:
        assert await client.input(of([{"body": "x" * 200}] * count)) == {"total": 200 * count}

    async def test_a_request_among_several_that_cannot_be_written(self, client: Client) -> None:
        call = client.input([{"body": "a"}, {"body": object()}])
        assert await call.code() is not Code.OK

    async def test_stream_unary_by_hand(self, client: Client) -> None:
        call = client.input()
        await call.write({"body": "abc"})
        await call.done_writing()
        assert await call == {"total": 3}

    async def test_an_iterator_that_fails_cancels_the_call(self, client: Client) -> None:
        async def broken() -> AsyncIterator[Any]:
            yield {"body": "a"}
            raise RuntimeError("no more")

        call = client.input(broken())
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await call.code() is Code.CANCELLED

    async def test_reader_and_writer_in_a_handler(self, client: Client, server: Server) -> None:
        async def behaviour(requests: Any, context: Any) -> None:
            while (request := await context.read()) is not aio.EOF:
                await context.write(request)

        server.service.behaviour = behaviour
        assert [m async for m in client.run_duplex([1, 2, 3])] == [1, 2, 3]


class TestConnection:
    async def test_nobody_there_is_unavailable(self, connect: Connect) -> None:
        client = Client(connect("127.0.0.1:1"))
        assert (await failure(client.empty({}))).code() is Code.UNAVAILABLE

    async def test_wait_for_ready_waits(self, connect: Connect, unused_tcp_port: int) -> None:
        client = Client(connect(f"127.0.0.1:{unused_tcp_port}"))
        assert (await failure(client.empty({}))).code() is Code.UNAVAILABLE
        call = client.empty({}, wait_for_ready=True, timeout=10)
        stream = client.duplex(wait_for_ready=True, timeout=10)
        await asyncio.sleep(0.05)
        assert not call.done()
        server = await Server().start(f"127.0.0.1:{unused_tcp_port}")
        assert await call == {}
        await stream.write({"sizes": [3]})
        assert await stream.read() == {"body": "000"}
        stream.cancel()
        await server.grpc.stop(None)

    async def test_wait_for_ready_has_a_deadline(self, connect: Connect) -> None:
        client = Client(connect("127.0.0.1:1"))
        error = await failure(client.empty({}, wait_for_ready=True, timeout=0.1))
        assert error.code() is Code.DEADLINE_EXCEEDED

    async def test_a_closed_channel_ends_its_calls_and_takes_none(self, client: Client, server: Server) -> None:
        call = client.hang({"name": "a"})
        await eventually(lambda: server.service.started)
        await client.channel.close()
        assert await call.code() is Code.CANCELLED
        with pytest.raises(aio.UsageError):
            await client.empty({})

    async def test_close_with_grace_lets_calls_end(self, client: Client, server: Server) -> None:
        async def behaviour(request: Any, context: Any) -> Any:
            await asyncio.sleep(0.1)
            return {"done": True}

        server.service.behaviour = behaviour
        call = client.run({})
        await asyncio.sleep(0.05)
        await client.channel.close(grace=5)
        assert await call == {"done": True}

    async def test_state(self, client: Client) -> None:
        state = grpc.ChannelConnectivity
        assert client.channel.get_state() is state.IDLE
        await asyncio.wait_for(client.channel.channel_ready(), 5)
        assert client.channel.get_state() is state.READY
        await client.channel.close()
        assert client.channel.get_state() is state.SHUTDOWN


async def test_each_call_has_a_context_of_its_own(client: Client, server: Server) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="empty")
    seen: list[str] = []

    async def behaviour(request: Any, context: Any) -> Any:
        seen.append(variable.get())
        variable.set("full")
        return {}

    server.service.behaviour = behaviour
    await client.run({})
    await client.run({})
    assert seen == ["empty", "empty"]


async def test_a_server_that_stops_ends_its_calls(client: Client, server: Server) -> None:
    call = client.hang({"name": "a"})
    await eventually(lambda: server.service.started)
    await server.grpc.stop(None)
    assert (await failure(call)).code() in (Code.UNAVAILABLE, Code.CANCELLED)
