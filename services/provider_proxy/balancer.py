"""Which of a model's deployments takes the next call. Pure; which ones may is its caller's knowledge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

ROUND_ROBIN: Final = "round_robin"
LEAST_CONNECTIONS: Final = "least_connections"


class Balancer:
    """Chooses by turns, or the deployment with the fewest calls under way (by turns among equals)."""

    def __init__(self, strategy: str = ROUND_ROBIN, *, enabled: bool = True) -> None:
        self._strategy = strategy
        self._enabled = enabled
        self._turns: defaultdict[str, int] = defaultdict(int)

    def choose(self, model: str, deployments: Sequence[str], in_flight: Callable[[str], int]) -> str:
        """One of `deployments`, of which there is at least one; the first if balancing is off."""
        if not self._enabled or len(deployments) == 1:
            return deployments[0]
        if self._strategy == LEAST_CONNECTIONS:
            least = min(in_flight(name) for name in deployments)
            deployments = [name for name in deployments if in_flight(name) == least]
        turn = self._turns[model]
        self._turns[model] = turn + 1
        return deployments[turn % len(deployments)]
