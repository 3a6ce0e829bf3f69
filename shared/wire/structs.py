"""google.protobuf.Struct to plain JSON and back."""

from __future__ import annotations

from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from shared.wire.json_text import JsonObject

EXACT = 2**53


def to_json(struct: Struct) -> JsonObject:
    """A Struct as plain JSON. Whole numbers become integers: a Struct has floats only, and providers check."""
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= EXACT else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return to_json(value.struct_value)
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
        case _:
            return None


def from_json(value: JsonObject) -> Struct:
    """Plain JSON as a Struct."""
    return Struct(fields={name: _wrapped(item) for name, item in value.items()})


def _wrapped(value: Any) -> Value:
    if value is None:
        return Value(null_value=0)  # type: ignore[arg-type]  # NullValue's only member
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, int | float):
        return Value(number_value=value)
    if isinstance(value, str):
        return Value(string_value=value)
    if isinstance(value, list):
        return Value(list_value=ListValue(values=[_wrapped(item) for item in value]))
    return Value(struct_value=from_json(value))
