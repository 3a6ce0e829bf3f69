"""The scaler: settings, wiring, runner."""

from __future__ import annotations

import time

from keda.externalscaler_pb2_grpc import add_ExternalScalerServicer_to_server
from modelmuxer.scaler.v1.scaler_pb2_grpc import add_ScalerServiceServicer_to_server

from services.scaler.adapters.certificate import server_context
from services.scaler.adapters.external_metrics import ExternalMetrics
from services.scaler.adapters.fleet import Fleet
from services.scaler.fleets import Fleets
from services.scaler.service import ExternalScaler, ScalerService
from services.scaler.settings import ScalerSettings
from services.scaler.targets import Targets
from shared.runner import App, StartError, main
from shared.settings import PREFIX


async def build(settings: ScalerSettings, app: App) -> None:
    """Hangs the scaler onto its process."""
    watched = [
        Fleet(
            service,
            target,
            patience_s=settings.patience_s,
            window_s=settings.scale_down_after_s,
            clock=time.monotonic,
        )
        for service, target in settings.addresses().items()
    ]
    for fleet in watched:
        app.background(fleet.run(), f"replicas of {fleet.service}")
    fleets = Fleets(watched, _targets(settings))
    # Open to all: KEDA has no mesh token, and what it is told health and load tell anybody.
    app.serve(
        add_ExternalScalerServicer_to_server,
        ExternalScaler(fleets, app.draining),
        "externalscaler.ExternalScaler",
        public=True,
    )
    app.serve(
        add_ScalerServiceServicer_to_server, ScalerService(fleets), "modelmuxer.scaler.v1.ScalerService", public=True
    )
    if settings.external_metrics_port is not None:
        await _open_external_metrics(settings, app, fleets, settings.external_metrics_port)


def _targets(settings: ScalerSettings) -> Targets:
    return Targets(
        cpu_percent=settings.cpu_percent,
        memory_percent=settings.memory_percent,
        slots_percent=settings.slots_percent,
        queue_ms=settings.queue_ms,
        added_ms=settings.added_ms,
        least_replicas=settings.least_replicas,
    )


async def _open_external_metrics(settings: ScalerSettings, app: App, fleets: Fleets, port: int) -> None:
    try:
        tls = server_context(settings.external_metrics_certificate, settings.external_metrics_key)
    except OSError as error:
        raise StartError(f"{PREFIX}EXTERNAL_METRICS_CERTIFICATE cannot be used: {error}") from None
    face = ExternalMetrics(fleets, tls)
    app.stack.push_async_callback(face.stop)
    try:
        port = await face.start(settings.host, port)
    except OSError as error:
        raise StartError(f"cannot listen on {PREFIX}EXTERNAL_METRICS_PORT={port}: {error.strerror}") from None
    app.announce("external-metrics", f"{settings.host}:{port}")


if __name__ == "__main__":
    main("scaler", ScalerSettings, build)
