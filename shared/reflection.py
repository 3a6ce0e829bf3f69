"""Server reflection, which grpcurl and its kin read contracts from."""

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from shared import health

SERVICE = reflection.SERVICE_NAME


def methods(services: Iterable[str]) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
    """The methods of grpc.reflection.v1alpha.ServerReflection, for a registry."""
    servicer = reflection.aio.ReflectionServicer([*services, SERVICE], pool=Descriptors())
    return {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            ServerReflectionRequest.FromString,
            ServerReflectionResponse.SerializeToString,
        )
    }


class Descriptors:
    """The default pool, but with the health service as it is served, and able to find methods."""

    def __init__(self) -> None:
        self._default: Any = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._default, name)

    def FindFileByName(self, name: str) -> Any:
        pool = health.descriptors() if name == "grpc/health/v1/health.proto" else self._default
        return pool.FindFileByName(name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        pool = health.descriptors() if symbol.startswith("grpc.health.v1.") else self._default
        try:
            return pool.FindFileContainingSymbol(symbol)
        except KeyError:  # the pool knows messages, enums and services, but no methods
            service, _, method = symbol.rpartition(".")
            if method not in pool.FindServiceByName(service).methods_by_name:
                raise
            return pool.FindServiceByName(service).file
