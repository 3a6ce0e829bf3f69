"""Makes calls: chooses a deployment, puts the attempt on record, sends, and turns the provider's bytes into events.

One try per call: whether another follows, and where, is the router's decision. Every way in which a call can end goes
through `_recorded`, which journals it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager

from modelmuxer.chat.v1.chat_pb2 import Block, ChatEvent, ChatRequest, ChatResponse, Started, UsageSource
from modelmuxer.provider.v1.provider_pb2 import (
    CountTokensResponse,
    DeploymentState,
    EmbedRequest,
    EmbedResponse,
    GenerateRequest,
)

from services.provider_proxy import spans
from services.provider_proxy.adapters import Adapter, Decoder, UpstreamRequest, header
from services.provider_proxy.attempt import Attempt
from services.provider_proxy.balancer import Balancer
from services.provider_proxy.pace import Pace
from services.provider_proxy.providers import Providers
from services.provider_proxy.settings import ProviderProxySettings
from services.provider_proxy.statistics import Figures, Statistics
from services.provider_proxy.upstream import Answer, Upstream
from shared import deadline
from shared.catalogue import Catalogue, Deployment
from shared.errors import MeshError, Reason
from shared.journal import Journal
from shared.tokens import estimate_input_tokens
from shared.transcript import coalesce

_DRAIN_S = 0.05  # for the end of a body whose answer is whole, so that its connection can be kept
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "mistral-correlation-id")


class Engine:
    """The proxy's calls, and what it knows of deployments."""

    def __init__(
        self,
        settings: ProviderProxySettings,
        catalogue: Catalogue,
        journal: Journal,
        environ: Mapping[str, str],
        is_draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self.is_draining = is_draining
        self._settings = settings
        self._journal = journal
        self._environ = environ
        self._providers = Providers.of(catalogue, environ)
        self._upstream = Upstream(settings)
        self._statistics = Statistics()
        self._balancer = Balancer(settings.load_balance_strategy, enabled=settings.enable_load_balancing)
        self._changed = asyncio.Event()
        self.pace = Pace()

    # Calls

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[ChatEvent, None]:
        """`started`, the answer as it comes, `completed`; or a MeshError with an AttemptFailure.

        Closing it closes the provider's socket.
        """
        providers = self._providers
        attempt = self._attempt(providers, request, streams=True)
        with spans.attempt(attempt) as span:
            async with self._recorded(attempt), self._sent(providers, attempt) as answer:
                decoder = providers.adapter(attempt.deployment).decoder(request.chat, answer.headers)
                async with aclosing(_events(attempt, answer, decoder, self.pace)) as events:
                    async for event in events:
                        yield event
                spans.describe(span, attempt)
                await answer.drain(_DRAIN_S)

    async def generate(self, request: GenerateRequest) -> ChatResponse:
        """A whole answer, or a MeshError with an AttemptFailure. Cancelling it closes the provider's socket."""
        providers = self._providers
        attempt = self._attempt(providers, request, streams=False)
        with spans.attempt(attempt) as span:
            async with self._recorded(attempt), self._sent(providers, attempt) as answer:
                body = await answer.body()
                adapter = providers.adapter(attempt.deployment)
                response = adapter.response(answer.status, answer.headers, body)
                attempt.provider_model = response.started.provider_model
                started = attempt.started()
                started.MergeFrom(response.started)
                response.started.CopyFrom(started)
                if _hides_reasoning(request.chat):
                    _drop_reasoning(response)
                attempt.saw_whole(response)
                await attempt.succeed(response.completed)
                spans.describe(span, attempt)
                return response

    async def embed(self, request: EmbedRequest) -> EmbedResponse:
        """The vectors, or a MeshError with an AttemptFailure. Cancelling it closes the provider's socket."""
        providers = self._providers
        attempt = self._attempt(providers, request, streams=False)
        adapter, deployment = providers.adapter(attempt.deployment), attempt.deployment
        with spans.attempt(attempt):
            async with self._recorded(attempt):
                key = providers.key(deployment)
                asked = adapter.embed_request(request.embedding, deployment, key, attempt_id=request.attempt_id)
                async with self._exchanged(attempt, adapter, asked) as answer:
                    vectors = adapter.embeddings(await answer.body(), len(request.embedding.inputs))
                    vectors.usage.CopyFrom(await attempt.settle(vectors.usage))
        vectors.deployment, vectors.region = deployment.name, deployment.region
        vectors.provider_request_id = attempt.provider_request_id
        vectors.provider_model = vectors.provider_model or deployment.upstream_model
        return vectors

    async def count_tokens(self, model: str, chat: ChatRequest) -> CountTokensResponse:
        """Input tokens as the provider counts them; an estimate where it does not count or has no key."""
        providers = self._providers
        try:
            deployment = self._choose(providers, model, ())
        except MeshError as error:
            if error.reason != Reason.NO_PROVIDER_KEY:
                raise
            return _estimated(chat)
        adapter = providers.adapter(deployment)
        request = adapter.count_tokens_request(chat, deployment, providers.key(deployment))
        if request is None:
            return _estimated(chat)
        stall_timeout_s = self._settings.stall_timeout_s
        async with self._upstream.exchange(
            deployment.name, request, stall_timeout_s=stall_timeout_s, before_write=_unrecorded
        ) as answer:
            counted = adapter.counted(await _good_body(adapter, answer))
        return CountTokensResponse(input_tokens=counted, source=UsageSource.USAGE_SOURCE_PROVIDER)

    def _attempt(self, providers: Providers, request: GenerateRequest | EmbedRequest, *, streams: bool) -> Attempt:
        if not request.attempt_id:
            raise MeshError(Reason.MALFORMED_REQUEST, "attempt_id must name the attempt.", field="attempt_id")
        deployment = self._choose(providers, request.model, request.deployments)
        return Attempt(request, deployment, self._journal, self._statistics.of(deployment.name), streams=streams)

    def _choose(self, providers: Providers, model: str, allowed: Sequence[str]) -> Deployment:
        candidates = {deployment.name: deployment for deployment in providers.candidates(model, allowed)}
        now_s = time.monotonic()
        rested = [name for name in candidates if not self._figures(name).rest_s(now_s)]
        chosen = self._balancer.choose(model, rested or list(candidates), lambda name: self._figures(name).in_flight)
        return candidates[chosen]

    @asynccontextmanager
    async def _recorded(self, attempt: Attempt) -> AsyncIterator[None]:
        attempt.figures.began()
        try:
            yield
        except MeshError as error:
            rest_s = attempt.figures.rest_s(time.monotonic())
            failed = await attempt.fail(error)
            if attempt.figures.rest_s(time.monotonic()) > rest_s:
                self.tell()
            raise failed from None
        except (asyncio.CancelledError, GeneratorExit):
            reason = self._why_stopped()
            attempt.end(reason.code.name, reason)
            raise
        except BaseException:
            attempt.end(Reason.INTERNAL.code.name, Reason.INTERNAL)
            raise
        finally:
            attempt.figures.ended()

    def _why_stopped(self) -> Reason:
        if deadline.remaining_s() == 0:
            return Reason.DEADLINE_EXCEEDED
        return Reason.SHUTTING_DOWN if self.is_draining() else Reason.CANCELLED

    @asynccontextmanager
    async def _sent(self, providers: Providers, attempt: Attempt) -> AsyncIterator[Answer]:
        """The provider's answer with status 200; any other raises."""
        deployment, chat = attempt.deployment, attempt.chat
        adapter = providers.adapter(deployment)
        request = adapter.request(
            chat, deployment, providers.key(deployment), stream=attempt.streams, attempt_id=attempt.request.attempt_id
        )
        async with self._exchanged(attempt, adapter, request) as answer:
            yield answer

    @asynccontextmanager
    async def _exchanged(self, attempt: Attempt, adapter: Adapter, request: UpstreamRequest) -> AsyncIterator[Answer]:
        # A whole answer is silent until it is there: only the deadline bounds it.
        stall_timeout_s = self._settings.stall_timeout_s if attempt.streams else None
        async with self._upstream.exchange(
            attempt.deployment.name, request, stall_timeout_s=stall_timeout_s, before_write=attempt.announce
        ) as answer:
            attempt.http_status = answer.status
            attempt.provider_request_id = _request_id(answer.headers)
            if answer.status != 200:
                raise await _refusal(adapter, answer)
            yield answer

    # What is known of deployments

    @property
    def catalogue_version(self) -> str:
        """Version of the catalogue that new calls use."""
        return self._providers.catalogue.version

    def states(self) -> list[DeploymentState]:
        """The live state of every deployment."""
        return [self._state(deployment) for deployment in self._providers.catalogue.deployments.values()]

    def _state(self, deployment: Deployment) -> DeploymentState:
        figures = self._figures(deployment.name)
        reason = self._providers.unavailable_reason(deployment)
        state = DeploymentState(
            deployment=deployment.name,
            model=deployment.model,
            available=not reason,
            unavailable_reason=reason,
            tokens_per_second=figures.tokens_per_s or 0.0,
            error_rate=figures.error_rate,
            in_flight=figures.in_flight,
            calls=figures.calls,
        )
        if figures.first_token_s is not None:
            state.time_to_first_token.FromNanoseconds(int(figures.first_token_s * 1e9))
        if rest_s := figures.rest_s(time.monotonic()):
            state.retry_after.FromNanoseconds(int(rest_s * 1e9))
        return state

    def _figures(self, deployment: str) -> Figures:
        return self._statistics.of(deployment)

    def tell(self) -> None:
        """Wakes those who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, timeout_s: float) -> None:
        """Waits until who can be called has changed, or so long."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout_s)

    # Its life

    async def drain(self) -> None:
        """Ends the watches; calls end by themselves."""
        self.tell()

    async def use(self, catalogue: Catalogue) -> None:
        """Takes a new version of the catalogue. Calls that run end with the one that they began with."""
        self._providers = Providers.of(catalogue, self._environ)
        kept = frozenset(catalogue.deployments)
        self._statistics.keep_only(kept)
        self.tell()
        await self._upstream.keep_only(kept)

    async def close(self) -> None:
        """Closes every connection."""
        await self._upstream.close()


async def _events(attempt: Attempt, answer: Answer, decoder: Decoder, pace: Pace) -> AsyncGenerator[ChatEvent, None]:
    """The decoder's events behind one `started`; `completed` only once the outcome is on record."""
    started: Started | None = attempt.started()
    try:
        async with aclosing(_decoded(answer, decoder, pace)) as events:
            async for event in events:
                if started is not None:
                    attempt.provider_model = event.started.provider_model
                    started.MergeFrom(event.started)
                    yield ChatEvent(started=started)
                    started = None
                match event.WhichOneof("event"):
                    case "started":
                        continue
                    case "completed":
                        await attempt.succeed(event.completed)
                        yield event
                        return
                    case _:
                        attempt.saw(event)
                        yield event
    finally:
        attempt.stated.CopyFrom(decoder.usage)


async def _decoded(answer: Answer, decoder: Decoder, pace: Pace) -> AsyncGenerator[ChatEvent, None]:
    begun = False
    async with aclosing(answer.chunks()) as chunks:
        async for chunk in chunks:
            for event in coalesce(decoder.feed(chunk)):
                yield event
                begun = begun or event.HasField("delta")
            decoder.feed(b"")  # raises at once what stopped the decoder after these events
            if begun:
                await pace.gather()
    for event in decoder.close():
        yield event


async def _refusal(adapter: Adapter, answer: Answer) -> MeshError:
    try:
        body = await answer.body()
    except MeshError:
        body = b""  # the status alone says enough
    return adapter.error(answer.status, answer.headers, body)


async def _good_body(adapter: Adapter, answer: Answer) -> bytes:
    if answer.status != 200:
        raise await _refusal(adapter, answer)
    return await answer.body()


async def _unrecorded() -> None:
    """Counting costs nothing, so nothing of it is announced."""


def _request_id(headers: Mapping[str, str]) -> str:
    return next((value for name in _REQUEST_ID_HEADERS if (value := header(headers, name))), "")


def _estimated(chat: ChatRequest) -> CountTokensResponse:
    return CountTokensResponse(input_tokens=estimate_input_tokens(chat), source=UsageSource.USAGE_SOURCE_ESTIMATED)


def _hides_reasoning(chat: ChatRequest) -> bool:
    return chat.reasoning.HasField("include") and not chat.reasoning.include


def _drop_reasoning(response: ChatResponse) -> None:
    """Drops thoughts that the caller does not want to see, but not those that must come back with the next turn."""
    kept = [block for block in response.content if not _is_plain_thought(block)]
    del response.content[:]
    response.content.extend(kept)


def _is_plain_thought(block: Block) -> bool:
    thought = block.reasoning
    return block.HasField("reasoning") and not thought.signature and not thought.encrypted
