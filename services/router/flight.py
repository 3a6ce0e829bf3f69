"""One answer in the making, and those who wait for it in this router: its leader, and whoever asked the same meanwhile.

Where the events come from (a provider, or another router's flight) is the business of whoever adds them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from modelmuxer.cache.v1.cache_pb2 import CacheKey, FillOpen, LookupResponse
from modelmuxer.chat.v1.chat_pb2 import ChatEvent, ChatResponse

from services.router.recording import Recording
from shared.errors import MeshError, Reason
from shared.transcript import replay

Events = AsyncGenerator[ChatEvent, None]


class Flight:
    """Events or a whole answer, for any number of members, each from the beginning."""

    def __init__(self, key: CacheKey, *, conditional: bool = False) -> None:
        self.key = key
        self.conditional = conditional
        """There may be an answer in the cache, which is too old for the leader only."""
        self.id = b""
        self.opening: FillOpen | None = None
        """How its answer is stored, if it is made here; None for another router's."""
        self.kept: LookupResponse | None = None
        """The cache's answer, which there was after all."""
        self.decided = False
        """The cache has been asked."""
        self.lasting = False
        """It goes on though nobody waits for it."""
        self.leader: object = None
        """Whose request it is made for, and who pays."""
        self.members = 0
        self.followed = False
        """Other routers follow it, too."""
        self.task: asyncio.Task[None] | None = None
        self.events: list[ChatEvent] = []
        self.answer: ChatResponse | None = None
        self.storable = False
        self.error: MeshError | None = None
        self.ended = False
        self.news = asyncio.Event()
        self._recording = Recording()

    @property
    def needed(self) -> bool:
        """Whether anybody waits for it here."""
        return self.members > 0 or self.lasting

    def add(self, event: ChatEvent) -> None:
        """Shows an event to the members."""
        self.events.append(event)
        self._recording.add(event)
        self._wake()

    def land(self, answer: ChatResponse | None = None) -> None:
        """Ends the flight well: with a whole answer, or after its last event."""
        self.answer = answer or self._recording.answer()
        self._end(None)

    def decide(self, kept: LookupResponse | None = None) -> None:
        """Says that it is known where the answer comes from; from the cache, if it has one."""
        self.kept = kept
        self.decided = True
        if kept is not None:
            self.ended = True
        self._wake()

    def fail(self, error: MeshError) -> None:
        """Ends the flight with an error, unless it has ended."""
        if not self.ended:
            self._end(error)

    def join(self) -> None:
        """One member more."""
        self.members += 1

    def leave(self) -> None:
        """One member less. What nobody waits for is not made."""
        self.members -= 1
        if self.needed or self.ended:
            return
        if self.followed:
            self._wake()
        elif self.task is not None:
            self.task.cancel()

    async def decision(self) -> LookupResponse | None:
        """The cache's answer, if it turns out to have one."""
        while not self.decided and not self.ended:
            await self.news.wait()
        return self.kept

    async def stream(self) -> Events:
        """The events, as they come."""
        seen = 0
        while True:
            while seen < len(self.events):
                yield self.events[seen]
                seen += 1
            if self.ended:
                break
            await self.news.wait()
        if self.error is not None:
            raise self.error
        if not self.events and self.answer is not None:
            for event in replay(self.answer):
                yield event

    async def whole(self) -> ChatResponse:
        """The answer, once it is whole."""
        while not self.ended:
            await self.news.wait()
        if self.error is not None:
            raise self.error
        if self.answer is None:
            raise lost()
        return self.answer

    def _wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def _end(self, error: MeshError | None) -> None:
        self.error = error
        self.ended = True
        self._wake()


def lost() -> MeshError:
    """The error of a flight that ended without an answer."""
    return MeshError(
        Reason.FLIGHT_LOST,
        "The request whose answer this one shared ended before that was whole; ask again.",
        retry_after_s=1.0,
    )


def as_own(error: MeshError, request_id: str) -> MeshError:
    """A leader's error, as a follower's own."""
    own = MeshError.from_status(error.to_status())
    own.metadata.pop("attempts", None)
    if "request_id" in own.metadata:
        own.metadata["request_id"] = request_id
    return own
