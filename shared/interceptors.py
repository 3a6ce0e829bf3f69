"""What every call passes through on its way to a servicer, as one list folded around the handlers when they are
registered: a call pays a few awaits and builds nothing. The tunnel serves the same wrapped handlers.

A handler of any of gRPC's four kinds becomes one shape, `await proceed(request, context)`: a request stream is an async
iterator, an answer stream is written to the context. Requests are decoded last, so that one that is refused costs
little and one that is malformed gets a status like any other error.
"""

import asyncio
import hmac
import inspect
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc import RpcMethodHandler, StatusCode
from grpc.aio import AbortError, AioRpcError, InternalError, ServicerContext

from shared import deadline
from shared.admission import Slots
from shared.errors import STATUS_KEY, MeshError, Reason
from shared.telemetry import metrics, names, tracing

MESH_TOKEN = "x-mesh-token"
CALLER_GONE = "what was to be sent found no caller"  # a cancellation that gRPC tells late

Context = ServicerContext[Any, Any]
Handler: TypeAlias = "RpcMethodHandler[Any, Any]"  # generic to the type checker alone
Proceed = Callable[[Any, Context], Awaitable[Any]]

log = logging.getLogger("modelmuxer.rpc")


@dataclass(frozen=True, slots=True)
class Method:
    """An RPC as it is registered. `public` ones want no mesh token."""

    service: str
    name: str
    public: bool

    @property
    def full_name(self) -> str:
        return f"{self.service}/{self.name}"


Interceptor = Callable[[Method, Proceed], Proceed]


def stack(token: str, slots: Slots, tracer: tracing.Tracing | None) -> list[Interceptor]:
    """The interceptors of a service, outermost first."""
    traced = follow if tracer is None else trace(tracer)
    return [errors, traced, measure, mesh_token(token), admission(slots), deadlines]


class Registry:
    """Takes the place of a server in the generated add_…_to_server functions, and wraps what they register."""

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self._interceptors = interceptors
        self.services: dict[str, dict[str, Handler]] = {}
        """What is registered: methods by name, by service."""

    @property
    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """All of it, as a server takes it."""
        return [grpc.method_handlers_generic_handler(service, methods) for service, methods in self.services.items()]

    def add(self, add_to_server: Callable[[Any, Any], None], servicer: object, *, public: bool = False) -> None:
        """Registers a servicer's methods."""
        add_to_server(servicer, _Registration(self, public))

    def wrap(self, service: str, handlers: Mapping[str, Handler], public: bool) -> None:
        """Registers methods by name."""
        self.services[service] = {
            name: self._wrapped(Method(service, name, public), handler) for name, handler in handlers.items()
        }

    def _wrapped(self, method: Method, handler: Handler) -> Handler:
        proceed = decoded(handler)
        for interceptor in reversed(self._interceptors):
            proceed = interceptor(method, proceed)
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        return make(proceed, None, handler.response_serializer)


class _Registration:
    def __init__(self, registry: Registry, public: bool) -> None:
        self._registry = registry
        self._public = public

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        self._registry.wrap(service, handlers, self._public)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """The same methods once more, behind an interface that does not list them."""


def errors(method: Method, proceed: Proceed) -> Proceed:
    """Turns exceptions into statuses. One that nobody foresaw is logged under an id; the caller sees the id alone."""

    async def answered(request: Any, context: Context) -> Any:
        try:
            return await proceed(request, context)
        except MeshError as error:
            failure = error
        except AbortError:
            raise
        except InternalError:
            raise asyncio.CancelledError(CALLER_GONE) from None
        except AioRpcError as error:
            failure = MeshError.from_rpc(error)
        except Exception as error:
            failure = unforeseen(method.full_name, error)
        metrics.ERRORS.labels(failure.reason).inc()
        status = failure.to_status()
        trailing = (*(context.trailing_metadata() or ()), (STATUS_KEY, status.SerializeToString()))
        try:
            return await context.abort(failure.code, status.message, trailing)
        except InternalError:
            raise asyncio.CancelledError(CALLER_GONE) from None

    return answered


def follow(method: Method, proceed: Proceed) -> Proceed:
    """Keeps each call in its caller's trace, though no span is exported."""

    async def followed(request: Any, context: Context) -> Any:
        tracing.receive(_headers(context))
        return await proceed(request, context)

    return followed


def trace(tracer: tracing.Tracing) -> Interceptor:
    """A span for each call."""

    def intercept(method: Method, proceed: Proceed) -> Proceed:
        attributes = {names.RPC_SYSTEM: "grpc", names.RPC_METHOD: method.full_name}

        async def traced(request: Any, context: Context) -> Any:
            with tracer.serve(method.full_name, _headers(context), attributes) as span:
                code = StatusCode.OK
                try:
                    return await proceed(request, context)
                except BaseException as error:
                    code = _code(error, context)
                    raise
                finally:
                    span.set_attribute(names.RPC_STATUS, code.name)

        return traced

    return intercept


def measure(method: Method, proceed: Proceed) -> Proceed:
    """How long each call takes, by status."""
    histograms: dict[StatusCode, Any] = {}

    async def measured(request: Any, context: Context) -> Any:
        started, code = time.perf_counter(), StatusCode.OK
        try:
            return await proceed(request, context)
        except BaseException as error:
            code = _code(error, context)
            raise
        finally:
            if (histogram := histograms.get(code)) is None:
                histogram = metrics.RPC_SERVER_DURATION.labels(method.full_name, code.name)
                histograms[code] = histogram
            histogram.observe(time.perf_counter() - started)

    return measured


def deadlines(method: Method, proceed: Proceed) -> Proceed:
    """Hands the caller's deadline to the calls that this one makes."""

    async def timed(request: Any, context: Context) -> Any:
        deadline.set_remaining(context.time_remaining())
        return await proceed(request, context)

    return timed


def mesh_token(token: str) -> Interceptor:
    """Lets only the mesh's own services into methods that are not public."""
    expected = token.encode()

    def intercept(method: Method, proceed: Proceed) -> Proceed:
        if method.public:
            return proceed

        async def trusted(request: Any, context: Context) -> Any:
            if not shows_token(context, expected):
                metrics.REFUSED.labels(Reason.MESH_TOKEN).inc()
                raise MeshError(
                    Reason.MESH_TOKEN,
                    f"{method.service} is internal and wants the mesh token in {MESH_TOKEN}: "
                    "set MODELMUXER_MESH_TOKEN to the same value for every service.",
                )
            return await proceed(request, context)

        return trusted

    return intercept


def shows_token(context: Context, expected: bytes) -> bool:
    """Whether a call carries the mesh token."""
    for key, value in context.invocation_metadata() or ():
        if key == MESH_TOKEN:
            return hmac.compare_digest(value.encode() if isinstance(value, str) else value, expected)
    return False


def admission(slots: Slots) -> Interceptor:
    """Gives each call a slot, or refuses it."""

    def intercept(method: Method, proceed: Proceed) -> Proceed:
        async def admitted(request: Any, context: Context) -> Any:
            try:
                slots.take()
            except MeshError as error:
                metrics.REFUSED.labels(error.reason).inc()
                raise
            try:
                return await proceed(request, context)
            finally:
                slots.release()

        return admitted

    return intercept


def decoded(handler: Handler) -> Proceed:
    """The handler in the one shape, given requests as bytes."""
    behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    decode = _decoder(handler.request_deserializer)

    def requests(raw: Any) -> Any:
        return _decoded_stream(raw, decode) if handler.request_streaming else decode(raw)

    if inspect.isasyncgenfunction(behaviour):

        async def generated(raw: Any, context: Context) -> None:
            async with aclosing(behaviour(requests(raw), context)) as answers:
                async for answer in answers:
                    await context.write(answer)

        return generated
    if not inspect.iscoroutinefunction(behaviour):
        return _unimplemented  # the generated base class's own method: every one of ours is asynchronous
    if handler.request_streaming:

        async def streamed(raw: Any, context: Context) -> Any:
            return await behaviour(_decoded_stream(raw, decode), context)

        return streamed

    async def called(raw: bytes, context: Context) -> Any:
        return await behaviour(decode(raw), context)

    return called


async def _unimplemented(raw: Any, context: Context) -> None:
    raise MeshError("UNIMPLEMENTED", "This service does not have that method.", code=StatusCode.UNIMPLEMENTED)


async def _decoded_stream(raw: AsyncIterator[bytes], decode: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    async for message in raw:
        yield decode(message)


def _decoder(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    if deserialize is None:
        return lambda raw: raw

    def decode(raw: bytes) -> Any:
        try:
            return deserialize(raw)
        except DecodeError:
            raise MeshError(
                Reason.MALFORMED_REQUEST, "The request is not a protobuf message of the method's type."
            ) from None

    return decode


def _headers(context: Context) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _code(error: BaseException, context: Context) -> StatusCode:
    """The status that a call ends with which this exception leaves."""
    if isinstance(error, MeshError):
        return error.code
    if isinstance(error, AioRpcError):
        return error.code()
    if isinstance(error, (asyncio.CancelledError, InternalError)):
        remaining = context.time_remaining()
        return StatusCode.DEADLINE_EXCEEDED if remaining is not None and remaining <= 0 else StatusCode.CANCELLED
    if isinstance(error, AbortError):
        code = context.code()
        return code if isinstance(code, StatusCode) else StatusCode.UNKNOWN
    return StatusCode.INTERNAL


def unforeseen(what: str, error: Exception) -> MeshError:
    """Logs an exception that nobody foresaw; returns what its caller may know of it."""
    error_id = secrets.token_hex(6)
    log.error("%s failed", what, exc_info=error, extra={"error_id": error_id})
    return MeshError(
        Reason.INTERNAL,
        f"Something went wrong inside ModelMuxer; its log has the details under error id {error_id}.",
        metadata={"error_id": error_id},
    )
