"""A MongoDB-compatible server for tests, and in it a database for each: the one that `make tools` builds, started once
a test process, or the server that MONGODB_URL names.
"""

import os
import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pymongo
import pytest

from tests.tools import tool
from tests.tools.mongodb.server import MongoServer

GIVEN = "TESTS_MONGODB_URL"


def pytest_configure() -> None:
    """Takes MONGODB_URL out of the environment, where services under test would find it, and remembers it."""
    if url := os.environ.pop("MONGODB_URL", ""):
        os.environ[GIVEN] = url


def database_url(server_url: str, database: str) -> str:
    """The URL of a database of a server."""
    parts = urlsplit(server_url)
    query = parts.query
    if parts.username and "authSource" not in query:  # which else is the database that the path names
        query = "&".join(filter(None, [query, f"authSource={parts.path.strip('/') or 'admin'}"]))
    return urlunsplit(parts._replace(path=f"/{database}", query=query))


@pytest.fixture(scope="session")
def mongodb_server_url() -> Iterator[str]:
    """A server that no test harms."""
    if url := os.environ.get(GIVEN):
        yield url
        return
    tool("mongodb")
    with MongoServer() as server:
        yield server.url


@pytest.fixture
def mongodb_url(mongodb_server_url: str) -> Iterator[str]:
    """A database of the test's own."""
    name = f"test_{secrets.token_hex(6)}"
    yield database_url(mongodb_server_url, name)
    with pymongo.MongoClient[dict[str, object]](mongodb_server_url) as client:
        client.drop_database(name)


@pytest.fixture
def mongo_server() -> Iterator[MongoServer]:
    """A server of the test's own, to be killed and stopped at will."""
    tool("mongodb")
    with MongoServer() as server:
        yield server
