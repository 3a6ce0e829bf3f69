"""Embeddings through the whole mesh: the official OpenAI package, the Python client, and the books."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import openai
import pytest
from modelmuxer.chat.v1.chat_pb2 import USAGE_SOURCE_PROVIDER
from modelmuxer.client import CallError, Client

from tests.mesh.mesh import Mesh, until
from tests.zygote import zygote

MODELS = {
    "openai/text-embedding-3-small": 1536,
    "openai/text-embedding-ada-002": 1536,
    "mistral/mistral-embed": 1024,
    "gemini/gemini-embedding-001": 3072,
    "together/BAAI/bge-base-en-v1.5": 768,
    "gemini/sim-g": 256,
}


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A mesh of its own, so that its bill holds nothing but embeddings."""
    with Mesh(tmp_path_factory.mktemp("embeddings") / "home") as mesh:
        yield mesh


@pytest.fixture(scope="module")
def sdk(mesh: Mesh) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{mesh.http}/v1", api_key=mesh.key, max_retries=0)


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def mux_json(mesh: Mesh, *arguments: str) -> Any:
    environ = mesh.mux_environ() | {"MODELMUXER_SIMULATOR_URL": mesh.simulator}
    done = zygote().run(["tests.mux", *arguments, "--json"], environ, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("model", MODELS)
def test_every_format_makes_vectors_that_are_near_for_near_texts(sdk: openai.OpenAI, model: str) -> None:
    texts = ["How do I bake bread at home?", "How can I bake bread at home", "Which planet has the most moons?"]
    answer = sdk.embeddings.create(model=model, input=texts)
    near, same, far = (each.embedding for each in answer.data)
    assert [each.index for each in answer.data] == [0, 1, 2]
    assert {len(near), len(same), len(far)} == {MODELS[model]}
    assert cosine(near, same) > 0.8 > 0.4 > cosine(near, far)
    assert answer.model == model
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_the_same_text_gets_the_same_vector_in_either_encoding(sdk: openai.OpenAI) -> None:
    first = sdk.embeddings.create(model="text-embedding-3-small", input="Bonjour", encoding_format="float")
    again = sdk.embeddings.create(model="text-embedding-3-small", input="Bonjour", encoding_format="base64")
    decoded = sdk.embeddings.create(model="text-embedding-3-small", input="Bonjour")
    assert isinstance(again.data[0].embedding, str)
    assert first.data[0].embedding == pytest.approx(decoded.data[0].embedding)


def test_vectors_are_shortened_where_the_model_can(sdk: openai.OpenAI) -> None:
    assert len(sdk.embeddings.create(model="text-embedding-3-large", input="Hi", dimensions=64).data[0].embedding) == 64
    assert len(sdk.embeddings.create(model="gemini-embedding-001", input="Hi", dimensions=64).data[0].embedding) == 64
    with pytest.raises(openai.BadRequestError, match="cannot shorten its vectors"):
        sdk.embeddings.create(model="text-embedding-ada-002", input="Hi", dimensions=64)


def test_tokens_go_to_providers_that_take_them(sdk: openai.OpenAI) -> None:
    answer = sdk.embeddings.create(model="text-embedding-3-small", input=[[9906, 1917], [9906]])
    assert len(answer.data) == 2
    assert answer.usage.prompt_tokens == 3
    with pytest.raises(openai.BadRequestError, match="inputs as tokens"):
        sdk.embeddings.create(model="gemini-embedding-001", input=[9906, 1917])


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"input": ""}, "must be a text"),
        ({"input": []}, "not empty"),
        ({"input": [1, "two"]}, "nothing but tokens"),
        ({"input": "Hi", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "Hi", "dimensions": 0}, "dimensions must be"),
        ({"input": "Hi", "model": "auto"}, "several models"),
        ({"input": "Hi", "model": "openai/gpt-4o-mini"}, "cannot make embeddings"),
        ({"input": ["Hi"] * 2049}, "1 to 2048"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(sdk: openai.OpenAI, body: dict[str, Any], sentence: str) -> None:
    with pytest.raises(openai.BadRequestError, match=sentence):
        sdk.post("/embeddings", body={"model": "embed"} | body, cast_to=object)


def test_an_embedding_model_answers_no_chats(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="answers no chats"):
        sdk.chat.completions.create(model="text-embedding-3-small", messages=[{"role": "user", "content": "Hi"}])


def test_models_are_listed_with_what_they_cost(mesh: Mesh) -> None:
    listed = {model["id"]: model for model in mux_json(mesh, "models")["models"]}
    assert listed["embed"]["targets"] == ["openai/text-embedding-3-small"]
    assert listed["openai/text-embedding-3-small"]["input_nanos_per_million"] == 20_000_000
    assert "embeddings" in listed["gemini/gemini-embedding-001"]["capabilities"]


async def test_a_failing_call_is_tried_again_on_its_own_model_and_each_try_is_told(mesh: Mesh) -> None:
    async with Client(mesh.grpc(), api_key=mesh.key, timeout_s=30) as client:
        with pytest.raises(CallError) as refused:
            await client.embed("Hi", model="openai/sim-status503")
        assert refused.value.reason == "PROVIDER_OVERLOADED"
        with pytest.raises(CallError) as unknown:
            await client.embed("Hi", model="openai/no-such-model")
        assert unknown.value.reason == "UNKNOWN_MODEL"


async def test_every_upstream_call_is_one_entry_at_the_bill_s_price(books: Mesh) -> None:
    texts = [f"Question number {n}: what does part {n * 7} of the machine do?" for n in range(250)]
    async with Client(books.grpc(), api_key=books.key, timeout_s=30) as client:
        cut = await client.embed(texts, model="gemini/gemini-embedding-001")  # takes 100 at once
        whole = await client.embed(texts, model="openai/text-embedding-3-large")
        alone = await client.embed("Only one")
    assert [len(answer.attempts) for answer in (cut, whole, alone)] == [3, 1, 1]
    assert [len(answer.embeddings) for answer in (cut, whole, alone)] == [250, 250, 1]
    assert cut.embeddings[249].values != cut.embeddings[0].values
    assert cut.usage.source == whole.usage.source == USAGE_SOURCE_PROVIDER
    bill = books.bill()
    told = {attempt.id: attempt.cost.nanos for answer in (cut, whole, alone) for attempt in answer.attempts}
    assert told == {call["client_id"]: call["cost_nanos"] for call in bill["calls"]}
    assert cut.cost.nanos + whole.cost.nanos + alone.cost.nanos == bill["total_nanos"]
    until(lambda: mux_json(books, "spend")["total_nanos"] == bill["total_nanos"])
    found = mux_json(books, "reconcile")
    assert (found["missing"], found["extra"], found["differences"]) == (0, 0, [])
    assert mux_json(books, "audit")["ok"]


async def test_a_budget_without_room_refuses_before_anything_is_sent(books: Mesh) -> None:
    made = mux_json(books, "keys", "create", "a key without money", "--tenant", "poor", "--user", "sue")
    mux_json(books, "budgets", "create", "0.000000001", "--scope", "user", "--subject", "sue", "--tenant", "poor")
    calls = len(books.bill()["calls"])
    async with Client(books.grpc(), api_key=made["secret"], timeout_s=30) as client:
        with pytest.raises(CallError) as refused:
            await client.embed("A text whose worst case is more than a nano-dollar")
    assert refused.value.reason == "BUDGET_EXCEEDED"
    assert len(books.bill()["calls"]) == calls
