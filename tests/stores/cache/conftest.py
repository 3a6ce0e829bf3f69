"""The servers that the tests of a session share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stores.cache.servers import RedisCluster, RedisServer, Watched, redis_cluster, redis_sentinel, redis_server


@pytest.fixture(scope="session")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def cluster() -> Iterator[RedisCluster]:
    with redis_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def watched() -> Iterator[Watched]:
    with redis_sentinel() as watched:
        yield watched
