"""The journal keeps what it was told: through kills, tears, damage and full disks."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelmuxer.accounting.v1.accounting_pb2 import Announced, CacheHit, JournalRecord, Outcome
from modelmuxer.chat.v1.chat_pb2 import USAGE_SOURCE_ESTIMATED, USAGE_SOURCE_PROVIDER, Usage

from shared.errors import MeshError, Reason
from shared.frames import HEADER_BYTES, frame, scan
from shared.journal import Journal
from shared.lockfile import Locked

APPENDER = """
import sys
from pathlib import Path
from modelmuxer.accounting.v1.accounting_pb2 import Announced, JournalRecord, Outcome
from shared.journal import Journal
journal = Journal(Path(sys.argv[1]), witness="victim", max_bytes=1 << 30, segment_bytes=1 << 14)
number = 0
while True:
    journal.append(JournalRecord(attempt_id=f"a{number}", announced=Announced(billing_context=b"c" * 200)))
    if number % 3:
        journal.append(JournalRecord(attempt_id=f"a{number}", outcome=Outcome(status="OK")))
    print(number, flush=True)
    number += 1
"""


def open_journal(
    directory: Path, *, max_bytes: int = 1 << 20, fsync: bool = False, segment_bytes: int = 8 << 20
) -> Journal:
    return Journal(directory, witness="test/1", max_bytes=max_bytes, fsync=fsync, segment_bytes=segment_bytes)


def announced(attempt: str, context: bytes = b"context") -> JournalRecord:
    return JournalRecord(
        attempt_id=attempt,
        announced=Announced(
            billing_context=context,
            provider="openai",
            model="openai/gpt-4o",
            deployment="openai/gpt-4o@openai",
            region="eu",
            estimated_input_tokens=12,
        ),
    )


def outcome(attempt: str) -> JournalRecord:
    return JournalRecord(
        attempt_id=attempt, outcome=Outcome(status="OK", usage=Usage(input_tokens=3, source=USAGE_SOURCE_PROVIDER))
    )


def hit(attempt: str) -> JournalRecord:
    return JournalRecord(attempt_id=attempt, cache_hit=CacheHit(saved_nanos=1))


def drain(journal: Journal, size: int = 1000) -> list[JournalRecord]:
    records: list[JournalRecord] = []
    while batch := journal.peek(size):
        records += batch.records
        journal.acknowledge(batch)
    return records


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.journal"))


def test_what_was_appended_is_read_in_order_and_gone_when_acknowledged(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for number in range(10):
        journal.append(hit(f"a{number}"))
    assert journal.waiting == 10
    assert 0 <= journal.oldest_age_s < 5
    records = drain(journal, 3)
    assert [record.id for record in records] == [f"a{number}/cache_hit" for number in range(10)]
    assert all(record.witness == "test/1" and record.time.seconds for record in records)
    assert (journal.waiting, journal.oldest_age_s, journal.peek(1)) == (0, 0.0, None)
    journal.close()
    assert segments(tmp_path) == []


def test_what_was_not_acknowledged_is_replayed_after_a_restart(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.append(announced("a"))
    journal.append(outcome("a"))
    journal.close()
    again = open_journal(tmp_path)
    assert [record.id for record in drain(again)] == ["a/announced", "a/outcome"]


def test_an_attempt_whose_process_died_ends_as_an_estimate(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.append(announced("a"))
    assert len(drain(journal)) == 1  # acknowledged, and still not forgotten
    journal.close()
    lost = drain(open_journal(tmp_path))[-1]
    assert (lost.id, lost.outcome.reason, lost.outcome.status) == ("a/outcome", "PROCESS_LOST", "UNAVAILABLE")
    assert lost.outcome.usage == Usage(input_tokens=12, output_tokens=0, source=USAGE_SOURCE_ESTIMATED)
    assert (lost.outcome.billing_context, lost.outcome.model, lost.outcome.region) == (
        b"context",
        "openai/gpt-4o",
        "eu",
    )


def test_an_attempt_is_given_up_only_once(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.append(announced("a"))
    journal.close()
    for _ in range(3):
        journal = open_journal(tmp_path)
        assert journal.waiting == 2
        journal.close()
    assert [record.id for record in drain(open_journal(tmp_path))] == ["a/announced", "a/outcome"]


def test_a_segment_stays_until_its_attempts_have_ended(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=1000)
    for number in range(6):
        journal.append(announced(f"a{number}"))
    journal.append(announced("last", b"c" * 900))
    drain(journal)
    assert len(segments(tmp_path)) > 1  # these announcements are most of the segment
    for number in range(6):
        journal.append(outcome(f"a{number}"))
    journal.append(outcome("last"))
    drain(journal)
    assert len(segments(tmp_path)) == 1
    assert journal.bytes == segments(tmp_path)[0].stat().st_size


def test_one_long_call_does_not_hold_back_all_that_came_after(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=2000)
    journal.append(announced("long"))
    for number in range(200):
        journal.append(announced(f"a{number}"))
        journal.append(outcome(f"a{number}"))
        drain(journal)
    assert len(segments(tmp_path)) <= 3
    journal.close()
    replayed = drain(open_journal(tmp_path))
    assert [record.id for record in replayed if record.outcome.reason == "PROCESS_LOST"] == ["long/outcome"]


def test_full_refuses_what_begins_and_takes_what_ends(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, max_bytes=1000)
    journal.append(announced("a", b"c" * 1000))
    assert journal.full
    for refused in (announced("b"), hit("c")):
        with pytest.raises(MeshError) as caught:
            journal.append(refused)
        assert caught.value.reason == Reason.JOURNAL_FULL
    journal.append(outcome("a"))
    assert (journal.refusals, journal.waiting) == (2, 2)
    drain(journal)
    journal.append(hit("d"))  # begins a segment, so the one before can go
    assert not journal.full or drain(journal)
    journal.append(announced("b"))


def test_a_disk_that_takes_no_more_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_journal(tmp_path)
    journal.append(hit("a"))
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    with pytest.raises(MeshError, match="disk is full"):
        journal.append(outcome("b"))
    monkeypatch.undo()
    journal.append(hit("c"))
    assert [record.attempt_id for record in drain(journal)] == ["a", "c"]


def test_a_record_too_large_to_ship_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeshError) as caught:
        open_journal(tmp_path).append(announced("a", b"c" * (1 << 20)))
    assert caught.value.reason == Reason.REQUEST_TOO_LARGE


def test_a_directory_has_one_process(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    with pytest.raises(Locked, match=f"process {os.getpid()}"):
        open_journal(tmp_path)
    journal.close()
    open_journal(tmp_path).close()


def test_a_file_cut_at_any_byte_keeps_every_whole_record(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "whole")
    ends = [0]
    for number in range(4):
        journal.append(hit(f"a{number}"))
        ends.append(journal.bytes)
    data = segments(tmp_path / "whole")[0].read_bytes()
    for cut in range(len(data)):
        directory = tmp_path / str(cut)
        directory.mkdir()
        (directory / "000000000001.journal").write_bytes(data[:cut])
        again = open_journal(directory)
        again.append(hit("new"))
        expected = sum(1 for end in ends[1:] if end <= cut)
        assert [record.attempt_id for record in drain(again)] == [*(f"a{n}" for n in range(expected)), "new"]
        assert again.damaged_bytes == 0
        again.close()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_set_aside_and_spoils_no_neighbour(data: st.DataObject) -> None:
    payloads = [f"record {number}".encode() * (number + 1) for number in range(6)]
    frames = [frame(payload) for payload in payloads]
    whole = bytearray(b"".join(frames))
    start = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(1, 40))
    spoilt = (
        bytes(whole[:start]) + data.draw(st.binary(min_size=length, max_size=length)) + bytes(whole[start + length :])
    )
    found = {each.payload for each in scan(spoilt).frames}
    offset = 0
    for payload, framed in zip(payloads, frames, strict=True):
        untouched = offset + len(framed) <= start or offset >= start + length
        assert not untouched or payload in found
        offset += len(framed)
    assert found <= set(payloads)


def test_a_damaged_middle_is_kept_beside_the_journal_and_counted_once(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for number in range(3):
        journal.append(hit(f"a{number}"))
    journal.close()
    path = segments(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    again = open_journal(tmp_path)
    assert again.damaged_bytes == len(data) // 3
    assert (tmp_path / "000000000001.corrupt").stat().st_size == again.damaged_bytes
    again.close()
    once_more = open_journal(tmp_path)
    assert once_more.damaged_bytes == 0
    assert [record.attempt_id for record in drain(once_more)] == ["a0", "a2"]


def test_damage_under_a_running_journal_stops_nothing(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for number in range(3):
        journal.append(hit(f"a{number}"))
    path = segments(tmp_path)[0]
    with path.open("r+b") as file:
        file.seek(HEADER_BYTES + 1)
        file.write(b"\x00\x00\x00")
    assert [record.attempt_id for record in drain(journal)] == ["a1", "a2"]
    assert journal.damaged_bytes > 0
    assert journal.waiting == 0
    journal.append(hit("b"))
    os.truncate(path, path.stat().st_size - 1)
    assert drain(journal) == []
    assert journal.waiting == 0


@pytest.mark.parametrize("run", range(3))
def test_a_killed_process_loses_nothing_that_it_had_appended(tmp_path: Path, run: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(100 + 77 * run):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    told = [int(line) for line in process.stdout.read().split("\n")[:-1] if line]
    process.wait()
    last = told[-1] if told else 99 + 77 * run
    journal = open_journal(tmp_path, max_bytes=1 << 30)
    records = drain(journal)
    ids = {record.id for record in records}
    lost = {record.attempt_id for record in records if record.outcome.reason == "PROCESS_LOST"}
    for number in range(last + 1):
        assert f"a{number}/announced" in ids
        assert f"a{number}/outcome" in ids
        assert (f"a{number}" in lost) == (number % 3 == 0)
    assert len(ids) == len(records)


async def test_durable_appends_share_flushes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_journal(tmp_path, fsync=True, segment_bytes=600)
    flushes = 0
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        nonlocal flushes
        flushes += 1
        time.sleep(0.005)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)

    async def call(number: int) -> None:
        journal.append(hit(f"a{number}"))
        await journal.sync()

    await asyncio.gather(*(call(number) for number in range(50)))
    assert 1 <= flushes <= 12  # a flush for each segment, and a few for all that waited meanwhile
    journal.close()


async def test_waiting_for_records_wakes_at_once(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    waiter = asyncio.create_task(journal.appended())
    await asyncio.sleep(0)
    assert not waiter.done()
    journal.append(hit("a"))
    await asyncio.wait_for(waiter, 1)
    drain(journal)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(journal.appended(), 0.01)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("announce"), st.integers(0, 8)),
            st.tuples(st.just("end"), st.integers(0, 8)),
            st.tuples(st.just("ship"), st.integers(1, 5)),
            st.tuples(st.just("restart"), st.just(0)),
        ),
        max_size=60,
    )
)
def test_each_announced_attempt_is_shipped_with_an_end_whatever_happens(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = open_journal(Path(folder), max_bytes=1 << 30, segment_bytes=700)
        begun: dict[str, bool] = {}
        shipped: dict[str, JournalRecord] = {}

        def ship(size: int) -> None:
            batch = journal.peek(size)
            if batch:
                for record in batch.records:
                    assert shipped.setdefault(record.id, record) == record
                journal.acknowledge(batch)

        for round_, (step, number) in enumerate(steps):
            running = sorted(attempt for attempt, ended in begun.items() if not ended)
            if step == "announce":
                begun[f"a{round_}"] = False
                journal.append(announced(f"a{round_}"))
            elif step == "end" and running:
                attempt = running[number % len(running)]
                begun[attempt] = True
                journal.append(outcome(attempt))
            elif step == "ship":
                ship(number)
            elif step == "restart":
                journal.close()
                journal = open_journal(Path(folder), max_bytes=1 << 30, segment_bytes=700)
                begun = dict.fromkeys(begun, True)
        journal.close()
        journal = open_journal(Path(folder), max_bytes=1 << 30, segment_bytes=700)
        while journal.waiting:
            ship(100)
        for attempt in begun:
            assert f"{attempt}/announced" in shipped
            assert f"{attempt}/outcome" in shipped
        journal.close()
        assert segments(Path(folder)) == []
