"""The same operation asked for twice runs once, is billed once, and is answered twice."""

from __future__ import annotations

import asyncio
import uuid

import grpc
import pytest
from modelmuxer.client import CallError, Client, text_of

from tests.mesh.mesh import Mesh
from tests.mesh.test_bad_input import CHAT, post

SLOW = "[[sim ttft=300ms]] "


def body(prompt: str) -> bytes:
    return b'{"messages": [{"role": "user", "content": "%b"}], "temperature": 0.7}' % prompt.encode()


def calls(mesh: Mesh) -> int:
    return len(mesh.bill()["calls"])


def test_a_repeated_http_request_gets_the_same_answer_and_costs_once(mesh: Mesh) -> None:
    operation = {"idempotency-key": uuid.uuid4().hex}
    before = calls(mesh)
    first = post(mesh, CHAT, body("Once"), **operation)
    again = post(mesh, CHAT, body("Once"), **operation)
    assert first[0] == again[0] == 200
    assert first[1]["choices"] == again[1]["choices"]
    assert calls(mesh) == before + 1


def test_another_body_under_the_same_key_is_a_conflict(mesh: Mesh) -> None:
    operation = {"idempotency-key": uuid.uuid4().hex}
    assert post(mesh, CHAT, body("One thing"), **operation)[0] == 200
    status, answer = post(mesh, CHAT, body("Another thing"), **operation)
    assert status == 409
    assert answer["error"]["code"] == "operation_mismatch"


async def test_callers_who_come_while_it_runs_join_it(mesh: Mesh) -> None:
    operation = uuid.uuid4().hex
    before = calls(mesh)
    async with Client(mesh.grpc(), api_key=mesh.key) as client:
        answers = await asyncio.gather(*(client.chat(f"{SLOW} Join", operation_id=operation) for _ in range(5)))
    assert len({text_of(answer.content) for answer in answers}) == 1
    assert calls(mesh) == before + 1


async def test_an_operation_that_failed_may_be_tried_again(mesh: Mesh) -> None:
    operation = uuid.uuid4().hex
    async with Client(mesh.grpc(), api_key=mesh.key) as client:
        for _ in range(2):
            with pytest.raises(CallError) as failed:
                await client.chat("[[sim status=400]]", model="openai/gpt-4o-mini", operation_id=operation)
            assert failed.value.code is grpc.StatusCode.INVALID_ARGUMENT
