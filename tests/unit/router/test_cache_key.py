"""Tenants are walls, and what differs in anything that shapes an answer has another key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from modelmuxer.accounting.v1.accounting_pb2 import Principal
from modelmuxer.chat.v1.chat_pb2 import Block, CacheControl, ChatRequest
from modelmuxer.chat.v1.chat_pb2 import Message as Turn

from services.router.cache_key import answer_digest, body_digest, scope
from shared.catalogue import CacheScope

words = st.text(max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
blocks = st.builds(lambda text: Block(text={"text": text}), words) | st.builds(
    lambda name, arguments: Block(tool_use={"id": "1", "name": name, "arguments_json": arguments}), words, words
)
turns = st.builds(Turn, role=st.integers(0, 5), content=st.lists(blocks, max_size=3), name=words)

FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "messages": st.lists(turns, max_size=3),
    "temperature": st.none() | st.floats(0, 2),
    "top_p": st.none() | st.floats(0, 1),
    "top_k": st.none() | st.integers(0, 5),
    "seed": st.none() | st.integers(-5, 5),
    "presence_penalty": st.none() | st.floats(-2, 2),
    "stop_sequences": st.lists(words, max_size=3),
    "service_tier": words,
    "provider_headers": st.dictionaries(words, words, max_size=3),
    "provider_options": st.none() | st.dictionaries(words, json_values, max_size=3),
    "tools": st.lists(
        st.fixed_dictionaries({"name": words, "parameters_json": words, "strict": st.none() | st.booleans()}),
        max_size=2,
    ),
    "routing": st.none() | st.fixed_dictionaries({"fallbacks": st.lists(words, max_size=2), "strategy": words}),
    "top_logprobs": st.none() | st.integers(0, 3),
}
chats = st.fixed_dictionaries(FIELDS)


def build(fields: dict[str, Any]) -> ChatRequest:
    chat = ChatRequest(
        **{name: value for name, value in fields.items() if value is not None and name != "provider_options"}
    )
    if fields["provider_options"] is not None:
        chat.provider_options.update(fields["provider_options"])
    return chat


def digest(chat: ChatRequest, **others: Any) -> bytes:
    given = {"within": ("tenant", "t"), "asked": "openai/a", "allowed_models": (), "max_output_tokens": None}
    return answer_digest(chat, **{**given, **others})


def reversed_maps(message: Any) -> Any:
    """The same message with every map filled in the other order."""
    copy = type(message)()
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            target = getattr(copy, field.name)
            for key in reversed(list(value)):
                if isinstance(value[key], Message):
                    target[key].CopyFrom(reversed_maps(value[key]))
                else:
                    target[key] = value[key]
        elif isinstance(value, Message):
            getattr(copy, field.name).CopyFrom(reversed_maps(value))
        elif hasattr(value, "extend"):
            items = [reversed_maps(item) if isinstance(item, Message) else item for item in value]
            getattr(copy, field.name).extend(items)
        else:
            setattr(copy, field.name, value)
    return copy


@given(chats, chats)
def test_keys_are_equal_exactly_if_the_chats_are(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = build(one), build(other)
    assert (digest(first) == digest(second)) == (
        first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    )


@given(chats, st.sampled_from(sorted(FIELDS)), st.data())
def test_a_change_of_any_one_field_changes_the_key(fields: dict[str, Any], name: str, data: st.DataObject) -> None:
    before = build(fields)
    after = build({**fields, name: data.draw(FIELDS[name])})
    assert (digest(before) == digest(after)) == (before == after)


APART = {"model", "max_output_tokens", "cache", "tags", "end_user"}
Path = tuple[Any, ...]
"""Field descriptors, whose stubs are behind the library."""


def leaves(descriptor: Any, path: Path = ()) -> Iterator[Path]:
    """Every field that bears a value, at every depth; a message that is inside itself is entered once."""
    for field in descriptor.fields:
        if not path and field.name in APART:
            continue
        if field.message_type is None or not field.message_type.fields:
            yield (*path, field)
        elif all(field.message_type != each.message_type for each in path):
            yield from leaves(field.message_type, (*path, field))


def with_leaf(path: Path, other: bool) -> ChatRequest:
    """A chat that has one value, one of two."""
    chat = ChatRequest()
    place: Any = chat
    steps = iter(path[:-1])
    for field in steps:
        inside = getattr(place, field.name)
        if field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            key = "b" if other and path[-1].name == "key" else "a"
            if value.message_type is None:
                inside[key] = _value(value, other and path[-1].name == "value")
                return chat
            place = inside[key]
            if next(steps, None) is None:  # the key itself is the leaf
                return chat
        elif field.is_repeated:
            place = inside.add()
        else:
            place = inside
            place.SetInParent()
    leaf = path[-1]
    if leaf.message_type is not None or (leaf.enum_type is not None and len(leaf.enum_type.values) == 1):
        if other and leaf.message_type is not None:
            getattr(place, leaf.name).SetInParent()
        elif other:
            setattr(place, leaf.name, 0)
    elif leaf.is_repeated:
        getattr(place, leaf.name).append(_value(leaf, other))
    else:
        setattr(place, leaf.name, _value(leaf, other))
    return chat


def _value(field: Any, other: bool) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = "b" if other else "a"
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_BOOL:
            return other
        case FieldDescriptor.CPPTYPE_ENUM:
            return field.enum_type.values[-1 if other else 0].number
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return 0.5 if other else 0.25
        case _:
            return 2 if other else 1


PATHS = {".".join(field.name for field in path): path for path in leaves(ChatRequest.DESCRIPTOR)}


@pytest.mark.parametrize("name", PATHS)
def test_every_field_at_every_depth_is_part_of_the_key(name: str) -> None:
    one, other = with_leaf(PATHS[name], False), with_leaf(PATHS[name], True)
    assert one != other
    assert digest(one) != digest(other)


def test_the_fields_that_are_gone_through_are_all_that_there_are() -> None:
    assert len(PATHS) > 80
    assert {name.partition(".")[0] for name in PATHS} == {f.name for f in ChatRequest.DESCRIPTOR.fields} - APART


@given(chats)
def test_the_order_of_map_keys_does_not_matter(fields: dict[str, Any]) -> None:
    chat = build(fields)
    assert digest(chat) == digest(reversed_maps(chat))
    assert body_digest(chat) == body_digest(reversed_maps(chat))


@given(chats)
def test_a_key_survives_the_wire(fields: dict[str, Any]) -> None:
    chat = build(fields)
    assert digest(chat) == digest(ChatRequest.FromString(chat.SerializeToString()))


@given(words, words, words, words)
def test_tenants_and_models_never_meet(tenant: str, other_tenant: str, asked: str, other_asked: str) -> None:
    chat = ChatRequest()
    same = (tenant, asked) == (other_tenant, other_asked)
    one, other = ("tenant", tenant), ("tenant", other_tenant)
    assert (digest(chat, within=one, asked=asked) == digest(chat, within=other, asked=other_asked)) == same


WIDTHS = st.sampled_from(["tenant", "user", "key"])
CALLERS = st.tuples(
    st.builds(Principal, tenant=words, user=words, key_id=st.text(min_size=1, max_size=6)), words, WIDTHS
)


def may_share(one: tuple[Principal, str, str], other: tuple[Principal, str, str]) -> bool:
    """Whether the answer of one caller may be given to the other."""
    (first, first_user, width), (second, second_user, other_width) = one, other
    if width != other_width or first.tenant != second.tenant:
        return False
    if width == "tenant":
        return True
    if width == "user" and first.user:
        return first.user == second.user and first_user == second_user
    return (width == "key" or not second.user) and first.key_id == second.key_id and first_user == second_user


@settings(deadline=None)
@given(CALLERS, CALLERS, st.booleans())
def test_the_scope_is_a_wall(
    one: tuple[Principal, str, CacheScope], other: tuple[Principal, str, CacheScope], alike: bool
) -> None:
    if alike:  # two that differ little are what random ones seldom are
        other = (one[0], *other[1:])
    chat = ChatRequest()
    first, second = (digest(chat, within=scope(width, who, user)) for who, user, width in (one, other))
    assert may_share(one, other) or first != second
    if one == other:
        assert first == second


@given(st.lists(words, max_size=3), st.lists(words, max_size=3))
def test_keys_that_may_name_other_models_do_not_meet(models: list[str], others: list[str]) -> None:
    chat = ChatRequest()
    same = set(models) == set(others)
    assert (digest(chat, allowed_models=models) == digest(chat, allowed_models=others)) == same


def test_the_cap_that_takes_effect_counts_not_the_one_that_was_asked_for() -> None:
    asked, unasked = ChatRequest(max_output_tokens=100), ChatRequest()
    assert digest(asked, max_output_tokens=50) == digest(unasked, max_output_tokens=50)
    assert digest(unasked, max_output_tokens=50) != digest(unasked, max_output_tokens=None)


def test_what_does_not_shape_an_answer_is_apart() -> None:
    plain = ChatRequest(temperature=0)
    labelled = ChatRequest(
        temperature=0,
        model="a",
        tags={"team": "x"},
        end_user="u",
        cache=CacheControl(ttl={"seconds": 9}, cache_sampled=True),
    )
    assert digest(plain) == digest(labelled)
    assert body_digest(plain) != body_digest(labelled)


def test_an_unset_temperature_is_not_zero() -> None:
    assert digest(ChatRequest()) != digest(ChatRequest(temperature=0))
