"""Where the mesh is and which key opens it: from the environment, or from a local mesh's home folder."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import grpc
from modelmuxer.accounting.v1 import accounting_pb2_grpc
from modelmuxer.client import CallError, Client
from modelmuxer.router.v1 import router_pb2_grpc


@dataclass(frozen=True)
class Connection:
    """Addresses and key."""

    router: str
    accounting: str
    scaler: str

    @classmethod
    def from_environment(cls) -> Connection:
        """Reads MODELMUXER_{ROUTER,ACCOUNTING,SCALER}_ADDRESS."""
        return cls(
            router=os.environ.get("MODELMUXER_ROUTER_ADDRESS", "127.0.0.1:50051"),
            accounting=os.environ.get("MODELMUXER_ACCOUNTING_ADDRESS", "127.0.0.1:50054"),
            scaler=os.environ.get("MODELMUXER_SCALER_ADDRESS", "127.0.0.1:50055"),
        )

    @property
    def api_key(self) -> str:
        """MODELMUXER_API_KEY or, without it, the local mesh's key."""
        return _api_key()

    def client(self) -> Client:
        """Opens the router."""
        return Client(self.router, api_key=self.api_key)

    @asynccontextmanager
    async def router_stub(self) -> AsyncIterator[RouterCalls]:
        """Opens the router, for what the client has no method for."""
        async with grpc.aio.insecure_channel(self.router) as channel:
            yield RouterCalls(router_pb2_grpc.RouterServiceStub(channel), self._metadata)

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.api_key}"),)

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Admin]:
        """Opens accounting, for keys and reports."""
        async with grpc.aio.insecure_channel(self.accounting) as channel:
            yield Admin(
                accounting_pb2_grpc.AccountingServiceStub(channel),
                accounting_pb2_grpc.AdminServiceStub(channel),
                self._metadata,
            )


@dataclass(frozen=True)
class RouterCalls:
    """The router's stub, and the metadata that its calls take."""

    stub: router_pb2_grpc.RouterServiceAsyncStub
    metadata: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Admin:
    """Accounting's stubs, and the metadata that their calls take."""

    accounting: accounting_pb2_grpc.AccountingServiceAsyncStub
    admin: accounting_pb2_grpc.AdminServiceAsyncStub
    metadata: tuple[tuple[str, str], ...]


def _api_key() -> str:
    if key := os.environ.get("MODELMUXER_API_KEY"):
        return key
    path = Path(os.environ.get("MODELMUXER_HOME", ".modelmuxer")) / "key"
    try:
        return path.read_text().strip()
    except OSError:
        raise click.ClickException(
            f"No API key: set MODELMUXER_API_KEY, or start a local mesh with `mux up` (its key will be in {path})."
        ) from None


def sentence(error: CallError, connection: Connection) -> str:
    """Returns what to tell a person of a call that failed."""
    if error.code is grpc.StatusCode.UNAVAILABLE and not error.reason:
        return (
            f"No mesh answers at {connection.router} (accounting: {connection.accounting}, scaler: "
            f"{connection.scaler}). "
            "Start one with `mux up` (the scaler by `python -m services.scaler`), or set MODELMUXER_ROUTER_ADDRESS, "
            "MODELMUXER_ACCOUNTING_ADDRESS and MODELMUXER_SCALER_ADDRESS."
        )
    wait = f" Try again in {error.retry_after_s:.0f} s." if error.retry_after_s else ""
    reason = f" [{error.reason}]" if error.reason else ""
    return f"{error.message}{wait}{reason}"
