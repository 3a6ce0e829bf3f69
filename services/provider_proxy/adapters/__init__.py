"""What the proxy asks of a provider's wire format, and the small parts that every format needs.

An adapter turns the canonical chat into one HTTP request and the provider's bytes back into canonical events. It is
pure: no I/O, no clock of its own, no state but a decoder's. Connections, keys and the journal are its callers'.

One rule for all formats: what would change the answer and cannot be said in the format is refused by name
(UNSUPPORTED_FEATURE); hints that cannot change it (cache breakpoints, image detail, an end user's id) may be left out.
"""

from __future__ import annotations

import base64
import binascii
import math
import sys
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, cast

import orjson
from modelmuxer.chat.v1.chat_pb2 import ChatEvent, ChatRequest, ChatResponse, Media, Usage
from modelmuxer.embedding.v1.embedding_pb2 import Embedding, EmbedRequest
from modelmuxer.provider.v1.provider_pb2 import AttemptFailure, EmbedResponse

from shared.catalogue import Deployment
from shared.errors import MeshError, Reason
from shared.wire import structs

ATTEMPT_HEADER = "x-client-request-id"
MAX_PROVIDER_MESSAGE_CHARS = 1000

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One HTTP request to a provider. The headers hold its key, so they stay out of the repr."""

    method: str
    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Decoder(Protocol):
    """A stream's bytes to events: a pure function of the bytes, however they are cut.

    Yields no `started` of its own but to tell `provider_model` and `system_fingerprint`; no event after `completed`.
    """

    @property
    def usage(self) -> Usage:
        """What the provider has said so far; fields that it has not named are unset."""

    def feed(self, data: bytes) -> list[ChatEvent]:
        """The events that `data` completes. Raises MeshError for an error event and for bytes that are no such stream;
        events that came before it are returned first, and the next call raises.
        """

    def close(self) -> list[ChatEvent]:
        """The events that only the body's end allows. Raises PROVIDER_STREAM_CUT if the answer is not whole."""


class ErrorsLast:
    """Gives out the events before an error, and the error at the next call: how bytes were cut must not matter."""

    def __init__(self) -> None:
        self._failure: MeshError | None = None

    def taken(self, events: Iterable[ChatEvent]) -> list[ChatEvent]:
        """The events up to an error. Raises the error that an earlier call held back."""
        if self._failure is not None:
            raise self._failure
        taken: list[ChatEvent] = []
        try:
            for event in events:
                taken.append(event)  # noqa: PERF402 - what was taken counts
        except MeshError as error:
            if not taken:
                raise
            self._failure = error
        return taken


class Adapter(Protocol):
    """One wire format."""

    @property
    def format(self) -> str:
        """Its name in the catalogue."""

    def request(
        self, chat: ChatRequest, deployment: Deployment, key: str, *, stream: bool, attempt_id: str
    ) -> UpstreamRequest:
        """The chat as the provider takes it. Raises UNSUPPORTED_FEATURE naming what the format cannot say."""

    def count_tokens_request(self, chat: ChatRequest, deployment: Deployment, key: str) -> UpstreamRequest | None:
        """A request for a token count; None where the provider has no such endpoint."""

    def counted(self, body: bytes) -> int:
        """Input tokens in the answer to `count_tokens_request`."""

    def embed_request(
        self, request: EmbedRequest, deployment: Deployment, key: str, *, attempt_id: str
    ) -> UpstreamRequest:
        """The inputs as the provider takes them. Raises UNSUPPORTED_FEATURE where it makes no embeddings."""

    def embeddings(self, body: bytes, inputs: int) -> EmbedResponse:
        """The vectors of so many inputs, in their order; usage as the provider said it, unset where it did not."""

    def decoder(self, chat: ChatRequest, headers: Mapping[str, str] | None = None) -> Decoder:
        """A decoder for the streamed answer to `chat`; `headers` are the answer's, if they are known."""

    def response(self, status: int, headers: Mapping[str, str], body: bytes) -> ChatResponse:
        """A whole answer: content, completed, and of started what the provider tells."""

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> MeshError:
        """A provider's error answer as a MeshError with an AttemptFailure. Header names are in lower case or any."""


def unsupported(provider: str, what: str, field_path: str | None = None) -> MeshError:
    """`what` ("top_k", "audio input") cannot be said to this provider."""
    return MeshError(
        Reason.UNSUPPORTED_FEATURE,
        f"{provider} does not take {what}. Leave it out, or name a model whose provider takes it.",
        metadata={"feature": what, "provider": provider},
        field=field_path,
    )


def malformed(what: str) -> MeshError:
    """The provider's answer is not of its documented form. Never quotes it: it may hold the prompt."""
    return provider_failure(
        Reason.PROVIDER_MALFORMED_ANSWER, f"The provider's answer is malformed: {what}.", retryable=True
    )


def stream_cut(detail: str = "before its terminal event") -> MeshError:
    """The stream ended too early."""
    return provider_failure(Reason.PROVIDER_STREAM_CUT, f"The provider's stream ended {detail}.", retryable=True)


def provider_failure(
    reason: Reason,
    message: str,
    *,
    retryable: bool,
    http_status: int = 0,
    provider_code: str = "",
    provider_request_id: str = "",
    retry_after_s: float | None = None,
) -> MeshError:
    """A MeshError whose details hold what the format knows of the AttemptFailure; the attempt adds the rest."""
    metadata = {"provider_code": provider_code} if provider_code else {}
    if http_status:
        metadata["http_status"] = str(http_status)
    return MeshError(
        reason,
        message,
        metadata=metadata,
        retry_after_s=retry_after_s,
        details=(
            AttemptFailure(
                http_status=http_status,
                provider_code=provider_code,
                provider_request_id=provider_request_id,
                retryable=retryable,
            ),
        ),
    )


def provider_said(message: object, fallback: str) -> str:
    """A provider's error message, bounded; `fallback` where it gave none."""
    text = message.strip() if isinstance(message, str) else ""
    if len(text) > MAX_PROVIDER_MESSAGE_CHARS:
        text = text[:MAX_PROVIDER_MESSAGE_CHARS] + "…"
    return text or fallback


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that the provider asks us to stay away: `retry-after-ms`, else `retry-after` in seconds or as a date."""
    if (milliseconds := _non_negative(header(headers, "retry-after-ms"))) is not None:
        return milliseconds / 1000
    value = header(headers, "retry-after")
    if not value:
        return None
    if (seconds := _non_negative(value)) is not None:
        return seconds
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def _non_negative(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def header(headers: Mapping[str, str], name: str) -> str:
    """A header's value, "" if absent. `name` is in lower case; the mapping may be in any."""
    value = headers.get(name)
    if value is None:
        value = next((text for key, text in headers.items() if key.lower() == name), "")
    return value


def parse_json(body: bytes | bytearray | str) -> Any:
    """JSON, or PROVIDER_MALFORMED_ANSWER."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise malformed("it is not JSON") from None


def parse_object(body: bytes | bytearray | str) -> JsonObject:
    """A JSON object, or PROVIDER_MALFORMED_ANSWER."""
    return as_object(parse_json(body), "the answer")


def as_object(value: object, what: str) -> JsonObject:
    """`value` if it is a JSON object, {} if it is null, else PROVIDER_MALFORMED_ANSWER."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise malformed(f"{what} is not an object")
    return cast(JsonObject, value)


def as_list(value: object, what: str) -> list[Any]:
    """`value` if it is a JSON array, [] if it is null, else PROVIDER_MALFORMED_ANSWER."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise malformed(f"{what} is not a list")
    return value


def as_text(value: object, what: str) -> str:
    """`value` if it is a string, "" if it is null, else PROVIDER_MALFORMED_ANSWER."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise malformed(f"{what} is not a string")
    return value


def as_count(value: object) -> int | None:
    """A token count; None where the provider gave none. An explicit 0 is a value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= 2**53:  # also refuses NaN
        return None
    return int(value)


def vector(value: object) -> Embedding:
    """A vector as a list of numbers or as base64 of little-endian 32-bit floats, else PROVIDER_MALFORMED_ANSWER."""
    values = array("f")
    try:
        if isinstance(value, str):
            values.frombytes(base64.b64decode(value, validate=True))
            if sys.byteorder == "big":
                values.byteswap()
        elif isinstance(value, list):
            values.extend(value)
    except (binascii.Error, ValueError, TypeError, OverflowError):
        raise malformed("an embedding is not a list of numbers") from None
    if not values or not math.isfinite(sum(values)):
        raise malformed("an embedding is not a list of numbers")
    return Embedding(values=values)


def caller_json(text: str | bytes, what: str, field_path: str) -> Any:
    """JSON that the caller sent as text, or MALFORMED_REQUEST naming the field."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MeshError(Reason.MALFORMED_REQUEST, f"{what} is not valid JSON: {error}.", field=field_path) from None


def data_uri(media: Media, default_type: str) -> str:
    """Inline media as a data URI."""
    return f"data:{media.media_type or default_type};base64,{base64.b64encode(media.data).decode('ascii')}"


def add_options(body: JsonObject, request: ChatRequest | EmbedRequest) -> JsonObject:
    """Merges `provider_options` into the body: objects member by member, everything else by replacing."""
    if request.HasField("provider_options"):
        _merge(body, structs.to_json(request.provider_options))
    return body


def _merge(target: JsonObject, source: JsonObject) -> None:
    for name, value in source.items():
        present = target.get(name)
        if isinstance(present, dict) and isinstance(value, dict):
            _merge(present, value)
        else:
            target[name] = value


def json_headers(chat: ChatRequest, attempt_id: str, own: Mapping[str, str]) -> dict[str, str]:
    """Headers of a JSON request. The caller's `provider_headers` never replace the format's own."""
    headers = {name.lower(): value for name, value in chat.provider_headers.items()}
    headers.update(plain_headers(attempt_id, own))
    return headers


def plain_headers(attempt_id: str, own: Mapping[str, str]) -> dict[str, str]:
    """The format's own headers of a JSON request."""
    headers = {**own}
    headers["content-type"] = "application/json"
    if attempt_id:
        headers[ATTEMPT_HEADER] = attempt_id
    return headers
