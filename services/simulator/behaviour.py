"""What a caller may order of a simulated provider, and how the order is written.

An order stands in a model's name (`sim-ttft200ms-tps50-tokens100`), in a text of the request
(`[[sim ttft=200ms tps=50 reply="two words"]]`), or is set for a model with `PUT /behaviour`. The keys are the fields of
`Behaviour`. What a key does to the bytes is left to the players and the three providers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

DIRECTIVE_MARK = "[[sim"
Number = TypeVar("Number", int, float)
_DIRECTIVE = re.compile(r'\[\[sim((?:\s+[a-z_]+(?:=(?:"(?:[^"\\]|\\.)*"|[^\s"\]]+))?)*)\s*\]\]')
_PAIR = re.compile(r'([a-z_]+)(?:=("(?:[^"\\]|\\.)*"|[^\s"\]]+))?')
_NAME_PART = re.compile(r"([a-z_]+?)(\d+(?:\.\d+)?(?:ms|s)?)?")


class OrderError(ValueError):
    """What a request orders cannot be read or carried out; the message says which part."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One call's orders. A position (`*_at`) counts the wire events sent before the fault."""

    ttft: float = 0.0  # seconds until the first token
    tps: float = 0.0  # tokens per second; 0: all at once
    tokens: int | None = None  # length of the reply's text
    reply: str | None = None  # the reply's text
    reasoning: int | None = None  # tokens of reasoning
    redacted: bool = False  # reasoning arrives redacted (Anthropic)
    tool: str | None = None  # tools to call, separated by commas
    tool_args: str | None = None  # their arguments, as JSON text
    refusal: bool = False
    filter: bool = False  # the provider's content filter stops the reply half-way
    blocked: bool = False  # the provider's content filter refuses the prompt (Gemini)
    citations: int = 0
    cached: int = 0  # input tokens said to come from the provider's cache
    status: int | None = None  # answer with this HTTP error
    code: str | None = None  # the provider's error code or type in place of the usual one
    retry_after: float | None = None  # seconds
    error_at: int | None = None  # the provider's own error event, in the stream
    stall_at: int | None = None  # silence, the connection stays open
    cut_at: int | None = None  # the TCP connection closes
    torn: bool = False  # a cut comes in the middle of an event, not between two
    malformed_at: int | None = None  # an event that is not JSON

    @property
    def fault(self) -> tuple[int, str] | None:
        """The earliest ordered fault: its position and its kind."""
        faults = (
            (self.error_at, "error"),
            (self.stall_at, "stall"),
            (self.cut_at, "cut"),
            (self.malformed_at, "malformed"),
        )
        return min(((at, kind) for at, kind in faults if at is not None), default=None)


Orders = Mapping[str, Any]
_KINDS: dict[str, str] = {name: str(kind) for name, kind in Behaviour.__annotations__.items()}


def read_directives(text: str) -> dict[str, Any]:
    """The orders of all directives in a text; a later one wins. Raises OrderError."""
    orders: dict[str, Any] = {}
    for found in _DIRECTIVE.finditer(text):
        for key, value in _PAIR.findall(found[1]):
            orders[key] = _value(key, json.loads(value) if value.startswith('"') else value)
    if not orders and "[[sim " in text and not _DIRECTIVE.search(text):
        raise OrderError('a [[sim …]] directive is not of the form [[sim key=value flag key="quoted text"]]')
    return orders


@lru_cache(maxsize=4096)
def read_model_name(model: str) -> Behaviour:
    """The orders in a model's name: its parts between dashes that are a key with a number, or a flag."""
    return Behaviour(**model_orders(model))


def model_orders(model: str) -> dict[str, Any]:
    """The same, as orders to which others can be added. Parts that are no order are just a name."""
    if not model.startswith("sim-"):
        return {}
    orders: dict[str, Any] = {}
    for part in model.split("-")[1:]:
        found = _NAME_PART.fullmatch(part)
        if not found or found[1] not in _KINDS:
            continue
        key, number = found[1], found[2] or ""
        if bool(number) is not (_KINDS[key] == "bool"):
            orders[key] = _value(key, number)
    return orders


def _value(key: str, raw: str) -> Any:
    kind = _KINDS.get(key)
    try:
        if kind is None:
            raise OrderError(f"unknown key {key!r}; known: {', '.join(_KINDS)}")
        if kind == "bool":
            return raw not in ("false", "0")
        if kind.startswith("int"):
            return _not_negative(int(raw))
        if kind.startswith("float"):
            return _not_negative(_seconds(raw) if key in ("ttft", "retry_after") else float(raw))
        return raw
    except OrderError:
        raise
    except ValueError as error:
        raise OrderError(f"{key}={raw!r} is not a number that fits") from error


def _seconds(raw: str) -> float:
    if raw.endswith("ms"):
        return float(raw[:-2]) / 1000
    return float(raw.removesuffix("s"))


def _not_negative(number: Number) -> Number:
    if not 0 <= number < 1e9:
        raise ValueError
    return number
