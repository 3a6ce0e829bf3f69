"""Changes of keys, told to whoever watches. A slow watcher holds back nobody and grows no queue."""

import asyncio
from collections.abc import AsyncGenerator


class PolicyChanges:
    """What changed since each watcher looked last."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()
        self._closed = False

    def tell(self, key_sha256: bytes) -> None:
        """Tells every watcher that a key changed."""
        for watcher in self._watchers:
            watcher.changed[key_sha256] = None
            watcher.news.set()

    async def watch(self) -> AsyncGenerator[list[bytes], None]:
        """Hashes of the keys that changed: first an empty list, from which on no change is missed."""
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            yield []
            while not self._closed:
                await watcher.news.wait()
                watcher.news.clear()
                changed, watcher.changed = list(watcher.changed), {}
                if changed:
                    yield changed
        finally:
            self._watchers.discard(watcher)

    async def close(self) -> None:
        """Ends every watch, so that a stop does not wait for watchers."""
        self._closed = True
        for watcher in self._watchers:
            watcher.news.set()


class _Watcher:
    def __init__(self) -> None:
        self.changed: dict[bytes, None] = {}
        self.news = asyncio.Event()
