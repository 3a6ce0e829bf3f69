"""What admins make and change: tenants, teams, users, policies, budgets and limits, well formed or refused. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting.budgets import budget_problems, limit_problems, malformed, scope_problems
from shared.errors import MeshError

Resource = TypeVar("Resource", pb.Budget, pb.Limit, pb.Tenant, pb.Team, pb.User, pb.Policy)
AnyResource = pb.Budget | pb.Limit | pb.Tenant | pb.Team | pb.User | pb.Policy

NOTHING = "(nothing)"  # a name that no model has
_MAX_CHARS = 256
_MAX_MODELS = 1000
_PREFIXES = {pb.Budget: "bud", pb.Limit: "lim", pb.Policy: "pol"}
_OF_A_TENANT = (pb.Team, pb.User)
_CEILINGS = (pb.Budget, pb.Limit, pb.Policy)
_POLICY_SCOPES = (pb.CEILING_SCOPE_TENANT, pb.CEILING_SCOPE_TEAM, pb.CEILING_SCOPE_USER, pb.CEILING_SCOPE_KEY)


def kind_of(kind: type[AnyResource]) -> str:
    """What its kind is called: "budget"."""
    return kind.DESCRIPTOR.name.lower()


def store_id(resource: AnyResource) -> str:
    """By what it is kept: unique within its kind."""
    return f"{resource.tenant}/{resource.id}" if isinstance(resource, _OF_A_TENANT) else resource.id


def tenant_of(resource: AnyResource) -> str:
    """Whose it is; empty for one that holds for all tenants."""
    return resource.id if isinstance(resource, pb.Tenant) else resource.tenant


def created(wanted: Resource, now_ns: int) -> Resource:
    """The resource as it is kept from now on. Raises MALFORMED_REQUEST."""
    made = type(wanted)()
    made.CopyFrom(wanted)
    if not made.id and type(wanted) in _PREFIXES:
        made.id = f"{_PREFIXES[type(wanted)]}_{secrets.token_hex(8)}"
    made.create_time.FromNanoseconds(now_ns)
    made.update_time.FromNanoseconds(now_ns)
    return _checked(made)


def updated(standing: Resource, wanted: Resource, mask: FieldMask, now_ns: int) -> Resource:
    """A resource after a change of the fields that the mask names, or of all. Raises MALFORMED_REQUEST."""
    made = type(standing)()
    if mask.paths:
        unknown = [path for path in mask.paths if path not in standing.DESCRIPTOR.fields_by_name]
        if unknown:
            raise malformed("update_mask", f'There is no field "{unknown[0]}".')
        made.CopyFrom(standing)
        for path in mask.paths:
            made.ClearField(path)
        mask.MergeMessage(wanted, made, True, True)
    else:
        made.CopyFrom(wanted)
    made.id = standing.id
    made.create_time.CopyFrom(standing.create_time)
    made.update_time.FromNanoseconds(now_ns)
    for field in ("tenant", "scope", "subject"):
        if getattr(made, field, None) != getattr(standing, field, None):
            raise malformed(field, f"{field} says whose it is and cannot change; make a new one.")
    return _checked(made)


def ruled(principal: pb.Principal, policies: Iterable[pb.Policy]) -> tuple[pb.Principal, pb.OnOutage]:
    """What is left to a caller by all policies that apply, and what its calls may do while accounting is away."""
    left = pb.Principal()
    left.CopyFrom(principal)
    outages: set[int] = set()
    for policy in policies:
        if policy.on_outage:
            outages.add(policy.on_outage)
        if policy.HasField("max_output_tokens"):
            caps = [policy.max_output_tokens]
            if left.HasField("max_output_tokens"):
                caps.append(left.max_output_tokens)
            left.max_output_tokens = min(caps)
        if policy.models:
            both = [name for name in left.models if name in policy.models] if left.models else list(policy.models)
            del left.models[:]
            left.models.extend(both or [NOTHING])
    return left, pb.ON_OUTAGE_OPEN if outages == {pb.ON_OUTAGE_OPEN} else pb.ON_OUTAGE_CLOSED


def _checked(resource: Resource) -> Resource:
    for problem in _problems(resource):
        raise problem
    return resource


def _problems(resource: AnyResource) -> Iterator[MeshError]:
    texts = {"id": resource.id, "name": resource.name, "tenant": tenant_of(resource)}
    if isinstance(resource, _CEILINGS):
        texts["subject"] = resource.subject
    for field, text in texts.items():
        if len(text) > _MAX_CHARS or not text.isprintable():
            yield malformed(field, f"{field} has to be printable and at most {_MAX_CHARS} characters long.")
    if not resource.id:
        yield malformed("id", "id has to be given: it is what keys name.")
    if "/" in resource.id and not isinstance(resource, pb.Tenant):
        yield malformed("id", "id may not hold a slash.")
    match resource:
        case pb.Budget():
            yield from budget_problems(resource)
        case pb.Limit():
            yield from limit_problems(resource)
        case pb.Policy():
            yield from _policy_problems(resource)
        case pb.Team() | pb.User() if not resource.tenant:
            yield malformed("tenant", "tenant has to be given: ids are unique within a tenant.")


def _policy_problems(policy: pb.Policy) -> Iterator[MeshError]:
    yield from scope_problems(policy)
    if policy.scope not in _POLICY_SCOPES:
        yield malformed("scope", "A policy's scope is a tenant, a team, a user or a key.")
    if policy.HasField("max_output_tokens") and policy.max_output_tokens <= 0:
        yield malformed("max_output_tokens", "max_output_tokens has to be positive; leave it unset for no cap.")
    if len(policy.models) > _MAX_MODELS or not all(policy.models):
        yield malformed("models", f"models takes up to {_MAX_MODELS} names, none of them empty.")
    if policy.on_outage not in pb.OnOutage.values():
        yield malformed("on_outage", f"on_outage {policy.on_outage} is not known.")
