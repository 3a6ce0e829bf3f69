"""Whose a key is: accounting's answers, kept until accounting's watch says that they changed.

While the watch stands a principal is kept without limit of time, for a change would be told. Once it is lost, one lives
on for a grace, after which requests fail closed. What a principal may do is the engine's to check.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
from modelmuxer.accounting.v1.accounting_pb2 import (
    ON_OUTAGE_OPEN,
    AuthenticateRequest,
    AuthenticateResponse,
    Principal,
    WatchPoliciesRequest,
    WatchPoliciesResponse,
)

from services.router.leases import Leases
from services.router.rates import Policies
from shared.errors import MeshError, Reason

if TYPE_CHECKING:
    from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceAsyncStub

GRACE_S = 60.0
UNKNOWN_TTL_S = 2.0  # short: a key may be used the moment it is made
MAX_KNOWN = 50_000
MAX_UNKNOWN = 10_000
AUTHENTICATE_TIMEOUT_S = 3.0
MAX_WATCH_PAUSE_S = 1.0

log = logging.getLogger("modelmuxer.router")


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose a key is, and the budgets and limits that its calls may be subject to."""

    principal: Principal
    policies: Policies


class KeyCache(Generic[T]):
    """What is known of keys, by the SHA-256 of their secrets. Pure: time is passed in."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[T, float]] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._lost_s: float | None = 0.0
        self.generation = 0

    def principal(self, key: bytes, now_s: float) -> T | None:
        """The principal, if it is known and may still be relied on."""
        entry = self._known.get(key)
        if entry is None:
            return None
        principal, learnt_s = entry
        if self._lost_s is not None and now_s - max(learnt_s, self._lost_s) > GRACE_S:
            del self._known[key]
            return None
        self._known.move_to_end(key)
        return principal

    def is_unknown(self, key: bytes, now_s: float) -> bool:
        """Whether accounting said a moment ago that there is no such key."""
        learnt_s = self._unknown.get(key)
        return learnt_s is not None and now_s - learnt_s <= UNKNOWN_TTL_S

    def learn(self, key: bytes, principal: T | None, generation: int, now_s: float) -> None:
        """Keeps an answer, unless something changed since it was asked for (in which case it may be the old one)."""
        if generation != self.generation:
            return
        if principal is None:
            self._unknown[key] = now_s
            _bound(self._unknown, MAX_UNKNOWN)
        else:
            self._known[key] = (principal, now_s)
            self._unknown.pop(key, None)
            _bound(self._known, MAX_KNOWN)

    def drop(self, keys: Iterable[bytes]) -> None:
        """Forgets keys that changed."""
        self.generation += 1
        for key in keys:
            self._known.pop(key, None)
            self._unknown.pop(key, None)

    def drop_where(self, concerns: Callable[[T], bool]) -> None:
        """Forgets those whom a change concerns."""
        self.drop([key for key, (known, _) in self._known.items() if concerns(known)])

    def watch_stands(self) -> None:
        """Forgets everything: what changed while nobody watched was not told."""
        self.generation += 1
        self._known.clear()
        self._unknown.clear()
        self._lost_s = None

    def watch_lost(self, now_s: float) -> None:
        """Starts the grace."""
        if self._lost_s is None:
            self._lost_s = now_s


class Principals:
    """Authenticates by accounting, once for all who ask for the same key at the same time."""

    def __init__(
        self, accounting: AccountingServiceAsyncStub, leases: Leases, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._accounting = accounting
        self._clock = clock
        self._leases = leases
        self._cache: KeyCache[Caller] = KeyCache()
        self._flights: dict[bytes, asyncio.Task[Caller | None]] = {}

    async def authenticate(self, authorization: str | None) -> Caller:
        """The caller of an authorization value ("Bearer <key>").

        Raises MISSING_KEY, INVALID_KEY or, if accounting is needed and does not answer, ACCOUNTING_UNAVAILABLE.
        """
        key = hashlib.sha256(_secret(authorization).encode()).digest()
        now_s = self._clock()
        caller = self._cache.principal(key, now_s)
        if caller is None and not self._cache.is_unknown(key, now_s):
            caller = await self._ask(key)
        if caller is None:
            raise MeshError(Reason.INVALID_KEY, "The API key is unknown or revoked; `mux keys` makes and lists them.")
        return caller

    async def watch(self) -> None:
        """Keeps the watch, for ever."""
        pause_s = 0.1
        while True:
            stood = await self._watch_once()
            self._cache.watch_lost(self._clock())
            pause_s = 0.1 if stood else min(MAX_WATCH_PAUSE_S, pause_s * 2)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    async def _watch_once(self) -> bool:
        stands = False
        changes = self._accounting.WatchPolicies(WatchPoliciesRequest())
        try:
            async for change in changes:
                self._changed(change, stands)
                stands = True
        except grpc.aio.AioRpcError as error:
            log.warning("the watch on keys was lost: %s", error.code().name)
        finally:
            changes.cancel()
        return stands

    def _changed(self, change: WatchPoliciesResponse, stands: bool) -> None:
        if not stands:
            self._flights.clear()
            self._cache.watch_stands()
        if change.wanted_accounts:
            self._leases.ask_back(list(change.wanted_accounts))
        if change.changed_tenants:
            tenants = frozenset(change.changed_tenants)
            self._flights.clear()
            self._cache.drop_where(lambda caller: "" in tenants or caller.principal.tenant in tenants)
            self._leases.revise(list(tenants))
        for key in change.changed_key_sha256:
            self._flights.pop(key, None)
        self._cache.drop(change.changed_key_sha256)

    async def _ask(self, key: bytes) -> Caller | None:
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._fetch(key), name="authenticate")
            flight.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(flight)

    def _landed(self, key: bytes, flight: asyncio.Task[Caller | None]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # everybody who waited may have left

    async def _fetch(self, key: bytes) -> Caller | None:
        generation = self._cache.generation
        request = AuthenticateRequest(key_sha256=key)
        caller: Caller | None = None
        try:
            answer = await self._accounting.Authenticate(request, timeout=AUTHENTICATE_TIMEOUT_S)
            caller = _caller(answer)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                log.warning("accounting could not tell whose a key is: %s", error.code().name)
                raise MeshError(
                    Reason.ACCOUNTING_UNAVAILABLE,
                    "The API key cannot be checked, because accounting does not answer; try again shortly.",
                    retry_after_s=1.0,
                ) from error
        self._cache.learn(key, caller, generation, self._clock())
        return caller


def _caller(answer: AuthenticateResponse) -> Caller:
    return Caller(answer.principal, Policies(answer.budgets, answer.limits, goes_on=answer.on_outage == ON_OUTAGE_OPEN))


def _secret(authorization: str | None) -> str:
    scheme, _, secret = (authorization or "").strip().partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise MeshError(Reason.MISSING_KEY, 'An API key is needed: send it as "authorization: Bearer <key>".')
    return secret.strip()


def _bound(entries: OrderedDict[bytes, Any], most: int) -> None:
    while len(entries) > most:
        entries.popitem(last=False)
