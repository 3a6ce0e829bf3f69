"""Wires accounting and runs it."""

import logging
import time

from modelmuxer.accounting.v1.accounting_pb2_grpc import (
    add_AccountingServiceServicer_to_server,
    add_AdminServiceServicer_to_server,
)

from services.accounting import keys
from services.accounting.access import Access
from services.accounting.claims import Claims
from services.accounting.hearing import listen
from services.accounting.lending import Lending
from services.accounting.policies import PolicyChanges
from services.accounting.policy_book import PolicyBook
from services.accounting.service import AccountingServicer, AdminServicer
from services.accounting.settings import AccountingSettings
from services.accounting.stores import Store, StoreAway, StoreError
from services.accounting.stores.movers import check_complete
from services.accounting.stores.sqlite import SqliteStore
from services.accounting.sweeper import sweep
from services.accounting.webhook import Webhook
from shared.runner import App, StartError, main

log = logging.getLogger("modelmuxer.accounting")


async def build(settings: AccountingSettings, app: App) -> None:
    """Hangs accounting onto the app."""
    store = await open_store(settings)
    app.stack.push_async_callback(store.close)
    await make_first_key(store, settings)
    access, changes = Access(store, app.from_mesh), PolicyChanges()
    # An attempt is given up at the first sweep after its time, a lease at the first after its last call.
    longest_call_s = max(settings.pending_timeout_s, settings.longest_call_s) + 2 * settings.sweep_interval_s
    claims = Claims(store, time.time_ns)
    book = PolicyBook(store, changes)
    webhook = None
    if settings.budget_webhook_url:
        webhook = Webhook(store, settings.budget_webhook_url, settings.budget_webhook_secret)
        app.background(webhook.run(), "webhook")
    lending = Lending(
        store,
        changes,
        ttl_s=settings.lease_ttl_s,
        longest_call_s=settings.longest_call_s,
        notify=webhook.notify if webhook else None,
    )
    accounting = AccountingServicer(store, access, claims, changes, book, lending, longest_call_s=longest_call_s)
    admin = AdminServicer(store, access, changes, book)
    # Registered as public: each method asks for the mesh token, or for it or an admin's key.
    package = "modelmuxer.accounting.v1"
    app.serve(add_AccountingServiceServicer_to_server, accounting, f"{package}.AccountingService", public=True)
    app.serve(add_AdminServiceServicer_to_server, admin, f"{package}.AdminService", public=True)
    app.on_drain(changes.close)
    interval_s, pending_timeout_s = settings.sweep_interval_s, settings.pending_timeout_s
    sweeping = sweep(store, lending, interval_s=interval_s, pending_timeout_s=pending_timeout_s)
    app.background(sweeping, "sweeper")
    if store.shared:
        app.background(listen(store, changes), "changes by other processes")


async def open_store(settings: AccountingSettings) -> Store:
    """The store that the settings name. Raises StartError."""
    store: Store
    try:
        if settings.ledger_store == "mongodb":
            store = await _open_mongodb(settings)
        else:
            store = SqliteStore(settings.ledger_path)
        try:
            await check_complete(store)
        except BaseException:
            await store.close()
            raise
        return store
    except StoreAway as error:
        raise StartError(str(error), passing=True) from None
    except StoreError as error:
        raise StartError(str(error)) from None


async def _open_mongodb(settings: AccountingSettings) -> Store:
    from services.accounting.stores.mongodb.connection import Pool  # half a second's import, for those who have it
    from services.accounting.stores.mongodb.store import MongoStore

    pool = Pool(
        smallest=settings.database_pool_size,
        largest=settings.database_pool_size + settings.database_max_overflow,
        idle_s=settings.database_pool_recycle,
        wait_s=settings.database_pool_timeout_s,
        timeout_s=settings.database_timeout_s,
    )
    return await MongoStore.open(settings.mongodb_url or "", pool)


async def make_first_key(store: Store, settings: AccountingSettings) -> None:
    """Gives a mesh that never had a key its first one, in a file that only its owner reads.

    Another key that its owner has put there since is taken in too, unless it was revoked: a release that is installed
    anew finds its ledger again, and has another key.
    """
    known = await store.keys("", include_revoked=True)
    if not known:
        secret = keys.first_secret(settings.key_path)
        if not await store.add_key(keys.first_key(secret, time.time_ns()), "first start", first=True):
            log.warning("another process made the first key; the one in %s is unknown", settings.key_path)
    elif (standing := keys.standing_secret(settings.key_path)) and not keys.is_one_of(standing, known):
        await store.add_key(keys.first_key(standing, time.time_ns()), "key file")
        log.info("took in the key in %s", settings.key_path)


if __name__ == "__main__":
    main("accounting", AccountingSettings, build)
