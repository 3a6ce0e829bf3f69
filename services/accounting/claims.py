"""Claims on operations: who finds one running waits for its end, woken by it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from weakref import WeakValueDictionary

from services.accounting.operations import Answered, Granted, Operation
from services.accounting.stores import Store
from shared.errors import MeshError, Reason

_NANOS = 1_000_000_000
_POLL_NS = _NANOS // 4  # an end that another process was told of wakes nobody here


class Claims:
    """The claims of one accounting process."""

    def __init__(self, store: Store, now_ns: Callable[[], int]) -> None:
        self._store = store
        self._now_ns = now_ns
        self._ends: WeakValueDictionary[tuple[str, str], asyncio.Event] = WeakValueDictionary()

    async def take(self, wanted: Operation, ttl_ns: int, timeout_s: float) -> bytes | None:
        """The answer, or None if the claim is granted. Raises OperationMismatch, and DEADLINE_EXCEEDED if the operation
        still runs after `timeout_s`."""
        give_up_ns = self._now_ns() + int(timeout_s * _NANOS)
        while True:
            ended = self._end_of(wanted.key_id, wanted.operation_id)  # before the store is asked: no end is missed
            now_ns = self._now_ns()
            verdict = await self._store.claim_operation(replace(wanted, expires_ns=now_ns + ttl_ns), now_ns)
            if isinstance(verdict, Granted):
                return None
            if isinstance(verdict, Answered):
                return verdict.answer
            now_ns = self._now_ns()
            if now_ns >= give_up_ns:
                raise MeshError(
                    Reason.DEADLINE_EXCEEDED,
                    f'Operation "{wanted.operation_id}" still runs; call again to wait for its answer.',
                )
            try:
                until_ns = min(verdict.until_ns, give_up_ns)
                if self._store.shared:
                    until_ns = min(until_ns, now_ns + _POLL_NS)
                async with asyncio.timeout(max(until_ns - now_ns, 0) / _NANOS):
                    await ended.wait()
            except TimeoutError:
                continue

    async def end(self, key_id: str, operation_id: str, owner: str, answer: bytes | None) -> None:
        """Keeps the answer, or lets the operation be tried again, and wakes who waits."""
        await self._store.end_operation(key_id, operation_id, owner, answer, self._now_ns())
        if ended := self._ends.pop((key_id, operation_id), None):
            ended.set()

    def _end_of(self, key_id: str, operation_id: str) -> asyncio.Event:
        ended = self._ends.get((key_id, operation_id))
        if ended is None:
            ended = self._ends[key_id, operation_id] = asyncio.Event()
        return ended
