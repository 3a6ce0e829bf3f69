"""``python -m services.accounting.copying FROM TO``, which `mux ledger copy` runs: moves a whole ledger from one store
to another, and proves that nothing is missing. Cut short it goes on where it was when it is started again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from modelmuxer.accounting.v1.accounting_pb2 import (
    SPEND_DIMENSION_DAY,
    SPEND_DIMENSION_KEY,
    SPEND_DIMENSION_MODEL,
    SPEND_DIMENSION_PROVIDER,
    SPEND_DIMENSION_TENANT,
    SPEND_DIMENSION_USER,
    AuditResponse,
)
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.accounting.audit import Auditor
from services.accounting.stores import SpendQuery, Store, StoreError
from services.accounting.stores.mongodb.connection import Pool
from services.accounting.stores.mongodb.store import MongoStore
from services.accounting.stores.movers import mover_of
from services.accounting.stores.moving import Mover, Part, fingerprint
from services.accounting.stores.moving import Progress as Standing
from services.accounting.stores.sqlite import SqliteStore
from shared.errors import MeshError

Told = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and of how much."""

_POOL = Pool(largest=4, timeout_s=60.0)
_SOON_NS = 60 * 1_000_000_000


_DIMENSIONS = (
    *(SPEND_DIMENSION_TENANT, SPEND_DIMENSION_USER, SPEND_DIMENSION_KEY, SPEND_DIMENSION_MODEL),
    *(SPEND_DIMENSION_PROVIDER, SPEND_DIMENSION_DAY),
)


class CopyError(Exception):
    """Why a ledger was not copied, and what to do."""


@dataclass(frozen=True, slots=True)
class Side:
    """A store, and how rows are moved out of it or into it."""

    store: Store
    mover: Mover


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied: rows by part, and what the ledger says was spent."""

    counts: Mapping[str, int]
    total_nanos: int


def side(store: Store) -> Side:
    """A store as one side of a copy."""
    return Side(store, mover_of(store))


async def copy(source: Side, target: Side, told: Told) -> Copied:
    """Copies a ledger and proves it. Raises CopyError."""
    standing = await _begin(source, target)
    await source.store.tidy(time.time_ns() + _SOON_NS)  # notes of changes that were cut short belong to the trail
    parts = list(Part)
    for number in range(parts.index(Part(standing.part)), len(parts)):
        part = parts[number]
        after = standing.after if standing.part == part else ""
        total, done = await source.mover.count(part), await target.mover.count(part)
        async for page in source.mover.pages(part, after):
            await target.mover.take(part, page, Standing(source.mover.where, part, page[-1].place))
            done += len(page)
            told(part, min(done, total), total)
        following = parts[number + 1] if number + 1 < len(parts) else part
        if following is not part:
            await target.mover.take(following, [], Standing(source.mover.where, following, ""))
    copied = await _verified(source, target, told)
    await target.mover.take(Part.ENTRIES, [], Standing(source.mover.where, "", ""))
    return copied


async def _begin(source: Side, target: Side) -> Standing:
    """Where to go on."""
    standing = await target.mover.progress()
    if standing is None:
        for part in Part:
            if await target.mover.count(part):
                raise CopyError(f"{target.mover.where} is no empty ledger (it has {part}): name one that is.")
        standing = Standing(source.mover.where, next(iter(Part)), "")
        await target.mover.take(Part(standing.part), [], standing)
    if standing.complete:
        raise CopyError(f"{target.mover.where} holds a complete copy of {standing.source} already.")
    if standing.source != source.mover.where:
        raise CopyError(f"{target.mover.where} holds part of a copy of {standing.source}: finish that, or drop it.")
    return standing


async def _verified(source: Side, target: Side, told: Told) -> Copied:
    counts: dict[str, int] = {}
    for part in Part:
        ours = await _digest(source, part, told)
        if ours != await _digest(target, part, told):
            raise CopyError(
                f"The {part} differ: did accounting run on {source.mover.where} in the meantime? Stop it, drop "
                f"{target.mover.where} and copy again."
            )
        counts[part] = ours[0]
    told("sums", 0, 2)
    by_all = SpendQuery(group_by=_DIMENSIONS)
    sums = await source.store.spend(by_all)
    if sums != await target.store.spend(by_all):
        raise CopyError(
            "The sums of the two ledgers differ, though their entries do not: `mux audit` says which are wrong."
        )
    told("sums", 2, 2)
    audits = [await _audit(each.store) for each in (source, target)]
    if not audits[1].ok and audits[0].ok:
        raise CopyError(f"The audit of {target.mover.where} is not clean: {audits[1].findings[0].message}")
    return Copied(counts, sum(spend.amounts.cost_nanos for spend in sums))


async def _digest(one: Side, part: Part, told: Told) -> tuple[int, int]:
    """The number of rows of a part, and a number that differs if one of them does."""
    total, count, digest = await one.mover.count(part), 0, 0
    async for page in one.mover.pages(part, ""):
        count += len(page)
        digest = (digest + sum(fingerprint(placed.row) for placed in page)) % (1 << 256)
        told(f"checking {part}", count, total)
    return count, digest


async def _audit(store: Store) -> AuditResponse:
    auditor = Auditor(now_ns=time.time_ns(), longest_call_ns=1 << 62)
    await store.audit(auditor)
    return auditor.report()


@asynccontextmanager
async def opened(named: str, environ: Mapping[str, str], *, to_read: bool) -> AsyncIterator[Side]:
    """The store that a word on the command line names. Raises StoreError."""
    if named == "mongodb" and not environ.get("MONGODB_URL"):
        raise StoreError("MONGODB_URL is not set: set it, or give the URL in place of the word mongodb.")
    if named == "sqlite":
        named = str(Path(environ.get("MODELMUXER_HOME", ".modelmuxer")) / "ledger.sqlite")
    url = environ["MONGODB_URL"] if named == "mongodb" else named
    store: Store
    if url.startswith(("mongodb://", "mongodb+srv://")):
        store = await MongoStore.open(url, _POOL)
    elif to_read and not await asyncio.to_thread(Path(url).exists):
        raise StoreError(f"There is no ledger at {url}.")
    else:
        store = SqliteStore(Path(url))
    try:
        yield side(store)
    finally:
        await store.close()


async def run(source: str, target: str, *, as_json: bool) -> Copied:
    """Copies, with a progress bar for eyes."""
    columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=as_json)
    tasks: dict[str, int] = {}

    def told(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]  # a TaskID is an int

    async with opened(source, os.environ, to_read=True) as one, opened(target, os.environ, to_read=False) as other:
        with bar:
            return await copy(one, other, told)


def main() -> None:
    """Parses the command line and copies."""
    parser = argparse.ArgumentParser(
        prog="mux ledger copy",
        description="Copy a whole ledger into an empty store. Stop accounting first; journals keep what happens then.",
    )
    store = '"sqlite" (of MODELMUXER_HOME), "mongodb" (of MONGODB_URL), a file, or a mongodb:// URL'
    parser.add_argument("source", metavar="FROM", help=store)
    parser.add_argument("target", metavar="TO", help=store)
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON for machines")
    arguments = parser.parse_args()
    try:
        copied = asyncio.run(run(arguments.source, arguments.target, as_json=arguments.as_json))
    except (CopyError, StoreError, MeshError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped; the same command goes on from here.")
    if arguments.as_json:
        print(json.dumps({"ok": True, "counts": copied.counts, "total_nanos": copied.total_nanos}))
    else:
        counts = ", ".join(f"{count} {part}" for part, count in copied.counts.items())
        print(f"Copied and verified: {counts}; {copied.total_nanos} nano-dollars spent on both sides.")


if __name__ == "__main__":
    main()
