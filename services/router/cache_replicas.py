"""Every replica of the cache, one by one: for what has to be told to each, and for what only all of them know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
from modelmuxer.cache.v1.cache_pb2 import GetStatsRequest, GetStatsResponse, InvalidateRequest, TenantStats
from modelmuxer.cache.v1.cache_pb2_grpc import CacheServiceStub
from modelmuxer.tunnel.resolver import Resolver

from shared.errors import MeshError, Reason

if TYPE_CHECKING:
    from modelmuxer.cache.v1.cache_pb2_grpc import CacheServiceAsyncStub

T = TypeVar("T")

TIMEOUT_S: Final = 5.0


class CacheReplicas:
    """The replicas behind a target. `connect` opens a channel to one of them, for one rare call."""

    def __init__(self, target: str, connect: Callable[[str], grpc.aio.Channel]) -> None:
        self._resolver = Resolver(target)
        self._connect = connect

    async def invalidate(self, request: InvalidateRequest) -> None:
        """Makes answers misses, wherever they are kept. Raises CACHE_UNAVAILABLE if it is not sure that they are."""
        await self._each(lambda stub: stub.Invalidate(request, timeout=TIMEOUT_S))

    async def stats(self) -> GetStatsResponse:
        """The figures of all replicas, added up."""
        each = await self._each(lambda stub: stub.GetStats(GetStatsRequest(), timeout=TIMEOUT_S))
        total, tenants = GetStatsResponse(), dict[str, TenantStats]()
        for stats in each:
            if not (stats.shared and total.shared):  # else the same store is counted again
                total.entries += stats.entries
                total.size_bytes += stats.size_bytes
                total.max_bytes += stats.max_bytes
                total.evicted += stats.evicted
            total.shared = stats.shared
            total.flights += stats.flights
            for tenant in stats.tenants:
                sum_ = tenants.setdefault(tenant.tenant, TenantStats(tenant=tenant.tenant))
                sum_.hits += tenant.hits
                sum_.misses += tenant.misses
                sum_.follows += tenant.follows
                sum_.saved_nanos += tenant.saved_nanos
        total.tenants.extend(sorted(tenants.values(), key=lambda tenant: -(tenant.hits + tenant.misses)))
        return total

    async def _each(self, call: Callable[[CacheServiceAsyncStub], Awaitable[T]]) -> list[T]:
        try:
            addresses = await self._resolver.resolve()
        except OSError as error:
            raise MeshError(Reason.CACHE_UNAVAILABLE, f"The cache's replicas cannot be found: {error}.") from None
        return await asyncio.gather(*(self._one(address, call) for address in addresses))

    async def _one(self, address: str, call: Callable[[CacheServiceAsyncStub], Awaitable[T]]) -> T:
        async with self._connect(address) as channel:
            try:
                return await call(CacheServiceStub(channel))
            except grpc.aio.AioRpcError as error:
                raise MeshError.from_rpc(error, Reason.CACHE_UNAVAILABLE) from None
