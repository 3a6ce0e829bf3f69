"""The router: settings, wiring, runner."""

from __future__ import annotations

import os
import secrets

from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceStub
from modelmuxer.cache.v1.cache_pb2_grpc import CacheServiceStub
from modelmuxer.provider.v1.provider_pb2_grpc import ProviderServiceStub
from modelmuxer.router.v1.router_pb2_grpc import add_RouterServiceServicer_to_server

from services.router import http
from services.router.cache_replicas import CacheReplicas
from services.router.embedder import Embedder
from services.router.engine import Engine
from services.router.flights import Flights
from services.router.leases import Leases
from services.router.operations import Operations
from services.router.principals import Principals
from services.router.providers import LiveModels
from services.router.reservation import Reservations
from services.router.response_cache import ResponseCache
from services.router.retry_budget import RetryBudget
from services.router.semantic import SemanticCache
from services.router.service import RouterService
from services.router.settings import RouterSettings
from shared import catalogue
from shared.journal import Journal
from shared.runner import App, main
from shared.settings import SettingsError
from shared.shipper import Shipper

SERVICE = "modelmuxer.router.v1.RouterService"


async def build(settings: RouterSettings, app: App) -> None:
    """Hangs the router onto its process."""
    accounting = AccountingServiceStub(app.channel(settings.accounting_address))
    proxy = ProviderServiceStub(app.channel(settings.provider_proxy_address))
    cache_stub = CacheServiceStub(app.channel(settings.cache_address))
    cache = ResponseCache(cache_stub, timeout_s=settings.cache_timeout_s)
    flights = Flights(cache_stub, cache, wait_s=settings.flight_wait_s)
    journal = Journal(
        settings.home / "journal" / f"router-{app.port}",
        witness=app.replica,
        max_bytes=settings.journal_max_bytes,
        fsync=settings.journal_fsync,
    )
    app.stack.callback(journal.close)
    shipper = Shipper(journal, accounting)
    app.stack.push_async_callback(shipper.drain, 5.0)
    app.background(shipper.run(), "journal shipper")
    # A new holder at each start: a container that is started again has the address, name and process number it had.
    leases = Leases(accounting, holder=f"{app.replica}#{secrets.token_hex(4)}")
    app.stack.push_async_callback(leases.close)
    principals, live = Principals(accounting, leases), LiveModels(proxy)
    app.background(principals.watch(), "watch on keys")
    app.background(live.watch(), "watch on providers")
    operations = Operations(accounting, replica=app.replica)
    app.stack.push_async_callback(operations.drain)
    app.stack.push_async_callback(cache.drain)
    reservations, retries = Reservations(leases, wait_s=settings.budget_wait_s), RetryBudget()
    embedder = Embedder(
        settings=settings, live=live, proxy=proxy, journal=journal, reservations=reservations, retries=retries
    )
    semantic = SemanticCache(
        cache_stub,
        embedder,
        timeout_s=settings.cache_timeout_s,
        embedding_timeout_s=settings.semantic_embedding_timeout_s,
    )
    app.stack.push_async_callback(semantic.drain)
    app.stack.push_async_callback(flights.close)
    engine = Engine(
        settings=settings,
        catalogue=_catalogue(settings),
        principals=principals,
        live=live,
        cache=cache,
        semantic=semantic,
        flights=flights,
        replicas=CacheReplicas(settings.cache_address, app.plain_channel),
        operations=operations,
        proxy=proxy,
        journal=journal,
        reservations=reservations,
        embedder=embedder,
        retries=retries,
    )
    app.stack.push_async_callback(engine.drain)
    app.stack.push_async_callback(flights.drain, settings.grace_s)  # the faces have drained: there will be no more
    app.background(catalogue.watch(settings.config, os.environ, engine.use), "catalogue watch")
    app.serve(add_RouterServiceServicer_to_server, RouterService(engine), SERVICE, public=True)
    await http.serve(app, settings, engine)


def _catalogue(settings: RouterSettings) -> catalogue.Catalogue:
    try:
        return catalogue.load(settings.config, os.environ)
    except catalogue.CatalogueError as error:
        raise SettingsError(error.problems) from None


if __name__ == "__main__":
    main("router", RouterSettings, build)
