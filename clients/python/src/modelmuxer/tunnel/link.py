"""What the two ends of a tunnel share: the outgoing batches and their pace, windows, splitting, pings.

A `Link` is one end of one tunnel, a `Stream` one end of one call in it. Neither knows what a call is for: `calls` and
`servicer` build the client's and the server's half on them. All of it belongs to one event loop and is driven by plain
calls; the one task of a link is its pump. The rules are those of `tunnel.proto`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias
from weakref import ref

import grpc
from modelmuxer.tunnel.options import Traffic, TunnelOptions
from modelmuxer.tunnel.v1.tunnel_pb2 import ExchangeRequest, ExchangeResponse, Frame, Hello

VERSION = 1
EXCHANGE = "/modelmuxer.tunnel.v1.TunnelService/Exchange"

OPEN = int(Frame.KIND_OPEN)
MESSAGE = int(Frame.KIND_MESSAGE)
HEADERS = int(Frame.KIND_HEADERS)
END = int(Frame.KIND_END)
CANCEL = int(Frame.KIND_CANCEL)
WINDOW = int(Frame.KIND_WINDOW)

MESSAGE_COST = 32
"""What a message takes from its window besides its length, so that empty ones are not free."""
CHUNK_BYTES = 32 * 1024
"""Longest part of a message in one frame: a long message lets others pass at each."""
BATCH_BYTES = 128 * 1024
"""About the longest batch. Far under gRPC's 4 MiB, and half a millisecond on a slow core."""
SHARE_FRAMES = 16
"""Fewest frames that are worth a turn of the loop, and an answering batch, of their own."""
PAUSE_FRAMES = 4
"""Fewest frames for which a pause is worth its time,"""
UNPACED_BATCHES = 32
"""and batches after which one that was not is tried again."""
ROOM_BYTES = 256 * 1024
"""Frames that may wait for the stream before messages queue up at their calls instead."""
MAX_WINDOW_BYTES = 2**31 - 1
MAX_METADATA_BYTES = 64 * 1024
"""Most metadata that one frame carries: room for a status with details, and far from a whole batch."""

Batch: TypeAlias = ExchangeRequest | ExchangeResponse
Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]

STATUS_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class TunnelError(Exception):
    """The peer broke a rule of the tunnel; the tunnel cannot go on."""


class Metadatum(NamedTuple):
    """One entry of metadata, as gRPC gives it to servicers."""

    key: str
    value: str | bytes


def encode_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> list[bytes]:
    """Keys and values in turn."""
    flat: list[bytes] = []
    for key, value in metadata:
        flat.append(key.encode())
        flat.append(value if isinstance(value, bytes) else value.encode())
    return flat


def decode_metadata(flat: Sequence[bytes]) -> tuple[Metadatum, ...]:
    """The reverse. A value that should be text and is not becomes text with replacement marks."""
    if not flat:
        return ()
    decoded = []
    items = iter(flat)
    for raw, value in zip(items, items, strict=False):
        key, is_text = _keys.get(raw) or _decode_key(raw)
        text = value.decode("utf-8", "replace") if is_text else value
        decoded.append(_new(Metadatum, (key, text)))  # a named tuple's own constructor takes twice as long
    return tuple(decoded)


_new = tuple.__new__
_keys: dict[bytes, tuple[str, bool]] = {}
_MAX_KEYS = 500


def _decode_key(raw: bytes) -> tuple[str, bool]:
    """A key, and whether its values are text. Callers use few; they are kept."""
    key = raw.decode("ascii", "replace")
    found = key, not key.endswith("-bin")
    if len(_keys) < _MAX_KEYS and len(raw) < 100:
        _keys[raw] = found
    return found


class Stream:
    """One end of one call: what it may still send, what it has received.

    Attributes that few calls need stand on the class until they are set.
    """

    link: "Carrier"
    id = 0
    send_window = 0
    recv_window = 0
    backlog: deque[bytes] | None = None
    offset = 0
    in_bulk = False
    tail: dict[str, Any] | None = None
    drained: asyncio.Future[None] | None = None
    inbox: deque[bytes]
    parts: list[bytes] | None = None
    rest = 0
    owed = 0
    reserved = 0
    granted = False
    awaited = False  # the whole message is wanted without a reader having to say so (unary requests and responses)
    reader: asyncio.Future[None] | None = None

    def take(self) -> bytes:
        """The next received message; returns its bytes to the window."""
        message = self.inbox.popleft()
        self.link.consumed(self, len(message) + MESSAGE_COST)
        return message

    def wake_reader(self) -> None:
        reader = self.reader
        if reader is not None:
            self.reader = None
            if not reader.done():
                reader.set_result(None)

    def release(self) -> None:
        """Forgets what was to be sent or put together; whoever waits for it goes on."""
        self.backlog = self.tail = self.parts = None
        drained = self.drained
        if drained is not None:
            self.drained = None
            if not drained.done():
                drained.set_result(None)

    def fail(self, code: grpc.StatusCode, details: str) -> None:
        """The peer broke a rule of this call: it is over."""
        raise NotImplementedError

    def lost(self, details: str) -> None:
        """The tunnel is gone: the call is over."""
        raise NotImplementedError


class Carrier:
    """Where a call's frames go: a tunnel, or a plain gRPC call where the peer has no tunnel."""

    loop: asyncio.AbstractEventLoop

    def send(self, stream: Stream, message: bytes, *, half_close: bool = False) -> asyncio.Future[None] | None:
        """Sends a message; a future says that it had to wait and when it has left."""
        raise NotImplementedError

    def half_close(self, stream: Stream) -> None:
        raise NotImplementedError

    def cancel(self, stream: Stream) -> None:
        raise NotImplementedError

    def await_message(self, stream: Stream) -> None:
        """Somebody waits for the stream's next message."""

    def consumed(self, stream: Stream, cost: int) -> None:
        """A message has been read."""


class Link(Carrier):
    """One end of one tunnel."""

    def __init__(self, batch_type: type[Batch], options: TunnelOptions, replica: str, traffic: Traffic) -> None:
        self.loop = asyncio.get_running_loop()
        self.options = options
        self.traffic = traffic
        self.streams: dict[int, Any] = {}
        """The open calls: streams, or weak references to streams where nobody but their reader shall keep them."""
        self.peer_hello = Hello()
        self.peer_window = 0
        self.closed = False
        self.waiting_bytes = 0
        """Bytes in frames that the outer stream has not taken yet."""
        self._batch_type = batch_type
        self._full: deque[Batch] = deque()
        self._fill = batch_type()
        self._add = self._fill.frames.add
        self._fill_bytes = 0
        self._fill_frames = 0
        self._enough = 1
        self._bulk: deque[Stream] = deque()
        self._sleeper: asyncio.Future[None] | None = None
        self._pressing = False
        self._finishing = False
        self._buffer_left = options.buffer_bytes
        self._reservations: deque[tuple[Stream, int]] = deque()
        self._recv_window = options.window_bytes
        self._whole_bytes = min(options.window_bytes, options.max_message_bytes)
        self._heard = True
        self._missed = 0
        self._pings = 0
        self._tick_handle: asyncio.TimerHandle | None = None
        self._carried_by = ""
        self._fill.hello.version = VERSION
        self._fill.hello.replica = replica
        self._fill.hello.window_bytes = options.window_bytes
        self._fill.hello.max_message_bytes = options.max_message_bytes
        self._touch(64)

    # Out: frames gather in a batch; the pump sends it.

    def put(self, size: int, **fields: Any) -> None:
        """Adds a frame of about `size` bytes to the batch."""
        self._add(**fields)
        self._touch(size)

    def _touch(self, size: int) -> None:
        self.waiting_bytes += size
        self._fill_bytes += size
        self._fill_frames += 1
        if self._fill_bytes >= BATCH_BYTES:
            self._turn_over()
            self._wake()
        elif self._sleeper is not None and self._fill_frames >= self._enough:
            self._wake()

    def _turn_over(self) -> None:
        self._full.append(self._fill)
        self._fill = self._batch_type()
        self._add = self._fill.frames.add
        self._fill_bytes = self._fill_frames = 0

    def _wake(self) -> None:
        sleeper = self._sleeper
        if sleeper is not None:
            self._sleeper = None
            if not sleeper.done():
                sleeper.set_result(None)

    def _press(self) -> None:
        """What is in the batch does not wait for company."""
        self._pressing = True
        self._touch(16)
        self._wake()

    async def pump(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Sends batches until the link is finished.

        The pace: while a batch is being written, frames gather for the next one. That suffices when they come together.
        When they come one by one, each would leave in a batch of its own, and a batch costs as much as ten frames. So a
        batch with fewer than an eighth as many frames as calls are open waits until it has as many, or until
        `pace_s` after the last one: a lone frame still leaves at once, and so does everything while few calls are open.
        Where such a pause gathers too few frames to pay for itself, the next batches do without.
        """
        pace_s = self.options.pace_s
        streams = self.streams
        last = 0.0
        unpaced = 0
        while True:
            if not self.waiting_bytes and not self._bulk:
                if self._finishing:
                    return
                await self._sleep(1)
                continue
            enough = len(streams) >> 3
            if unpaced:
                unpaced -= 1
            elif self._fill_frames < enough and not self._pressing and not self._full:
                left_s = last + pace_s - time.monotonic()
                if left_s > 0:
                    await self._sleep(enough, left_s)
                    if self._fill_frames < PAUSE_FRAMES:
                        unpaced = UNPACED_BATCHES
            last = time.monotonic()
            batch = self._next_batch()
            self.traffic.batches += 1
            self.traffic.frames += len(batch.frames)
            await write(batch.SerializeToString())
            self.drained()
            if self._bulk or self._full:
                await asyncio.sleep(0)  # a connection that takes all at once lets nobody in between

    async def _sleep(self, enough: int, at_most_s: float | None = None) -> None:
        """Waits for `enough` frames."""
        self._enough = enough
        self._sleeper = sleeper = self.loop.create_future()
        alarm = None if at_most_s is None else self.loop.call_later(at_most_s, self._wake)
        try:
            await sleeper
        finally:
            if alarm is not None:
                alarm.cancel()

    def drained(self) -> None:
        """A batch has left."""

    def _next_batch(self) -> Batch:
        if self._full:
            batch = self._full.popleft()
            self.waiting_bytes -= BATCH_BYTES  # about; the last batch settles it
            return batch
        bulk = self._bulk
        while bulk and self._fill_bytes < BATCH_BYTES:
            stream = bulk.popleft()
            stream.in_bulk = False
            if self._emit(stream):
                stream.in_bulk = True
                bulk.append(stream)
            if self._full:
                return self._next_batch()
        batch = self._fill
        self._turn_over()
        self._full.pop()
        self.waiting_bytes = 0
        self._pressing = False
        return batch

    # Out: messages.

    def send(self, stream: Stream, message: bytes, *, half_close: bool = False) -> asyncio.Future[None] | None:
        size = len(message)
        if self.fits(stream, size):
            stream.send_window -= size + MESSAGE_COST
            if half_close:
                self._add(id=stream.id, kind=MESSAGE, message=message, half_close=True)
            else:
                self._add(id=stream.id, kind=MESSAGE, message=message)
            self._touch(size + 16)
            return None
        waiting = self.queue(stream, message)
        if half_close:
            self.half_close(stream)
        return waiting

    def fits(self, stream: Stream, size: int) -> bool:
        """Whether a message may leave whole, now and ahead of nothing."""
        return (
            size <= CHUNK_BYTES
            and size + MESSAGE_COST <= stream.send_window
            and stream.backlog is None
            and self.waiting_bytes < ROOM_BYTES
        )

    def queue(self, stream: Stream, message: bytes) -> asyncio.Future[None]:
        """Sends a message in parts, as the window opens and in turn with other calls."""
        if stream.backlog is None:
            stream.backlog = deque()
        stream.backlog.append(message)
        self._schedule(stream)
        if stream.drained is None:
            stream.drained = self.loop.create_future()
        return stream.drained

    def _schedule(self, stream: Stream) -> None:
        if not stream.in_bulk:
            stream.in_bulk = True
            self._bulk.append(stream)
            self._wake()

    def half_close(self, stream: Stream) -> None:
        if stream.backlog is None:
            self.put(16, id=stream.id, kind=MESSAGE, half_close=True)
        else:
            stream.tail = {"id": stream.id, "kind": MESSAGE, "half_close": True}

    def _emit(self, stream: Stream) -> bool:
        """Sends the next part of a stream's backlog; True if there is more that may go."""
        backlog = stream.backlog
        if not backlog:
            return False
        message, start = backlog[0], stream.offset
        cost = 0 if start else MESSAGE_COST
        left = len(message) - start
        size = min(left, CHUNK_BYTES, stream.send_window - cost)
        if size < 0 or (left and not size):
            return False
        stream.send_window -= size + cost
        rest = left - size
        part = message if size == len(message) else message[start : start + size]
        self.put(size + 16, id=stream.id, kind=MESSAGE, message=part, rest=rest)
        if rest:
            stream.offset = start + size
            return True
        stream.offset = 0
        backlog.popleft()
        if backlog:
            return True
        tail = stream.tail
        stream.release()
        if tail is not None:
            self.put(64, **tail)
            if tail["kind"] == END:
                self.forget(stream)
        return False

    # In.

    async def take_turns(self, frames: Sequence[Frame], take: Callable[[Sequence[Frame]], None]) -> None:
        """Takes a batch's frames, many of them in two turns of the loop.

        What the first ones set going leaves while the rest are still being taken. Taken at once, a full batch would
        make its answer one full batch too, and the two ends would work by turns: one core's worth of calls on two.
        """
        share = max(SHARE_FRAMES, len(self.streams) >> 2, (len(frames) + 1) >> 1)
        if len(frames) <= share:
            take(frames)
            return
        take(frames[:share])
        await asyncio.sleep(0)
        if not self.closed:
            take(frames[share:])

    def accept(self, stream: Stream, frame: Frame) -> None:
        """Takes the message, or the part of one, that a frame carries."""
        part, rest = frame.message, frame.rest
        size = len(part)
        if stream.parts is None and not rest and size <= self._whole_bytes:
            stream.recv_window -= size + MESSAGE_COST
            if stream.recv_window < 0:
                self.violate(stream, "a message beyond the window")
                return
            stream.inbox.append(part)
            if stream.reader is not None:
                stream.wake_reader()
            return
        self._accept_part(stream, part, rest)

    def _accept_part(self, stream: Stream, part: bytes, rest: int) -> None:
        size = len(part)
        stream.recv_window -= size if stream.parts else size + MESSAGE_COST
        if stream.recv_window < 0:
            self.violate(stream, "a message beyond the window")
        elif stream.parts is None:
            if size + rest > self.options.max_message_bytes:
                self.violate(
                    stream,
                    f"a message of {size + rest} bytes, longer than {self.options.max_message_bytes}",
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                )
                return
            if not rest:
                stream.inbox.append(part)
                stream.wake_reader()
                return
            stream.parts, stream.rest = [part], rest
            if stream.awaited or stream.reader is not None:
                self.await_message(stream)
        elif not size or rest != stream.rest - size:
            self.violate(stream, "parts of a message that do not add up")
        else:
            stream.parts.append(part)
            stream.rest = rest
            if not rest:
                stream.inbox.append(b"".join(stream.parts))
                stream.parts = None
                stream.wake_reader()

    def await_message(self, stream: Stream) -> None:
        """Gives the credit that a half-received message still lacks, as far as memory allows."""
        if stream.parts is None or stream.reserved or stream.inbox:
            return
        self._repay(stream)
        lacking = stream.rest - stream.recv_window
        if lacking > 0:
            stream.reserved = lacking
            self._reservations.append((stream, lacking))
            self._grant_reservations()

    def _grant_reservations(self) -> None:
        while self._reservations:
            stream, size = self._reservations[0]
            if stream.reserved and size > self._buffer_left:
                return
            self._reservations.popleft()
            if stream.reserved:
                self._buffer_left -= size
                stream.recv_window += size
                stream.granted = True
                self.put(16, id=stream.id, kind=WINDOW, credit=size)

    def consumed(self, stream: Stream, cost: int) -> None:
        if stream.reserved:
            cost -= stream.reserved
            self._unreserve(stream)
        stream.owed += cost
        if stream.owed * 2 >= self._recv_window:
            self._repay(stream)

    def _unreserve(self, stream: Stream) -> None:
        if stream.granted:
            self._buffer_left += stream.reserved
        stream.reserved = 0
        stream.granted = False
        self._grant_reservations()

    def _repay(self, stream: Stream) -> None:
        if stream.owed and stream.id in self.streams:
            stream.recv_window += stream.owed
            self.put(16, id=stream.id, kind=WINDOW, credit=stream.owed)
        stream.owed = 0

    def credit(self, stream: Stream, credit: int) -> None:
        stream.send_window += credit
        if stream.send_window > MAX_WINDOW_BYTES:
            self.violate(stream, "a window beyond all bounds")
        elif stream.backlog is not None:
            self._schedule(stream)

    def greet(self, batch: Batch) -> None:
        """Takes the peer's first batch's hello."""
        if not batch.HasField("hello"):
            raise TunnelError("the first batch has no hello")
        hello = batch.hello
        if hello.version < 1 or not 1024 <= hello.window_bytes <= MAX_WINDOW_BYTES:
            raise TunnelError("a hello that makes no sense")
        self.peer_hello = hello
        self.peer_window = hello.window_bytes

    def carried_by(self, kind: str) -> None:
        """Counts the tunnel under what carries it from now on."""
        tunnels = self.traffic.tunnels
        if self._carried_by:
            tunnels[self._carried_by] -= 1
        self._carried_by = kind
        if kind:
            tunnels[kind] += 1

    def hear(self, batch: Batch) -> None:
        """What every batch may say besides its frames."""
        self._heard = True
        if batch.HasField("ping"):
            self._fill.pong = batch.ping
            self._press()

    # Life and death.

    def watch_peer(self, dead: Callable[[], None]) -> None:
        """Calls `dead` once the peer has been silent for too long.

        Counts intervals rather than time, so that a process that was itself stopped does not blame its peer.
        """
        if self._heard:
            self._heard, self._missed = False, 0
        else:
            self._missed += 1
            if self._missed >= self.options.ping_limit:
                dead()
                return
            self._pings += 1
            self._fill.ping = self._pings
            self._press()
        self._tick_handle = self.loop.call_later(self.options.ping_interval_s, self.watch_peer, dead)

    def forget(self, stream: Stream) -> None:
        """The call is over here: its id means nothing any more."""
        self.streams.pop(stream.id, None)
        if stream.reserved:
            self._unreserve(stream)

    def violate(self, stream: Stream, what: str, code: grpc.StatusCode = grpc.StatusCode.INTERNAL) -> None:
        """The peer broke a rule of one call, which ends."""
        stream.fail(code, f"The peer sent {what}.")

    def finish(self) -> None:
        """No more will be put: the pump returns when all is sent."""
        self._finishing = True
        self._wake()

    def close(self, details: str) -> None:
        """The tunnel is gone, and with it every call in it."""
        if self.closed:
            return
        self.closed = True
        self.carried_by("")
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        for held in list(self.streams.values()):
            stream = held() if isinstance(held, ref) else held
            if stream is not None:
                stream.lost(details)
        self.streams.clear()
        self._bulk.clear()
        self._reservations.clear()
