"""A process's memory of money: facts about attempts, on local disk before anything else hears of them.

An append survives SIGKILL of the process when it returns; `sync` makes it survive power loss where that is switched on.
The file is the queue: `peek` reads what is not acknowledged yet, `acknowledge` moves on, and segments go oldest first.
Sending is the shipper's, pricing and merging are accounting's.
"""

import asyncio
import logging
import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from google.protobuf.message import DecodeError
from modelmuxer.accounting.v1.accounting_pb2 import JournalRecord, Outcome
from modelmuxer.chat.v1.chat_pb2 import USAGE_SOURCE_ESTIMATED, Usage

from shared.errors import MeshError, Reason
from shared.frames import HEADER_BYTES, MAX_PAYLOAD_BYTES, frame, is_torn, scan
from shared.lockfile import lock
from shared.telemetry import metrics

PROCESS_LOST = "PROCESS_LOST"

_SUFFIX = ".journal"
_SET_ASIDE = ".corrupt"
_SEGMENT_BYTES = 8 << 20
_READ_BYTES = HEADER_BYTES + MAX_PAYLOAD_BYTES  # so that every read holds a whole frame
_FACTS = JournalRecord.DESCRIPTOR.oneofs_by_name["fact"].fields
_BEGINNINGS = frozenset({"announced", "cache_hit"})  # refused when full; what was begun must be able to end

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Segment:
    number: int
    path: Path
    size: int = 0
    announced: int = 0
    """Attempts announced here whose outcome is not acknowledged."""


@dataclass(slots=True)
class _Open:
    """An announced attempt whose outcome is not acknowledged, and where its announcement stands."""

    segment: _Segment
    start: int
    end: int
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Records from the first that is not acknowledged on."""

    records: tuple[JournalRecord, ...]
    _segment: _Segment
    _end: int
    _damage: bytes


class Journal:
    """An append-only journal in a directory that belongs to one process, the same one after each restart.

    Raises Locked if another process has the directory. For one event loop's use; `witness` is who the process is.
    """

    def __init__(
        self,
        directory: Path,
        *,
        witness: str,
        max_bytes: int,
        fsync: bool = False,
        segment_bytes: int = _SEGMENT_BYTES,
    ) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.waiting = 0
        """Records that are not acknowledged."""
        self.refusals = 0
        self.damaged_bytes = 0
        """Bytes that were no record when the journal was read; they stand in a `.corrupt` file beside it."""
        self._directory = directory
        self._witness = witness
        self._fsync = fsync
        self._segment_bytes = min(segment_bytes, max(max_bytes // 8, 1))
        self._segments: deque[_Segment] = deque()
        self._descriptor = -1
        self._cursor = _Segment(0, directory)
        self._offset = 0
        self._open: dict[str, _Open] = {}
        self._oldest_s = 0.0
        self._appended = asyncio.Event()
        self._written = self._synced = 0
        self._unsynced: list[int] = []
        self._counters = {each.name: metrics.JOURNAL_RECORDS.labels(each.name) for each in _FACTS}
        self._flush: asyncio.Task[None] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = lock(directory / "lock")
        try:
            self._recover()
        except BaseException:
            os.close(self._lock)
            raise
        metrics.JOURNAL_BYTES.set_function(lambda: self.bytes)
        metrics.JOURNAL_PENDING.set_function(lambda: self.waiting)
        metrics.JOURNAL_OLDEST_AGE.set_function(lambda: self.oldest_age_s)

    def append(self, record: JournalRecord) -> None:
        """Writes one record, and fills in its id, time and witness where they are unset.

        Raises JOURNAL_FULL: for an announcement or a cache hit when `max_bytes` are reached, for any record when the
        disk takes no more. Raises REQUEST_TOO_LARGE for a record beyond 1 MiB.
        """
        kind = record.WhichOneof("fact")
        if kind is None:
            raise ValueError("A journal record without a fact")
        if kind in _BEGINNINGS and self.full:
            self._refuse(f"The journal holds {self.bytes} bytes that accounting has not taken yet; try again shortly.")
        if not record.id:
            record.id = f"{record.attempt_id}/{kind}"
        if not record.witness:
            record.witness = self._witness
        if not record.HasField("time"):
            record.time.seconds, record.time.nanos = divmod(time.time_ns(), 1_000_000_000)
        payload = record.SerializeToString()
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise MeshError(Reason.REQUEST_TOO_LARGE, "The record of this request exceeds 1 MiB; send smaller tags.")
        if not self.waiting:
            self._oldest_s = record.time.seconds + record.time.nanos / 1e9
        self._write(record.attempt_id, kind, frame(payload))
        self._counters[kind].inc()

    async def sync(self) -> None:
        """Returns when all that was appended survives power loss; at once where the journal does without.

        Calls that wait at the same time share one flush.
        """
        if not self._fsync:
            return
        target = self._written
        while self._synced < target:
            if self._flush is None:
                self._flush = asyncio.create_task(self._flush_once())
            await asyncio.shield(self._flush)

    def peek(self, max_records: int) -> Batch | None:
        """The next records to acknowledge, about 1 MiB of them at most; None if there are none."""
        while True:
            segment = self._cursor
            if self._offset < segment.size:
                break
            if segment is self._segments[-1]:
                self._mark_empty()
                return None
            self._cursor, self._offset = self._after(segment), 0
        data = _read(segment, self._offset, min(_READ_BYTES, segment.size - self._offset))
        found = scan(data, max_records)
        if not found.frames:  # a read holds a whole frame, unless the file was spoilt since it was opened
            self._set_aside(segment, data)
            self._offset = self._offset + len(data) if data else segment.size
            return self.peek(max_records)
        records = tuple(JournalRecord.FromString(each.payload) for each in found.frames)
        damage = b"".join(data[start:end] for start, end in found.damage)
        return Batch(records, segment, self._offset + found.end, damage)

    def acknowledge(self, batch: Batch) -> None:
        """Forgets the records of the last `peek`: they are kept for good elsewhere."""
        self._cursor, self._offset = batch._segment, batch._end
        self.waiting -= len(batch.records)
        for record in batch.records:
            if record.HasField("outcome") and (ended := self._open.pop(record.attempt_id, None)):
                ended.segment.announced -= 1
        if batch._damage:
            self._set_aside(batch._segment, batch._damage)
        metrics.JOURNAL_SHIPPED.inc(len(batch.records))
        self._look_at_oldest()
        self._collect()

    async def appended(self) -> None:
        """Returns when there are records to acknowledge."""
        await self._appended.wait()

    @property
    def full(self) -> bool:
        """Whether attempts may not begin for want of room."""
        return self.bytes >= self.max_bytes

    @property
    def oldest_age_s(self) -> float:
        """Age of the oldest record that is not acknowledged; 0 if there is none."""
        return max(time.time() - self._oldest_s, 0.0) if self.waiting else 0.0

    def close(self) -> None:
        """Lets go of the directory. No segments stay if all records are acknowledged and all attempts have ended."""
        self._sync_now()
        for descriptor in (*self._unsynced, self._descriptor):
            os.close(descriptor)
        self._descriptor = -1  # the number may soon be another file's
        if not self.waiting and not self._open:
            for segment in self._segments:
                segment.path.unlink()
        os.close(self._lock)

    def _look_at_oldest(self) -> None:
        if batch := self.peek(1):
            written = batch.records[0].time
            self._oldest_s = written.seconds + written.nanos / 1e9

    def _mark_empty(self) -> None:
        self.waiting = 0
        self._appended.clear()

    def _refuse(self, message: str) -> NoReturn:
        self.refusals += 1
        metrics.JOURNAL_REFUSED.inc()
        raise MeshError(Reason.JOURNAL_FULL, message, retry_after_s=1.0)

    def _write(self, attempt_id: str, kind: str, data: bytes) -> None:
        segment = self._segments[-1]
        if segment.size and segment.size + len(data) > self._segment_bytes:
            segment = self._rotate()
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            written, reason = 0, error.strerror
        else:
            reason = "the disk is full"
        if written != len(data):
            os.ftruncate(self._descriptor, segment.size)
            self._refuse(f"The journal cannot be written ({reason}); the operator has to make room for it.")
        start, segment.size = segment.size, segment.size + written
        self.bytes += written
        self._written += written
        self._count(attempt_id, kind, segment, start, segment.size)
        self._appended.set()

    def _count(self, attempt_id: str, kind: str | None, segment: _Segment, start: int, end: int) -> None:
        self.waiting += 1
        if kind == "announced":
            before = self._open.get(attempt_id)
            if before:  # carried
                before.segment.announced -= 1
            self._open[attempt_id] = _Open(segment, start, end, ended=before is not None and before.ended)
            segment.announced += 1
        elif kind == "outcome" and (begun := self._open.get(attempt_id)):
            begun.ended = True

    def _rotate(self) -> _Segment:
        number = self._segments[-1].number + 1 if self._segments else 1
        segment = _Segment(number, self._directory / f"{number:012d}{_SUFFIX}")
        descriptor = os.open(segment.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if self._fsync:
            _sync_directory(self._directory)
        if self._descriptor >= 0:
            self._retire(self._descriptor)
        self._descriptor = descriptor
        self._segments.append(segment)
        return segment

    def _retire(self, descriptor: int) -> None:
        if self._fsync:
            self._unsynced.append(descriptor)  # closed by the flush that covers it
        else:
            os.close(descriptor)

    async def _flush_once(self) -> None:
        written, retired = self._written, self._unsynced[:]
        try:
            await asyncio.to_thread(_sync_files, [*retired, self._descriptor])
        except OSError as error:
            self._refuse(f"The journal cannot be made durable ({error.strerror}); the operator has to see to its disk.")
        finally:
            self._flush = None
        self._synced = written
        del self._unsynced[: len(retired)]
        for descriptor in retired:
            os.close(descriptor)

    def _sync_now(self) -> None:
        if self._fsync:
            _sync_files([*self._unsynced, self._descriptor])

    def _after(self, segment: _Segment) -> _Segment:
        return self._segments[self._segments.index(segment) + 1]

    def _collect(self) -> None:
        """Deletes segments, strictly oldest first: an outcome must not go before its announcement."""
        while self._segments[0] is not self._segments[-1]:
            oldest = self._segments[0]
            if self._cursor is oldest:
                if self._offset < oldest.size:
                    return
                self._cursor, self._offset = self._after(oldest), 0
            if oldest.announced and not self._carry(oldest):
                return
            oldest.path.unlink()
            self.bytes -= oldest.size
            self._segments.popleft()

    def _carry(self, segment: _Segment) -> bool:
        """Repeats announcements at the journal's end, so that a few long calls do not hold back all that came after."""
        held = {attempt_id: begun for attempt_id, begun in self._open.items() if begun.segment is segment}
        if any(begun.ended for begun in held.values()):
            return False  # the outcome is on its way out
        if sum(begun.end - begun.start for begun in held.values()) > segment.size // 4:
            return False
        try:
            for attempt_id, begun in held.items():
                self._write(attempt_id, "announced", _read(segment, begun.start, begun.end - begun.start))
        except MeshError:
            return False  # no room: the segment stays
        self._sync_now()
        return True

    def _recover(self) -> None:
        for path in sorted(self._directory.glob(f"*{_SUFFIX}")):
            segment = _Segment(int(path.stem), path)
            self._load(segment)
            if segment.size:
                self._segments.append(segment)
            else:
                path.unlink()
        lost = [begun for begun in self._open.values() if not begun.ended]
        self._rotate()
        self._cursor, self._offset = self._segments[0], 0
        if self.waiting:
            self._appended.set()
            self._look_at_oldest()
        for begun in lost:
            self.append(self._lost_outcome(begun))
        if lost:
            logger.warning("%d attempts had no outcome when their process died; they are estimated", len(lost))

    def _load(self, segment: _Segment) -> None:
        data = segment.path.read_bytes()
        found = scan(data)
        whole = bytearray()
        damage = [data[start:end] for start, end in found.damage]
        for each in found.frames:
            try:
                record = JournalRecord.FromString(each.payload)
            except DecodeError:
                damage.append(data[each.start : each.end])
                continue
            start = len(whole)
            whole += data[each.start : each.end]
            self._count(record.attempt_id, record.WhichOneof("fact"), segment, start, len(whole))
        tail = data[found.end :]
        if tail and not is_torn(tail):
            damage.append(tail)
        if damage:
            self._set_aside(segment, b"".join(damage))
        if len(whole) != len(data):
            _replace(segment.path, bytes(whole))
        segment.size = len(whole)
        self.bytes += segment.size

    def _lost_outcome(self, begun: _Open) -> JournalRecord:
        data = _read(begun.segment, begun.start, begun.end - begun.start)
        record = JournalRecord.FromString(data[HEADER_BYTES:])
        announced = record.announced
        return JournalRecord(
            attempt_id=record.attempt_id,
            outcome=Outcome(
                usage=Usage(
                    input_tokens=announced.estimated_input_tokens, output_tokens=0, source=USAGE_SOURCE_ESTIMATED
                ),
                status="UNAVAILABLE",
                reason=PROCESS_LOST,
                billing_context=announced.billing_context,
                provider=announced.provider,
                model=announced.model,
                deployment=announced.deployment,
                region=announced.region,
            ),
        )

    def _set_aside(self, segment: _Segment, damage: bytes) -> None:
        self.damaged_bytes += len(damage)
        metrics.JOURNAL_DAMAGED.inc(len(damage))
        aside = segment.path.with_suffix(_SET_ASIDE)
        with aside.open("ab") as file:
            file.write(damage)
        logger.error("%d bytes of %s are no records and now stand in %s", len(damage), segment.path.name, aside.name)


def _read(segment: _Segment, start: int, length: int) -> bytes:
    with segment.path.open("rb") as file:
        return os.pread(file.fileno(), length, start)


def _replace(path: Path, data: bytes) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync_directory(path.parent)


def _sync_files(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.fdatasync(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
