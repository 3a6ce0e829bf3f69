"""What the router promises its callers, against neighbours that misbehave on order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from modelmuxer.accounting.v1.accounting_pb2 import BillingContext
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.chat.v1.chat_pb2 import CacheControl, CacheInfo, ChatEvent, ChatRequest, ChatResponse, RoutingOptions
from modelmuxer.provider.v1.provider_pb2 import DeploymentState, GenerateRequest
from modelmuxer.router.v1 import router_pb2
from prometheus_client import REGISTRY

from shared.errors import MeshError, Reason
from shared.transcript import Transcript
from tests.contract.router_neighbours import (
    FIRST,
    SECOND,
    SECRET,
    Neighbourhood,
    Step,
    answer,
    beginning,
    chat,
    delta,
    failure,
    neighbourhood,
    principal,
)

NO_STORE = CacheControl(no_store=True)
TWO = RoutingOptions(fallbacks=[SECOND])


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Neighbourhood]:
    async with neighbourhood(tmp_path) as town:
        yield town


def bearer(secret: str = SECRET, **metadata: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret}"), *((f"x-{name}-id", value) for name, value in metadata.items()))


async def ask(town: Neighbourhood, request: ChatRequest, **metadata: str) -> ChatResponse:
    return await town.stub.Chat(request, metadata=bearer(**metadata), timeout=10)


async def stream(town: Neighbourhood, request: ChatRequest, **metadata: str) -> list[ChatEvent]:
    return [event async for event in town.stub.StreamChat(request, metadata=bearer(**metadata), timeout=10)]


async def refused(awaitable: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return MeshError.from_rpc(caught.value)


async def settled(town: Neighbourhood) -> int:
    """Calls until the watch on keys stands and the principal is kept; how often accounting was asked by then."""
    asked = -1
    while asked != town.accounting.asked[SECRET] or not town.accounting.watches:
        asked = town.accounting.asked[SECRET]
        await ask(town, chat(cache=NO_STORE))
    return asked


async def again_and_again(town: Neighbourhood) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        await ask(town, chat())


async def first_token(call: Any) -> None:
    while not (await call.read()).HasField("delta"):
        pass


async def drained(call: Any, events: list[ChatEvent]) -> None:
    while isinstance(event := await call.read(), ChatEvent):
        events.append(event)


def finishing(reason: chat_pb2.FinishReason, _: GenerateRequest) -> list[Step]:
    return answer(finish=reason)


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        await asyncio.sleep(0.005)


def text(answered: ChatResponse) -> str:
    return "".join(block.text.text for block in answered.content)


def folded(events: list[ChatEvent]) -> ChatResponse:
    transcript = Transcript()
    for event in events:
        transcript.add(event)
    return transcript.response


# --- an answer ---


async def test_a_stream_is_one_started_the_tokens_and_one_completed(town: Neighbourhood) -> None:
    events = await stream(town, chat())
    assert [event.WhichOneof("event") for event in events] == [
        "started",
        "block_start",
        "delta",
        "delta",
        "block_stop",
        "completed",
    ]
    started, completed = events[0].started, events[-1].completed
    assert started.id.startswith("req_")
    assert (started.model, started.deployment, started.region) == (FIRST, "d", "eu")
    assert started.decision.requested == FIRST
    assert started.decision.candidates[0].model == FIRST
    assert started.decision.candidates[0].estimated_cost_nanos > 0
    assert started.decision.catalogue_version
    assert started.max_output_tokens == town.proxy.requests[0].chat.max_output_tokens > 0
    assert started.attempt_id == town.proxy.requests[0].attempt_id == completed.attempts[0].id
    assert completed.attempts[0].committed
    assert completed.attempts[0].status == "OK"
    assert completed.attempts[0].HasField("time_to_first_token")
    assert completed.cost.nanos == completed.attempts[0].cost.nanos > 0
    assert completed.cost.price_version
    assert completed.cache.status == started.cache.status == CacheInfo.STATUS_MISS


async def test_a_whole_answer_is_the_stream_folded(town: Neighbourhood) -> None:
    whole, streamed = await ask(town, chat(cache=NO_STORE)), folded(await stream(town, chat(cache=NO_STORE)))
    assert whole.content == streamed.content
    assert whole.completed.usage == streamed.completed.usage
    assert whole.completed.cost == streamed.completed.cost


async def test_the_decision_and_the_cost_are_in_the_metadata(town: Neighbourhood) -> None:
    whole = town.stub.Chat(chat(cache=NO_STORE), metadata=bearer())
    streamed = town.stub.StreamChat(chat(cache=NO_STORE), metadata=bearer())
    for decision in (await whole.trailing_metadata(), await streamed.initial_metadata()):
        told = dict(decision or ())
        assert told["x-modelmuxer-model"] == FIRST
        assert told["x-modelmuxer-cache"] == "bypass"
        assert FIRST in str(told["x-modelmuxer-decision"])
    assert [event async for event in streamed]
    for cost in (await whole.trailing_metadata(), await streamed.trailing_metadata()):
        assert int(dict(cost or ())["x-modelmuxer-cost-nanos"]) > 0


async def test_the_proxy_is_told_who_pays_and_at_which_price(town: Neighbourhood) -> None:
    await ask(town, chat(tags={"team": "x"}), run="r1", operation="o1")
    billing = BillingContext.FromString(town.proxy.requests[0].billing_context)
    assert (billing.principal.tenant, billing.principal.user) == ("acme", "alice")
    assert billing.price.rows
    assert (billing.run_id, billing.operation_id, billing.attempt_number) == ("r1", "o1", 1)
    assert billing.tags == {"team": "x"}


async def test_the_cap_is_the_least_of_request_key_and_model(town: Neighbourhood) -> None:
    town.accounting.principals[SECRET].max_output_tokens = 50
    await ask(town, chat(cache=NO_STORE, max_output_tokens=100))
    started = (await ask(town, chat(cache=NO_STORE, max_output_tokens=20))).started
    await ask(town, chat(cache=NO_STORE))
    assert [request.chat.max_output_tokens for request in town.proxy.requests] == [50, 20, 50]
    assert started.max_output_tokens == 20


async def test_the_deadline_goes_on(town: Neighbourhood) -> None:
    await town.stub.Chat(chat(cache=NO_STORE), metadata=bearer(), timeout=5)
    assert 0 < town.proxy.deadlines_s[0] <= 5.1


async def test_a_deadline_that_passes_is_gone_upstream_though_others_might_have_shared_the_answer(
    town: Neighbourhood,
) -> None:
    forever = asyncio.Event()
    town.proxy.scripts[FIRST] = lambda _: [*beginning(), delta("a"), forever]
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await town.stub.Chat(chat(), metadata=bearer(), timeout=0.3)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: town.proxy.cancelled == 1, within_s=0.1)


async def test_a_caller_who_leaves_is_gone_upstream(town: Neighbourhood) -> None:
    forever = asyncio.Event()
    town.proxy.scripts[FIRST] = lambda _: [*beginning(), delta("a"), forever]
    call = town.stub.StreamChat(chat(), metadata=bearer())
    await first_token(call)
    call.cancel()
    await until(lambda: town.proxy.cancelled == 1, within_s=0.1)
    whole = asyncio.ensure_future(town.stub.Chat(chat(), metadata=bearer()))
    await until(lambda: len(town.proxy.requests) == 2)
    whole.cancel()
    await until(lambda: town.proxy.cancelled == 2, within_s=0.1)


# --- failover ---


@pytest.mark.parametrize("way", ["whole", "streamed"])
async def test_before_the_first_token_another_model_answers(town: Neighbourhood, way: str) -> None:
    town.proxy.scripts[FIRST] = lambda _: [*beginning(), failure(Reason.PROVIDER_OVERLOADED, retryable=True)]
    request = chat(routing=TWO)
    answered = await ask(town, request) if way == "whole" else folded(await stream(town, request))
    assert answered.started.model == SECOND
    assert f"{FIRST} (PROVIDER_OVERLOADED)" in answered.started.decision.reason
    first, second = answered.completed.attempts
    assert (first.model, first.status, first.reason, first.committed) == (
        FIRST,
        "UNAVAILABLE",
        "PROVIDER_OVERLOADED",
        False,
    )
    assert (second.model, second.status, second.committed) == (SECOND, "OK", True)
    assert first.id != second.id


async def test_what_a_failed_attempt_cost_is_in_the_bill(town: Neighbourhood) -> None:
    usage = chat_pb2.Usage(input_tokens=1000, output_tokens=0, source=chat_pb2.USAGE_SOURCE_PROVIDER)
    town.proxy.scripts[FIRST] = lambda _: [failure(Reason.PROVIDER_ERROR, retryable=True, announced=True, usage=usage)]
    completed = (await ask(town, chat(routing=TWO))).completed
    assert completed.attempts[0].cost.nanos > 0
    assert completed.cost.nanos == sum(attempt.cost.nanos for attempt in completed.attempts)


async def test_after_the_first_token_nothing_is_switched(town: Neighbourhood) -> None:
    town.proxy.scripts[FIRST] = lambda _: [
        *beginning(),
        delta("a"),
        failure(Reason.PROVIDER_STREAM_CUT, retryable=True),
    ]
    call = town.stub.StreamChat(chat(routing=TWO), metadata=bearer())
    events: list[ChatEvent] = []
    error = await refused(drained(call, events))
    assert [event.WhichOneof("event") for event in events] == ["started", "block_start", "delta"]
    assert error.reason == Reason.PROVIDER_STREAM_CUT
    assert town.proxy.models == [FIRST]


async def test_an_error_that_no_other_model_could_mend_is_told_at_once(town: Neighbourhood) -> None:
    town.proxy.scripts[FIRST] = lambda _: [failure(Reason.CONTENT_POLICY, retryable=False)]
    error = await refused(ask(town, chat(routing=TWO)))
    assert error.reason == Reason.CONTENT_POLICY
    assert error.metadata["attempts"] == "1"
    assert town.proxy.models == [FIRST]


async def test_our_own_bad_key_at_one_provider_is_not_the_callers_trouble(town: Neighbourhood) -> None:
    town.proxy.scripts[FIRST] = lambda _: [failure(Reason.PROVIDER_AUTHENTICATION, retryable=False)]
    assert (await ask(town, chat(routing=TWO))).started.model == SECOND


async def test_tries_are_bounded_and_each_is_another_attempt(town: Neighbourhood) -> None:
    for model in (FIRST, SECOND):
        town.proxy.scripts[model] = lambda _: [failure(Reason.PROVIDER_OVERLOADED, retryable=True)]
    error = await refused(ask(town, chat(routing=TWO)))
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.metadata["attempts"] == "3"
    assert len({request.attempt_id for request in town.proxy.requests}) == 3
    assert town.proxy.models[:2] == [FIRST, SECOND]


async def test_a_provider_that_asks_to_wait_is_not_asked_again_before(town: Neighbourhood) -> None:
    limited = failure(Reason.PROVIDER_RATE_LIMITED, retryable=True, retry_after_s=30)
    town.proxy.scripts[FIRST] = lambda _: [limited]
    error = await refused(ask(town, chat()))
    assert (error.reason, error.retry_after_s) == (Reason.PROVIDER_RATE_LIMITED, 30)
    assert len(town.proxy.requests) == 1
    limited.retry_after_s = 0.3
    answers: Iterator[list[Step]] = iter([[limited], answer()])
    town.proxy.scripts[FIRST] = lambda _: next(answers)
    begun_s = time.monotonic()
    assert text(await ask(town, chat()))
    assert time.monotonic() - begun_s >= 0.3


async def test_a_model_that_rests_or_fails_comes_last(town: Neighbourhood) -> None:
    town.proxy.tell(
        DeploymentState(deployment="a", model=FIRST, available=True, retry_after=Duration(seconds=30)),
        DeploymentState(deployment="b", model=SECOND, available=True),
    )

    async def first() -> str:
        explained = await town.stub.Explain(router_pb2.ExplainRequest(chat=chat(routing=TWO)), metadata=bearer())
        return explained.decision.candidates[0].model

    deadline = time.monotonic() + 5
    while await first() != SECOND:
        assert time.monotonic() < deadline


async def test_a_proxy_that_dies_in_mid_answer_is_told_and_journalled(town: Neighbourhood) -> None:
    town.proxy.scripts[FIRST] = lambda _: [*beginning(), delta("twelve chars"), asyncio.Event()]
    call = town.stub.StreamChat(chat(), metadata=bearer())
    await first_token(call)
    await town.stop("provider_proxy")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert MeshError.from_rpc(caught.value).reason == Reason.PROVIDER_PROXY_UNAVAILABLE
    await until(lambda: bool(town.accounting.records))
    record = town.accounting.records[0]
    assert record.id == f"{town.proxy.requests[0].attempt_id}/observed"
    assert record.observed.usage.output_tokens == 3
    assert record.observed.usage.source == chat_pb2.USAGE_SOURCE_ESTIMATED
    assert not record.observed.complete
    assert record.observed.billing_context == town.proxy.requests[0].billing_context


async def test_without_a_proxy_the_error_says_so_and_nothing_is_billed(town: Neighbourhood) -> None:
    await town.stop("provider_proxy")
    error = await refused(ask(town, chat()))
    assert error.reason == Reason.PROVIDER_PROXY_UNAVAILABLE
    assert error.retry_after_s
    assert not town.accounting.records


# --- the cache ---


async def test_the_same_question_is_answered_from_the_cache(town: Neighbourhood) -> None:
    fresh = await ask(town, chat())
    await until(lambda: len(town.cache.kept) == 1)
    for kept in (await ask(town, chat()), folded(await stream(town, chat()))):
        assert kept.content == fresh.content
        assert kept.started.cache.status == kept.completed.cache.status == CacheInfo.STATUS_EXACT
        assert kept.completed.cache.saved_nanos == fresh.completed.cost.nanos > 0
        assert kept.completed.cache.age.seconds == 7
        assert kept.completed.cost.nanos == 0
        assert not kept.completed.attempts
        assert kept.completed.usage.source == chat_pb2.USAGE_SOURCE_CACHE
        assert kept.started.id != fresh.started.id
    assert len(town.proxy.requests) == 1
    await until(lambda: len(town.accounting.records) == 2)
    assert town.accounting.records[0].cache_hit.saved_nanos == fresh.completed.cost.nanos


async def test_no_tenant_gets_anothers_answer(town: Neighbourhood) -> None:
    town.accounting.principals["mm-bob"] = principal("other", "bob")
    await ask(town, chat())
    await until(lambda: len(town.cache.kept) == 1)
    assert (await ask(town, chat(), secret="mm-bob")).completed.cache.status == CacheInfo.STATUS_MISS


async def test_what_was_cut_is_never_kept(town: Neighbourhood) -> None:
    for reason in (
        chat_pb2.FINISH_REASON_LENGTH,
        chat_pb2.FINISH_REASON_TOOL_USE,
        chat_pb2.FINISH_REASON_CONTENT_FILTER,
    ):
        town.proxy.scripts[FIRST] = partial(finishing, reason)
        await ask(town, chat())
        await stream(town, chat())
    town.proxy.scripts[FIRST] = lambda _: [
        *beginning(),
        delta("a"),
        failure(Reason.PROVIDER_STREAM_CUT, retryable=True),
    ]
    await refused(stream(town, chat()))
    town.proxy.scripts[FIRST] = lambda _: answer()
    await ask(town, chat("another"))
    await until(lambda: bool(town.cache.opens))
    assert len(town.cache.kept) == 1


async def test_cache_control_is_obeyed(town: Neighbourhood) -> None:
    await ask(town, chat(cache=CacheControl(ttl=Duration(seconds=9))))
    await until(lambda: len(town.cache.kept) == 1)
    assert town.cache.opens[0].ttl.seconds == 9
    assert (await ask(town, chat(cache=NO_STORE))).completed.cache.status == CacheInfo.STATUS_BYPASS
    assert (await ask(town, chat(cache=CacheControl(no_cache=True)))).completed.cache.status == CacheInfo.STATUS_BYPASS
    assert (
        await ask(town, chat(cache=CacheControl(only_if_cached=True)))
    ).completed.cache.status == CacheInfo.STATUS_EXACT
    missing = await refused(ask(town, chat("unheard of", cache=CacheControl(only_if_cached=True))))
    assert (missing.reason, missing.code) == (Reason.CACHE_MISS, grpc.StatusCode.NOT_FOUND)


async def test_a_hung_cache_is_a_miss_that_soon_costs_nothing(tmp_path: Path) -> None:
    async with neighbourhood(tmp_path, CACHE_LOOKUP_TIMEOUT_S="0.02") as town:
        town.cache.delay_s = 30
        for number in range(20):
            assert (await ask(town, chat(f"question {number}"))).completed.cache.status == CacheInfo.STATUS_MISS
        assert town.cache.look_ups <= 7


async def test_a_lone_answers_flight_is_closed_though_its_look_up_came_late(tmp_path: Path) -> None:
    async with neighbourhood(tmp_path, CACHE_LOOKUP_TIMEOUT_S="0.02") as town:
        town.cache.delay_s = 0.2
        await ask(town, chat(cache=CacheControl(no_cache=True)))
        await until(lambda: bool(town.cache.opens))
        (opened,) = town.cache.opens
        assert opened.flight, "the cache may have taken the offer, though its word came too late"


async def test_a_dead_cache_is_a_miss(town: Neighbourhood) -> None:
    await town.stop("cache")
    assert (await ask(town, chat())).completed.cache.status == CacheInfo.STATUS_MISS
    assert folded(await stream(town, chat())).completed.cost.nanos > 0


# --- who may call ---


async def test_callers_without_a_good_key_are_told_so(town: Neighbourhood) -> None:
    await settled(town)
    assert (await refused(town.stub.Chat(chat()))).reason == Reason.MISSING_KEY
    assert (await refused(ask(town, chat(), secret="mm-mallory"))).reason == Reason.INVALID_KEY
    assert (await refused(stream(town, chat(), secret="mm-mallory"))).code is grpc.StatusCode.UNAUTHENTICATED
    assert town.accounting.asked["unknown"] == 1, "an unknown key is remembered for a moment"


async def test_accounting_is_asked_once_for_many_calls(town: Neighbourhood) -> None:
    await asyncio.gather(*(ask(town, chat(cache=NO_STORE)) for _ in range(20)))
    assert town.accounting.asked[SECRET] <= 2, "before and after the watch stands"
    asked = await settled(town)
    await asyncio.gather(*(ask(town, chat(cache=NO_STORE)) for _ in range(20)))
    assert town.accounting.asked[SECRET] == asked


async def test_a_revoked_key_is_refused_within_a_second(town: Neighbourhood) -> None:
    await ask(town, chat())
    begun_s = time.monotonic()
    town.accounting.revoke(SECRET)
    assert (await refused(again_and_again(town))).reason == Reason.INVALID_KEY
    assert time.monotonic() - begun_s < 1


async def test_a_change_during_a_lost_watch_is_noticed_when_it_is_back(town: Neighbourhood) -> None:
    await ask(town, chat())
    town.accounting.break_watches()
    del town.accounting.principals[SECRET]
    await until(lambda: bool(town.accounting.watches))
    assert (await refused(again_and_again(town))).reason == Reason.INVALID_KEY


async def test_without_accounting_known_keys_go_on_and_others_fail_closed(town: Neighbourhood) -> None:
    await settled(town)
    await town.stop("accounting")
    assert text(await ask(town, chat(cache=NO_STORE)))
    error = await refused(ask(town, chat(), secret="mm-unseen"))
    assert (error.reason, error.code) == (Reason.ACCOUNTING_UNAVAILABLE, grpc.StatusCode.UNAVAILABLE)


async def test_a_key_may_name_only_its_models(town: Neighbourhood) -> None:
    town.accounting.principals[SECRET].models.append(SECOND)
    error = await refused(ask(town, chat()))
    assert (error.reason, error.code) == (Reason.KEY_NOT_ALLOWED, grpc.StatusCode.PERMISSION_DENIED)
    assert (await ask(town, chat(model=SECOND))).started.model == SECOND
    listed = await town.stub.ListModels(router_pb2.ListModelsRequest(), metadata=bearer())
    assert [model.id for model in listed.models] == [SECOND]


# --- operations ---


async def test_a_repeated_operation_joins_the_running_one(town: Neighbourhood) -> None:
    go_on = asyncio.Event()
    town.proxy.scripts[FIRST] = lambda _: [*answer()[:3], go_on, *answer()[3:]]
    first = asyncio.ensure_future(stream(town, chat(), operation="o"))
    await until(lambda: bool(town.proxy.requests))
    second = asyncio.ensure_future(stream(town, chat(), operation="o"))
    third = asyncio.ensure_future(ask(town, chat(), operation="o"))
    await asyncio.sleep(0.05)
    go_on.set()
    assert await first == await second
    assert folded(await first) == await third
    assert len(town.proxy.requests) == 1


async def test_a_finished_operation_gives_its_answer_again(town: Neighbourhood) -> None:
    first = await ask(town, chat(cache=NO_STORE), operation="o")
    again = await ask(town, chat(cache=NO_STORE), operation="o")
    assert first == again
    assert folded(await stream(town, chat(cache=NO_STORE), operation="o")) == first
    assert len(town.proxy.requests) == 1


async def test_another_body_under_the_same_operation_is_refused(town: Neighbourhood) -> None:
    await ask(town, chat(), operation="o")
    error = await refused(ask(town, chat("something else"), operation="o"))
    assert (error.reason, error.code) == (Reason.OPERATION_MISMATCH, grpc.StatusCode.ALREADY_EXISTS)


async def test_a_failed_operation_may_be_tried_again(town: Neighbourhood) -> None:
    town.proxy.scripts[FIRST] = lambda _: [failure(Reason.CONTENT_POLICY, retryable=False)]
    await refused(ask(town, chat(), operation="o"))
    await until(lambda: len(town.accounting.ends) == 1)
    assert not town.accounting.ends[0].HasField("answer")
    town.proxy.scripts[FIRST] = lambda _: answer()
    assert text(await ask(town, chat(), operation="o"))


async def test_an_operation_runs_until_the_last_caller_leaves(town: Neighbourhood) -> None:
    town.proxy.scripts[FIRST] = lambda _: [*beginning(), delta("a"), asyncio.Event()]
    calls = [town.stub.StreamChat(chat(), metadata=bearer(operation="o")) for _ in range(2)]
    for call in calls:
        await call.read()
    calls[0].cancel()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(until(lambda: town.proxy.cancelled > 0), 0.1)
    calls[1].cancel()
    await until(lambda: town.proxy.cancelled == 1, within_s=0.1)
    await until(lambda: len(town.accounting.ends) == 1)


# --- the other methods, and bad input ---


async def test_explain_tells_the_choice_without_a_call(town: Neighbourhood) -> None:
    routing = RoutingOptions(strategy="cheapest", fallbacks=[SECOND])
    explained = await town.stub.Explain(router_pb2.ExplainRequest(chat=chat(routing=routing)), metadata=bearer())
    assert explained.decision.strategy == "cheapest"
    assert {candidate.model for candidate in explained.decision.candidates} == {FIRST, SECOND}
    assert not town.proxy.requests


async def test_tokens_are_counted_for_the_model_that_would_answer(town: Neighbourhood) -> None:
    counted = await town.stub.CountTokens(router_pb2.CountTokensRequest(chat=chat()), metadata=bearer())
    assert (counted.input_tokens, counted.model) == (42, FIRST)


async def test_models_are_listed_aliases_first(town: Neighbourhood) -> None:
    listed = await town.stub.ListModels(router_pb2.ListModelsRequest(), metadata=bearer())
    assert listed.models[0].targets
    assert listed.catalogue_version
    assert any(model.id == FIRST and model.input_nanos_per_million > 0 for model in listed.models)


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (ChatRequest(), Reason.MALFORMED_REQUEST, "messages"),
        (chat(model="openai/gpt-99"), Reason.UNKNOWN_MODEL, "model"),
        (chat(routing=RoutingOptions(strategy="magic")), Reason.MALFORMED_REQUEST, "routing.strategy"),
        (
            chat(routing=RoutingOptions(only_providers=["nobody"])),
            Reason.MALFORMED_REQUEST,
            "routing.only_providers[0]",
        ),
        (chat(routing=RoutingOptions(fallbacks=["nothing"])), Reason.UNKNOWN_MODEL, "routing.fallbacks[0]"),
        (chat(temperature=3), Reason.MALFORMED_REQUEST, "temperature"),
    ],
)
async def test_bad_requests_name_the_field(
    town: Neighbourhood, request_: ChatRequest, reason: Reason, field: str
) -> None:
    for error in (await refused(ask(town, request_)), await refused(stream(town, request_))):
        assert (error.reason, error.field) == (reason, field)
    assert not town.proxy.requests


# --- what the operator does and sees ---


async def test_a_changed_catalogue_is_in_force_without_a_restart(tmp_path: Path) -> None:
    config = tmp_path / "catalogue.yaml"
    config.write_text(f"aliases: {{ours: {{targets: [{FIRST}]}}}}")
    async with neighbourhood(tmp_path, CONFIG=str(config)) as town:
        before = (await ask(town, chat(model="ours", cache=NO_STORE))).started
        config.write_text(f"aliases: {{ours: {{targets: [{SECOND}]}}}}")
        deadline = time.monotonic() + 10
        while (after := (await ask(town, chat(model="ours", cache=NO_STORE))).started).model == FIRST:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
    assert (before.model, after.model) == (FIRST, SECOND)
    assert before.decision.catalogue_version != after.decision.catalogue_version


async def test_chats_failovers_and_cost_are_counted(town: Neighbourhood) -> None:
    def counted() -> dict[str, float]:
        wanted = {
            "chats": ("modelmuxer_requests_total", {"face": "grpc", "model": FIRST, "status": "OK"}),
            "failovers": ("modelmuxer_failovers_total", {"model": FIRST, "reason": "PROVIDER_OVERLOADED"}),
            "misses": ("modelmuxer_cache_outcomes_total", {"outcome": "miss"}),
            "cost": ("modelmuxer_cost_nanos_total", {"model": SECOND}),
            "output": ("modelmuxer_tokens_total", {"model": SECOND, "kind": "output"}),
        }
        return {name: REGISTRY.get_sample_value(*sample) or 0.0 for name, sample in wanted.items()}

    town.proxy.scripts[FIRST] = lambda _: [failure(Reason.PROVIDER_OVERLOADED, retryable=True)]
    before = counted()
    completed = (await ask(town, chat(routing=TWO))).completed
    grown = {name: value - before[name] for name, value in counted().items()}
    assert grown == {"chats": 1, "failovers": 1, "misses": 1, "cost": completed.cost.nanos, "output": 500}
