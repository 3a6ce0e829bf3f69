"""The walk of a request: authorise, shortlist, look up, choose, attempt, settle, complete.

Both faces use this and nothing else of the router. Every method raises MeshError, and a stream may do so anywhere; a
stream that ends without an error has ended with `completed`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from modelmuxer.accounting.v1.accounting_pb2 import SCOPE_ADMIN, SCOPE_CHAT, CacheHit, JournalRecord
from modelmuxer.cache.v1.cache_pb2 import (
    CacheKey,
    FillOpen,
    GetStatsResponse,
    InvalidateRequest,
    LookupRequest,
    LookupResponse,
)
from modelmuxer.chat.v1.chat_pb2 import Attempt as AttemptRecord
from modelmuxer.chat.v1.chat_pb2 import CacheInfo, ChatEvent, ChatRequest, ChatResponse, Started
from modelmuxer.embedding.v1.embedding_pb2 import EmbedRequest, EmbedResponse
from modelmuxer.provider.v1 import provider_pb2
from modelmuxer.router.v1 import router_pb2

from services.router import cacheability, listing, strategies
from services.router.attempts import PROVIDER_WIDE, Attempt, Order, billing_context
from services.router.cache_key import answer_digest, body_digest, scope
from services.router.cache_replicas import CacheReplicas
from services.router.call import Call, deadline_in, mint_attempt_id
from services.router.decisions import Decisions
from services.router.embedder import Embedder
from services.router.flight import Flight, as_own
from services.router.flights import Flights, Work
from services.router.leases import Reservation
from services.router.observation import Observation, count_attempts
from services.router.operations import Operations, check_operation_id
from services.router.principals import Caller, Principals
from services.router.providers import LiveModels
from services.router.recording import Recording
from services.router.refusals import Refusals
from services.router.reservation import MOST_NAMED, NoRoom, Reservations, alternatives, refused
from services.router.response_cache import ResponseCache
from services.router.retry_budget import RetryBudget
from services.router.scoring import Option, Size
from services.router.semantic import SemanticCache, wants_like
from services.router.settings import RouterSettings
from services.router.sharing import Share
from services.router.shortlist import Asked, effective_cap, narrow, no_candidate
from services.router.validation import validate
from services.router.verification import Verifier
from services.router.walk import Similar, Walk
from shared.catalogue import Catalogue, Model
from shared.errors import MeshError, Reason
from shared.journal import Journal
from shared.pricing import estimate_nanos
from shared.telemetry import metrics
from shared.tokens import estimate_input_tokens, estimate_message
from shared.transcript import Transcript, replay

if TYPE_CHECKING:
    from modelmuxer.provider.v1.provider_pb2_grpc import ProviderServiceAsyncStub

EXPECTED_OUTPUT_TOKENS = 512  # for prices and times before the answer is known
BACKOFF_S = 0.1
COUNT_TIMEOUT_S = 30.0
NONE_KEPT = Duration()  # no answer that is kept is that young
MOST_BOARDINGS = 3  # a request whose leaders keep failing goes on by itself

Events = AsyncGenerator[ChatEvent, None]


class Engine:
    """What a router does."""

    def __init__(
        self,
        *,
        settings: RouterSettings,
        catalogue: Catalogue,
        principals: Principals,
        live: LiveModels,
        cache: ResponseCache,
        flights: Flights,
        replicas: CacheReplicas,
        semantic: SemanticCache,
        embedder: Embedder,
        retries: RetryBudget,
        operations: Operations,
        proxy: ProviderServiceAsyncStub,
        journal: Journal,
        reservations: Reservations,
    ) -> None:
        self.settings = settings
        self._catalogue = catalogue
        self._principals = principals
        self._live = live
        self._cache = cache
        self._flights = flights
        self._replicas = replicas
        self._semantic = semantic
        self._verifier = Verifier(semantic, self._fresh, per_minute=settings.semantic_verify_per_minute)
        self._operations = operations
        self._proxy = proxy
        self._journal = journal
        self._reservations = reservations
        self._refusals = Refusals(settings.cache_refusal_ttl_s)
        self._retries = retries
        self._embedder = embedder
        self._decisions = Decisions(ttl_s=settings.routing_cache_ttl_s if settings.enable_routing_cache else 0)

    def use(self, catalogue: Catalogue) -> None:
        """Puts another catalogue in force. A walk under way keeps the one that it began with."""
        self._catalogue = catalogue

    # --- what the faces call ---

    async def authenticate(self, authorization: str | None) -> Caller:
        """Whose key it is ("Bearer <key>"). Raises MISSING_KEY, INVALID_KEY, ACCOUNTING_UNAVAILABLE."""
        return await self._principals.authenticate(authorization)

    def stream_chat(self, call: Call, chat: ChatRequest) -> Events:
        """One `started`, the provider's events as they are, one `completed`. Closing it cancels the provider's call."""
        self._admit(call, chat)
        if call.operation_id:
            return self._operations.join(call, body_digest(chat), lambda lasting: self._stream(lasting, chat))
        return self._stream(call, chat)

    async def chat(self, call: Call, chat: ChatRequest) -> ChatResponse:
        """The whole answer. Cancelling it cancels the provider's call."""
        self._admit(call, chat)
        if not call.operation_id:
            return await self._answer(call, chat)
        transcript = Transcript()
        async with aclosing(self.stream_chat(call, chat)) as events:
            async for event in events:
                transcript.add(event)
        return transcript.response

    async def count_tokens(self, call: Call, chat: ChatRequest) -> router_pb2.CountTokensResponse:
        """Input tokens, counted for the model that the chat would go to."""
        self._admit(call, chat)
        walk = self._begin(call, chat)
        self._choose(walk)
        model = walk.models[0].id
        request = provider_pb2.CountTokensRequest(model=model, chat=chat)
        try:
            count = await self._proxy.CountTokens(request, timeout=min(COUNT_TIMEOUT_S, call.remaining_s()))
        except grpc.aio.AioRpcError as error:
            raise MeshError.from_rpc(error, Reason.PROVIDER_PROXY_UNAVAILABLE) from None
        return router_pb2.CountTokensResponse(input_tokens=count.input_tokens, source=count.source, model=model)

    async def explain(self, call: Call, chat: ChatRequest) -> router_pb2.ExplainResponse:
        """The choice that would be made now."""
        self._admit(call, chat)
        walk = self._begin(call, chat)
        self._choose(walk)
        return router_pb2.ExplainResponse(decision=walk.decision())

    async def embed(self, call: Call, request: EmbedRequest) -> EmbedResponse:
        """Vectors of texts. Cancelling it cancels the provider's call."""
        self._authorise(call)
        check_operation_id(call.operation_id)
        return await self._embedder.embed(self._catalogue, call, request)

    async def judge_hit(self, call: Call, hit: str, wrong: bool) -> None:
        """Takes the caller's verdict on a semantic hit."""
        self._authorise(call)
        await self._semantic.judge(call.principal.tenant, hit, wrong)

    async def drain(self) -> None:
        """Ends what goes on behind callers' backs."""
        await self._verifier.drain()

    async def list_models(self, call: Call) -> router_pb2.ListModelsResponse:
        """What the caller's key may name."""
        self._authorise(call)
        return listing.list_models(self._catalogue, self._live, call.principal.models)

    async def invalidate_cache(self, call: Call, request: InvalidateRequest) -> None:
        """Makes answers misses."""
        _check_admin(call)
        await self._replicas.invalidate(request)

    async def cache_stats(self, call: Call) -> GetStatsResponse:
        """What the cache keeps, and what it was asked."""
        _check_admin(call)
        return await self._replicas.stats()

    # --- the walk ---

    async def _stream(self, call: Call, chat: ChatRequest) -> Events:
        with Observation(call, chat, stream=True) as seen:
            walk = seen.walk = self._begin(call, chat)
            make = partial(self._make_events, walk, seen)
            for boarding in range(MOST_BOARDINGS + 1):
                answer, flight = await self._look_up(walk, make, share=boarding < MOST_BOARDINGS)
                if answer is not None:
                    for event in replay(answer):
                        yield event
                    return
                if flight is None:
                    break
                share = None if flight.leader is walk else self._share(walk, seen)
                try:
                    async with aclosing(flight.stream()) as events:
                        async for event in events:
                            yield event if share is None else share.event(event)
                    return
                except MeshError as error:
                    if share is None:
                        raise
                    own = as_own(error, call.request_id)
                    if share.begun or cacheability.deterministic(own.reason):
                        raise own from None
                finally:
                    flight.leave()
            async with aclosing(self._own_events(walk, seen)) as events:
                async for event in events:
                    yield event

    async def _answer(self, call: Call, chat: ChatRequest) -> ChatResponse:
        with Observation(call, chat, stream=False) as seen:
            walk = seen.walk = self._begin(call, chat)
            make = partial(self._make_answer, walk)
            for boarding in range(MOST_BOARDINGS + 1):
                answer, flight = await self._look_up(walk, make, share=boarding < MOST_BOARDINGS)
                if answer is not None:
                    return answer
                if flight is None:
                    break
                try:
                    answer = await flight.whole()
                    return answer if flight.leader is walk else self._share(walk, seen).answer(answer)
                except MeshError as error:
                    if flight.leader is walk:
                        raise
                    own = as_own(error, call.request_id)
                    if cacheability.deterministic(own.reason):
                        raise own from None
                finally:
                    flight.leave()
            return await self._own_answer(walk)

    def _admit(self, call: Call, chat: ChatRequest) -> None:
        self._authorise(call)
        check_operation_id(call.operation_id)
        validate(chat)
        if chat.routing.strategy:
            strategies.check_strategy(chat.routing.strategy)

    def _authorise(self, call: Call) -> None:
        if SCOPE_CHAT not in call.principal.scopes:
            raise MeshError(Reason.KEY_NOT_ALLOWED, "This key may not call models; use one of chat scope.")

    def _begin(self, call: Call, chat: ChatRequest) -> Walk:
        """Resolves what is asked for and finds who could answer it."""
        catalogue = self._catalogue
        asked, shortlist = self._decisions.static(catalogue, call.principal, chat)
        size = _size(chat)
        shortlist = narrow(shortlist, self._live.of, size.input)
        if not shortlist.candidates:
            raise no_candidate(asked, shortlist.excluded)
        alias = asked.alias
        return Walk(
            call=call,
            chat=chat,
            catalogue_version=catalogue.version,
            asked=asked,
            shortlist=shortlist,
            size=size,
            caps=(
                chat.max_output_tokens if chat.HasField("max_output_tokens") else None,
                call.principal.max_output_tokens if call.principal.HasField("max_output_tokens") else None,
                alias.max_output_tokens if alias else None,
            ),
            plan=cacheability.plan(
                chat,
                alias,
                enabled=self.settings.enable_cache,
                widest=self.settings.cache_scope,
                refusal_ttl_s=self.settings.cache_refusal_ttl_s,
            ),
        )

    async def _look_up(self, walk: Walk, make: Work, *, share: bool) -> tuple[ChatResponse | None, Flight | None]:
        """The cache's answer, made this request's own; or the flight that it has joined; or neither."""
        plan, chat = walk.plan, walk.chat
        if plan.store or plan.look_up:
            walk.key = _cache_key(walk, chat)
        if walk.key is None or not plan.look_up:
            walk.cache = CacheInfo(status=CacheInfo.STATUS_BYPASS, reason=plan.bypass)
            found = LookupResponse()
            if walk.key is not None:
                await self._look_up_alone(walk, LookupRequest(key=walk.key, max_age=NONE_KEPT))
        else:
            self._refusals.check(walk.key, walk.call.request_id)
            walk.cache = CacheInfo(status=CacheInfo.STATUS_MISS)
            if (like := await self._look_up_like(walk)) is not None:
                return like, None
            request = LookupRequest(key=walk.key, max_age=plan.max_age, stale=plan.stale)
            if plan.share and share:
                found, flight = await self._board(walk, request, make)
                if flight is not None:
                    return None, flight
            else:
                found = await self._look_up_alone(walk, request)
        if not found.HasField("answer"):
            if chat.cache.only_if_cached:
                raise MeshError(
                    Reason.CACHE_MISS, "The cache does not have the answer, and the request wants no other."
                )
            return None, None
        return self._kept(walk, found), None

    async def _look_up_alone(self, walk: Walk, request: LookupRequest) -> LookupResponse:
        """What the cache has, for a request that shares nothing. If it has none, it knows when the answer began."""
        if walk.plan.store and not walk.chat.cache.only_if_cached:
            request.offer.CopyFrom(self._flights.offer_alone())
        found = await self._cache.look_up(request)
        if found is None:  # without a word from the cache the offer may have been taken all the same
            walk.flight = request.offer.flight
            return LookupResponse()
        walk.flight = found.flight
        return found

    async def _look_up_like(self, walk: Walk) -> ChatResponse | None:
        """Where the request takes a like question's answer: this question's own if it is kept, else a like one's.

        Before any flight is boarded, so that what is answered by another's answer leads and follows nobody.
        """
        if walk.key is None or walk.question is not None or not wants_like(walk.chat, walk.asked.alias):
            return None
        exact = LookupRequest(key=walk.key, max_age=walk.plan.max_age)
        found = await self._cache.look_up(exact)
        if found is not None and found.HasField("answer"):
            return self._kept(walk, found)
        similar = await self._semantic.find(walk, self._catalogue, lambda rest: _cache_key(walk, rest))
        if similar is None or not similar.found.HasField("key"):
            walk.nearly = similar if similar is not None and similar.found.HasField("near") else None
            return None
        found = await self._cache.look_up(LookupRequest(key=similar.found.key, max_age=walk.plan.max_age))
        if found is None or not found.HasField("answer"):
            return None
        answer = self._kept(walk, found, similar)
        self._verifier.hit(walk, similar, answer)
        return answer

    async def _stored(self, key: CacheKey) -> ChatResponse | None:
        """An answer as it is kept."""
        found = await self._cache.look_up(LookupRequest(key=key))
        return found.answer if found is not None and found.HasField("answer") else None

    async def _fresh(self, call: Call, chat: ChatRequest) -> ChatResponse:
        """An answer for the mesh's own use, at the caller's cost."""
        self._admit(call, chat)
        return await self._answer(call, chat)

    async def _board(self, walk: Walk, request: LookupRequest, make: Work) -> tuple[LookupResponse, Flight | None]:
        """Looks an answer up. If there is none, joins the flight that makes it, which may be this request's own."""
        flights = self._flights
        conditional = request.HasField("max_age")
        flight = flights.find(request.key)
        if flight is None or flight.conditional or conditional:
            flight = flights.begin(request.key, conditional=conditional)
            flight.join()
            flight = await self._decide(walk, request, flight, make)
        else:
            flight.join()
        try:
            kept = await flight.decision()
        except asyncio.CancelledError:
            flight.leave()
            raise
        if kept is None:
            return LookupResponse(), flight
        flight.leave()
        own = LookupResponse()  # each of those who share a look-up changes the answer into its own
        own.CopyFrom(kept)
        return own, None

    async def _decide(self, walk: Walk, request: LookupRequest, flight: Flight, make: Work) -> Flight:
        """Asks the cache, and has the flight's answer come from where it says. The flight to be a member of."""
        flights, offer, leads = self._flights, self._flights.offer(), None
        request.offer.CopyFrom(offer)
        try:
            found = await self._cache.look_up(request)
            if found is not None and found.watch_wanted:
                flights.watch(request.key, found.watch_wanted)
            # Without a word from the cache the offer may have been taken all the same.
            granted = found is None or found.flight == offer.flight
            opening = _opening(walk, offer.flight if granted else b"")
            if found is not None and found.HasField("answer"):
                if granted:
                    with suppress(MeshError):  # what cannot be made anew is no reason to withhold the old
                        leads = self._refresh(walk, opening)
                flights.land(flight, found)
            elif found is None or granted or not found.flight:
                leads = flight
                self._lead(walk, flight, opening, make)
            else:
                flights.follow(flight, found.flight)
        except BaseException:
            flight.leave()
            flights.abandon(flight)
            raise
        finally:
            flights.settle(offer, leads)
        return flight

    def _lead(self, walk: Walk, flight: Flight, opening: FillOpen, make: Work) -> None:
        walk.upstream = replace(walk.call, deadline=deadline_in(None))
        flight.leader = walk
        self._flights.lead(flight, opening, make)

    def _refresh(self, walk: Walk, opening: FillOpen) -> Flight:
        """Has a new answer made, which nobody waits for, in place of one that was given though it is stale."""
        again = self._begin(walk.call, walk.chat)
        again.key = walk.key
        again.cache = CacheInfo(status=CacheInfo.STATUS_MISS)
        flight = self._flights.begin(opening.key, conditional=True)
        flight.lasting = True
        self._lead(again, flight, opening, partial(self._make_answer, again))
        return flight

    def _kept(self, walk: Walk, found: LookupResponse, similar: Similar | None = None) -> ChatResponse:
        """The cache's answer, or a like question's, as this request's."""
        answer = found.answer
        plan = walk.plan
        stale = plan.max_age is not None and found.age.ToNanoseconds() > plan.max_age.ToNanoseconds()
        walk.cache = CacheInfo(
            status=CacheInfo.STATUS_STALE if stale else CacheInfo.STATUS_EXACT,
            age=found.age,
            saved_nanos=answer.completed.cost.nanos,
        )
        if similar is not None:
            walk.cache.status = CacheInfo.STATUS_SEMANTIC
            walk.cache.similarity, walk.cache.difference = similar.found.similarity, similar.found.difference
            walk.cache.hit = similar.hit
        walk.begin_shared(answer.started, f"The response cache has the answer of {answer.started.model}.")
        walk.end_shared(answer.completed)
        self._journal_saving(walk, answer.started)
        return answer

    def _share(self, walk: Walk, seen: Observation) -> Share:
        return Share(walk, first_token=seen.first_token, paid=partial(self._journal_saving, walk))

    async def _make_events(self, walk: Walk, seen: Observation, flight: Flight) -> None:
        """Makes a flight's answer, event by event."""
        self._choose(walk)
        async with aclosing(self._attempts(walk, seen)) as events:
            async for event in events:
                flight.storable = event.HasField("completed") and cacheability.storable(event.completed, walk.plan)
                flight.add(event)
        flight.land()
        if flight.storable:
            self._remember(walk, None)

    async def _make_answer(self, walk: Walk, flight: Flight) -> None:
        """Makes a flight's answer, whole."""
        self._choose(walk)
        answer = await self._whole_attempts(walk)
        flight.storable = cacheability.storable(answer.completed, walk.plan)
        flight.land(answer)
        if flight.storable:
            self._remember(walk, answer)

    async def _own_events(self, walk: Walk, seen: Observation) -> Events:
        """An answer for this request alone."""
        recording, answer = Recording() if walk.flight else None, None
        try:
            self._choose(walk)
            async with aclosing(self._attempts(walk, seen)) as events:
                async for event in events:
                    if recording is not None:
                        recording.add(event)
                    yield event
            answer = recording.answer() if recording is not None else None
        finally:
            self._fill(walk, answer)

    async def _own_answer(self, walk: Walk) -> ChatResponse:
        """A whole answer for this request alone."""
        answer = None
        try:
            self._choose(walk)
            answer = await self._whole_attempts(walk)
        finally:
            self._fill(walk, answer)
        return answer

    def _choose(self, walk: Walk) -> None:
        """Puts the candidates in order."""
        asked, size = walk.asked, walk.size
        own = asked.alias.strategy if asked.alias is not None else "ordered"
        walk.strategy = walk.chat.routing.strategy or own
        options = [self._option(model, asked, size) for model in walk.shortlist.candidates]
        walk.ranked = strategies.rank(walk.strategy, options, size)
        walk.reason = strategies.explain(walk.strategy, walk.ranked, size, pinned=asked.alias is None)

    def _option(self, model: Model, asked: Asked, size: Size) -> Option:
        assert model.price is not None  # noqa: S101 - the shortlist has refused models without one
        return Option(
            model=model,
            cost_nanos=estimate_nanos(model.price, size.input, size.output),
            live=self._live.of(model.id),
            fallback=asked.fallbacks.index(model.id) + 1 if model.id in asked.fallbacks else 0,
            rest_reason=self._live.rest_reason(model.id),
        )

    async def _attempts(self, walk: Walk, seen: Observation) -> Events:
        """Attempts until one answers. What comes before the first token is held back: another may follow till then."""
        model = walk.models[0]
        self._retries.earn(time.monotonic())
        while True:
            attempt = await self._attempt(walk, model)
            held: list[ChatEvent] = []
            try:
                async with aclosing(attempt.stream()) as events:
                    async for event in events:
                        if not attempt.record.committed:
                            held.append(event)
                            if not _commits(event):
                                continue
                            attempt.record.committed = True
                            seen.first_token()
                            for early in held[:-1]:
                                yield self._introduced(walk, attempt, early)
                        if event.HasField("completed"):
                            _record(walk, attempt.record)
                            walk.complete(event.completed)
                        yield event
                return
            except MeshError as error:
                model = await self._next_model(walk, attempt, error)

    async def _whole_attempts(self, walk: Walk) -> ChatResponse:
        model = walk.models[0]
        self._retries.earn(time.monotonic())
        while True:
            attempt = await self._attempt(walk, model)
            try:
                answer = await attempt.answer()
            except MeshError as error:
                model = await self._next_model(walk, attempt, error)
                continue
            attempt.record.committed = True
            walk.introduce(answer.started, attempt.record, attempt.order.max_output_tokens)
            _record(walk, attempt.record)
            walk.complete(answer.completed)
            return answer

    async def _attempt(self, walk: Walk, model: Model) -> Attempt:
        if self._journal.full:
            # Should the proxy's end of the call be lost, our account of it would have no place.
            raise MeshError(
                Reason.JOURNAL_FULL,
                "The router's journal is full, because accounting does not take its records; try again later.",
                retry_after_s=5.0,
            )
        order, reservation = await self._reserved(walk, _order(walk, model))
        if reservation is not None:
            walk.rate_limits, walk.warnings = reservation.rate_limits, reservation.warnings
        if not walk.attempts:
            metrics.ADDED_TIME.observe(time.monotonic() - walk.begun_s)
        return Attempt(order, self._proxy, self._journal, reservation)

    async def _reserved(self, walk: Walk, order: Order) -> tuple[Order, Reservation | None]:
        """The order with its worst case held; or, if a budget that has no room for it says so, a cheaper one."""
        try:
            return order, await self._reservations.reserve(order)
        except NoRoom as no_room:
            refusal = no_room.refusal
        cheaper = alternatives(self._catalogue, self._live.of, order, refusal)
        for each in cheaper if refusal.claim.downgrades else ():
            instead = _order(walk, self._catalogue.models[each.model])
            with suppress(NoRoom):
                reservation = await self._reservations.reserve(instead)
                # Not an answer of what was asked for: it is this caller's alone.
                walk.plan = replace(walk.plan, store=False)
                walk.reason += f" Budget {refusal.claim.key.ceiling} had no room for {order.model.id}."
                return instead, reservation
        raise refused(refusal, cheaper[:MOST_NAMED])

    def _introduced(self, walk: Walk, attempt: Attempt, event: ChatEvent) -> ChatEvent:
        if event.HasField("started"):
            walk.introduce(event.started, attempt.record, attempt.order.max_output_tokens)
        return event

    async def _next_model(self, walk: Walk, attempt: Attempt, error: MeshError) -> Model:
        """The model to try after a failure; raises the failure if there is none, or if it is too late."""
        _record(walk, attempt.failed(error))
        if attempt.record.committed or len(walk.attempts) >= self.settings.max_attempts:
            self._give_up(walk, error)
        now_s = time.monotonic()
        failed = attempt.order.model
        if attempt.may_be_retried(error):
            backoff_s = BACKOFF_S * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
            walk.ready_s[failed.id] = now_s + max(error.retry_after_s or 0.0, backoff_s)
        elif attempt.may_go_elsewhere(error):
            walk.ready_s[failed.id] = float("inf")
        else:
            self._give_up(walk, error)
        model = _soonest(walk, failed, other_provider=error.reason in PROVIDER_WIDE)
        wait_s = walk.ready_s.get(model.id, now_s) - now_s
        if wait_s > min(self.settings.max_retry_wait_s, walk.call.remaining_s()) or not self._retries.spend(now_s):
            self._give_up(walk, error)
        metrics.FAILOVERS.labels(failed.id, error.reason).inc()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        return model

    def _give_up(self, walk: Walk, error: MeshError) -> NoReturn:
        self._refusals.note(walk.key, error)
        error.metadata["request_id"] = walk.call.request_id
        error.metadata["attempts"] = str(len(walk.attempts))
        error.metadata["model"] = walk.attempts[-1].model
        if len(walk.attempts) > 1:
            tried = ", ".join(f"{attempt.model} {attempt.reason}" for attempt in walk.attempts)
            error.message = f"{error.message} ({len(walk.attempts)} attempts: {tried})"
        raise error

    def _fill(self, walk: Walk, answer: ChatResponse | None) -> None:
        """Has the answer stored, behind the caller's back, if the cache knows when it began."""
        if not walk.flight:
            return
        opening = _opening(walk, walk.flight)
        if answer is not None and cacheability.storable(answer.completed, walk.plan):
            opening.answer.CopyFrom(answer)
            self._remember(walk, answer)
        self._cache.fill_later(opening)

    def _remember(self, walk: Walk, answer: ChatResponse | None) -> None:
        """Lets like questions find an answer that is being stored, and has one that was nearly given judged by it."""
        if walk.key is None or walk.question is None:
            return
        self._semantic.remember_later(walk, walk.key)
        if walk.nearly is not None and answer is not None:
            self._verifier.near(walk, walk.nearly, self._stored, answer)

    def _journal_saving(self, walk: Walk, started: Started) -> None:
        """A ledger line at no cost, which says what was saved. A full journal is no reason to withhold the answer."""
        billing = billing_context(walk.call, walk.chat)
        hit = CacheHit(
            billing_context=billing.SerializeToString(),
            model=started.model,
            provider=started.provider,
            saved_nanos=walk.cache.saved_nanos,
        )
        with suppress(MeshError):
            self._journal.append(JournalRecord(attempt_id=mint_attempt_id(), cache_hit=hit))


def _check_admin(call: Call) -> None:
    if SCOPE_ADMIN not in call.principal.scopes:
        raise MeshError(Reason.KEY_NOT_ALLOWED, "This call wants a key of admin scope.")


def _order(walk: Walk, model: Model) -> Order:
    return Order(
        call=walk.upstream or walk.call,
        chat=walk.chat,
        model=model,
        number=len(walk.look_ups) + len(walk.attempts) + 1,
        max_output_tokens=effective_cap(model, walk.size.input, *walk.caps),
        input_tokens=walk.size.input,
    )


def _size(chat: ChatRequest) -> Size:
    output = EXPECTED_OUTPUT_TOKENS
    if chat.HasField("max_output_tokens"):
        output = min(output, chat.max_output_tokens)
    return Size(prompt=estimate_message(chat.messages[-1]), input=estimate_input_tokens(chat), output=output)


def _cache_key(walk: Walk, chat: ChatRequest) -> CacheKey:
    principal = walk.call.principal
    digest = answer_digest(
        chat,
        within=scope(walk.plan.width, principal, walk.chat.end_user),
        asked=walk.asked.identity,
        allowed_models=principal.models,
        max_output_tokens=min((cap for cap in walk.caps if cap), default=None),
    )
    return CacheKey(tenant=principal.tenant, digest=digest)


def _record(walk: Walk, attempt: AttemptRecord) -> None:
    walk.attempts.append(attempt)
    count_attempts([attempt])  # here, not at the end: a caller whose answer is shared may have left by then


def _opening(walk: Walk, flight: bytes) -> FillOpen:
    """How the walk's answer is stored."""
    alias = walk.asked.alias
    return FillOpen(
        key=walk.key,
        ttl=walk.plan.ttl,
        refusal_ttl=walk.plan.refusal_ttl,
        flight=flight,
        alias=alias.name if alias is not None else "",
        tags=[f"{name}={value}" for name, value in sorted(walk.chat.tags.items())],
    )


def _commits(event: ChatEvent) -> bool:
    """Whether the caller, once it has this event, could not be given another model's answer."""
    return event.HasField("delta") or event.HasField("block_stop") or event.HasField("completed")


def _soonest(walk: Walk, failed: Model, *, other_provider: bool) -> Model:
    """The model that may be asked soonest: the best that was not asked yet, else the first that is ready again."""
    return min(
        walk.models,
        key=lambda model: (walk.ready_s.get(model.id, 0.0), other_provider and model.provider == failed.provider),
    )
