"""Reading JSON bodies: each function returns the value in its type or raises a MeshError that names the field."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from shared.errors import MeshError, Reason

Json = Any  # what orjson.loads returns


def parse_json(body: bytes) -> Json:
    """Parses a JSON body."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise malformed("The body", f"is not JSON: {error}") from None


def malformed(path: str, sentence: str) -> MeshError:
    """Returns the error for a field that is wrong."""
    return MeshError(Reason.MALFORMED_REQUEST, f"{path} {sentence}.", field=path)


def unsupported(path: str, sentence: str) -> MeshError:
    """Returns the error for a field that asks for what cannot be done."""
    return MeshError(Reason.UNSUPPORTED_FEATURE, f"{path}: {sentence}.", field=path)


def mapping(value: Json, path: str) -> Mapping[str, Json]:
    """Returns a JSON object."""
    if not isinstance(value, dict):
        raise malformed(path, f"must be an object{_instead(value)}")
    return value


def items(value: Json, path: str) -> Iterator[tuple[str, Json]]:
    """Yields each item of a JSON array with its own path."""
    if not isinstance(value, list):
        raise malformed(path, f"must be an array{_instead(value)}")
    return ((f"{path}[{index}]", item) for index, item in enumerate(value))


def string(value: Json, path: str) -> str:
    """Returns a string."""
    if not isinstance(value, str):
        raise malformed(path, f"must be a string{_instead(value)}")
    return value


def boolean(value: Json, path: str) -> bool:
    """Returns a boolean."""
    if not isinstance(value, bool):
        raise malformed(path, f"must be true or false{_instead(value)}")
    return value


def integer(value: Json, path: str) -> int:
    """Returns an integer of 64 bits."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise malformed(path, f"must be an integer{_instead(value)}")
    if not -(2**63) <= value < 2**63:
        raise malformed(path, "must fit into 64 bits")
    return value


def number(value: Json, path: str) -> float:
    """Returns a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise malformed(path, f"must be a number{_instead(value)}")
    return float(value)


def string_map(value: Json, path: str) -> Mapping[str, str]:
    """Returns a JSON object of strings."""
    return {key: string(item, f"{path}.{key}") for key, item in mapping(value, path).items()}


def _instead(value: Json) -> str:
    if value is None:
        return ", and is missing"
    kinds = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return f", not {kinds.get(type(value), 'this')}"
