"""The users' guide's load test, and a user who reads streams.

``locust -f tests/performance/locustfile.py --host=http://localhost:8000``

The API key comes from MODELMUXER_API_KEY, or from the local mesh's home folder (MODELMUXER_HOME,
.modelmuxer by default).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from locust import HttpUser, between, task

CHAT = "/api/v1/chat/completions"


class ModelMuxerUser(HttpUser):
    """Asks for an answer, whole or as a stream, and thinks a while."""

    wait_time = between(1, 3)

    def on_start(self) -> None:
        self.client.headers["authorization"] = f"Bearer {api_key()}"

    @task
    def chat_completion(self) -> None:
        self.client.post(CHAT, json={"messages": [{"role": "user", "content": "Hello!"}], "routing_strategy": "hybrid"})

    @task
    def streamed_chat_completion(self) -> None:
        """Shows as two lines: the stream to its end, and the time to its first token."""
        body = {"messages": [{"role": "user", "content": "Hello!"}], "routing_strategy": "hybrid", "stream": True}
        began = time.perf_counter()
        with self.client.post(CHAT, json=body, stream=True, name=f"{CHAT} (stream)", catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                return
            first_token_s, ended = None, False
            for line in answer.iter_lines():
                if first_token_s is None and b'"content":"' in line and b'"content":""' not in line:
                    first_token_s = time.perf_counter() - began
                ended = ended or line == b"data: [DONE]"
            if first_token_s is None or not ended:
                answer.failure("a stream without a token, or without an end")
                return
        self.environment.events.request.fire(
            request_type="SSE",
            name=f"{CHAT} (first token)",
            response_time=first_token_s * 1e3,
            response_length=0,
            exception=None,
            context={},
        )


def api_key() -> str:
    """The key to come with."""
    if key := os.environ.get("MODELMUXER_API_KEY"):
        return key
    return (Path(os.environ.get("MODELMUXER_HOME", ".modelmuxer")) / "key").read_text().strip()
