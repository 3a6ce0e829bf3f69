"""A value's text is found to the letter, whatever the document looks like."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.wire.json_text import Json, join

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def fault(path: str, sentence: str) -> ValueError:
    return ValueError(f"{path}: {sentence}")


def check(node: Json) -> None:
    assert orjson.loads(node.text) == node.value
    if isinstance(node.value, dict):
        for _, member in node.members():
            check(member)
    elif isinstance(node.value, list):
        for item in node.items():
            check(item)


@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_every_value_of_a_document_has_its_text(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    try:
        document = Json.parse(text.encode(), fault)
    except ValueError:
        return  # lone surrogates, which are no Unicode
    check(document)


def test_number_forms_escapes_and_order_are_kept() -> None:
    text = rb' { "b" : 1.50e3 , "a\u0062" : "\u00e9\"}" , "c" : [ {"x" :1} ,[] ], "b":2 } '
    document = Json.parse(text, fault)
    assert {name: member.text for name, member in document.members()} == {
        "b": b"2",
        "ab": rb'"\u00e9\"}"',
        "c": b'[ {"x" :1} ,[] ]',
    }
    assert document.need("c").items()[0].text == b'{"x" :1}'
    assert join({"a": b"1.0", 'q"': b"[]"}) == b'{"a":1.0,"q\\"":[]}'


def test_what_is_wrong_is_named_by_its_path() -> None:
    document = Json.parse(b'{"messages": [{"role": 1, "content": null}]}', fault)
    message = document.need("messages").items()[0]
    with pytest.raises(ValueError, match=r"^messages\[0\].role: must be a string, not a number$"):
        message.need("role").string()
    with pytest.raises(ValueError, match=r"^messages\[0\].content: is required$"):
        message.need("content")
