"""Embeddings in each wire format: what is sent, what is read, what is refused."""

from __future__ import annotations

import base64
from array import array
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelmuxer.embedding.v1.embedding_pb2 import EmbedRequest, Input, Tokens

from services.provider_proxy.adapters import Adapter
from services.provider_proxy.adapters.anthropic import AnthropicAdapter
from services.provider_proxy.adapters.gemini import GeminiAdapter
from services.provider_proxy.adapters.openai import OpenAIAdapter
from shared.catalogue import Deployment, Dialect, Provider
from shared.errors import MeshError, Reason

DIALECT = Dialect(base64_embeddings=True)
OPENAI = OpenAIAdapter(Provider(name="openai", format="openai", base_url="https://a/v1", dialect=DIALECT))
PLAIN = OpenAIAdapter(Provider(name="local", format="openai", base_url="https://a/v1"))
GEMINI = GeminiAdapter()
PLACE = Deployment(name="m@p", model="p/m", provider="p", region="", base_url="https://a/v1", upstream_model="m")


def asked(*texts: str, **fields: Any) -> EmbedRequest:
    return EmbedRequest(inputs=[Input(text=text) for text in texts], **fields)


def sent(adapter: Adapter, request: EmbedRequest) -> Any:
    made = adapter.embed_request(request, PLACE, "secret", attempt_id="att_1")
    assert made.headers["x-client-request-id"] == "att_1"
    assert "secret" not in repr(made)
    return orjson.loads(made.body)


def test_openai_is_asked_for_base64_and_gives_it() -> None:
    body = sent(OPENAI, asked("one", "two", dimensions=2, end_user="u"))
    assert body == {"model": "m", "input": ["one", "two"], "dimensions": 2, "user": "u", "encoding_format": "base64"}
    packed = base64.b64encode(array("f", [0.5, -1.0])).decode()
    data = [{"index": 1, "embedding": [1, 2.5]}, {"index": 0, "embedding": packed}]
    answer = OPENAI.embeddings(orjson.dumps({"data": data, "model": "m-1", "usage": {"prompt_tokens": 3}}), 2)
    assert [list(each.values) for each in answer.embeddings] == [[0.5, -1.0], [1.0, 2.5]]
    assert (answer.provider_model, answer.usage.input_tokens, answer.usage.output_tokens) == ("m-1", 3, 0)


def test_other_servers_are_asked_for_no_encoding_and_one_text_goes_as_a_text() -> None:
    assert sent(PLAIN, asked("one")) == {"model": "m", "input": "one"}
    tokens = EmbedRequest(inputs=[Input(tokens=Tokens(ids=[1, 2]))])
    assert sent(PLAIN, tokens)["input"] == [1, 2]


def test_gemini_gets_a_request_for_each_text() -> None:
    request = asked("one", "two", dimensions=8)
    request.provider_options.update({"taskType": "SEMANTIC_SIMILARITY"})
    common = {"model": "models/m", "outputDimensionality": 8, "taskType": "SEMANTIC_SIMILARITY"}
    requests = [{**common, "content": {"parts": [{"text": text}]}} for text in ("one", "two")]
    assert sent(GEMINI, request) == {"requests": requests}
    body = {"embeddings": [{"values": [1]}, {"values": [2]}], "usageMetadata": {"promptTokenCount": 4}}
    answer = GEMINI.embeddings(orjson.dumps(body), 2)
    assert [list(each.values) for each in answer.embeddings] == [[1.0], [2.0]]
    assert answer.usage.input_tokens == 4
    silent = GEMINI.embeddings(orjson.dumps({"embeddings": [{"values": [1]}]}), 1)
    assert not silent.usage.HasField("input_tokens")


def test_what_a_format_cannot_say_is_refused_by_name() -> None:
    with pytest.raises(MeshError, match="embeddings") as refused:
        AnthropicAdapter().embed_request(asked("one"), PLACE, "k", attempt_id="a")
    assert refused.value.reason == Reason.UNSUPPORTED_FEATURE
    with pytest.raises(MeshError, match="tokens"):
        GEMINI.embed_request(EmbedRequest(inputs=[Input(tokens=Tokens(ids=[1]))]), PLACE, "k", attempt_id="a")


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"index": 0, "embedding": [1]}],
        [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}],
        [{"index": 0, "embedding": [1]}, {"index": 7, "embedding": [1]}],
        [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": []}],
        [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": ["x"]}],
        [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": "?"}],
        [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1e39]}],
        [{"index": 0, "embedding": [1]}, 3],
    ],
)
def test_an_answer_that_is_not_whole_is_malformed(data: Any) -> None:
    with pytest.raises(MeshError) as broken:
        OPENAI.embeddings(orjson.dumps({"data": data}), 2)
    assert broken.value.reason == Reason.PROVIDER_MALFORMED_ANSWER


@given(st.binary(max_size=200), st.sampled_from([OPENAI, GEMINI]))
def test_any_bytes_are_an_answer_or_an_error(body: bytes, adapter: Adapter) -> None:
    with suppress(MeshError):
        assert len(adapter.embeddings(body, 1).embeddings) == 1
