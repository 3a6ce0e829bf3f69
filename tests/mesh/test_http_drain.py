"""A router that stops lets HTTP callers go: what runs is answered whole, and each connection is told to close."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from tests.mesh.mesh import Mesh, until

QUICK = "[[sim tokens=5]] one"
SLOW = "[[sim ttft=50ms tps=20 tokens=30]] two"


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    environ = {"MODELMUXER_DRAIN_WAIT_S": "0.5", "MODELMUXER_GRACE_S": "20", "MODELMUXER_LOG_FORMAT": "text"}
    with Mesh(tmp_path / "home", environ=environ, arguments=["--simulate"]) as mesh:
        yield mesh


def test_a_stop_answers_every_request_on_a_kept_connection_and_closes_it_with_the_answer(mesh: Mesh) -> None:
    streaming, waiting = Caller(mesh), Caller(mesh)
    assert waiting.ask(QUICK) == (200, None)
    stream = streaming.begin(SLOW)
    assert stream.getheader("connection") is None  # nobody knew of the stop then
    router = mesh.processes()["router"]
    router.send_signal(signal.SIGTERM)
    until(lambda: "Draining" in mesh.logged())
    assert waiting.ask(QUICK) == (200, "close")
    assert stream.read().rstrip().endswith(b"data: [DONE]")
    # The caller of the stream asks again on its connection, as it may: it is answered, and told.
    assert streaming.ask(QUICK) == (200, "close")


class Caller:
    """Somebody on one kept connection."""

    def __init__(self, mesh: Mesh) -> None:
        self._connection = HTTPConnection(mesh.http.removeprefix("http://"), timeout=30)
        self._headers = {"authorization": f"Bearer {mesh.key}", "content-type": "application/json"}

    def begin(self, prompt: str, *, stream: bool = True) -> HTTPResponse:
        body = json.dumps({"messages": [{"role": "user", "content": prompt}], "model": "auto", "stream": stream})
        self._connection.request("POST", "/v1/chat/completions", body, self._headers)
        return self._connection.getresponse()

    def ask(self, prompt: str) -> tuple[int, str | None]:
        """The status of an answer, and what it says of its connection."""
        answer = self.begin(prompt, stream=False)
        answer.read()
        return answer.status, answer.getheader("connection")
