"""The book of budgets, limits and tenants: makes, changes and lists them, and has routers told."""

from __future__ import annotations

import time
from typing import TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from grpc import StatusCode
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting import budgets
from services.accounting.budgets import Policy
from services.accounting.policies import PolicyChanges
from services.accounting.stores import PolicyRecord, Store
from shared.errors import MeshError, Reason

Ceilings = TypeVar("Ceilings", pb.Budget, pb.Limit)


class PolicyBook:
    """Every change is kept with who made it, and told to those who watch."""

    def __init__(self, store: Store, changes: PolicyChanges) -> None:
        self._store = store
        self._changes = changes

    async def create(self, wanted: Policy, actor: str) -> Policy:
        """Makes a policy. Raises MALFORMED_REQUEST and POLICY_EXISTS."""
        now_ns = time.time_ns()
        made = budgets.created(wanted, now_ns)
        if not await self._store.put_policy(_record(made), f"create_{_kind(type(made))}", actor, now_ns, new=True):
            raise MeshError(Reason.POLICY_EXISTS, f'There is a {_kind(type(made))} "{made.id}" already.', field="id")
        self._changes.tell_tenant(_tenant(made))
        return made

    async def update(self, wanted: Policy, mask: FieldMask, actor: str) -> Policy:
        """Changes a policy. Raises MALFORMED_REQUEST; NOT_FOUND if there is none."""
        now_ns = time.time_ns()
        kind = _kind(type(wanted))
        standing = await self._store.policy(kind, wanted.id)
        if standing is None:
            raise _unknown(kind, wanted.id)
        made = budgets.updated(type(wanted).FromString(standing.document), wanted, mask, now_ns)
        if not await self._store.put_policy(_record(made), f"update_{kind}", actor, now_ns, new=False):
            raise _unknown(kind, wanted.id)
        self._changes.tell_tenant(_tenant(made))
        return made

    async def delete(self, kind: type[Policy], policy_id: str, actor: str) -> None:
        """Takes a policy away. NOT_FOUND if there is none."""
        gone = await self._store.delete_policy(_kind(kind), policy_id, actor, time.time_ns())
        if gone is None:
            raise _unknown(_kind(kind), policy_id)
        self._changes.tell_tenant(gone.tenant)

    async def all(self, kind: type[Policy], tenant: str = "") -> list[Policy]:
        """Policies of a kind; of one tenant, with those for all, if one is named."""
        return [kind.FromString(record.document) for record in await self._store.policies(_kind(kind), tenant or None)]

    async def subject_to(self, kind: type[Ceilings], principal: pb.Principal) -> list[Ceilings]:
        """What calls of a principal may be subject to."""
        return [policy for policy in await self.all(kind, principal.tenant) if budgets.applies(policy, principal)]

    async def check_tenant(self, tenant: str) -> None:
        """Raises INVALID_KEY, as for a key that is revoked, if the tenant is suspended."""
        record = await self._store.policy("tenant", tenant)
        if record is not None and pb.Tenant.FromString(record.document).suspended:
            raise MeshError(Reason.INVALID_KEY, "The key's tenant is suspended.", code=StatusCode.NOT_FOUND)

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


def _record(policy: Policy) -> PolicyRecord:
    kind = _kind(type(policy))
    return PolicyRecord(kind=kind, id=policy.id, tenant=_tenant(policy), document=policy.SerializeToString())


def _tenant(policy: pb.Budget | pb.Limit | pb.Tenant) -> str:
    return policy.id if isinstance(policy, pb.Tenant) else policy.tenant


def _kind(kind: type[pb.Budget] | type[pb.Limit] | type[pb.Tenant]) -> str:
    return kind.DESCRIPTOR.name.lower()


def _unknown(kind: str, policy_id: str) -> MeshError:
    return MeshError(
        Reason.MALFORMED_REQUEST, f'There is no {kind} "{policy_id}".', code=StatusCode.NOT_FOUND, field="id"
    )
