"""The HTTP application: one way through for every wire format (read, authorise, answer whole or as a stream, or fail in
the format's own error body). What a format looks like is its Face's business; what is answered is the engine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from http import HTTPStatus

import orjson
from aiohttp import web
from modelmuxer.chat.v1.chat_pb2 import ChatRequest

from services.router.call import Call
from services.router.engine import Engine
from services.router.headers import cost_headers, decision_headers, embedding_headers
from services.router.http import caching, embeddings, models
from services.router.http.anthropic import AnthropicFace
from services.router.http.face import EventStream, Face
from services.router.http.fields import boolean, mapping, parse_json, string
from services.router.http.headers import authorization, read_cache_control
from services.router.http.openai import OpenAIFace
from services.router.http.problems import http_status, problem_members
from shared.admission import Slots
from shared.errors import MeshError, Reason
from shared.interceptors import unforeseen
from shared.telemetry import metrics, names, tracing

HTTP_CLIENT_CLOSED = 499
LINGER_S = 1.0  # how soon a caller whose stream has ended asks again on its connection, if it does

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Paths that these formats have and the mesh does not serve, told apart from a typing error.
_NOT_SERVED = {
    "/v1/audio": "Audio",
    "/v1/images": "Image generation",
    "/v1/moderations": "Moderation",
    "/v1/responses": "The Responses API",
    "/v1/completions": "The legacy completions API",
    "/v1/complete": "The legacy completions API",
    "/v1/files": "File storage",
    "/v1/batches": "Batch processing",
    "/v1/messages/batches": "Batch processing",
    "/v1/fine_tuning": "Fine-tuning",
    "/v1/assistants": "The Assistants API",
    "/v1/threads": "The Assistants API",
    "/v1/realtime": "The Realtime API",
}
_SERVED = (
    "This gateway serves /v1/chat/completions, /v1/messages, /v1/messages/count_tokens, /v1/embeddings, /v1/models, "
    "/v1/cache/verdicts and /healthz"
)


class HttpFaces:
    """Builds the application over an engine."""

    def __init__(
        self,
        engine: Engine,
        slots: Slots,
        tracer: tracing.Tracing | None,
        *,
        max_body_bytes: int,
        gzip_minimum_bytes: int | None,
        draining: asyncio.Event,
    ) -> None:
        """``gzip_minimum_bytes`` None switches compression off. Once ``draining``, answers close their connections."""
        self._engine = engine
        self._slots = slots
        self._tracer = tracer
        self._max_body_bytes = max_body_bytes
        self._gzip_minimum_bytes = gzip_minimum_bytes
        self._openai = OpenAIFace()
        self._anthropic = AnthropicFace()
        self._draining = draining
        self._running = 0
        self._idle = asyncio.Event()
        self._last_ended_s = -math.inf

    def application(self) -> web.Application:
        """Returns the application."""
        app = web.Application(
            client_max_size=self._max_body_bytes, middlewares=[self._observe, self._answer_errors, self._admit]
        )
        chat, messages = self._chat_with(self._openai), self._chat_with(self._anthropic)
        app.router.add_post("/v1/chat/completions", chat)
        app.router.add_post("/api/v1/chat/completions", chat)
        app.router.add_post("/v1/messages", messages)
        app.router.add_post("/v1/messages/count_tokens", self._count_tokens)
        app.router.add_post("/v1/embeddings", self._embed)
        app.router.add_post("/v1/cache/verdicts", self._judge_hit)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/v1/models/{id:.+}", self._get_model)
        app.router.add_get("/healthz", self._healthz)
        return app

    async def drain(self, grace_s: float) -> None:
        """Waits until no request runs, and has not for a moment, for at most so long.

        Whose stream began before the drain was not told that its connection closes: its next request is answered, and
        tells it so. A connection that is just closed on him would fail a request that is on its way.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self._running or (rest_s := self._last_ended_s + LINGER_S - time.monotonic()) > 0:
                    if self._running:
                        await self._idle.wait()
                    else:
                        await asyncio.sleep(rest_s)

    # --- chats ---

    def _chat_with(self, face: Face) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            call = await self._call(request)
            reading = face.read(await request.read(), request.headers)
            read_cache_control(request.headers, reading.chat.cache)
            if reading.stream is not None:
                return await self._stream(request, face, call, reading.chat, reading.stream)
            response = await self._engine.chat(call, reading.chat)
            headers = decision_headers(response.started) + cost_headers(response.completed)
            return self._json(face.render(response), headers=headers + caching.answer_headers(response))

        return handle

    async def _stream(
        self, request: web.Request, face: Face, call: Call, chat: ChatRequest, encoder: EventStream
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        async with aclosing(self._engine.stream_chat(call, chat)) as events:
            try:
                async for event in events:
                    if not response.prepared:
                        self._part(response)
                        response.headers.extend(decision_headers(event.started))
                        response.headers.extend(caching.stream_headers(event.started.cache))
                        response.headers["x-request-id"] = call.request_id
                        await response.prepare(request)
                    if frames := encoder.encode(event):
                        await response.write(frames)
            except MeshError as error:
                if not response.prepared:
                    raise
                await response.write(face.error_frame(error, call.request_id))
        await response.write_eof()
        return response

    async def _count_tokens(self, request: web.Request) -> web.StreamResponse:
        call = await self._call(request)
        reading = self._anthropic.read_count(await request.read(), request.headers)
        count = await self._engine.count_tokens(call, reading.chat)
        return self._json({"input_tokens": count.input_tokens})

    # --- embeddings ---

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        call = await self._call(request)
        reading = embeddings.read(await request.read())
        answer = await self._engine.embed(call, reading.request)
        body = embeddings.render(answer, as_base64=reading.as_base64)
        return self._json(body, headers=embedding_headers(answer))

    # --- verdicts on hits by meaning ---

    async def _judge_hit(self, request: web.Request) -> web.StreamResponse:
        """{"hit": what x-modelmuxer-cache-hit said, "wrong": true or false}"""
        call = await self._call(request)
        fields = mapping(parse_json(await request.read()), "The body")
        await self._engine.judge_hit(call, string(fields.get("hit"), "hit"), boolean(fields.get("wrong"), "wrong"))
        return self._json({})

    # --- models and health ---

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        listed = [m for m in (await self._engine.list_models(await self._call(request))).models if m.available]
        if "anthropic-version" in request.headers:
            return self._list(request, models.anthropic_page(listed, request.query))
        return self._list(request, models.openai_list(listed))

    async def _get_model(self, request: web.Request) -> web.StreamResponse:
        listed = (await self._engine.list_models(await self._call(request))).models
        model = models.find(listed, request.match_info["id"])
        as_object = models.anthropic_model if "anthropic-version" in request.headers else models.openai_model
        return self._list(request, as_object(model))

    async def _healthz(self, _request: web.Request) -> web.StreamResponse:
        if self._draining.is_set():
            return self._json({"status": "draining"}, status=503)
        return self._json({"status": "ok"})

    # --- what every handler needs ---

    async def _call(self, request: web.Request) -> Call:
        caller = await self._engine.authenticate(authorization(request.headers))
        return Call(
            principal=caller.principal,
            policies=caller.policies,
            face="http",
            request_id=request["id"],
            run_id=request.headers.get("x-run-id", ""),
            operation_id=request.headers.get("Idempotency-Key", request.headers.get("x-operation-id", "")),
        )

    def _list(self, request: web.Request, body: object) -> web.Response:
        """A body that the caller may have already."""
        headers = caching.list_headers(orjson.dumps(body), f"{caching.VARY}, anthropic-version")
        if caching.unchanged(request.headers, dict(headers)["ETag"]):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        return self._json(body, headers=headers)

    def _json(self, body: object, *, status: int = 200, headers: list[tuple[str, str]] | None = None) -> web.Response:
        raw = orjson.dumps(body)
        response = web.Response(body=raw, status=status, content_type="application/json")
        if headers:
            response.headers.extend(headers)
        if self._gzip_minimum_bytes is not None and len(raw) >= self._gzip_minimum_bytes:
            response.enable_compression()
        return response

    # --- what every request passes through, outermost first ---

    @web.middleware
    async def _observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A span and a measurement. The route is the pattern, so that names stay few."""
        request_id = request["id"] = f"req_{uuid.uuid4().hex}"
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "(unknown)"
        headers = {name: request.headers.get(name, "") for name in (tracing.TRACEPARENT, tracing.TRACESTATE)}
        attributes = {names.HTTP_METHOD: request.method, names.HTTP_ROUTE: route}
        started, status = time.perf_counter(), HTTP_CLIENT_CLOSED
        self._running += 1
        self._idle.clear()
        with tracing.serving(self._tracer, f"{request.method} {route}", headers, attributes) as span:
            try:
                response = await handler(request)
                status = response.status
            finally:
                self._running -= 1
                self._last_ended_s = time.monotonic()
                if not self._running:
                    self._idle.set()
                span.set_attribute(names.HTTP_STATUS, status)
                metrics.HTTP_SERVER_DURATION.labels(route, status).observe(time.perf_counter() - started)
        if not response.prepared:
            self._part(response)
            response.headers.setdefault("x-request-id", request_id)
        return response

    def _part(self, response: web.StreamResponse) -> None:
        """Tells a caller, while the service drains, to ask elsewhere next time. Only before the answer has begun."""
        if self._draining.is_set():
            response.force_close()

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turns exceptions into the body that the caller's SDK parses."""
        try:
            return await handler(request)
        except MeshError as error:
            return self._error(request, error)
        except web.HTTPException as error:
            response = self._error(request, _routing_error(request, error), status=error.status)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response
        except (ConnectionError, asyncio.CancelledError):
            raise  # the caller has left
        except Exception as error:
            return self._error(request, unforeseen(f"{request.method} {request.path}", error))

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Takes one of the process's slots, of which gRPC callers have theirs too; health needs none."""
        if request.path == "/healthz":
            return await handler(request)
        with self._slots.slot():
            return await handler(request)

    def _error(self, request: web.Request, error: MeshError, status: int | None = None) -> web.Response:
        status = status or http_status(error)
        metrics.ERRORS.labels(error.reason).inc()
        path = request.path.removeprefix("/api")
        request_id = request["id"]
        if path.startswith("/v1/messages") or "anthropic-version" in request.headers:
            body, content_type = self._anthropic.render_error(error, request_id), "application/json"
        elif path.startswith("/v1/"):
            body, content_type = self._openai.render_error(error, request_id), "application/json"
        else:
            body, content_type = problem_members(error, request_id), "application/problem+json"
        response = web.Response(body=orjson.dumps(body), status=status, content_type=content_type)
        if error.retry_after_s is not None:
            response.headers["Retry-After"] = str(max(1, round(error.retry_after_s + 0.499)))
            response.headers["retry-after-ms"] = str(round(error.retry_after_s * 1000))
        if status == HTTPStatus.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = "Bearer"
        if error.reason in _FINAL:
            response.headers["x-should-retry"] = "false"
        return response


# Trying these again cannot help, though their HTTP status looks as if: the SDKs obey x-should-retry.
_FINAL: frozenset[str] = frozenset({Reason.PROVIDER_QUOTA_EXHAUSTED, Reason.OPERATION_MISMATCH, Reason.CACHE_MISS})


def _routing_error(request: web.Request, error: web.HTTPException) -> MeshError:
    """Puts what aiohttp refuses by itself (unknown path, wrong method, a body that is too large) into words."""
    path = request.path.removeprefix("/api")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        limit = request.app._client_max_size
        return MeshError(Reason.REQUEST_TOO_LARGE, f"The body is larger than the limit of {limit:,} bytes.")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return MeshError(Reason.MALFORMED_REQUEST, f"{request.path} takes {allowed}, not {request.method}.")
    if isinstance(error, web.HTTPNotFound):
        for prefix, name in _NOT_SERVED.items():
            if path == prefix or path.startswith(f"{prefix}/"):
                return MeshError(Reason.NOT_SERVED, f"{name} is not served here. {_SERVED}.")
        return MeshError(Reason.NOT_SERVED, f"There is nothing at {request.path}. {_SERVED}.")
    return MeshError(Reason.MALFORMED_REQUEST, f"{error.reason}.")
