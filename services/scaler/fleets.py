"""All services that the scaler watches, and what an autoscaler may ask of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.scaler.adapters.fleet import Fleet
from services.scaler.demand import Demand, Metric
from services.scaler.targets import Targets, read
from shared.errors import MeshError, Reason


class Fleets:
    """Fleets by service, and the targets that hold where nobody names others."""

    def __init__(self, fleets: Sequence[Fleet], usual: Targets) -> None:
        self._fleets = {fleet.service: fleet for fleet in fleets}
        self._usual = usual

    def asked(self, words: Mapping[str, str]) -> tuple[Fleet, Targets]:
        """Whom an autoscaler means, and at which targets. Raises MeshError."""
        try:
            service, targets = read(words, self._fleets, self._usual)
        except ValueError as error:
            raise MeshError(Reason.MALFORMED_REQUEST, str(error), field="scalerMetadata") from None
        return self._fleets[service], targets

    async def metric(self, words: Mapping[str, str], name: str) -> Metric:
        """A metric as an autoscaler reads it. Raises MeshError."""
        fleet, targets = self.asked(words)
        demand = await fleet.demand(targets)
        if not demand.metrics:
            # An error, and no number: an autoscaler that hears an error leaves things as they are.
            raise MeshError(Reason.UNAVAILABLE, f"No replica of {fleet.service} is known at {fleet.target}.")
        metric = demand.metric(name)
        if metric is None:
            known = ", ".join(each.name for each in demand.metrics)
            raise MeshError(Reason.NOT_SERVED, f"No metric is called {name[:200]!r}; there are {known}.")
        return metric

    async def demands(self, service: str) -> list[tuple[Fleet, Demand]]:
        """What is asked for one service or, if it is "", for all, at the usual targets. Raises MeshError."""
        if service and service not in self._fleets:
            known = ", ".join(self._fleets)
            raise MeshError(Reason.NOT_SERVED, f"The scaler watches {known}, and no {service[:200]!r}.")
        chosen = [self._fleets[service]] if service else list(self._fleets.values())
        return [(fleet, await fleet.demand(self._usual)) for fleet in chosen]
