"""The live state of models, as the provider proxy streams it: which can be called, how fast, how often they fail.

With the stream down the last state stands, for a stale latency is a better guess than none; rests run out by the clock.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from modelmuxer.provider.v1.provider_pb2 import DeploymentState, WatchProvidersRequest

if TYPE_CHECKING:
    from modelmuxer.provider.v1.provider_pb2_grpc import ProviderServiceAsyncStub

FAILING_ERROR_RATE = 0.5
PROBE_EVERY_S = 2.0
MAX_WATCH_PAUSE_S = 1.0

log = logging.getLogger("modelmuxer.router")


@dataclass(frozen=True, slots=True)
class Live:
    """One model, by its best deployment. Figures are None before the first call."""

    available: bool
    unavailable_reason: str = ""
    first_token_s: float | None = None
    tokens_per_s: float | None = None
    error_rate: float = 0.0
    rests_until_s: float = 0.0


class LiveModels:
    """What is known of each model now."""

    def __init__(self, proxy: ProviderServiceAsyncStub, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._proxy = proxy
        self._clock = clock
        self._models: dict[str, Live] = {}
        self._probed_s: dict[str, float] = {}

    def of(self, model: str) -> Live | None:
        """The model's state; None if the proxy has not told any yet."""
        return self._models.get(model)

    def rest_reason(self, model: str) -> str:
        """Why the model is better left alone for now; empty if it is not.

        A model that only fails is still given a call now and then, since nothing else would show that it is well again.
        """
        live, now_s = self._models.get(model), self._clock()
        if live is None:
            return ""
        if live.rests_until_s > now_s:
            return f"its provider asked to be left alone for {live.rests_until_s - now_s:.0f} s"
        if live.error_rate < FAILING_ERROR_RATE:
            return ""
        if now_s - self._probed_s.get(model, 0.0) >= PROBE_EVERY_S:
            self._probed_s[model] = now_s
            return ""
        return f"{live.error_rate:.0%} of its recent calls failed"

    def update(self, deployments: Iterable[DeploymentState]) -> None:
        """Takes the whole state."""
        by_model: defaultdict[str, list[DeploymentState]] = defaultdict(list)
        for deployment in deployments:
            by_model[deployment.model].append(deployment)
        now_s = self._clock()
        self._models = {model: _best(states, now_s) for model, states in by_model.items()}

    async def watch(self) -> None:
        """Keeps the state, for ever."""
        pause_s = 0.1
        while True:
            told = await self._watch_once()
            pause_s = 0.1 if told else min(MAX_WATCH_PAUSE_S, pause_s * 2)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    async def _watch_once(self) -> bool:
        told = False
        states = self._proxy.WatchProviders(WatchProvidersRequest())
        try:
            async for state in states:
                self.update(state.deployments)
                told = True
        except grpc.aio.AioRpcError as error:
            log.warning("the watch on providers was lost: %s", error.code().name)
        finally:
            states.cancel()
        return told


def _best(states: list[DeploymentState], now_s: float) -> Live:
    callable_ones = [state for state in states if state.available]
    if not callable_ones:
        return Live(available=False, unavailable_reason=states[0].unavailable_reason or "its provider cannot be called")
    first_tokens_s = [_seconds(state) for state in callable_ones if state.HasField("time_to_first_token")]
    speeds = [state.tokens_per_second for state in callable_ones if state.tokens_per_second > 0]
    rest_s = min(state.retry_after.ToTimedelta().total_seconds() for state in callable_ones)
    return Live(
        available=True,
        first_token_s=min(first_tokens_s, default=None),
        tokens_per_s=max(speeds, default=None),
        error_rate=min(state.error_rate for state in callable_ones),
        rests_until_s=now_s + rest_s if rest_s > 0 else 0.0,
    )


def _seconds(state: DeploymentState) -> float:
    return state.time_to_first_token.ToNanoseconds() / 1e9
