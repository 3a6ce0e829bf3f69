"""What calls have taught of each deployment: speed, failures, load, and how long it asked to be left alone.

Pure: time comes with each question, in seconds of a clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shared.errors import Reason

WEIGHT: Final = 0.2  # of the newest call in the means: ten calls are nine tenths of a mean
MIN_MEASURED_S: Final = 0.01  # shorter answers came in one piece and say nothing of speed
MAX_REST_S: Final = 600.0  # a provider's mistake must not bench it for a day

FAULTS: Final = frozenset(
    {
        Reason.PROVIDER_AUTHENTICATION,
        Reason.PROVIDER_PERMISSION,
        Reason.PROVIDER_NOT_FOUND,
        Reason.PROVIDER_RATE_LIMITED,
        Reason.PROVIDER_QUOTA_EXHAUSTED,
        Reason.PROVIDER_OVERLOADED,
        Reason.PROVIDER_ERROR,
        Reason.PROVIDER_TIMEOUT,
        Reason.PROVIDER_UNREACHABLE,
        Reason.PROVIDER_STREAM_CUT,
        Reason.PROVIDER_MALFORMED_ANSWER,
    }
)


@dataclass(slots=True)
class Figures:
    """One deployment's figures. Means are None before the first call that says something of them."""

    in_flight: int = 0
    calls: int = 0
    first_token_s: float | None = None
    tokens_per_s: float | None = None
    unstreamed_tokens_per_s: float | None = None
    """Of answers in one piece, their wait for the first token included."""
    unstreamed_tokens: float | None = None
    """How long such answers are."""
    error_rate: float = 0.0
    rests_until_s: float = 0.0

    def began(self) -> None:
        """A call began."""
        self.in_flight += 1
        self.calls += 1

    def ended(self) -> None:
        """A call ended, however it did."""
        self.in_flight -= 1

    def succeeded(self, first_token_s: float | None, output_tokens: int, output_s: float) -> None:
        """A call gave a whole answer; `first_token_s` is None for answers that were not streamed."""
        if first_token_s is not None:
            self.first_token_s = _mean(self.first_token_s, first_token_s)
        if first_token_s is None and output_s > 0:
            self.unstreamed_tokens = _mean(self.unstreamed_tokens, output_tokens)
            self.unstreamed_tokens_per_s = _mean(self.unstreamed_tokens_per_s, output_tokens / output_s)
        if output_tokens > 1 and output_s >= MIN_MEASURED_S:
            self.tokens_per_s = _mean(self.tokens_per_s, output_tokens / output_s)
        self.error_rate = _mean(self.error_rate, 0.0)

    def failed(self, reason: str, retry_after_s: float | None, now_s: float) -> None:
        """A call failed. Only what is the provider's fault counts."""
        if reason in FAULTS:
            self.error_rate = _mean(self.error_rate, 1.0)
        if retry_after_s is not None:
            self.rests_until_s = max(self.rests_until_s, now_s + min(retry_after_s, MAX_REST_S))

    def unseen_tokens(self, elapsed_s: float) -> int:
        """What an answer in one piece that was left so early may have had by then: nothing before the usual first
        token; after it as much as is usual in that time, and never more than such answers have in all."""
        if self.unstreamed_tokens_per_s is None or elapsed_s < (self.first_token_s or 0.0):
            return 0
        return round(min(self.unstreamed_tokens_per_s * elapsed_s, self.unstreamed_tokens or 0.0))

    def rest_s(self, now_s: float) -> float:
        """How long the provider still wants to be left alone."""
        return max(0.0, self.rests_until_s - now_s)


class Statistics:
    """The figures of all deployments since start."""

    def __init__(self) -> None:
        self._figures: dict[str, Figures] = {}

    def of(self, deployment: str) -> Figures:
        """A deployment's figures."""
        figures = self._figures.get(deployment)
        if figures is None:
            figures = self._figures[deployment] = Figures()
        return figures

    def keep_only(self, deployments: Iterable[str]) -> None:
        """Forgets deployments that are gone."""
        kept = frozenset(deployments)
        self._figures = {name: figures for name, figures in self._figures.items() if name in kept or figures.in_flight}


def _mean(before: float | None, value: float) -> float:
    return value if before is None else before + WEIGHT * (value - before)
