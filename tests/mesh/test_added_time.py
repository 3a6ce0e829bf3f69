"""The time that the mesh adds is its own: a provider's seconds are not in it."""

from __future__ import annotations

import re
import time

from modelmuxer.chat.v1.chat_pb2 import CacheControl, ChatRequest
from modelmuxer.client import Client, text_message

from tests.mesh.mesh import Mesh

PROVIDERS_S = 3


def added(mesh: Mesh, service: str) -> tuple[float, float]:
    """Seconds that a service has added, and calls."""
    text = mesh.metrics(service)
    figures = [re.search(rf"^modelmuxer_added_seconds_{kind} (\S+)$", text, re.MULTILINE) for kind in ("sum", "count")]
    total, count = (float(figure[1]) for figure in figures if figure)
    return total, count


async def test_a_slow_provider_adds_nothing(mesh: Mesh) -> None:
    before = {service: added(mesh, service) for service in ("router", "provider-proxy")}
    prompt = f"[[sim ttft={1000 * PROVIDERS_S}ms]] Take your time"
    began_s = time.monotonic()
    async with Client(mesh.grpc(), api_key=mesh.key, timeout_s=60) as client:
        await client.chat(ChatRequest(messages=[text_message(prompt)], cache=CacheControl(no_store=True)))
    assert time.monotonic() - began_s > PROVIDERS_S
    for service, (total, count) in before.items():
        total_now, count_now = added(mesh, service)
        assert count_now > count
        assert 0 < total_now - total < PROVIDERS_S
