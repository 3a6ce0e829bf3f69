"""Answers by meaning through the whole mesh: like questions hit, near-identical ones with another answer miss."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import openai
import pytest
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.chat.v1.chat_pb2 import CacheInfo, ChatRequest, ChatResponse
from modelmuxer.client import CallError, Client, text_message, text_of
from modelmuxer.router.v1 import router_pb2

from tests.mesh.mesh import Mesh, until
from tests.mesh.test_embeddings import mux_json
from tests.performance import walls

CATALOGUE = """
aliases:
  faq:
    targets: [openai/gpt-4o-mini]
    cache: {semantic: {model: embed, threshold: 0.8}}  # of the simulated vectors, which know no synonym
  plain: {targets: [openai/gpt-4o-mini]}
  watched:
    targets: [openai/gpt-4o-mini]
    cache: {semantic: {verify: {judge: openai/gpt-4.1-nano, sample: 1.0, most_wrong: 0.02}}}
"""
QUESTION = "How do I bake rye bread at home in 2 hours?"
LIKE = (
    "how do i bake rye bread at home in 2 hours",
    "HOW DO I BAKE RYE BREAD AT HOME IN 2 HOURS??",
    "Please, how do I bake rye bread at home in 2 hours? Thanks!",
    "How can I bake rye bread at home in two hours?",
)
UNLIKE = (
    "How do I bake rye bread at home in 3 hours?",
    "How do I not bake rye bread at home in 2 hours?",
    "How do I bake rye bread at home in 2 minutes?",
    "How do I bake corn bread at home in 2 hours?",
    "How much rye bread do I bake at home in 2 hours?",
)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("semantic")
    (folder / "catalogue.yaml").write_text(CATALOGUE)
    environ = {
        "MODELMUXER_CONFIG": str(folder / "catalogue.yaml"),
        "MODELMUXER_CACHE_LOOKUP_TIMEOUT_S": "1",  # on a busy machine 20 ms pass by themselves
        "MODELMUXER_SEMANTIC_EMBEDDING_TIMEOUT_S": "20",
    }
    with Mesh(folder / "home", environ) as mesh:
        yield mesh


@pytest.fixture
async def client(mesh: Mesh) -> AsyncIterator[Client]:
    async with Client(mesh.grpc(), api_key=mesh.key, timeout_s=60) as client:
        yield client


def ask(text: str, *, model: str = "faq", system: str = "", **cache: Any) -> ChatRequest:
    request = ChatRequest(model=model, cache=chat_pb2.CacheControl(**cache))
    if system:
        request.messages.append(text_message(system, chat_pb2.ROLE_SYSTEM))
    request.messages.append(text_message(text))
    return request


async def remembered(client: Client, mesh: Mesh, request: ChatRequest) -> ChatResponse:
    """Asks, and waits until a repetition finds it by meaning."""
    answer = await client.chat(request)
    like = ChatRequest()
    like.CopyFrom(request)
    like.messages[-1].content[0].text.text += " please"
    like.cache.only_if_cached = True
    for _ in range(200):
        with suppress(CallError):  # CACHE_MISS, until it is
            await client.chat(like)
            return answer
    raise AssertionError("the question was not remembered")


async def test_like_questions_get_the_answer_and_near_ones_with_another_answer_do_not(
    client: Client, mesh: Mesh
) -> None:
    first = await remembered(client, mesh, ask(QUESTION))
    assert first.started.cache.status == CacheInfo.STATUS_MISS
    assert first.completed.cost.nanos == sum(attempt.cost.nanos for attempt in first.completed.attempts)
    assert first.completed.attempts[0].model == "openai/text-embedding-3-small"
    for text in LIKE:
        hit = await client.chat(ask(text))
        info = hit.completed.cache
        assert info.status == CacheInfo.STATUS_SEMANTIC, text
        assert text_of(hit.content) == text_of(first.content)
        assert 0.5 < info.similarity <= 1.001
        assert info.age.ToNanoseconds() > 0
        assert info.saved_nanos > 0
        assert info.hit
        assert [attempt.model for attempt in hit.completed.attempts] == ["openai/text-embedding-3-small"]
        assert hit.completed.cost.nanos == hit.completed.attempts[0].cost.nanos > 0
    for text in UNLIKE:
        miss = await client.chat(ask(text))
        assert miss.completed.cache.status == CacheInfo.STATUS_MISS, text


async def test_a_hit_streams_and_says_so_over_http(client: Client, mesh: Mesh) -> None:
    first = await remembered(client, mesh, ask("What does a lighthouse keeper do all night?"))
    sdk = openai.AsyncOpenAI(base_url=f"{mesh.http}/v1", api_key=mesh.key, max_retries=0)
    like = "what does a lighthouse keeper do all night"
    raw = await sdk.chat.completions.with_raw_response.create(model="faq", messages=[{"role": "user", "content": like}])
    assert raw.headers["x-modelmuxer-cache"] == "semantic"
    assert float(raw.headers["x-modelmuxer-cache-similarity"]) > 0.5
    assert raw.parse().choices[0].message.content == text_of(first.content)
    streamed = [event async for event in client.stream_chat(ask("what does a lighthouse keeper do all night?!"))]
    assert streamed[-1].completed.cache.status == CacheInfo.STATUS_SEMANTIC


async def test_who_demands_the_exact_answer_gets_no_like_one(client: Client, mesh: Mesh) -> None:
    await remembered(client, mesh, ask("Why is the sky over Mars not blue?"))
    exact = await client.chat(ask("why is the sky over Mars not blue", semantic=False))
    assert exact.completed.cache.status == CacheInfo.STATUS_MISS
    strict = await client.chat(ask("Why is the sky over dusty Mars not blue?", similarity=1.0))
    assert strict.completed.cache.status == CacheInfo.STATUS_MISS


async def test_it_is_opt_in(client: Client, mesh: Mesh) -> None:
    bare = await client.chat(ask("Where do swallows spend the winter?", model="plain"))
    again = await client.chat(ask("where do swallows spend the winter", model="plain"))
    assert again.completed.cache.status == CacheInfo.STATUS_MISS
    assert len(bare.completed.attempts) == len(again.completed.attempts) == 1
    await remembered(client, mesh, ask("Where do storks spend the winter?", model="plain", semantic=True))
    asked = await client.chat(ask("where do storks spend the winter", model="plain", semantic=True))
    assert asked.completed.cache.status == CacheInfo.STATUS_SEMANTIC


@pytest.mark.parametrize(
    "other",
    [
        {"system": "Answer in French."},
        {"model": "plain", "semantic": True},
    ],
    ids=["system prompt", "policy"],
)
async def test_everything_else_has_to_be_equal(client: Client, mesh: Mesh, other: dict[str, Any]) -> None:
    text = f"How tall do sunflowers grow in {len(other)} summers with {next(iter(other))}?"
    await remembered(client, mesh, ask(text, system="Be brief."))
    apart = await client.chat(ask(text + " please", **({"system": "Be brief."} | other)))
    assert apart.completed.cache.status == CacheInfo.STATUS_MISS


async def test_no_answer_crosses_tenants_and_the_books_hold(client: Client, mesh: Mesh) -> None:
    secret = mux_json(mesh, "keys", "create", "another", "--tenant", "globex")["secret"]
    texts = [f"How do I paint {thing} with oil?" for thing in ("a fence", "my boat", "one door", "the ceiling")]
    async with Client(mesh.grpc(), api_key=str(secret), timeout_s=60) as other:
        for text in texts:
            await remembered(client, mesh, ask(text))
            crossed = await other.chat(ask(text.lower()))
            assert crossed.completed.cache.status == CacheInfo.STATUS_MISS
    bill = mesh.bill()
    until(lambda: mux_json(mesh, "spend")["total_nanos"] == bill["total_nanos"])
    assert mux_json(mesh, "reconcile")["differences"] == []


async def test_two_tenants_who_ask_the_same_all_the_while_never_meet(mesh: Mesh) -> None:
    plan = walls.Plan(seconds=2.0, callers=3)
    secrets = {
        tenant: str(mux_json(mesh, "keys", "create", "soak", "--tenant", tenant)["secret"]) for tenant in walls.TENANTS
    }
    seen = await walls.soak([mesh.grpc()], secrets, plan)
    assert not seen.errors
    assert seen.crossings == 0
    assert seen.statuses["semantic"] > 0
    assert seen.statuses["exact"] + seen.statuses["coalesced"] > 0
    # Two keys of one tenant do share answers, which would be crossings if they were of two.
    secrets["globex"] = str(mux_json(mesh, "keys", "create", "again", "--tenant", "acme")["secret"])
    assert (await walls.soak([mesh.grpc()], secrets, plan)).crossings > 0


async def test_a_judge_compares_hits_with_fresh_answers_and_raises_the_line(client: Client, mesh: Mesh) -> None:
    order(mesh, "gpt-4.1-nano", 'reply="SAME"')
    await remembered(client, mesh, ask("What should I pack for a hike in Norway?", model="watched"))
    like = ask("What should I pack for a long hike in Norway?", model="watched", similarity=0.5)
    before = await client.chat(like)
    assert before.completed.cache.status == CacheInfo.STATUS_SEMANTIC
    order(mesh, "gpt-4.1-nano", 'reply="DIFFERENT"')
    for _ in range(100):
        again = await client.chat(like)
        if again.completed.cache.status != CacheInfo.STATUS_SEMANTIC:
            break
    assert again.completed.cache.status == CacheInfo.STATUS_MISS
    assert until(lambda: "gpt-4.1-nano" in str(mux_json(mesh, "spend", "--by", "model")["rows"]))


async def test_a_caller_judges_a_hit_on_either_face(client: Client, mesh: Mesh) -> None:
    await remembered(client, mesh, ask("Which mushrooms grow under birches?"))
    hit = await client.chat(ask("which mushrooms grow under birches"))
    request = router_pb2.JudgeHitRequest(hit=hit.completed.cache.hit, wrong=True)
    await client.router.JudgeHit(request, metadata=client.metadata())
    sdk = openai.AsyncOpenAI(base_url=f"{mesh.http}/v1", api_key=mesh.key, max_retries=0)
    body = {"hit": hit.completed.cache.hit, "wrong": False}
    assert await sdk.post("/cache/verdicts", body=body, cast_to=object) == {}
    with pytest.raises(openai.BadRequestError, match="name of a hit"):
        await sdk.post("/cache/verdicts", body={"hit": "?", "wrong": False}, cast_to=object)


def order(mesh: Mesh, model: str, directive: str) -> None:
    """Sets how a simulated model answers."""
    body = json.dumps({"model": model, "directive": directive}).encode()
    request = urllib.request.Request(f"{mesh.simulator}/behaviour", body, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
