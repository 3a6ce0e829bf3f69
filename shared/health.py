"""grpc.health.v1 under three kinds of name: "" (the process is up), "readiness", and a service's full name (it takes
new calls now). Check, Watch and List.

grpcio-health-checking knows no List, neither its servicer nor its messages; they are added here, and to what reflection
tells of the service.
"""

import asyncio
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc.aio import ServicerContext
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICE = "grpc.health.v1.Health"
PROCESS = ""
READINESS = "readiness"

Context = ServicerContext[Any, Any]

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """The health of one process. Every name is NOT_SERVING until it is set."""

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {PROCESS: False, READINESS: False}
        self._changes: set[asyncio.Event] = set()
        self._closed = False

    def set(self, name: str, serving: bool) -> None:
        """Sets a name's status and tells its watchers."""
        if self._serving.get(name) is not serving:
            self._serving[name] = serving
            self._announce()

    def serving(self, name: str) -> bool:
        """Whether a name is SERVING."""
        return self._serving.get(name, False)

    def drain(self) -> None:
        """Takes every name but the process's own out of service."""
        for name in self._serving:
            self._serving[name] = name == PROCESS
        self._announce()

    def close(self) -> None:
        """Ends every Watch: an open one would hold up the server's stop."""
        self._closed = True
        self._announce()

    def methods(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """The methods of grpc.health.v1.Health, for a registry."""
        check, answer = message_class("HealthCheckRequest").FromString, _serialize
        every = message_class("HealthListRequest").FromString
        return {
            "Check": grpc.unary_unary_rpc_method_handler(self.Check, check, answer),
            "List": grpc.unary_unary_rpc_method_handler(self.List, every, answer),
            "Watch": grpc.unary_stream_rpc_method_handler(self.Watch, check, answer),
        }

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        if request.service not in self._serving:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"No service is called {request.service[:200]!r} here.")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def List(self, request: Message, context: Context) -> Message:
        response: Any = message_class("HealthListResponse")()
        for name in self._serving:
            response.statuses[name].status = self._status(name)
        return response  # type: ignore[no-any-return]

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        with self._watch() as changed:
            sent: int | None = None
            while True:
                changed.clear()
                if (status := self._status(request.service)) != sent:
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                    sent = status
                if self._closed:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "The service is stopping.")
                await changed.wait()

    def _status(self, name: str) -> int:
        if name not in self._serving:
            return int(SERVICE_UNKNOWN)
        return int(SERVING if self._serving[name] else NOT_SERVING)

    def _announce(self) -> None:
        for change in self._changes:
            change.set()

    @contextmanager
    def _watch(self) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        self._changes.add(changed)
        try:
            yield changed
        finally:
            self._changes.discard(changed)


async def check(channel: grpc.aio.Channel, name: str, timeout_s: float) -> str:
    """Asks a server for the status of a name: "SERVING", "NOT_SERVING"… Raises AioRpcError."""
    response = await health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service=name), timeout=timeout_s
    )
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


@functools.cache
def descriptors() -> DescriptorPool:
    """health.proto as it is in grpc-proto, List included; apart from the default pool, which has the older one."""
    file = FileDescriptorProto.FromString(health_pb2.DESCRIPTOR.serialized_pb)
    file.message_type.add(name="HealthListRequest")
    response = file.message_type.add(name="HealthListResponse")
    entry = response.nested_type.add(name="StatusesEntry")
    entry.options.map_entry = True
    one, many = FieldDescriptorProto.LABEL_OPTIONAL, FieldDescriptorProto.LABEL_REPEATED
    string, message = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_MESSAGE
    entry.field.add(name="key", number=1, label=one, type=string)
    entry.field.add(name="value", number=2, label=one, type=message, type_name=".grpc.health.v1.HealthCheckResponse")
    of_entry = ".grpc.health.v1.HealthListResponse.StatusesEntry"
    response.field.add(name="statuses", number=1, label=many, type=message, type_name=of_entry)
    of_request, of_response = ".grpc.health.v1.HealthListRequest", ".grpc.health.v1.HealthListResponse"
    file.service[0].method.add(name="List", input_type=of_request, output_type=of_response)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def message_class(name: str) -> type[Message]:
    """A message of grpc.health.v1."""
    return GetMessageClass(descriptors().FindMessageTypeByName(f"grpc.health.v1.{name}"))
