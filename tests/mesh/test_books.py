"""`mux reconcile` and `mux audit` on a running mesh: differences are listed, estimates settled, the books proven."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.client import Client, text_message

from tests.mesh.mesh import Mesh, until
from tests.zygote import zygote


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("books") / "home") as mesh:
        yield mesh


def mux(mesh: Mesh, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = mesh.mux_environ() | {"MODELMUXER_SIMULATOR_URL": mesh.simulator}
    return zygote().run(["tests.mux", *arguments], environ, timeout=60)


def mux_json(mesh: Mesh, *arguments: str) -> Any:
    done = mux(mesh, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def calls(mesh: Mesh, text: str) -> None:
    """One whole call, and one stream that its caller leaves; both are on the bill afterwards."""
    billed = len(mesh.bill()["calls"])
    async with Client(mesh.grpc(), api_key=mesh.key, timeout_s=30) as client:
        await client.chat(f"{text}: whole", model="openai/gpt-4o-mini")
        request = chat_pb2.ChatRequest(model="openai/gpt-4o-mini", cache=chat_pb2.CacheControl(no_store=True))
        request.messages.append(text_message(f"[[sim tps=50 tokens=300]] {text}: cut"))
        async with aclosing(client.stream_chat(request)) as events:
            async for event in events:
                if event.HasField("delta"):
                    break
    until(lambda: len(mesh.bill()["calls"]) >= billed + 2)


def settled(mesh: Mesh) -> Any:
    """What reconcile finds once nothing is on its way any more."""
    found = mux_json(mesh, "reconcile")
    on_its_way = found["missing"] or any(each["kind"] == "pending" for each in found["differences"])
    return None if on_its_way else found


async def test_reconcile_lists_what_differs_and_settles_estimates_by_the_bill(mesh: Mesh) -> None:
    await calls(mesh, "reconcile")
    before = until(lambda: settled(mesh))
    assert before["extra"] == 0
    assert before["unsettled"] == 1, "the cut stream is an estimate"
    assert mux_json(mesh, "reconcile", "--write")["written"] == 1
    after = mux_json(mesh, "reconcile")
    assert (after["missing"], after["extra"], after["differences"], after["unsettled"]) == (0, 0, [], 0)
    assert after["ledger_nanos"] == after["bill_nanos"] == mesh.bill()["total_nanos"]
    assert mux_json(mesh, "spend")["total_nanos"] == mesh.bill()["total_nanos"]
    audit = mux_json(mesh, "audit")
    assert audit["ok"]
    assert audit["total_nanos"] == mesh.bill()["total_nanos"]


async def test_exports_are_compared_by_bucket_and_model_and_settle_nothing(mesh: Mesh, tmp_path: Path) -> None:
    await calls(mesh, "buckets")
    until(lambda: settled(mesh))
    mux_json(mesh, "reconcile", "--write")
    path = tmp_path / "usage.json"
    path.write_text(json.dumps(usage_export(mesh.bill(), 0)))
    assert mux_json(mesh, "reconcile", "--bill", str(path))["differences"] == []
    path.write_text(json.dumps(usage_export(mesh.bill(), 7)))
    (difference,) = mux_json(mesh, "reconcile", "--bill", str(path))["differences"]
    assert (difference["kind"], difference["figure"]) == ("bucket", "output_tokens")
    assert difference["bill"] - difference["ledger"] == 7
    refused = mux(mesh, "reconcile", "--bill", str(path), "--write")
    assert refused.returncode != 0
    assert "names no calls" in refused.stderr


def usage_export(bill: dict[str, Any], error_tokens: int) -> dict[str, Any]:
    """The simulated bill as OpenAI would export it."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, error_tokens])
    for call in bill["calls"]:
        if call["provider"] == "openai":
            sums[call["model"]][0] += call["input_tokens"]
            sums[call["model"]][1] += call["output_tokens"]
    day = int(bill["opened_at"]) // 86400 * 86400
    results = [
        {
            "object": "organization.usage.completions.result",
            "input_tokens": sum_in,
            "output_tokens": out,
            "model": model,
        }
        for model, (sum_in, out) in sums.items()
    ]
    bucket = {"object": "bucket", "start_time": day, "end_time": day + 2 * 86400, "results": results}
    return {"object": "page", "data": [bucket], "has_more": False, "next_page": None}


def test_a_bill_that_cannot_be_had_is_a_sentence(mesh: Mesh, tmp_path: Path) -> None:
    done = mux(mesh, "reconcile", "--bill", str(tmp_path / "none.json"))
    assert done.returncode != 0
    assert "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
