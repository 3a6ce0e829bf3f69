"""What a person does first: chat, look at why, read the bill, hand out keys."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mesh.mesh import Mesh, until

MUX = Path(sys.executable).with_name("mux")


def mux(mesh: Mesh, *arguments: str, piped: str = "", key: str = "") -> subprocess.CompletedProcess[str]:
    environ = mesh.mux_environ() | ({"MODELMUXER_API_KEY": key} if key else {})
    return subprocess.run([MUX, *arguments], input=piped, env=environ, capture_output=True, text=True, timeout=60)


def mux_json(mesh: Mesh, *arguments: str, piped: str = "") -> Any:
    done = mux(mesh, *arguments, "--json", piped=piped)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def test_chat_prints_the_answer_and_one_line_on_how_it_came_about(mesh: Mesh) -> None:
    done = mux(mesh, "chat", "Explain TCP slow start")
    assert done.returncode == 0, done.stderr
    answer, summary = done.stdout.strip().rsplit("\n", 1)
    assert answer.strip()
    model, why, tokens, cost, first_token = summary.split(" · ")
    assert "/" in model
    assert model in why
    assert "out tokens" in tokens
    assert cost.startswith("$0.")
    assert first_token.startswith("first token ")


def test_chat_takes_piped_text_an_alias_and_says_json(mesh: Mesh) -> None:
    answer = mux_json(mesh, "chat", "-m", "fast", "Repeat:", piped='[[sim reply="piped in"]]\n')
    assert answer["text"] == "piped in"
    assert answer["cost_nanos"] > 0
    assert answer["usage"]["output_tokens"] > 0
    assert answer["first_token_ms"] > 0


def test_the_same_question_again_comes_from_the_cache_and_costs_nothing(mesh: Mesh) -> None:
    first = mux_json(mesh, "chat", "What is a window?")
    again = until(lambda: _hit(mux_json(mesh, "chat", "What is a window?")))
    assert again["text"] == first["text"]
    assert again["cost_nanos"] == 0


def _hit(answer: dict[str, Any]) -> dict[str, Any] | None:
    return answer if answer["cache"] == "exact" else None


def test_explain_says_what_would_be_chosen_and_calls_nobody(mesh: Mesh) -> None:
    before = len(mesh.bill()["calls"])
    decision = mux_json(mesh, "explain", "Why the sky is blue")
    assert len(decision["candidates"]) > 1
    assert decision["candidates"][0]["parts"]
    assert len(mesh.bill()["calls"]) == before


def test_the_models_have_prices(mesh: Mesh) -> None:
    listed = {model["id"]: model for model in mux_json(mesh, "models")["models"]}
    assert listed["auto"]["targets"]
    assert listed["openai/gpt-4o-mini"]["input_nanos_per_million"] == 150_000_000
    assert len({model["provider"] for model in listed.values() if model["provider"]}) >= 6
    assert sum(bool(model["provider"]) for model in listed.values()) >= 60


def test_the_ledger_is_the_bill(mesh: Mesh) -> None:
    for model in ("openai/gpt-4o-mini", "anthropic/sim-a", "gemini/sim-g", "auto"):
        mux_json(mesh, "chat", "-m", model, f"Something new for {model}")
    total = until(lambda: _equal(mux_json(mesh, "spend")["total_nanos"], mesh.bill()["total_nanos"]))
    rows = mux_json(mesh, "spend", "--by", "model", "--by", "user", "--by", "day")
    assert sum(row["cost_nanos"] for row in rows["rows"]) == rows["total_nanos"] == total
    assert {"model", "user", "day"} <= set(rows["rows"][0])


def _equal(left: int, right: int) -> int | None:
    return left if left == right else None


def test_keys_are_made_listed_and_revoked_at_once(mesh: Mesh) -> None:
    made = mux_json(mesh, "keys", "create", "ci", "--tenant", "acme", "--user", "bob")
    key, secret = made["id"], made["secret"]
    assert mux(mesh, "chat", "Hi", key=secret).returncode == 0
    listed = {item["id"]: item for item in mux_json(mesh, "keys", "list")["keys"]}
    assert listed[key]["tenant"] == "acme"
    assert secret not in json.dumps(listed)
    refused = mux(mesh, "keys", "list", key=secret)
    assert refused.returncode == 1
    assert "admin" in refused.stderr
    mux_json(mesh, "keys", "revoke", key)
    until(lambda: mux(mesh, "chat", "Hi again", key=secret).returncode == 1, timeout_s=5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("chat", "-m", "gpt-17", "Hi"), "gpt-17"),
        (("chat", "--strategy", "psychic", "Hi"), "psychic"),
        (("keys", "revoke", "key_nobody"), "key_nobody"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(mesh: Mesh, arguments: tuple[str, ...], said: str) -> None:
    done = mux(mesh, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    as_json = mux(mesh, *arguments, "--json")
    assert json.loads(as_json.stdout)["error"]["reason"]


def test_without_a_mesh_it_says_how_to_start_one(mesh: Mesh) -> None:
    environ = mesh.mux_environ() | {"MODELMUXER_ROUTER_ADDRESS": "127.0.0.1:1"}
    done = subprocess.run(
        [MUX, "chat", "Hi"], env=environ, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 1
    assert "mux up" in done.stderr
