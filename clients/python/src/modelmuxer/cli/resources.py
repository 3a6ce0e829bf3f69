"""How `mux` shows what admins manage: as an id for people, whole for machines."""

from __future__ import annotations

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.cli.running import print_json

Resource = pb.Budget | pb.Limit | pb.Tenant | pb.Team | pb.User | pb.Policy


def show(made: Resource, as_json: bool) -> None:
    """Prints what was made or changed."""
    if as_json:
        print_json(plain(made))
    else:
        click.echo(made.id)


def plain(message: Message) -> dict[str, object]:
    """The fields that are set; whole numbers stay numbers, enums become words."""
    values: dict[str, object] = MessageToDict(message, preserving_proto_field_name=True)
    for field, value in message.ListFields():
        if field.enum_type is not None:
            values[field.name] = word(str(values[field.name]))
        elif isinstance(value, int) and not isinstance(value, bool):
            values[field.name] = value
    return values


def word(name: str) -> str:
    """The value of an enum, as people say it."""
    for prefix in ("CEILING_SCOPE_", "BUDGET_PERIOD_", "BUDGET_MODE_", "ON_EXCEED_", "ON_OUTAGE_"):
        name = name.removeprefix(prefix)
    return name.lower()


def fields_set(message: Message) -> set[str]:
    """Names of the fields that are set."""
    return {field.name for field, _ in message.ListFields()}
