"""Any bytes on any port get a clear error, never a crash, a stack trace or a secret in a log."""

from __future__ import annotations

import json
import random
import socket
import urllib.error
import urllib.request
from typing import Any

import grpc
import pytest
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.client import CallError, Client
from modelmuxer.router.v1 import router_pb2_grpc

from tests.mesh.mesh import Mesh

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
HELLO = [{"role": "user", "content": "Hello"}]


def post(mesh: Mesh, path: str, body: bytes, key: str | None = None, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(f"{mesh.http}{path}", body, {"content-type": "application/json", **headers})
    request.add_header("authorization", f"Bearer {mesh.key if key is None else key}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/v1/messages/count_tokens"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"chat"', bytes(range(256)), b"\xff\xfe{}", b"{}" * 3])
def test_a_body_that_is_no_request_is_refused(mesh: Mesh, path: str, body: bytes) -> None:
    status, answer = post(mesh, path, body)
    assert status == 400
    assert answer["error"]["message"]
    assert "Traceback" not in json.dumps(answer)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages", "Hello"),
        ("messages", [{"role": "wizard", "content": "Hello"}]),
        ("messages", [{"role": "user", "content": 7}]),
        ("messages", [{"role": "user", "content": [{"type": "hologram"}]}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:;base64,%%%"}}]}]),
        ("temperature", "hot"),
        ("temperature", 99),
        ("max_tokens", -1),
        ("max_tokens", 1.5),
        ("n", 2),
        ("tools", [{"type": "function"}]),
        ("tool_choice", "perhaps"),
        ("response_format", {"type": "xml"}),
        ("stop", {"a": 1}),
        ("stream", "yes"),
        ("seed", 2**70),
        ("model", 7),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(mesh: Mesh, field: str, value: Any) -> None:
    status, answer = post(mesh, CHAT, json.dumps({"messages": HELLO, field: value}).encode())
    assert status == 400, answer
    assert answer["error"]["param"], answer
    assert answer["error"]["param"].split("[")[0].split(".")[0] in (field, "max_output_tokens"), answer
    assert answer["detail"] == answer["error"]["message"]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_body_that_is_too_large_is_refused(mesh: Mesh, path: str) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 33 * 1024 * 1024}], "max_tokens": 9}).encode()
    status, answer = post(mesh, path, body)
    assert status == 413
    assert "33,554,432" in answer["error"]["message"]


@pytest.mark.parametrize(("path", "key"), [(CHAT, ""), (CHAT, "mm-wrong"), (MESSAGES, "mm-wrong"), ("/v1/models", "x")])
def test_a_wrong_key_is_refused(mesh: Mesh, path: str, key: str) -> None:
    status, answer = post(mesh, path, b"{}", key=key)
    assert status in (401, 405)
    assert answer["error"]["message"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/audio/speech", "not served"),
        ("/v1/images/generations", "not served"),
        ("/v1/moderations", "not served"),
        ("/v1/nothing", "nothing at"),
        ("/nowhere", "nothing at"),
    ],
)
def test_what_is_not_there_says_so(mesh: Mesh, path: str, said: str) -> None:
    status, answer = post(mesh, path, b"{}")
    assert status == 404
    assert said in answer["detail"]


async def test_an_oversized_grpc_message_is_refused(mesh: Mesh) -> None:
    async with grpc.aio.insecure_channel(mesh.grpc(), options=[("grpc.max_send_message_length", -1)]) as channel:
        request = chat_pb2.ChatRequest()
        request.messages.add(role=chat_pb2.ROLE_USER).content.add().text.text = "x" * (33 * 1024 * 1024)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await router_pb2_grpc.RouterServiceStub(channel).Chat(request)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("key", ["", "mm-wrong"])
async def test_a_grpc_call_without_a_valid_key_is_unauthenticated(mesh: Mesh, key: str) -> None:
    async with Client(mesh.grpc(), api_key=key) as client:
        with pytest.raises(CallError) as refused:
            await client.chat("Hi")
    assert refused.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert refused.value.reason in ("INVALID_KEY", "MISSING_KEY")


@pytest.mark.parametrize("service", ["provider-proxy", "cache", "accounting"])
async def test_internal_ports_want_the_mesh_token(mesh: Mesh, service: str) -> None:
    method = {
        "provider-proxy": "/modelmuxer.provider.v1.ProviderService/Generate",
        "cache": "/modelmuxer.cache.v1.CacheService/Lookup",
        "accounting": "/modelmuxer.accounting.v1.AccountingService/Record",
    }[service]
    async with grpc.aio.insecure_channel(mesh.grpc(service)) as channel:
        call: Any = channel.unary_unary(method)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"")
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_garbage_on_every_port_harms_nobody(mesh: Mesh) -> None:
    generator = random.Random(7)
    addresses = [mesh.grpc(s) for s in ("router", "provider-proxy", "cache", "accounting")]
    addresses += [mesh.services[s]["metrics"] for s in ("router", "cache")]
    addresses += [mesh.http.removeprefix("http://")]
    for address in addresses:
        host, port = address.split(":")
        for garbage in (b"\x00" * 100, generator.randbytes(5000), b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01" * 40):
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                connection.sendall(garbage)
    async with Client(mesh.grpc(), api_key=mesh.key) as client:
        assert (await client.chat("Still there?")).completed.finish_reason == chat_pb2.FINISH_REASON_STOP


async def test_no_secret_and_no_prompt_is_logged(mesh: Mesh) -> None:
    prompt = "the password is plugh-xyzzy"
    async with Client(mesh.grpc(), api_key=mesh.key) as client:
        await client.chat(prompt)
        with pytest.raises(CallError):
            await client.chat(f"[[sim status=500]] {prompt}", model="openai/gpt-4o-mini")
    post(mesh, CHAT, b'{"messages": "plugh-xyzzy"}')
    logged = mesh.logged()
    assert "plugh" not in logged
    assert mesh.key not in logged
    assert mesh.token not in logged
