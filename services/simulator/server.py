"""The simulated providers behind one port: which path is whose, and what tests may look up afterwards.

The three providers decide what is answered, `connection` and `playback` how it reaches the wire.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from services.simulator.answer import Answer, json_answer
from services.simulator.anthropic import Anthropic
from services.simulator.behaviour import OrderError, Orders, read_directives
from services.simulator.bill import Bill
from services.simulator.connection import Connection, Request, connection_factory
from services.simulator.gemini import Gemini
from services.simulator.gemini_embeddings import METHODS, GeminiEmbeddings
from services.simulator.openai import COMPATIBLE, OpenAI
from services.simulator.openai_embeddings import OpenAIEmbeddings
from services.simulator.prices import Prices

MAX_RECEIVED = 4096
MAX_RECEIVED_BYTES = 64 * 1024 * 1024
MAX_CLOSES = 20_000
_SECRET_HEADERS = frozenset(
    (b"authorization", b"proxy-authorization", b"x-api-key", b"x-goog-api-key", b"api-key", b"cookie")
)
_log = logging.getLogger(__name__)

Handler = Callable[[Request], Answer]


class Simulator:
    """The providers with their bill, and a desk for the connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop, prices: Prices | None = None) -> None:
        self.loop = loop
        prices = prices or Prices()
        self.bill = Bill(prices)
        self.url = ""
        self._ordered: dict[str, Orders] = {}
        self._started_at = f"{time.time_ns() // 1_000_000:x}"
        self._numbers = itertools.count(1)
        self._openai = OpenAI(prices, self._ordered, self._new_id)
        self._anthropic = Anthropic(prices, self._ordered, self._new_id)
        self._gemini = Gemini(prices, self._ordered, self._new_id)
        self._embeddings = OpenAIEmbeddings(self._openai, self._new_id)
        self._gemini_embeddings = GeminiEmbeddings(self._gemini)
        self._connections: set[Connection] = set()
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._closes: deque[dict[str, Any]] = deque(maxlen=MAX_CLOSES)
        self._received = Received()
        self._exact = self._routes()

    # -- the desk ------------------------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._all_closed.clear()

    def closed(self, connection: Connection, *, by_client: bool) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_closed.set()
        running = connection.running
        self._closes.append(
            {
                "peer": _peer(connection.peer),
                "by": "client" if by_client else "server",
                "running": _call_of(running.answer) if running else None,
                "opened_at": connection.opened_at,
                "closed_at": time.time(),
                "closed_monotonic": time.monotonic(),
            }
        )

    def answer(self, request: Request) -> Answer:
        if b"x-client-request-id" in request.headers:
            self._received.add(request)
        try:
            handler = self._exact.get((request.method, request.path))
            return handler(request) if handler else self._answer_other(request)
        except Exception:
            _log.exception("the simulator failed on %s %s", request.method, request.path.decode("latin-1"))
            message = "the simulator failed; its log says why"
            return json_answer({"error": {"type": "simulator_error", "message": message}}, 500)

    def settle(self, answer: Answer, generated: int, *, complete: bool) -> None:
        if answer.charge is not None:
            self.bill.add(answer.charge, generated, complete=complete)

    # -- paths ---------------------------------------------------------------------------------------------------

    def _routes(self) -> dict[tuple[str, bytes], Handler]:
        routes: dict[tuple[str, bytes], Handler] = {
            ("GET", b"/healthz"): lambda _: json_answer({"status": "ok"}),
            ("GET", b"/bill"): self._show_bill,
            ("DELETE", b"/bill"): self._reset_bill,
            ("GET", b"/connections"): self._show_connections,
            ("PUT", b"/behaviour"): self._order,
            ("DELETE", b"/behaviour"): self._forget_orders,
        }
        for provider in (None, "openai", *COMPATIBLE):
            prefix = b"/" + provider.encode() if provider else b""
            routes["POST", prefix + b"/v1/chat/completions"] = partial(self._openai.chat, provider=provider)
            routes["POST", prefix + b"/v1/embeddings"] = partial(self._embeddings.create, provider=provider)
            routes["GET", prefix + b"/v1/models"] = partial(self._models, provider=provider)
        for prefix in (b"", b"/anthropic"):
            routes["POST", prefix + b"/v1/messages"] = self._anthropic.messages
            routes["POST", prefix + b"/v1/messages/count_tokens"] = self._anthropic.count_tokens
        routes["GET", b"/anthropic/v1/models"] = self._anthropic.models
        for prefix in (b"", b"/gemini"):
            for version in (b"/v1beta", b"/v1"):
                routes.setdefault(("GET", prefix + version + b"/models"), self._gemini.models)
        return routes

    def _models(self, request: Request, provider: str | None) -> Answer:
        """All three list their models on the same path; how the caller identifies itself tells them apart."""
        if provider is None and b"anthropic-version" in request.headers:
            return self._anthropic.models(request)
        if provider is None and b"x-goog-api-key" in request.headers:
            return self._gemini.models(request)
        return self._openai.models(request, provider)

    def _answer_other(self, request: Request) -> Answer:
        """Paths with a name in them."""
        parts = unquote(request.path.decode("latin-1")).strip("/").split("/")
        if request.method == "GET" and parts[0] == "calls" and len(parts) == 2:
            return self._show_calls(parts[1])
        provider = parts.pop(0) if parts[0] in ("openai", "gemini", *COMPATIBLE) else None
        is_google = b"x-goog-api-key" in request.headers
        match request.method, parts:
            case "GET", ["v1", "models", *name] if name and provider != "gemini" and not is_google:
                return self._openai.models(request, provider, "/".join(name))
            case "GET", ["v1beta" | "v1", "models", name]:
                return self._gemini.models(request, name)
            case "POST", ["v1beta" | "v1" | "v1alpha", "models", called] if ":" in called:
                model, _, method = called.rpartition(":")
                if method in METHODS:
                    return self._gemini_embeddings.call(request, model, method)
                return self._gemini.call(request, model, method)
        if any(path == request.path for _, path in self._exact):
            return _not_served(405, f"{request.method} is not allowed on {'/'.join(parts)}")
        return _not_served(404, f"the simulated providers serve nothing at {request.method} /{'/'.join(parts)}")

    # -- what tests look up --------------------------------------------------------------------------------------

    def _show_bill(self, request: Request) -> Answer:
        query = parse_qs(request.query.decode("latin-1"))
        since = query.get("since", ["0"])[0]
        if not since.isdecimal():
            return _not_served(400, "since must be a position in the bill, 0 or more")
        return json_answer(self.bill.report(since=int(since), client_id=query.get("client_id", [None])[0]))

    def _reset_bill(self, _: Request) -> Answer:
        self.bill.reset()
        return json_answer(self.bill.report())

    def _show_connections(self, _: Request) -> Answer:
        running = [_call_of(c.running.answer) for c in self._connections if c.running and c.running.answer.charge]
        return json_answer({"open": len(self._connections), "running": running, "closed": list(self._closes)})

    def _show_calls(self, client_id: str) -> Answer:
        return json_answer({"calls": self._received.of(client_id)})

    def _order(self, request: Request) -> Answer:
        """Sets a model's orders until they are forgotten: `{"model": "gpt-4o", "directive": "status=503"}`."""
        try:
            body = orjson.loads(request.body)
            model, directive = str(body["model"]), str(body["directive"])
            orders = read_directives(f"[[sim {directive}]]")
        except (orjson.JSONDecodeError, KeyError, TypeError, OrderError) as error:
            return _not_served(400, f'expected {{"model": …, "directive": "key=value …"}}: {error}')
        if orders:
            self._ordered[model] = orders
        else:
            self._ordered.pop(model, None)
        return json_answer({"model": model, "orders": orders})

    def _forget_orders(self, _: Request) -> Answer:
        self._ordered.clear()
        return json_answer({})

    def _new_id(self) -> str:
        return f"req_{self._started_at}{next(self._numbers):08x}"

    # -- its life ------------------------------------------------------------------------------------------------

    async def drain(self, grace_s: float) -> None:
        """Closes every connection: at once where nothing runs, after the running answer, or when the grace is over."""
        for connection in tuple(self._connections):
            connection.drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_closed.wait(), grace_s)
        for connection in tuple(self._connections):
            connection.abort()
        await self._all_closed.wait()


class Received:
    """The last requests that carried a caller's id, bounded in number and bytes."""

    def __init__(self) -> None:
        self._requests: OrderedDict[int, Request] = OrderedDict()
        self._numbers = itertools.count()
        self._bytes = 0

    def add(self, request: Request) -> None:
        self._requests[next(self._numbers)] = request
        self._bytes += len(request.body)
        while len(self._requests) > MAX_RECEIVED or self._bytes > MAX_RECEIVED_BYTES:
            self._bytes -= len(self._requests.popitem(last=False)[1].body)

    def of(self, client_id: str) -> list[dict[str, Any]]:
        """What came with an id, without secrets."""
        wanted = client_id.encode()
        return [_shown(r) for r in self._requests.values() if r.headers[b"x-client-request-id"] == wanted]


def _shown(request: Request) -> dict[str, Any]:
    headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in request.headers.items() if k not in _SECRET_HEADERS}
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        body = request.body.decode("latin-1")
    return {"method": request.method, "path": request.path.decode("latin-1"), "headers": headers, "body": body}


def _call_of(answer: Answer) -> dict[str, Any] | None:
    if answer.charge is None:
        return None
    return {"id": answer.charge.id, "client_id": answer.charge.client_id, "model": answer.charge.model}


def _peer(name: Any) -> str:
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)


def _not_served(status: int, message: str) -> Answer:
    error = {"type": "invalid_request_error", "code": None, "param": None, "message": message}
    return json_answer({"error": error}, status)


@asynccontextmanager
async def serve(*, host: str = "127.0.0.1", port: int = 8090, grace_s: float = 2.0) -> AsyncIterator[Simulator]:
    """Serves the simulated providers on the running loop; port 0 takes a free one, which `url` then names."""
    loop = asyncio.get_running_loop()
    simulator = Simulator(loop)
    server = await loop.create_server(connection_factory(simulator), host, port, backlog=4096)
    bound = server.sockets[0].getsockname()
    name = f"[{bound[0]}]" if server.sockets[0].family == socket.AF_INET6 else bound[0]
    simulator.url = f"http://{name}:{bound[1]}"
    try:
        yield simulator
    finally:
        server.close()
        await simulator.drain(grace_s)
        await server.wait_closed()
