"""Another request's answer, made this request's own: at no cost, under its own id, and told as what it is."""

from __future__ import annotations

from collections.abc import Callable

from modelmuxer.chat.v1.chat_pb2 import CacheInfo, ChatEvent, ChatResponse, Completed, Started

from services.router.walk import Walk


class Share:
    """What one request has of another's answer. `first_token` is called before the first token, `paid` at the end."""

    def __init__(self, walk: Walk, *, first_token: Callable[[], None], paid: Callable[[Started], None]) -> None:
        self.begun = False
        self._walk = walk
        self._first_token = first_token
        self._paid = paid
        self._started = Started()
        self._told_first = False
        walk.cache = CacheInfo(status=CacheInfo.STATUS_COALESCED)

    def event(self, event: ChatEvent) -> ChatEvent:
        """An event of the other's, as one of this request's."""
        self.begun = True
        if event.HasField("started"):
            own = ChatEvent(started=event.started)
            self._begin(own.started)
            return own
        if event.HasField("completed"):
            own = ChatEvent(completed=event.completed)
            self._end(own.completed)
            return own
        if event.HasField("delta") and not self._told_first:
            self._told_first = True
            self._first_token()
        return event

    def answer(self, answer: ChatResponse) -> ChatResponse:
        """The other's whole answer, as this request's."""
        own = ChatResponse()
        own.CopyFrom(answer)
        self._begin(own.started)
        self._end(own.completed)
        own.started.cache.CopyFrom(self._walk.cache)
        return own

    def _begin(self, started: Started) -> None:
        self._walk.begin_shared(started, f"Another request asks {started.model} the same; this one shares its answer.")
        self._started = started

    def _end(self, completed: Completed) -> None:
        self._walk.cache.saved_nanos = completed.cost.nanos
        self._walk.end_shared(completed)
        self._paid(self._started)
