"""The mover of each kind of store."""

from services.accounting.stores import Store, StoreError
from services.accounting.stores.moving import Mover
from services.accounting.stores.sqlite import SqliteStore
from services.accounting.stores.sqlite_moving import SqliteMover


def mover_of(store: Store) -> Mover:
    """What moves rows out of a store and into it."""
    if isinstance(store, SqliteStore):
        return SqliteMover(store)

    # The driver takes half a second to import, which a ledger in SQLite need not pay.
    from services.accounting.stores.mongodb.moving import MongoMover
    from services.accounting.stores.mongodb.store import MongoStore

    if isinstance(store, MongoStore):
        return MongoMover(store)
    raise TypeError(store)


async def check_complete(store: Store) -> None:
    """Raises StoreError if a copy into the store was begun and not finished: it is no ledger yet."""
    progress = await mover_of(store).progress()
    if progress is not None and not progress.complete:
        raise StoreError(
            f"The ledger holds an unfinished copy of {progress.source}: finish it with `mux ledger copy` first."
        )
