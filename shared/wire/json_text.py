"""JSON values that know their path and their text.

A value that is signed, or that this program does not know, must come back to the letter: number forms, escapes and the
order of members included. orjson parses and checks; the text of one value is looked up only when it is asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

JsonObject = dict[str, Any]
Fault = Callable[[str, str], Exception]

_MARK = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],]', re.DOTALL)
_BLANK = b" \t\n\r"
_QUOTE = ord('"')


class Json:
    """One value of a document. Reading it as what it is not raises the document's fault: fault(path, sentence)."""

    __slots__ = ("_document", "_fault", "_key", "_parent", "_span", "value")

    def __init__(self, value: Any, fault: Fault, parent: Json | None = None, key: str | int = "") -> None:
        self.value = value
        self._fault = fault
        self._parent = parent
        self._key = key
        self._document: bytes | None = None  # of the document itself: its text
        self._span: _Span | None = None

    @classmethod
    def parse(cls, text: bytes, fault: Fault) -> Json:
        """A document. Raises its fault if it is no JSON."""
        try:
            document = cls(orjson.loads(text), fault)
        except orjson.JSONDecodeError as error:
            raise fault("", f"is not valid JSON: {error}") from None
        document._document = bytes(text)
        return document

    @property
    def path(self) -> str:
        """Where it stands ("messages[0].content"); empty for the document."""
        if self._parent is None:
            return ""
        if isinstance(self._key, int):
            return f"{self._parent.path}[{self._key}]"
        above = self._parent.path
        return f"{above}.{self._key}" if above else self._key

    @property
    def text(self) -> bytes:
        """The value as it was written."""
        document, span = self._find()
        return document[span.start : span.end].strip(_BLANK)

    def _find(self) -> tuple[bytes, _Span]:
        if self._parent is not None:
            document, above = self._parent._find()
            return document, above.parts[self._key]
        if self._document is None:
            raise ValueError("a document made from a value has no text")
        if self._span is None:
            self._span = _spans(self._document)
        return self._document, self._span

    def fault(self, sentence: str) -> Exception:
        """The error that says what is wrong with this value."""
        return self._fault(self.path, sentence)

    def get(self, name: str) -> Json | None:
        """A member; None if it is absent or null. Raises the fault if this is no object."""
        value = self.object().get(name)
        return None if value is None else Json(value, self._fault, self, name)

    def need(self, name: str) -> Json:
        """A member that must be there."""
        member = self.get(name)
        if member is None:
            raise Json(None, self._fault, self, name).fault("is required")
        return member

    def members(self) -> Iterator[tuple[str, Json]]:
        """Every member that is not null."""
        for name, value in self.object().items():
            if value is not None:
                yield name, Json(value, self._fault, self, name)

    def items(self) -> list[Json]:
        """The items of an array."""
        if not isinstance(self.value, list):
            raise self.fault(f"must be an array{self._instead()}")
        return [Json(value, self._fault, self, index) for index, value in enumerate(self.value)]

    def object(self) -> JsonObject:
        """The value, if it is an object."""
        if not isinstance(self.value, dict):
            raise self.fault(f"must be an object{self._instead()}")
        return self.value

    def string(self) -> str:
        """The value, if it is a string."""
        if not isinstance(self.value, str):
            raise self.fault(f"must be a string{self._instead()}")
        return self.value

    def boolean(self) -> bool:
        """The value, if it is true or false."""
        if not isinstance(self.value, bool):
            raise self.fault(f"must be true or false{self._instead()}")
        return self.value

    def integer(self) -> int:
        """The value, if it is a whole number of 64 bits."""
        value = self.value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fault(f"must be an integer{self._instead()}")
        if not -(2**63) <= value < 2**63:
            raise self.fault("must fit into 64 bits")
        return value

    def number(self) -> float:
        """The value, if it is a finite number."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not math.isfinite(self.value):
            raise self.fault(f"must be a number{self._instead()}")
        return float(self.value)

    def _instead(self) -> str:
        kinds = {
            bool: "a boolean",
            int: "a number",
            float: "a number",
            str: "a string",
            list: "an array",
            dict: "an object",
        }
        return f", not {kinds.get(type(self.value), 'null')}"


class _Span:
    """Where a value stands in the document, blanks around it included; `parts` are those of a container."""

    __slots__ = ("end", "parts", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.end = start
        self.parts: dict[str | int, _Span] = {}


def _spans(text: bytes) -> _Span:
    """The spans of all values of a document that orjson has read; of members with one name the last counts."""
    document = _Span(0)
    above: list[tuple[_Span, _Span, int]] = []
    container, value, key = document, document, -1  # key: the place in an array; -1 in an object
    expects_name = False
    for match in _MARK.finditer(text):
        mark = match[0]
        if mark[0] == _QUOTE:
            if expects_name:
                name = mark[1:-1].decode() if b"\\" not in mark else orjson.loads(mark)
                value = container.parts[name] = _Span(text.index(b":", match.end()) + 1)
                expects_name = False
        elif mark == b",":
            value.end = match.start()
            if key < 0:
                expects_name = True
            else:
                key += 1
                value = container.parts[key] = _Span(match.end())
        elif mark in b"{[":
            above.append((container, value, key))
            container, expects_name, key = value, mark == b"{", 0 if mark == b"[" else -1
            if key == 0:
                value = container.parts[0] = _Span(match.end())
        else:
            if not expects_name:
                value.end = match.start()
            expects_name = False
            container, value, key = above.pop()
    document.end = len(text)
    return document


def join(members: dict[str, bytes]) -> bytes:
    """The text of an object made of members' texts."""
    return b"{" + b",".join(orjson.dumps(name) + b":" + text for name, text in members.items()) + b"}"
