"""A stream's answer, kept for later as it passes. What cannot be kept is no reason to break the stream."""

from __future__ import annotations

import logging

from modelmuxer.chat.v1.chat_pb2 import ChatEvent, ChatResponse

from shared.transcript import Transcript

log = logging.getLogger("modelmuxer.router")


class Recording:
    """Folds events into an answer, for as long as they make one."""

    def __init__(self) -> None:
        self._transcript: Transcript | None = Transcript()

    def add(self, event: ChatEvent) -> None:
        """Takes the next event."""
        if self._transcript is not None:
            try:
                self._transcript.add(event)
            except ValueError as error:
                self._give_up(error)

    def answer(self) -> ChatResponse | None:
        """The whole answer; None if the events made none."""
        if self._transcript is None or not self._transcript.complete:
            return None
        try:
            return self._transcript.response
        except ValueError as error:
            self._give_up(error)
            return None

    def _give_up(self, error: ValueError) -> None:
        log.warning("an answer cannot be kept: %s", error)
        self._transcript = None
