"""Logs are one JSON object a line with the trace's ids, and let neither keys nor prompts through."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from shared.telemetry import logs, tracing
from shared.telemetry.logs import redact


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_its_fields_and_the_ids_of_its_trace(stream: io.StringIO) -> None:
    logs.configure("cache", level="info", format="json", stream=stream)
    tracing.receive({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    logging.getLogger("modelmuxer.cache").info("Stored\nan answer", extra={"size_bytes": 7})
    (line,) = lines(stream)
    assert (line["level"], line["service"], line["logger"]) == ("info", "cache", "modelmuxer.cache")
    assert (line["message"], line["size_bytes"]) == ("Stored\nan answer", 7)
    assert (line["trace_id"], line["span_id"]) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


def test_an_exceptions_text_is_left_out_as_it_may_quote_a_prompt(stream: io.StringIO) -> None:
    logs.configure("cache", level="info", format="json", stream=stream)
    prompt = " ".join(["tell", "me"])
    try:
        try:
            raise ValueError(prompt)
        except ValueError as error:
            raise KeyError(prompt) from error
    except KeyError as error:
        logging.getLogger("x").error("It failed", exc_info=error)
    assert prompt not in stream.getvalue()
    (line,) = lines(stream)
    assert line["exception"].splitlines()[-1] == "KeyError"
    assert "ValueError" in line["exception"]
    assert "test_logs.py" in line["exception"]


def test_debug_shows_the_texts_of_exceptions(stream: io.StringIO) -> None:
    logs.configure("cache", level="debug", format="json", stream=stream)
    logging.getLogger("x").error("It failed", exc_info=ValueError("details"))
    assert lines(stream)[0]["exception"] == "ValueError: details"


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghijklmnop1234",
        "sk-ant-api03-abcdefghijklmnop",
        "AIzaSyA1234567890abcdefghijklmnopqrstuv",
        "gsk_abcdefghijklmnop1234",
        "mux-abcdefghijklmnop1234",
    ],
)
def test_what_looks_like_a_key_is_masked_wherever_it_stands(secret: str, stream: io.StringIO) -> None:
    assert secret not in redact(f"the key {secret}, sent")
    assert secret not in redact(f"Authorization: Bearer {secret}")
    logs.configure("cache", level="info", format="json", stream=stream)
    logging.getLogger("x").info("Got %s", secret, extra={"api_key": "plain", "x": {"y": secret}})
    assert secret not in stream.getvalue()
    assert lines(stream)[0]["api_key"] == logs.MASK


def test_on_a_terminal_a_line_is_for_people(stream: io.StringIO) -> None:
    logs.configure("cache", level="warning", format="text", stream=stream)
    logging.getLogger("x").info("Not this")
    logging.getLogger("x").warning("But this", extra={"port": 1})
    (line,) = stream.getvalue().splitlines()
    assert "warning" in line
    assert "But this port=1" in line
    assert "\x1b" not in line
