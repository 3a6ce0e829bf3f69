"""HTTP headers of requests: caching directives, names that gRPC callers send as metadata."""

from __future__ import annotations

from modelmuxer.chat.v1 import chat_pb2 as chat

from services.router.http.face import Headers
from services.router.http.fields import malformed

MAX_DIGITS = 10  # RFC 9111, 1.2.2: more seconds than fit 31 bits are as good as for ever


def read_cache_control(headers: Headers, control: chat.CacheControl) -> None:
    """Reads a request's Cache-Control (RFC 9111, 5.2.1); unknown directives are ignored.

    Of our own are "semantic", "semantic=0.92" (how like a question must be) and "exact".
    """
    for directive in headers.get("Cache-Control", "").split(","):
        name, _, value = directive.strip().lower().partition("=")
        match name:
            case "no-store":
                control.no_store = True
            case "no-cache":
                control.no_cache = True
            case "only-if-cached":
                control.only_if_cached = True
            case "semantic":
                control.semantic = True
                if value:
                    control.similarity = _share(value, name)
            case "exact":
                control.semantic = False
            case "max-age":
                control.max_age.seconds = _seconds(name, value)
            case "stale-while-revalidate":  # RFC 5861 has it in answers; here a caller says what they would take
                control.stale_while_revalidate.seconds = _seconds(name, value)


def _seconds(directive: str, value: str) -> int:
    digits = value.strip('"')
    if not digits.isdecimal() or len(digits) > MAX_DIGITS:
        raise malformed("Cache-Control", f"must give {directive} in whole seconds")
    return int(digits)


def _share(value: str, name: str) -> float:
    try:
        return float(value.strip('"'))
    except ValueError:
        raise malformed("Cache-Control", f"must give {name} as a number from 0 to 1") from None


def authorization(headers: Headers) -> str | None:
    """Returns the caller's credentials: Authorization, or the x-api-key of Anthropic's SDK as a bearer."""
    if (value := headers.get("Authorization")) is not None:
        return value
    key = headers.get("x-api-key")
    return None if key is None else f"Bearer {key}"
