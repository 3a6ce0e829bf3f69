"""Changes of keys and policies, and what is wanted back of leases, told to whoever watches. A slow watcher holds back
nobody and grows no queue."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from shared.errors import MeshError, Reason


@dataclass(slots=True)
class Changes:
    """Hashes of keys, names of tenants, and ids of accounts, each once and in order."""

    keys: dict[bytes, None] = field(default_factory=dict)
    tenants: dict[str, None] = field(default_factory=dict)
    wanted: dict[str, None] = field(default_factory=dict)


class PolicyChanges:
    """What changed since each watcher looked last."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()
        self._closed = False
        self._stands = True

    def tell(self, key_sha256: bytes) -> None:
        """Tells every watcher that a key changed."""
        for watcher in self._watchers:
            watcher.changes.keys[key_sha256] = None
            watcher.news.set()

    def tell_tenant(self, tenant: str) -> None:
        """Tells every watcher that what holds for a tenant changed; the empty name stands for all."""
        for watcher in self._watchers:
            watcher.changes.tenants[tenant] = None
            watcher.news.set()

    def ask_back(self, account: str) -> None:
        """Tells every watcher that somebody needs what lies idle of an account."""
        for watcher in self._watchers:
            watcher.changes.wanted[account] = None
            watcher.news.set()

    async def watch(self) -> AsyncGenerator[Changes, None]:
        """What changed: first nothing, from which on no change is missed. Raises ACCOUNTING_UNAVAILABLE when changes
        are missed."""
        if not self._stands:
            raise _missed()
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            yield Changes()
            while not self._closed:
                await watcher.news.wait()
                watcher.news.clear()
                if watcher.lost:
                    raise _missed()
                changes, watcher.changes = watcher.changes, Changes()
                if changes.keys or changes.tenants or changes.wanted:
                    yield changes
        finally:
            self._watchers.discard(watcher)

    def stand(self) -> None:
        """From now on no change is missed."""
        self._stands = True

    def lose(self) -> None:
        """Ends every watch with an error, and has new ones refused until `stand`: changes were missed, or are."""
        self._stands = False
        for watcher in self._watchers:
            watcher.lost = True
            watcher.news.set()

    async def close(self) -> None:
        """Ends every watch, so that a stop does not wait for watchers."""
        self._closed = True
        for watcher in self._watchers:
            watcher.news.set()


class _Watcher:
    def __init__(self) -> None:
        self.changes = Changes()
        self.news = asyncio.Event()
        self.lost = False


def _missed() -> MeshError:
    return MeshError(Reason.ACCOUNTING_UNAVAILABLE, "Changes cannot be told at the moment; watch again shortly.")
