"""One address that serves: its tunnel, its health, its reconnections."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Any, cast

import grpc
from grpc import aio
from modelmuxer.tunnel.calls import ClientCall
from modelmuxer.tunnel.client_link import DRAIN, ClientLink, NoTunnel
from modelmuxer.tunnel.direct import Unanswered
from modelmuxer.tunnel.link import TunnelError
from modelmuxer.tunnel.options import Traffic, TunnelOptions
from modelmuxer.tunnel.plain import PlainLink

_WATCH = "/grpc.health.v1.Health/Watch"
_SERVING = b"\x08\x01"
_HEALTH_PAUSE_S = 0.5

Ready = ClientLink | PlainLink


class Replica:
    """Keeps one tunnel to one address, and knows whether calls should go there.

    A tunnel that is going away is left once its successor stands; until then, and for want of another replica, it still
    takes calls.
    """

    def __init__(
        self,
        address: str,
        dial: Callable[[str], aio.Channel],
        options: TunnelOptions,
        *,
        identity: str,
        metadata: aio.Metadata,
        health_service: str | None,
        on_change: Callable[[], None],
        traffic: Traffic,
        direct: bool,
    ) -> None:
        self.address = address
        self.link: Ready | None = None
        self.serving = health_service is None
        """What the peer says of its health; unknown is not serving."""
        self.failed = False
        """The last attempt to connect or to stay connected failed."""
        self.error = "It has not answered yet."
        """Why calls cannot go there."""
        self._dial = dial
        self._options = options
        self._identity = identity
        self._metadata = metadata
        self._health_service = health_service
        self._on_change = on_change
        self._traffic = traffic
        self._may_go_direct = True
        self._host = address.rpartition(":")[0].strip("[]") if direct and options.direct_timeout_s else None
        self._retry = asyncio.Event()
        self._links: set[Ready] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper = self._spawn(self._keep())

    @property
    def draining(self) -> bool:
        return self.link is not None and self.link.going_away == DRAIN

    @property
    def connecting(self) -> bool:
        """Whether it is worth a call's while to wait: the address has not failed, but cannot take calls yet."""
        return not self.failed and (self.link is None or not self.serving)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _keep(self) -> None:
        failures = 0
        while True:
            channel = self._dial(self.address)
            try:
                link = await self._connect(channel)
            except (aio.AioRpcError, TimeoutError, TunnelError) as error:
                failures += 1
                self._fail(_reason(error))
                await channel.close()
                await self._pause(failures)
                continue
            except BaseException:
                await channel.close()
                raise
            failures = 0
            self._install(link, channel)
            await link.departing
            if link.going_away == DRAIN or link.over.done():
                await self._pause(1)

    async def _connect(self, channel: aio.Channel) -> Ready:
        link = ClientLink(channel, self._options, self._identity, self._on_change, self._traffic)
        try:
            await link.connect(self._metadata, self._host if self._may_go_direct else None)
            self._may_go_direct = True
        except Unanswered:
            self._may_go_direct = False  # the next tunnel does without; the one after it tries again
            raise
        except NoTunnel:
            return PlainLink(channel, self._options.plain_retry_s)
        if link.going_away == DRAIN:
            link.close("The peer is draining.")
            raise TunnelError("it is draining")
        return link

    def _install(self, link: Ready, channel: aio.Channel) -> None:
        predecessor, self.link = self.link, link
        self._links.add(link)
        if predecessor is not None:
            predecessor.leave()
        self.failed = False
        self.error = "It has not said yet that it serves."
        if self._health_service is not None:
            self._spawn(self._watch_health(channel, link))
        self._spawn(self._see_off(link, channel))
        self._on_change()

    async def _see_off(self, link: Ready, channel: aio.Channel) -> None:
        """Stays with a link until it is over."""
        try:
            reason = await asyncio.shield(link.over)
            if self.link is link:
                self.link = None
                self.serving = self._health_service is None
                self.error = reason
                self._on_change()
        finally:
            self._links.discard(link)
            link.close("The channel was closed.")
            await channel.close()

    def _fail(self, reason: str) -> None:
        self.failed = True
        self.error = reason
        self._on_change()

    async def _pause(self, failures: int) -> None:
        """Waits before the next attempt: longer each time, never in step with other clients."""
        self._retry.clear()
        pause_s = min(self._options.backoff_s * 2 ** min(failures - 1, 10), self._options.max_backoff_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s * random.uniform(0.5, 1.5)):  # noqa: S311 - jitter is no secret
                await self._retry.wait()

    def retry_now(self) -> None:
        """Ends the pause between two attempts."""
        self._retry.set()

    async def _watch_health(self, channel: aio.Channel, link: Ready) -> None:
        """Follows the peer's own word as long as its link is the one in use. A peer that has no word is healthy."""
        service = (self._health_service or "").encode()
        request = b"\x0a" + bytes([len(service)]) + service if service else b""
        while self.link is link:
            watch = cast(Any, channel.unary_stream(_WATCH))(request)
            try:
                async for answer in watch:
                    if self.link is not link:
                        return
                    self._hear_health(serving=answer == _SERVING)
            except aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    self._hear_health(serving=True)
                    return
            finally:
                watch.cancel()
            await asyncio.sleep(_HEALTH_PAUSE_S)

    def _hear_health(self, *, serving: bool) -> None:
        self.failed = not serving
        if serving is not self.serving:
            self.serving = serving
            self.error = "It says that it is not serving."
        self._on_change()

    def leave(self) -> None:
        """Takes no further calls; open ones may end."""
        self._keeper.cancel()
        if self.link is not None:
            self.link.leave()

    def open_calls(self) -> list[ClientCall[Any, Any]]:
        return [call for link in self._links for call in link.open_calls()]

    @property
    def left(self) -> bool:
        return not self._tasks

    async def close(self) -> None:
        """Ends everything now; open calls end as UNAVAILABLE."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in list(self._links):
            link.close("The channel was closed.")


def _reason(error: Exception) -> str:
    if isinstance(error, aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
