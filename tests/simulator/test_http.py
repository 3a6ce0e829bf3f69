"""The simulator's HTTP server: keep-alive, pipelines, bad bytes, large bodies, and a clean end."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.simulator import Simulator, serve
from services.simulator.connection import MAX_BODY_BYTES
from tests.ports import free_port
from tests.simulator.conftest import ROOT
from tests.simulator.raw_client import PROVIDERS, Wire, call_of, chat, request_bytes


async def test_one_connection_serves_many_requests(wire: Wire) -> None:
    for number in range(5):
        wire.send("POST", "/v1/chat/completions", chat(f"[[sim reply=r{number}]]"))
        reply = await wire.reply()
        assert reply.json()["choices"][0]["message"]["content"] == f"r{number}"


async def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    orders = ["[[sim ttft=50ms reply=slow]]", "[[sim reply=quick]]", "[[sim tokens=3 ttft=20ms]]", "[[sim reply=last]]"]
    wire.writer.write(b"".join(request_bytes("POST", "/v1/chat/completions", chat(order)) for order in orders))
    texts = [(await wire.reply()).json()["choices"][0]["message"]["content"] for _ in orders]
    assert [texts[0], texts[1], texts[3]] == ["slow", "quick", "last"]


async def test_a_long_pipeline_loses_nothing(wire: Wire) -> None:
    total = 500
    wire.writer.write(b"".join(request_bytes("GET", f"/calls/{number}") for number in range(total)))
    for _ in range(total):
        assert (await wire.reply()).status == 200


async def test_a_request_that_comes_byte_by_byte_is_served(wire: Wire) -> None:
    for byte in request_bytes("POST", "/v1/chat/completions", chat("Hi")):
        wire.writer.write(bytes([byte]))
        await wire.writer.drain()
    assert (await wire.reply()).status == 200


async def test_connection_close_is_obeyed(wire: Wire) -> None:
    wire.send("GET", "/healthz", connection="close")
    reply = await wire.reply()
    assert reply.headers["connection"] == "close"
    assert await wire.reader.read() == b""


async def test_a_client_may_wait_for_permission_to_send_its_body(wire: Wire) -> None:
    request = request_bytes("POST", "/v1/chat/completions", chat("Hi"), expect="100-continue")
    head, _, body = request.partition(b"\r\n\r\n")
    wire.writer.write(head + b"\r\n\r\n")
    assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.writer.write(body)
    assert (await wire.reply()).status == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"no request at all\r\n\r\n",
    ],
)
async def test_what_is_no_request_gets_400_and_the_connection_ends(wire: Wire, garbage: bytes) -> None:
    wire.writer.write(garbage)
    reply = await asyncio.wait_for(wire.reply(), 2)
    assert reply.status == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert await wire.reader.read() == b""


async def test_an_upgrade_is_not_taken(wire: Wire) -> None:
    wire.send("GET", "/healthz", connection="upgrade", upgrade="websocket")
    reply = await wire.reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await wire.reader.read() == b""


async def test_garbage_after_a_request_waits_for_that_requests_answer(wire: Wire) -> None:
    wire.send("POST", "/v1/chat/completions", chat("[[sim ttft=30ms reply=first]]"))
    wire.writer.write(b"\x00\x01garbage\r\n\r\n")
    assert (await wire.reply()).json()["choices"][0]["message"]["content"] == "first"
    assert (await wire.reply()).status == 400


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), after_request=st.booleans())
async def test_no_bytes_crash_the_server(simulator: Simulator, data: bytes, after_request: bool) -> None:
    wire = await Wire.open(simulator)
    wire.writer.write((request_bytes("POST", "/v1/messages", {}) if after_request else b"") + data)
    wire.writer.write_eof()
    await asyncio.wait_for(wire.reader.read(), 2)
    wire.close()
    healthy = await Wire.open(simulator)
    healthy.send("GET", "/healthz")
    assert (await healthy.reply()).status == 200
    healthy.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        "messages",
        "contents",
        "system",
        "systemInstruction",
        "tools",
        "tool_choice",
        "toolConfig",
        "thinking",
        "generationConfig",
        "response_format",
        "output_config",
        "stop",
        "stop_sequences",
        "stream",
        "stream_options",
        "max_tokens",
        "temperature",
        "reasoning_effort",
        "service_tier",
        "serviceTier",
        "cache_control",
        "prompt_cache_key",
        "top_logprobs",
        "output_format",
    ]
)
PARTS = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "model", "tool", "system"])},
    optional={"content": JSON, "parts": JSON, "tool_calls": JSON, "tool_call_id": JSON},
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    provider=st.sampled_from(PROVIDERS),
    changes=st.dictionaries(FIELDS, JSON, max_size=3),
    messages=st.lists(PARTS, max_size=3) | st.none(),
)
async def test_fields_of_the_wrong_type_are_refused_and_never_fail_the_simulator(
    simulator: Simulator, provider: str, changes: dict[str, object], messages: list[object] | None
) -> None:
    wire = await Wire.open(simulator)
    path, body = call_of(provider, "Hi")
    if messages is not None:
        body["contents" if provider == "gemini" else "messages"] = messages
    wire.send("POST", path, {**body, **changes})
    reply = await asyncio.wait_for(wire.reply(), 2)
    assert reply.status in (200, 400), reply.body
    wire.close()


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'"text"', b'{"model": 1}'])
async def test_a_body_that_is_no_request_is_refused_in_the_providers_shape(
    wire: Wire, provider: str, body: bytes
) -> None:
    wire.send("POST", call_of(provider, "")[0], body)
    reply = await wire.reply()
    assert reply.status == 400
    assert reply.json()["error"]["message"]


async def test_large_bodies_are_served_and_too_large_ones_refused(wire: Wire) -> None:
    wire.send("POST", "/v1/chat/completions", chat("x" * (8 * 1024 * 1024)))
    assert (await wire.reply()).json()["usage"]["prompt_tokens"] == 3 + 4 + 2 * 1024 * 1024
    wire.writer.write(request_bytes("GET", "/healthz", b"")[:-2] + b"x-filler: " + b"a" * 70_000 + b"\r\n\r\n")
    assert (await wire.reply()).status == 431


async def test_a_body_beyond_the_limit_is_refused(wire: Wire) -> None:
    wire.writer.write(b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
    block = b"%x\r\n%b\r\n" % (2**20, b"x" * 2**20)
    for _ in range(MAX_BODY_BYTES // 2**20 + 1):
        wire.writer.write(block)
    assert (await asyncio.wait_for(wire.reply(), 10)).status == 413


async def test_unknown_paths_and_methods_are_named(wire: Wire) -> None:
    wire.send("GET", "/v1/audio/speech")
    reply = await wire.reply()
    assert (reply.status, "/v1/audio/speech" in reply.json()["error"]["message"]) == (404, True)
    wire.send("GET", "/v1/chat/completions")
    assert (await wire.reply()).status == 405


async def test_a_missing_key_and_a_missing_version_are_refused(wire: Wire) -> None:
    body = json.dumps(chat("Hi", max_tokens=5)).encode()
    for path, status in (
        ("/v1/chat/completions", 401),
        ("/v1/messages", 401),
        ("/v1beta/models/sim-a:generateContent", 403),
    ):
        wire.writer.write(f"POST {path} HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        assert (await wire.reply()).status == status
    wire.writer.write(
        f"POST /v1/messages HTTP/1.1\r\nx-api-key: k\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    )
    reply = await wire.reply()
    assert (reply.status, "anthropic-version" in reply.json()["error"]["message"]) == (400, True)


async def test_a_key_in_geminis_query_is_taken(wire: Wire) -> None:
    body = json.dumps(call_of("gemini", "Hi")[1]).encode()
    path = "/v1beta/models/sim-a:generateContent?key=abc"
    wire.writer.write(f"POST {path} HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    assert (await wire.reply()).status == 200


async def test_geminis_stream_is_also_one_json_array(wire: Wire) -> None:
    path, body = call_of("gemini", "[[sim tokens=3]]")
    wire.send("POST", path.replace("generateContent", "streamGenerateContent"), body)
    elements = (await wire.reply()).json()
    assert len(elements) == 4
    assert elements[-1]["candidates"][0]["finishReason"] == "STOP"
    for position in range(4):
        path, body = call_of("gemini", f"[[sim tokens=3 error_at={position}]]")
        wire.send("POST", path.replace("generateContent", "streamGenerateContent"), body)
        elements = (await wire.reply()).json()
        assert len(elements) == position + 1
        assert elements[-1]["error"]["status"] == "INTERNAL"


async def test_what_was_received_can_be_looked_up_without_secrets(wire: Wire) -> None:
    for _ in range(2):
        wire.send("POST", "/v1/chat/completions", chat("Hi"), x_client_request_id="attempt 7")
        await wire.reply()
    wire.send("GET", "/calls/attempt%207")
    reply = await wire.reply()
    calls = reply.json()["calls"]
    assert [call["body"]["messages"][0]["content"] for call in calls] == ["Hi", "Hi"]
    assert calls[0]["headers"]["x-client-request-id"] == "attempt 7"
    assert b"key" not in reply.body.replace(b"x-client-request-id", b"")


async def test_a_stop_lets_running_calls_end() -> None:
    async with serve(port=0) as running:
        wire = await Wire.open(running)
        wire.send("POST", "/v1/chat/completions", chat("[[sim tokens=10 tps=100]]", stream=True))
        await wire.reader.readuntil(b"data: ")
    rest = await wire.reader.read()
    assert b"[DONE]" in rest
    wire.close()


def test_the_process_says_where_it_listens_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "services.simulator", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert urlsplit(said["url"]).port == said["port"]
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate(timeout=10)
        assert (process.returncode, complaints) == (0, "")


def test_a_port_that_is_taken_is_said_in_a_sentence(simulator_url: str) -> None:
    port = str(urlsplit(simulator_url).port)
    command = [sys.executable, "-m", "services.simulator", "--port", port]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"cannot listen on 127.0.0.1:{port}")


def test_a_running_simulator_says_that_it_is_up_and_a_stopped_one_does_not(simulator_url: str) -> None:
    def health(port: int) -> int:
        command = [sys.executable, "-m", "services.simulator", "--health", "--port", str(port)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=30).returncode

    assert health(urlsplit(simulator_url).port or 0) == 0
    assert health(free_port()) == 1
