"""Reserves an attempt's worst case on every ceiling that applies, and says why where there is no room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.router.attempts import Order
from services.router.leases import Exhausted, Leases, Refusal, Reservation
from services.router.providers import Live
from services.router.rates import Claim, Subjects
from services.router.shortlist import Asked, needs, static_shortlist
from services.router.worst_case import Unbounded, WorstCase, worst_case
from shared.catalogue import Catalogue, Model
from shared.errors import MeshError, Reason
from shared.telemetry import metrics

SCOPES = {
    scope: pb.CeilingScope.Name(scope).removeprefix("CEILING_SCOPE_").lower() for scope in pb.CeilingScope.values()
}
_RATES = {
    pb.CEILING_UNIT_REQUESTS: "requests a minute",
    pb.CEILING_UNIT_TOKENS: "tokens a minute",
    pb.CEILING_UNIT_CALLS: "calls at once",
}
SOON_S = 1.0
MOST_NAMED = 3


class NoRoom(Exception):
    """A ceiling has no room for the attempt."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.claim.key.ceiling)
        self.refusal = refusal


class Reservations:
    """What the engine asks before each attempt."""

    def __init__(self, leases: Leases, *, wait_s: float) -> None:
        """`wait_s`: how long a call waits for what calls under way may leave over."""
        self._leases = leases
        self._wait_s = wait_s

    async def reserve(self, order: Order) -> Reservation | None:
        """Holds a chat's worst case; None where nothing applies.

        Raises NoRoom, UNSUPPORTED_FEATURE for a cost without a bound, KEY_NOT_ALLOWED, ACCOUNTING_UNAVAILABLE.
        """
        return await self.hold(order, lambda: worst_case(order.chat, order.model, order.max_output_tokens))

    async def hold(self, order: Order, bound: Callable[[], WorstCase]) -> Reservation | None:
        """Holds a worst case that is worked out only if something applies. Raises as `reserve` does."""
        call = order.call
        if not call.policies:
            return None
        subjects = Subjects(principal=call.principal, run_id=call.run_id, tags=order.chat.tags, model=order.model.id)
        worst = self._worst(order, bound, subjects)
        claims = call.policies.claims(subjects, worst.nanos, worst.tokens)
        if not claims:
            return None
        try:
            return await self._leases.reserve(claims, min(self._wait_s, call.remaining_s()))
        except Exhausted as exhausted:
            metrics.CEILING_REFUSALS.labels(_unit(exhausted.refusal.claim)).inc()
            raise NoRoom(exhausted.refusal) from None
        except MeshError as error:
            if error.reason != Reason.ACCOUNTING_UNAVAILABLE or not call.policies.goes_on:
                raise
            metrics.UNRESERVED_CALLS.inc()
            return self._leases.overdraw(claims)

    def _worst(self, order: Order, bound: Callable[[], WorstCase], subjects: Subjects) -> WorstCase:
        try:
            return bound()
        except Unbounded as unbounded:
            if order.call.policies.bounds(subjects):
                raise MeshError(
                    Reason.UNSUPPORTED_FEATURE, f"{unbounded}; a hard budget applies to this call."
                ) from None
            return WorstCase(0, 0, 0)


def refused(refusal: Refusal, alternatives: Sequence[pb.Alternative]) -> MeshError:
    """The error for a ceiling without room: 402 for money, 429 for rates, with all that is known."""
    claim, standing = refusal.claim, refusal.standing
    policy_id = claim.key.ceiling.partition("/")[0]
    subject = claim.key.subject or claim.key.tenant
    detail = pb.BudgetRefusal(
        scope=claim.scope,
        subject=subject,
        ceiling=policy_id,
        unit=claim.unit,
        limit=standing.limit,
        spent=standing.spent,
        held=standing.held,
        estimate=claim.amount,
        alternatives=alternatives,
    )
    resets = standing.HasField("end_time")
    if resets:
        detail.reset_time.CopyFrom(standing.end_time)
    whose = f'{SCOPES[claim.scope]} "{subject}"'
    metadata = {"ceiling": policy_id, "scope": SCOPES[claim.scope], "subject": subject}
    retry_after_s = _retry_after_s(refusal)
    if not claim.is_money:
        message = f"The limit of {standing.limit:,} {_RATES[claim.unit]} of {whose} is reached; try again later."
        return MeshError(
            Reason.RATE_LIMITED, message, details=[detail], metadata=metadata, retry_after_s=retry_after_s or SOON_S
        )
    message = (
        f"Budget {policy_id} of {whose} has no room for this call: its worst case is ${_dollars(claim.amount)}, and of "
        f"${_dollars(standing.limit)} ${_dollars(standing.spent)} are spent and ${_dollars(standing.held)} held."
    )
    if resets:
        message += f" It begins anew at {standing.end_time.ToJsonString()}."
    if alternatives:
        message += f" Would fit: {', '.join(each.model for each in alternatives)}."
    return MeshError(Reason.BUDGET_EXCEEDED, message, details=[detail], metadata=metadata, retry_after_s=retry_after_s)


def alternatives(
    catalogue: Catalogue, live: Callable[[str], Live | None], order: Order, refusal: Refusal
) -> list[pb.Alternative]:
    """Cheaper models that can answer the same and would fit now, the dearest of them (the nearest in kind) first."""
    claim, standing, chat = refusal.claim, refusal.standing, order.chat
    if not claim.is_money:
        return []
    room = standing.limit - standing.spent - standing.held
    priced = Asked(order.model.id, tuple(catalogue.models.values()))
    able = static_shortlist(catalogue, priced, needs(chat), chat.routing, order.call.principal.models).candidates
    found: list[pb.Alternative] = []
    for model in able:
        state = live(model.id)
        if model.id == order.model.id or state is None or not state.available:
            continue
        with suppress(Unbounded):
            nanos = worst_case(chat, model, _cap(order, model)).nanos
            if nanos <= room and nanos < claim.amount:
                found.append(pb.Alternative(model=model.id, estimate_nanos=nanos))
    return sorted(found, key=lambda each: -each.estimate_nanos)


def _cap(order: Order, model: Model) -> int | None:
    return min((cap for cap in (order.max_output_tokens, model.max_output_tokens) if cap), default=None)


def _retry_after_s(refusal: Refusal) -> float | None:
    """When it may help to try again: once calls under way have ended, or once the period has."""
    if not refusal.final:
        return SOON_S
    standing = refusal.standing
    if not standing.HasField("end_time"):
        return None
    return max(0.001, refusal.resets_s)


def _unit(claim: Claim) -> str:
    return pb.CeilingUnit.Name(claim.unit).removeprefix("CEILING_UNIT_").lower()


def _dollars(nanos: int) -> str:
    return f"{nanos / 1e9:.9f}".rstrip("0").rstrip(".")
