"""The book of tenants, teams, users, policies, budgets and limits: makes, changes and lists them, and tells routers."""

from __future__ import annotations

import time
from typing import TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from grpc import StatusCode
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting import budgets, resources
from services.accounting.policies import PolicyChanges
from services.accounting.resources import AnyResource, Resource, kind_of, store_id, tenant_of
from services.accounting.stores import PolicyRecord, Store
from shared.errors import MeshError, Reason

Ruling = TypeVar("Ruling", pb.Budget, pb.Limit, pb.Policy)


class PolicyBook:
    """Every change is kept with who made it, and told to those who watch."""

    def __init__(self, store: Store, changes: PolicyChanges) -> None:
        self._store = store
        self._changes = changes

    async def create(self, wanted: Resource, actor: str) -> Resource:
        """Makes a resource. Raises MALFORMED_REQUEST and POLICY_EXISTS."""
        now_ns = time.time_ns()
        kind = kind_of(type(wanted))
        made = resources.created(wanted, now_ns)
        if not await self._store.put_policy(_record(made), f"create_{kind}", actor, now_ns, new=True):
            raise MeshError(Reason.POLICY_EXISTS, f'There is a {kind} "{made.id}" already.', field="id")
        self._changes.tell_tenant(tenant_of(made))
        return made

    async def update(self, wanted: Resource, mask: FieldMask, actor: str) -> Resource:
        """Changes a resource. Raises MALFORMED_REQUEST; NOT_FOUND if there is none."""
        now_ns = time.time_ns()
        kind = kind_of(type(wanted))
        standing = await self._store.policy(kind, store_id(wanted))
        if standing is None:
            raise _unknown(kind, wanted.id)
        made = resources.updated(type(wanted).FromString(standing.document), wanted, mask, now_ns)
        if not await self._store.put_policy(_record(made), f"update_{kind}", actor, now_ns, new=False):
            raise _unknown(kind, wanted.id)
        self._changes.tell_tenant(tenant_of(made))
        return made

    async def delete(self, named: AnyResource, actor: str) -> None:
        """Takes a resource away. NOT_FOUND if there is none."""
        kind = kind_of(type(named))
        gone = await self._store.delete_policy(kind, store_id(named), actor, time.time_ns())
        if gone is None:
            raise _unknown(kind, named.id)
        self._changes.tell_tenant(gone.tenant)

    async def all(self, kind: type[Resource], tenant: str = "") -> list[Resource]:
        """Resources of a kind; of one tenant, with those for all, if one is named."""
        records = await self._store.policies(kind_of(kind), tenant or None)
        return [kind.FromString(record.document) for record in records]

    async def subject_to(self, kind: type[Ruling], principal: pb.Principal) -> list[Ruling]:
        """What calls of a principal may be subject to."""
        return [policy for policy in await self.all(kind, principal.tenant) if budgets.applies(policy, principal)]

    async def ruled(self, principal: pb.Principal) -> tuple[pb.Principal, pb.OnOutage]:
        """What is left to a caller by the policies that apply to it, and what its calls may do in an outage."""
        return resources.ruled(principal, await self.subject_to(pb.Policy, principal))

    async def check_standing(self, principal: pb.Principal) -> None:
        """Raises INVALID_KEY, as for a key that is revoked, if the key's tenant, team or user is suspended."""
        tenant = principal.tenant
        named: tuple[pb.Tenant | pb.Team | pb.User, ...] = (
            pb.Tenant(id=tenant),
            pb.Team(tenant=tenant, id=principal.team),
            pb.User(tenant=tenant, id=principal.user),
        )
        for each in named:
            kind = kind_of(type(each))
            record = await self._store.policy(kind, store_id(each)) if each.id else None
            if record is not None and type(each).FromString(record.document).suspended:
                raise MeshError(Reason.INVALID_KEY, f"The key's {kind} is suspended.", code=StatusCode.NOT_FOUND)

    async def standing(self, tenant: str, include_past: bool, now_ns: int) -> list[pb.BudgetStatus]:
        """Budgets with each of their accounts; one that nothing was spent of stands by itself."""
        policies = await self.all(pb.Budget, tenant)
        found: dict[str, list[pb.BudgetStatus]] = {policy.id: [] for policy in policies}
        by_id = {policy.id: policy for policy in policies}
        for account in await self._store.accounts(list(by_id)):
            if (tenant and account.tenant != tenant) or (
                account.ends_ns and account.ends_ns <= now_ns and not include_past
            ):
                continue
            policy = by_id[account.ceiling]
            status = pb.BudgetStatus(budget=policy, tenant=account.tenant, subject=account.subject)
            status.standing.CopyFrom(account.standing(policy.limit_nanos))
            found[policy.id].append(status)
        for policy in policies:
            if not found[policy.id]:
                found[policy.id].append(_untouched(policy, now_ns))
        return [status for statuses in found.values() for status in statuses]


def _untouched(policy: pb.Budget, now_ns: int) -> pb.BudgetStatus:
    status = pb.BudgetStatus(budget=policy, tenant=policy.tenant, subject=policy.subject)
    ceiling = budgets.ceiling_of(policy)
    if ceiling is not None:
        account = ceiling.account(policy.tenant, policy.subject, now_ns)
        status.standing.CopyFrom(account.standing(policy.limit_nanos))
    return status


def _record(resource: AnyResource) -> PolicyRecord:
    return PolicyRecord(
        kind=kind_of(type(resource)),
        id=store_id(resource),
        tenant=tenant_of(resource),
        document=resource.SerializeToString(),
    )


def _unknown(kind: str, policy_id: str) -> MeshError:
    return MeshError(
        Reason.MALFORMED_REQUEST, f'There is no {kind} "{policy_id}".', code=StatusCode.NOT_FOUND, field="id"
    )
