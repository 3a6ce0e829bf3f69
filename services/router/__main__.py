"""The router: settings, wiring, runner."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceStub
from modelmuxer.cache.v1.cache_pb2_grpc import CacheServiceStub
from modelmuxer.provider.v1.provider_pb2_grpc import ProviderServiceStub
from modelmuxer.router.v1.router_pb2_grpc import add_RouterServiceServicer_to_server

from services.router.engine import Engine
from services.router.operations import Operations
from services.router.principals import Principals
from services.router.providers import LiveModels
from services.router.response_cache import ResponseCache
from services.router.service import RouterService
from services.router.settings import RouterSettings
from shared import catalogue
from shared.journal import Journal
from shared.runner import App, main
from shared.shipper import Shipper

if TYPE_CHECKING:
    from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceAsyncStub
    from modelmuxer.cache.v1.cache_pb2_grpc import CacheServiceAsyncStub
    from modelmuxer.provider.v1.provider_pb2_grpc import ProviderServiceAsyncStub

SERVICE = "modelmuxer.router.v1.RouterService"


async def build(settings: RouterSettings, app: App) -> None:
    """Hangs the router onto its process."""
    accounting = cast("AccountingServiceAsyncStub", AccountingServiceStub(app.channel(settings.accounting_address)))
    proxy = cast("ProviderServiceAsyncStub", ProviderServiceStub(app.channel(settings.provider_proxy_address)))
    cache = ResponseCache(
        cast("CacheServiceAsyncStub", CacheServiceStub(app.channel(settings.cache_address))),
        timeout_s=settings.cache_timeout_s,
    )
    journal = Journal(
        settings.home / "journal" / f"router-{settings.port}",
        witness=app.replica,
        max_bytes=settings.journal_max_bytes,
        fsync=settings.journal_fsync,
    )
    app.stack.callback(journal.close)
    shipper = Shipper(journal, accounting)
    app.stack.push_async_callback(shipper.drain, 5.0)
    app.background(shipper.run(), "journal shipper")
    principals, live = Principals(accounting), LiveModels(proxy)
    app.background(principals.watch(), "watch on keys")
    app.background(live.watch(), "watch on providers")
    operations = Operations(accounting, replica=app.replica)
    app.stack.push_async_callback(operations.drain)
    app.stack.push_async_callback(cache.drain)
    engine = Engine(
        settings=settings,
        catalogue=catalogue.load(settings.config, os.environ),
        principals=principals,
        live=live,
        cache=cache,
        operations=operations,
        proxy=proxy,
        journal=journal,
    )
    app.serve(add_RouterServiceServicer_to_server, RouterService(engine), SERVICE, public=True)


if __name__ == "__main__":
    main("router", RouterSettings, build)
