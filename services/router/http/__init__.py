"""The router's HTTP face: OpenAI's and Anthropic's wire formats in front of the same engine that gRPC callers reach."""

from __future__ import annotations

from aiohttp import web

from services.router.engine import Engine
from services.router.http.app import HttpFaces
from services.router.settings import RouterSettings
from shared.runner import App, StartError

_MAX_HEADER_BYTES = 64 * 1024
CUT_S = 1.0  # for requests that outlast the grace, which are cut, to end


async def serve(app: App, settings: RouterSettings, engine: Engine) -> None:
    """Serves the face until the service stops. When it drains, running requests finish, and each says that it was the
    last on its connection."""
    faces = HttpFaces(
        engine,
        app.slots,
        app.tracer,
        max_body_bytes=settings.max_message_bytes,
        gzip_minimum_bytes=settings.gzip_minimum_bytes if settings.enable_gzip else None,
        draining=app.draining,
    )
    runner = web.AppRunner(
        faces.application(),
        access_log=None,
        handler_cancellation=True,  # a caller who leaves cancels the provider's call
        max_field_size=_MAX_HEADER_BYTES,
        shutdown_timeout=CUT_S,
    )
    await runner.setup()
    app.stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, settings.host, settings.http_port, backlog=4096)

    async def start() -> None:
        try:
            await site.start()
        except OSError:
            raise StartError(
                f"cannot listen on {settings.host}:{settings.http_port}: stop what listens there, "
                "or set MODELMUXER_ROUTER_HTTP_PORT to a free port"
            ) from None
        host, port = runner.addresses[0][:2]
        app.announce("http", f"{host}:{port}")

    async def drain() -> None:
        await site.stop()
        await faces.drain(settings.grace_s)
        await runner.cleanup()

    app.on_start(start)
    app.on_drain(drain)
