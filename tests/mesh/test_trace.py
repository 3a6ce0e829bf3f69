"""One streamed request is one trace across all services, received by a real OTLP endpoint."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from modelmuxer.chat.v1.chat_pb2 import ChatRequest
from modelmuxer.client import CallError, Client, text_message
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.contract.collector import Collector, collecting
from tests.mesh.mesh import Mesh
from tests.mesh.test_main_job import MUX

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SERVICES = {"router", "provider-proxy", "cache", "accounting"}


@pytest.fixture
async def traced(tmp_path: Path) -> AsyncIterator[tuple[Mesh, Collector]]:
    async with collecting() as collector:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        mesh = Mesh(tmp_path / "home", environ)
        await asyncio.to_thread(mesh.__enter__)
        yield mesh, collector
        await asyncio.to_thread(mesh.__exit__, None, None, None)


async def whole_trace(collector: Collector, trace_id: str) -> list[tuple[str, Span]]:
    """The trace once every service has sent its spans and every span's parent is there, but for the caller's own."""
    deadline = time.monotonic() + 15
    while True:
        found = [(service, span) for service, span in collector.spans if span.trace_id.hex() == trace_id]
        if {service for service, _ in found} >= SERVICES and len(roots(found)) == 1:
            return found
        said = [(service, span.name) for service, span in found]
        assert time.monotonic() < deadline, f"roots {[root.name for root in roots(found)]} in {said}"
        await asyncio.sleep(0.05)


def roots(found: list[tuple[str, Span]]) -> list[Span]:
    ids = {span.span_id for _, span in found}
    return [span for _, span in found if span.parent_span_id not in ids]


def make_key(mesh: Mesh) -> str:
    done = subprocess.run(
        [MUX, "keys", "create", "tracer", "--json"], env=mesh.mux_environ(), capture_output=True, text=True, check=True
    )
    return str(json.loads(done.stdout)["secret"])


async def stream(mesh: Mesh, prompt: str, key: str) -> None:
    metadata = (("authorization", f"Bearer {key}"), ("traceparent", f"00-{TRACE_ID}-00f067aa0ba902b7-01"))
    async with Client(mesh.grpc(), api_key=key) as client:
        request = ChatRequest(messages=[text_message(prompt)])
        async for _ in client.router.StreamChat(request, metadata=metadata):
            pass


async def test_a_streamed_request_is_one_trace_across_all_services(traced: tuple[Mesh, Collector]) -> None:
    mesh, collector = traced
    key = await asyncio.to_thread(make_key, mesh)  # a key that no router knows, so that accounting is asked
    await stream(mesh, "A secret that no span may hold: plugh", key)
    found = await whole_trace(collector, TRACE_ID)
    assert roots(found)[0].parent_span_id.hex() == "00f067aa0ba902b7"
    attempts = [span for _, span in found if span.name.startswith("chat ")]
    assert attempts
    assert {attribute.key for attribute in attempts[-1].attributes} >= {"gen_ai.provider.name", "gen_ai.request.model"}
    assert "plugh" not in str(found)


async def test_an_attempt_that_fails_is_a_child_span_that_says_so(traced: tuple[Mesh, Collector]) -> None:
    mesh, collector = traced
    async with Client(mesh.grpc(), api_key=mesh.key) as client:
        with pytest.raises(CallError):
            await client.chat("[[sim status=400]] Hm", model="openai/gpt-4o-mini")
    deadline = time.monotonic() + 15
    while not any(_failed_attempt(span) for _, span in collector.spans):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def _failed_attempt(span: Span) -> bool:
    return span.name.startswith("chat ") and span.status.code == Status.STATUS_CODE_ERROR
