"""Embeds: one model, as many upstream calls as its provider wants the texts cut into, each an attempt of its own.

Vectors of different models cannot be compared, so a call that fails is tried again on its own model and never on
another. What a chunk cost before a later one failed stays spent, as the ledger says.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

import grpc
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.chat.v1.chat_pb2 import ChatRequest, Cost, RoutingOptions, Usage, UsageSource
from modelmuxer.embedding.v1.embedding_pb2 import Embedding, EmbedRequest, EmbedResponse, Input
from modelmuxer.provider.v1 import provider_pb2

from services.router.attempts import Attempt, Order
from services.router.call import Call
from services.router.observation import count_attempts
from services.router.providers import LiveModels
from services.router.reservation import NoRoom, Reservations, refused
from services.router.retry_budget import RetryBudget
from services.router.settings import RouterSettings
from services.router.shortlist import Asked, narrow, no_candidate, static_shortlist, unknown_model
from services.router.validation import check_finite, check_tags
from services.router.worst_case import embedding_worst_case
from shared.catalogue import DEFAULT_EMBEDDING_ALIAS, EMBEDDING, Alias, Catalogue, Model
from shared.errors import MeshError, Reason
from shared.journal import Journal
from shared.telemetry import names, tracing
from shared.tokens import estimate_embedding_tokens, estimate_text

if TYPE_CHECKING:
    from modelmuxer.provider.v1.provider_pb2_grpc import ProviderServiceAsyncStub

    from services.router.leases import Reservation

MAX_INPUTS = 2048  # as OpenAI's API
MAX_DIMENSIONS = 65_536
BACKOFF_S = 0.1


class EmbeddingAttempt(Attempt):
    """One upstream call that makes vectors."""

    def __init__(
        self,
        order: Order,
        request: EmbedRequest,
        proxy: ProviderServiceAsyncStub,
        journal: Journal,
        reservation: Reservation | None,
    ) -> None:
        super().__init__(order, proxy, journal, reservation)
        self._asked = request

    async def embed(self) -> provider_pb2.EmbedResponse:
        """The vectors, or a MeshError. Cancelling it cancels the call."""
        request = provider_pb2.EmbedRequest(
            attempt_id=self.record.id,
            model=self.order.model.id,
            embedding=self._asked,
            billing_context=self._billing,
            lease_expire_time=self._expires,
        )
        try:
            call = self._proxy.Embed(request, timeout=self._timeout_s())
            self._sent = True
            answer = await call
            self.record.deployment, self.record.region = answer.deployment, answer.region
            self._ended(chat_pb2.Completed(usage=answer.usage, provider_request_id=answer.provider_request_id))
        except grpc.aio.AioRpcError as error:
            raise self._lost(error) from None
        finally:
            self._settle()
        self.record.committed = True
        return answer


class Embedder:
    """What a router does to embed."""

    def __init__(
        self,
        *,
        settings: RouterSettings,
        live: LiveModels,
        proxy: ProviderServiceAsyncStub,
        journal: Journal,
        reservations: Reservations,
        retries: RetryBudget,
    ) -> None:
        self._settings = settings
        self._live = live
        self._proxy = proxy
        self._journal = journal
        self._reservations = reservations
        self._retries = retries

    async def embed(self, catalogue: Catalogue, call: Call, request: EmbedRequest) -> EmbedResponse:
        """The vectors of all inputs, in their order. Cancelling it cancels the provider's call."""
        validate(request)
        model = self._model(catalogue, call, request)
        attempts: list[chat_pb2.Attempt] = []
        vectors: list[Embedding] = []
        provider_model = ""
        try:
            for chunk in _chunks(request, model.max_inputs):
                answer = await self._answered(call, chunk, model, attempts)
                vectors.extend(answer.embeddings)
                provider_model = answer.provider_model
        finally:
            _observe(request, model, attempts)
        return EmbedResponse(
            embeddings=vectors,
            model=model.id,
            provider=model.provider,
            provider_model=provider_model,
            usage=_usage(attempts),
            cost=Cost(nanos=sum(each.cost.nanos for each in attempts), price_version=attempts[-1].cost.price_version),
            attempts=attempts,
            id=call.request_id,
        )

    def _model(self, catalogue: Catalogue, call: Call, request: EmbedRequest) -> Model:
        """The one model that is asked for, if it can be called."""
        name = request.model or DEFAULT_EMBEDDING_ALIAS
        found = catalogue.resolve(name)
        if found is None:
            raise unknown_model(catalogue, name, "model")
        ids = found.models if isinstance(found, Alias) else (found.id,)
        if len(ids) != 1:
            raise MeshError(
                Reason.UNSUPPORTED_FEATURE,
                f'"{name}" stands for several models, whose vectors cannot be compared; name one that makes '
                "embeddings, or an alias of one.",
                field="model",
            )
        alias = found if isinstance(found, Alias) else None
        asked = Asked(name, (catalogue.models[ids[0]],), alias=alias)
        needed = {EMBEDDING} | ({"dimensions"} if request.HasField("dimensions") else set())
        shortlist = static_shortlist(catalogue, asked, frozenset(needed), RoutingOptions(), call.principal.models)
        longest = max(len(each.tokens.ids) or estimate_text(each.text) for each in request.inputs)
        shortlist = narrow(shortlist, self._live.of, longest)
        if not shortlist.candidates:
            raise no_candidate(asked, shortlist.excluded)
        return shortlist.candidates[0]

    async def _answered(
        self, call: Call, request: EmbedRequest, model: Model, attempts: list[chat_pb2.Attempt]
    ) -> provider_pb2.EmbedResponse:
        """One chunk's answer, after as many tries as are allowed."""
        self._retries.earn(time.monotonic())
        for tries_left in range(self._settings.max_attempts - 1, -1, -1):
            attempt = await self._attempt(call, request, model, len(attempts) + 1)
            try:
                answer = await attempt.embed()
            except MeshError as error:
                attempts.append(attempt.failed(error))
                if not tries_left or not attempt.may_be_retried(error):
                    _give_up(call, attempts, error)
                await self._pause(call, attempts, error)
                continue
            attempts.append(attempt.record)
            return answer
        raise AssertionError("max_attempts is at least 1")

    async def _pause(self, call: Call, attempts: Sequence[chat_pb2.Attempt], error: MeshError) -> None:
        wait_s = max(error.retry_after_s or 0.0, BACKOFF_S * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        most_s = min(self._settings.max_retry_wait_s, call.remaining_s())
        if wait_s > most_s or not self._retries.spend(time.monotonic()):
            _give_up(call, attempts, error)
        await asyncio.sleep(wait_s)

    async def _attempt(self, call: Call, request: EmbedRequest, model: Model, number: int) -> EmbeddingAttempt:
        if self._journal.full:
            raise MeshError(
                Reason.JOURNAL_FULL,
                "The router's journal is full, because accounting does not take its records; try again later.",
                retry_after_s=5.0,
            )
        order = Order(
            call=call,
            chat=ChatRequest(model=request.model, tags=request.tags),  # who asks for what, for the billing context
            model=model,
            number=number,
            max_output_tokens=None,
            input_tokens=estimate_embedding_tokens(request),
        )
        try:
            reservation = await self._reservations.hold(order, lambda: embedding_worst_case(request, model))
        except NoRoom as no_room:
            raise refused(no_room.refusal, ()) from None
        return EmbeddingAttempt(order, request, self._proxy, self._journal, reservation)


def validate(request: EmbedRequest) -> None:
    """Raises MALFORMED_REQUEST naming the first field that is wrong."""
    if not 1 <= len(request.inputs) <= MAX_INPUTS:
        _refuse("inputs", f"must hold 1 to {MAX_INPUTS} texts, not {len(request.inputs)}")
    for place, each in enumerate(request.inputs):
        _check_input(each, f"inputs[{place}]")
    if request.HasField("dimensions") and not 1 <= request.dimensions <= MAX_DIMENSIONS:
        _refuse("dimensions", f"must be from 1 to {MAX_DIMENSIONS}, not {request.dimensions}")
    check_finite(request.provider_options, "provider_options")
    check_tags(request.tags)


def _check_input(each: Input, path: str) -> None:
    match each.WhichOneof("kind"):
        case "text" if each.text:
            return
        case "tokens" if each.tokens.ids and min(each.tokens.ids) >= 0:
            return
    _refuse(path, "must be a text or tokens, and not empty")


def _refuse(path: str, sentence: str) -> NoReturn:
    raise MeshError(Reason.MALFORMED_REQUEST, f"{path} {sentence}.", field=path)


def _give_up(call: Call, attempts: Sequence[chat_pb2.Attempt], error: MeshError) -> NoReturn:
    error.metadata["request_id"] = call.request_id
    error.metadata["attempts"] = str(len(attempts))
    raise error


def _chunks(request: EmbedRequest, size: int) -> Iterator[EmbedRequest]:
    """The request cut into as many as its provider takes at once, sizes as even as can be."""
    inputs = list(request.inputs)
    count = math.ceil(len(inputs) / size)
    if count == 1:
        yield request
        return
    for place in range(count):
        chunk = EmbedRequest()
        chunk.CopyFrom(request)
        del chunk.inputs[:]
        chunk.inputs.extend(inputs[len(inputs) * place // count : len(inputs) * (place + 1) // count])
        yield chunk


def _usage(attempts: Sequence[chat_pb2.Attempt]) -> Usage:
    """What all attempts used; as sure as the least sure of those that answered."""
    sources = [each.usage.source for each in attempts if each.committed]
    provider = all(source == UsageSource.USAGE_SOURCE_PROVIDER for source in sources)
    return Usage(
        input_tokens=sum(each.usage.input_tokens for each in attempts),
        output_tokens=0,
        source=UsageSource.USAGE_SOURCE_PROVIDER if provider else UsageSource.USAGE_SOURCE_ESTIMATED,
    )


def _observe(request: EmbedRequest, model: Model, attempts: Sequence[chat_pb2.Attempt]) -> None:
    count_attempts(attempts)
    place = tracing.current()
    span = place.span if place is not None else None
    if span is not None and span.is_recording():
        span.add_event(
            names.EMBEDDINGS,
            {
                names.GEN_AI_OPERATION: names.EMBEDDINGS,
                names.GEN_AI_REQUEST_MODEL: request.model or DEFAULT_EMBEDDING_ALIAS,
                names.GEN_AI_RESPONSE_MODEL: model.id,
                names.GEN_AI_USAGE_INPUT_TOKENS: sum(each.usage.input_tokens for each in attempts),
                names.MUX_COST_NANOS: sum(each.cost.nanos for each in attempts),
            },
        )
