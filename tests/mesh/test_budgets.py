"""Budgets and limits as people meet them: made by `mux`, felt on both faces of a running mesh within a second."""

from __future__ import annotations

import json
import signal
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import grpc
import pytest
from google.rpc.status_pb2 import Status
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.router.v1 import router_pb2_grpc

from shared.errors import STATUS_KEY, MeshError, Reason
from tests.mesh.mesh import Mesh, until
from tests.zygote import zygote

MODEL = "openai/sim-tokens10"


class Town:
    """A mesh, and what a user does with it."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    def mux(self, *words: str) -> Any:
        done = zygote().run(["tests.mux", *words, "--json"], self.mesh.mux_environ(), timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def key(self, user: str, *words: str) -> str:
        return str(self.mux("keys", "create", f"key of {user}", "--tenant", "acme", "--user", user, *words)["secret"])

    def post(self, path: str, key: str, **fields: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
        body = {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}], **fields}
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "cache-control": "no-store"}
        request = urllib.request.Request(self.mesh.http + path, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read()), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read()), dict(error.headers)

    def chat(self, key: str, run_id: str = "") -> chat_pb2.ChatResponse:
        chat = chat_pb2.ChatRequest(model=MODEL, max_output_tokens=10)
        chat.messages.add(role=chat_pb2.ROLE_USER).content.add().text.text = "hi"
        chat.cache.no_store = True
        metadata = (("authorization", f"Bearer {key}"), *([("x-run-id", run_id)] if run_id else []))
        with grpc.insecure_channel(self.mesh.grpc()) as channel:
            try:
                answer: chat_pb2.ChatResponse = router_pb2_grpc.RouterServiceStub(channel).Chat(chat, metadata=metadata)
            except grpc.RpcError as error:
                raise _mesh_error(cast("grpc.Call", error)) from None
            return answer


def _mesh_error(error: grpc.Call) -> MeshError:
    details = dict[str, str | bytes](error.trailing_metadata() or ())[STATUS_KEY]
    assert isinstance(details, bytes)
    return MeshError.from_status(Status.FromString(details))


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with Mesh(tmp_path_factory.mktemp("budgets") / "home") as mesh:
        yield Town(mesh)


def test_a_hard_budget_refuses_on_every_face_with_all_that_is_known(town: Town) -> None:
    key = town.key("ada")
    assert town.chat(key).completed.cost.nanos > 0
    budget = town.mux("budgets", "create", "0.00005", "--scope", "user", "--subject", "ada", "--tenant", "acme")

    def refusal() -> MeshError | None:
        try:
            town.chat(key)
        except MeshError as error:
            return error
        return None

    error = until(refusal, timeout_s=1.5)
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    detail = error.detail(pb.BudgetRefusal)
    assert detail is not None
    assert (detail.scope, detail.subject, detail.ceiling) == (pb.CEILING_SCOPE_USER, "ada", budget["id"])
    assert (detail.limit, detail.held) == (50_000, 0)
    assert detail.spent + detail.estimate > detail.limit
    assert all(each.estimate_nanos <= detail.limit - detail.spent for each in detail.alternatives)

    status, body, _ = town.post("/v1/chat/completions", key)
    assert (status, body["error"]["code"], body["budget"]["subject"]) == (402, "budget_exceeded", "ada")
    status, body, _ = town.post("/v1/messages", key)
    assert (status, body["error"]["type"]) == (402, "billing_error")
    assert body["error"]["details"]["budget"]["limit"] == 50_000

    town.mux("budgets", "set", budget["id"], "1")
    assert until(lambda: town.post("/v1/chat/completions", key)[0] == 200, timeout_s=1.5)
    listed = town.mux("budgets", "list", "--tenant", "acme")["budgets"]
    assert [each["limit_nanos"] for each in listed if each["id"] == budget["id"]] == [1_000_000_000]


def test_what_was_spent_is_what_the_ledger_says(town: Town) -> None:
    key = town.key("bob")
    budget = town.mux("budgets", "create", "1", "--scope", "user", "--subject", "bob", "--tenant", "acme")
    spent = sum(town.chat(key).completed.cost.nanos for _ in range(5))

    def settled() -> bool:
        rows = town.mux("budgets", "list")["budgets"]
        own = next(each for each in rows if each["id"] == budget["id"])
        return (own["spent_nanos"], own["held_nanos"], own["leased_nanos"]) == (spent, 0, 0)

    assert until(settled, timeout_s=15)


def test_a_soft_budget_warns_in_the_answer(town: Town) -> None:
    key = town.key("cleo")
    town.mux("budgets", "create", "0", "--scope", "user", "--subject", "cleo", "--tenant", "acme", "--mode", "soft")
    status, _, headers = until(lambda: _warned(town.post("/v1/chat/completions", key)), timeout_s=1.5)
    assert status == 200
    assert "is exceeded" in headers["x-modelmuxer-warning"]
    assert "is exceeded" in town.chat(key).completed.warnings[0]


def test_a_budget_may_send_calls_to_a_cheaper_model(town: Town) -> None:
    key = town.key("dora")
    limit = ("0.00005", "--scope", "user", "--subject", "dora", "--tenant", "acme")
    town.mux("budgets", "create", *limit, "--downgrade")

    def cheaper() -> chat_pb2.ChatResponse | None:
        answer = town.chat(key)
        return answer if answer.started.model != MODEL else None

    answer = until(cheaper, timeout_s=1.5)
    assert "had no room for" in answer.started.decision.reason
    assert answer.completed.cost.nanos < 50_000


def test_a_run_has_a_ceiling_of_its_own_and_belongs_to_its_key(town: Town) -> None:
    key, other = town.key("eve"), town.key("fay")
    town.mux("budgets", "create", "0.00017", "--scope", "run", "--subject", "*", "--tenant", "acme")

    def refused() -> MeshError | None:
        try:
            town.chat(key, "run-1")
        except MeshError as error:
            return error
        return None

    error = until(refused, timeout_s=3)
    assert error.detail(pb.BudgetRefusal).scope == pb.CEILING_SCOPE_RUN  # type: ignore[union-attr]
    town.chat(key, "run-2")
    with pytest.raises(MeshError, match="opened by another key"):
        town.chat(other, "run-2")


def test_a_rate_limit_answers_429_and_says_when_to_come_back(town: Town) -> None:
    key = town.key("gil")
    town.mux("limits", "create", "--scope", "user", "--subject", "gil", "--tenant", "acme", "--requests", "3")

    def limited() -> tuple[int, dict[str, Any], dict[str, str]] | None:
        answer = town.post("/v1/chat/completions", key)
        if answer[0] == 200 and "x-ratelimit-limit-requests" in answer[2]:
            assert answer[2]["x-ratelimit-limit-requests"] == "3"
            assert int(answer[2]["x-ratelimit-remaining-requests"]) < 3
        return answer if answer[0] == 429 else None

    _, body, headers = until(limited, timeout_s=3)
    assert body["error"]["type"] == "rate_limit_error"
    assert 0 < int(headers["Retry-After"]) <= 61


def test_while_accounting_is_away_calls_are_made_only_where_a_policy_says_so_and_are_counted_afterwards(
    town: Town,
) -> None:
    going_on, closed = town.key("jon"), town.key("kim")
    town.mux("policies", "create", "--scope", "user", "--subject", "jon", "--tenant", "acme", "--on-outage", "open")
    budget = town.mux("budgets", "create", "1", "--scope", "run", "--subject", "*", "--tenant", "acme")
    for key in (going_on, closed):
        until(partial(_answers, town, key), timeout_s=5)  # its caller is known, and the budget
    town.mesh.kill("accounting", signal.SIGSTOP)
    try:
        answer = town.chat(going_on, "run-in-an-outage")
        assert "could not be asked" in answer.completed.warnings[0]
        with pytest.raises(MeshError) as refused:
            town.chat(closed, "another-run-in-an-outage")
        assert refused.value.reason == Reason.ACCOUNTING_UNAVAILABLE
    finally:
        town.mesh.kill("accounting", signal.SIGCONT)

    def counted() -> bool:
        rows = town.mux("budgets", "list", "--tenant", "acme")["budgets"]
        own = [each for each in rows if (each["id"], each["subject"]) == (budget["id"], "run-in-an-outage")]
        return [each["spent_nanos"] for each in own] == [answer.completed.cost.nanos]

    assert until(counted, timeout_s=30)


def _answers(town: Town, key: str) -> bool:
    return town.chat(key, f"run-of-{key[-6:]}").completed.cost.nanos > 0


def test_a_suspended_tenant_has_no_keys_that_work(town: Town) -> None:
    key = str(town.mux("keys", "create", "hal", "--tenant", "hall")["secret"])
    assert town.post("/v1/chat/completions", key)[0] == 200
    town.mux("tenants", "create", "hall", "--name", "The Hall")
    town.mux("tenants", "suspend", "hall")
    assert until(lambda: town.post("/v1/chat/completions", key)[0] == 401, timeout_s=1.5)
    town.mux("tenants", "suspend", "hall", "--resume")
    assert until(lambda: town.post("/v1/chat/completions", key)[0] == 200, timeout_s=5)


def test_no_attempt_cost_more_than_was_held_for_it(town: Town) -> None:
    key = town.key("ida")
    town.mux("budgets", "create", "100", "--scope", "user", "--subject", "ida", "--tenant", "acme")
    tool = {
        "type": "function",
        "function": {"name": "look", "description": "\n" * 200, "parameters": {"type": "object", "properties": {}}},
    }
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    bodies: list[dict[str, Any]] = [
        {},
        {"messages": [{"role": "system", "content": "…" * 99}, {"role": "user", "content": "\U0001f980" * 50}]},
        {"tools": [tool], "tool_choice": "required"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, image]}]},
        {"reasoning_effort": "high", "max_tokens": 300},
        {"model": "anthropic/sim-tokens20", "max_tokens": 2000},
        {"model": "gemini/sim-tokens20"},
    ]
    assert [town.post("/v1/chat/completions", key, **body)[0] for body in bodies] == [200] * len(bodies)
    select = "SELECT cost_nanos, held_nanos FROM holds JOIN entries USING (attempt_id) WHERE user = 'ida'"

    def entries() -> list[tuple[int, int]] | None:
        with sqlite3.connect(f"file:{town.mesh.home / 'ledger.sqlite'}?mode=ro", uri=True) as db:
            found = db.execute(select + " AND state = 2").fetchall()
        return found if len(found) >= len(bodies) - 1 else None

    assert all(0 < cost <= held for cost, held in until(entries))


def test_a_change_leaves_who_made_it(town: Town) -> None:
    assert {"create_budget", "update_budget", "create_limit", "create_tenant", "update_tenant"} <= _actions(town.mesh)


def _actions(mesh: Mesh) -> set[str]:

    with sqlite3.connect(f"file:{mesh.home / 'ledger.sqlite'}?mode=ro", uri=True) as db:
        return {action for (action,) in db.execute("SELECT DISTINCT action FROM audit WHERE actor LIKE 'key_%'")}


def _warned(answer: tuple[int, dict[str, Any], dict[str, str]]) -> Any:
    return answer if "x-modelmuxer-warning" in answer[2] else None
