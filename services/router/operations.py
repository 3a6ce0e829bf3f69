"""Operations: the same key, operation id and body get one run and one bill, however often they are sent.

In this router a repeated operation joins the running one, from its first event; over all routers, and for a day after
its end, accounting holds the claim and the answer. What an operation runs is the engine's affair.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
from google.protobuf.duration_pb2 import Duration
from modelmuxer.accounting.v1.accounting_pb2 import ClaimOperationRequest, EndOperationRequest
from modelmuxer.chat.v1.chat_pb2 import ChatEvent, ChatResponse

from services.router.call import Call, deadline_in
from services.router.recording import Recording
from shared.errors import MeshError, Reason
from shared.transcript import replay

if TYPE_CHECKING:
    from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceAsyncStub

CLAIM_TTL_S = 30
RENEW_EVERY_S = 10.0
END_TIMEOUT_S = 2.0
MAX_ID_CHARS = 256

log = logging.getLogger("modelmuxer.router")

Events = AsyncGenerator[ChatEvent, None]
Walk = Callable[[Call], Events]


class Run:
    """One running operation: its events so far, for any number of followers, each from the first event on."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.followers = 0
        self.task: asyncio.Task[None]
        self._events: list[ChatEvent] = []
        self._news = asyncio.Event()
        self._ended = False
        self._error: MeshError | None = None

    def add(self, event: ChatEvent) -> None:
        """Shows an event to the followers."""
        self._events.append(event)
        self._wake()

    def end(self, error: MeshError | None = None) -> None:
        """Ends every follower's stream, with an error if there is one."""
        self._ended, self._error = True, error
        self._wake()

    async def follow(self) -> Events:
        """The events, as they come."""
        seen = 0
        while True:
            while seen < len(self._events):
                yield self._events[seen]
                seen += 1
            if self._ended:
                break
            await self._news.wait()
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Operations:
    """The operations that run in this router."""

    def __init__(self, accounting: AccountingServiceAsyncStub, *, replica: str) -> None:
        self._accounting = accounting
        self._replica = replica
        self._runs: dict[tuple[str, str], Run] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def join(self, call: Call, body: bytes, walk: Walk) -> Events:
        """The events of the call's operation: running, kept, or run now by `walk`.

        Raises OPERATION_MISMATCH if the id stands for another body. `walk` is closed when every follower has left.
        """
        key = (call.principal.key_id, call.operation_id)
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = Run(body)
            run.task = asyncio.create_task(self._run(call, run, walk), name="operation")
            run.task.add_done_callback(lambda _: self._forget(key, run))
        elif run.body != body:
            raise mismatch(call.operation_id)
        run.followers += 1
        try:
            async with aclosing(run.follow()) as events:
                async for event in events:
                    yield event
        finally:
            run.followers -= 1
            if run.followers == 0:
                self._forget(key, run)
                run.task.cancel()

    async def drain(self) -> None:
        """Waits for what is still to be told to accounting."""
        if self._endings:
            await asyncio.wait(self._endings, timeout=END_TIMEOUT_S)

    def _forget(self, key: tuple[str, str], run: Run) -> None:
        if self._runs.get(key) is run:
            del self._runs[key]

    async def _run(self, call: Call, run: Run, walk: Walk) -> None:
        claim = Claim(self._accounting, call, run.body, f"{self._replica}/{call.request_id}")
        try:
            kept = await claim.take(call.remaining_s())
            if kept is not None:
                for event in replay(kept):
                    run.add(event)
            else:
                # Whoever joins may wait longer than the first.
                await self._walk(run, claim, walk(replace(call, deadline=deadline_in(None))))
            run.end()
        except MeshError as error:
            run.end(error)
        except Exception:
            log.exception("an operation failed")
            run.end(MeshError(Reason.INTERNAL, "The operation failed inside the mesh; it may be tried again."))
        finally:
            if claim.held:
                self._later(claim.end(None))

    async def _walk(self, run: Run, claim: Claim, walk: Events) -> None:
        renewal = asyncio.create_task(claim.keep(), name="operation claim")
        recording = Recording()
        try:
            async with aclosing(walk) as events:
                async for event in events:
                    recording.add(event)
                    if event.HasField("completed"):
                        # Kept before anybody is told: a caller that repeats a finished operation is never billed again.
                        await asyncio.shield(self._later(claim.end(recording.answer())))
                    run.add(event)
        finally:
            renewal.cancel()

    def _later(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine, name="operation end")
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return task


class Claim:
    """One run's claim on its operation.

    Its owner is the run, not the router, so that an abandoned run's late release does not release its successor.
    """

    def __init__(self, accounting: AccountingServiceAsyncStub, call: Call, body: bytes, owner: str) -> None:
        self.held = False
        self._accounting = accounting
        self._request = ClaimOperationRequest(
            key_id=call.principal.key_id,
            operation_id=call.operation_id,
            body_sha256=body,
            owner=owner,
            ttl=Duration(seconds=CLAIM_TTL_S),
        )

    async def take(self, timeout_s: float) -> ChatResponse | None:
        """The answer that the operation already has; None if the claim is ours and it is to be run."""
        self.held = True  # from the moment that it may be granted, for nobody may be left to hear it
        try:
            claimed = await self._accounting.ClaimOperation(self._request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            self.held = error.code() is not grpc.StatusCode.ALREADY_EXISTS
            raise _refusal(error, self._request.operation_id) from None
        self.held = not claimed.HasField("answer")
        return None if self.held else claimed.answer

    async def keep(self) -> None:
        """Renews the claim until cancelled."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            with suppress(grpc.aio.AioRpcError):
                await self._accounting.ClaimOperation(self._request, timeout=RENEW_EVERY_S)

    async def end(self, answer: ChatResponse | None) -> None:
        """Ends the claim, with the answer or without. A claim that cannot be ended runs out by itself."""
        self.held = False
        claim = self._request
        request = EndOperationRequest(
            key_id=claim.key_id, operation_id=claim.operation_id, owner=claim.owner, answer=answer
        )
        try:
            await self._accounting.EndOperation(request, timeout=END_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            log.warning("the end of an operation could not be told to accounting: %s", error.code().name)


def check_operation_id(operation_id: str) -> None:
    """Raises MALFORMED_REQUEST for an id that could not be kept."""
    if len(operation_id) > MAX_ID_CHARS:
        raise MeshError(
            Reason.MALFORMED_REQUEST,
            f"The operation id has {len(operation_id)} characters; at most {MAX_ID_CHARS} are kept.",
            field="x-operation-id",
        )


def mismatch(operation_id: str) -> MeshError:
    """The error for an id that already stands for another request."""
    return MeshError(
        Reason.OPERATION_MISMATCH,
        f'Operation "{operation_id}" was sent before with another body; use a new id for another request.',
    )


def _refusal(error: grpc.aio.AioRpcError, operation_id: str) -> MeshError:
    match error.code():
        case grpc.StatusCode.ALREADY_EXISTS:
            return mismatch(operation_id)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return MeshError(
                Reason.DEADLINE_EXCEEDED, "The same operation still runs elsewhere; repeat it to get its answer."
            )
        case _:
            return MeshError(
                Reason.ACCOUNTING_UNAVAILABLE,
                "The operation cannot be claimed, because accounting does not answer; try again shortly, "
                "or without an operation id.",
                retry_after_s=1.0,
            )
