"""Stores under test: every promise of the protocol is held by each kind."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.accounting.stores import Store
from services.accounting.stores.mongodb.connection import Pool
from services.accounting.stores.mongodb.store import MongoStore
from services.accounting.stores.sqlite import SqliteStore

SMALL = Pool(smallest=0, largest=8, timeout_s=20)
Open = Callable[[], Awaitable[Store]]


@pytest.fixture(params=["sqlite", "mongodb"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the test's store, again too; of MongoDB each is a client of its own, as of another process."""
    async with AsyncExitStack() as stack:
        if request.param == "sqlite":

            async def open_store() -> Store:
                return SqliteStore(tmp_path / "ledger.sqlite")

        else:
            url: str = request.getfixturevalue("mongodb_url")

            async def open_store() -> Store:
                store = await MongoStore.open(url, SMALL, quiet_s=0)
                stack.push_async_callback(store.close)
                return store

        yield open_store


@pytest.fixture
async def store(opened: Open) -> AsyncIterator[Store]:
    """One store, empty."""
    made = await opened()
    yield made
    await made.close()


@pytest.fixture
async def clients(request: pytest.FixtureRequest, opened: Open) -> AsyncIterator[list[Store]]:
    """Several clients of one store: four of MongoDB, as accounting processes have; the one of SQLite."""
    first = await opened()
    shared = [await opened() for _ in range(3)] if first.shared else []
    yield [first, *shared]
    await first.close()
