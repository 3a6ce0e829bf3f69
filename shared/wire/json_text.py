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


class Json:
    """One value of a document. Reading it as what it is not raises the document's fault: fault(path, sentence)."""

    __slots__ = ("_fault", "_key", "_parent", "_parts", "_text", "value")

    def __init__(self, value: Any, fault: Fault, parent: Json | None = None, key: str | int = "") -> None:
        self.value = value
        self._fault = fault
        self._parent = parent
        self._key = key
        self._text: bytes | None = None
        self._parts: dict[str | int, bytes] | None = None

    @classmethod
    def parse(cls, text: bytes, fault: Fault) -> Json:
        """A document. Raises its fault if it is no JSON."""
        try:
            document = cls(orjson.loads(text), fault)
        except orjson.JSONDecodeError as error:
            raise fault("", f"is not valid JSON: {error}") from None
        document._text = bytes(text)
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
        if self._text is None:
            if self._parent is None:
                raise ValueError("a document made from a value has no text")
            self._text = self._parent._text_of(self._key)
        return self._text

    def _text_of(self, key: str | int) -> bytes:
        if self._parts is None:
            self._parts = dict(_split(self.text))
        return self._parts[key]

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


def _split(text: bytes) -> Iterator[tuple[str | int, bytes]]:
    """The texts of a container's direct values; of members with one name the last counts, as in orjson."""
    depth = 0
    is_object = text.lstrip(_BLANK)[:1] == b"{"
    key: str | int = "" if is_object else 0
    start = 0  # of the value; 0 while a member's name is awaited
    for match in _MARK.finditer(text):
        mark = match[0]
        first = mark[:1]
        if first == b'"':
            if is_object and depth == 1 and not start:
                key = orjson.loads(mark)
                start = text.index(b":", match.end()) + 1
        elif first in b"{[":
            depth += 1
            if depth == 1 and not is_object:
                start = match.end()
        elif first in b"}]":
            depth -= 1
            if depth == 0:
                value = text[start : match.start()].strip(_BLANK)
                if start and value:
                    yield key, value
                return
        elif depth == 1:
            yield key, text[start : match.start()].strip(_BLANK)
            if isinstance(key, int):
                key += 1
                start = match.end()
            else:
                start = 0


def join(members: dict[str, bytes]) -> bytes:
    """The text of an object made of members' texts."""
    return b"{" + b",".join(orjson.dumps(name) + b":" + text for name, text in members.items()) + b"}"
