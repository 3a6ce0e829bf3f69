"""The provider-proxy: settings, wiring, runner."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceStub
from modelmuxer.provider.v1.provider_pb2_grpc import add_ProviderServiceServicer_to_server

from services.provider_proxy.engine import Engine
from services.provider_proxy.service import ProviderService
from services.provider_proxy.settings import ProviderProxySettings
from shared import catalogue
from shared.journal import Journal
from shared.runner import App, StartError, main
from shared.shipper import Shipper

if TYPE_CHECKING:
    from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceAsyncStub

SERVICE = "modelmuxer.provider.v1.ProviderService"


async def build(settings: ProviderProxySettings, app: App) -> None:
    """Hangs the provider-proxy onto its process."""
    accounting: AccountingServiceAsyncStub = AccountingServiceStub(app.channel(settings.accounting_address))
    journal = Journal(
        settings.home / "journal" / f"provider-proxy-{app.port}",
        witness=app.replica,
        max_bytes=settings.journal_max_bytes,
        fsync=settings.journal_fsync,
    )
    app.stack.callback(journal.close)
    shipper = Shipper(journal, accounting)
    app.stack.push_async_callback(shipper.drain, 5.0)
    app.background(shipper.run(), "journal shipper")
    engine = Engine(settings, _catalogue(settings), journal, os.environ, app.draining.is_set)
    app.stack.push_async_callback(engine.close)
    app.background(catalogue.watch(settings.config, os.environ, engine.use), "watch on the catalogue")
    app.on_drain(engine.drain)
    app.serve(add_ProviderServiceServicer_to_server, ProviderService(engine, settings.call_timeout_s), SERVICE)


def _catalogue(settings: ProviderProxySettings) -> catalogue.Catalogue:
    try:
        return catalogue.load(settings.config, os.environ)
    except catalogue.CatalogueError as error:
        raise StartError(str(error)) from None


if __name__ == "__main__":
    main("provider-proxy", ProviderProxySettings, build)
