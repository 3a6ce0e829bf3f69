"""The gRPC servicers of accounting: proto in, a call of the domain, proto out."""

import base64
import binascii
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, suppress

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceServicer, AdminServiceServicer
from modelmuxer.chat.v1.chat_pb2 import ChatResponse

from services.accounting import keys, ledger
from services.accounting.access import Access
from services.accounting.audit import Auditor
from services.accounting.claims import Claims
from services.accounting.ledger import Amounts, MalformedRecord, attempt_of
from services.accounting.lending import Lending
from services.accounting.operations import Operation, OperationMismatch
from services.accounting.policies import PolicyChanges
from services.accounting.policy_book import PolicyBook
from services.accounting.stores import EntryQuery, Position, Spend, SpendQuery, Store
from shared.errors import MeshError, Reason
from shared.interceptors import Context
from shared.periods import UNLENT

_DEFAULT_PAGE = 100
_MAX_PAGE = 1000
_MAX_ID_CHARS = 512
_UNLENT = UNLENT.encode()  # most contexts need not be read for it
_LONGEST_WAIT_S = 600.0
_LONGEST_CLAIM_S = 3600


class AccountingServicer(AccountingServiceServicer):
    """Keys, operations and the ledger, for the mesh; reports, for people too."""

    def __init__(
        self,
        store: Store,
        access: Access,
        claims: Claims,
        changes: PolicyChanges,
        book: PolicyBook,
        lending: Lending,
        *,
        longest_call_s: float,
    ) -> None:
        self._store = store
        self._access = access
        self._claims = claims
        self._changes = changes
        self._book = book
        self._lending = lending
        self._longest_call_ns = int(longest_call_s * 1e9)

    async def Authenticate(self, request: pb.AuthenticateRequest, context: Context) -> pb.AuthenticateResponse:
        self._access.mesh(context)
        key = await self._store.key_by_sha256(request.key_sha256)
        if key is None:
            raise MeshError(Reason.INVALID_KEY, "The key is unknown or revoked.", code=StatusCode.NOT_FOUND)
        principal = keys.principal(key)
        await self._book.check_standing(principal)
        ruled, on_outage = await self._book.ruled(principal)
        return pb.AuthenticateResponse(
            principal=ruled,
            on_outage=on_outage,
            budgets=await self._book.subject_to(pb.Budget, principal),
            limits=await self._book.subject_to(pb.Limit, principal),
        )

    async def WatchPolicies(
        self, request: pb.WatchPoliciesRequest, context: Context
    ) -> AsyncIterator[pb.WatchPoliciesResponse]:
        self._access.mesh(context)
        async with aclosing(self._changes.watch()) as changes:
            async for changed in changes:
                yield pb.WatchPoliciesResponse(
                    changed_key_sha256=list(changed.keys),
                    changed_tenants=list(changed.tenants),
                    wanted_accounts=list(changed.wanted),
                )

    async def Record(self, request: pb.RecordRequest, context: Context) -> pb.RecordResponse:
        self._access.mesh(context)
        now_ns = time.time_ns()
        kept = await self._store.record(request.records, now_ns)
        # Before it is acknowledged: what is sent again is counted again, and comes to the same.
        await self._lending.recount(self._late_holds(request.records))
        return pb.RecordResponse(record_ids=kept)

    def _late_holds(self, records: Iterable[pb.JournalRecord]) -> set[tuple[str, str]]:
        """Accounts and leases of attempts that were held on no lease, or whose leases may have closed by what the
        ledger said before these records came."""
        found: set[tuple[str, str]] = set()
        for record in records:
            kind = record.WhichOneof("fact")
            if kind not in ("announced", "outcome", "observed"):
                continue
            billing, late = getattr(record, kind).billing_context, self._lending.is_late(record.time.ToNanoseconds())
            if late or _UNLENT in billing:
                with suppress(DecodeError):
                    holds = ledger.context_of(billing).holds
                    found.update((hold.account, hold.lease_id) for hold in holds if late or hold.lease_id == UNLENT)
        return found

    async def ClaimOperation(self, request: pb.ClaimOperationRequest, context: Context) -> pb.ClaimOperationResponse:
        self._access.mesh(context)
        _check_id("key_id", request.key_id)
        _check_id("operation_id", request.operation_id)
        _check_id("owner", request.owner)
        ttl_ns = request.ttl.ToNanoseconds()
        if not 0 < ttl_ns <= _LONGEST_CLAIM_S * 1_000_000_000:
            raise _malformed("ttl", f"ttl has to be positive and at most {_LONGEST_CLAIM_S} s.")
        wanted = Operation(
            key_id=request.key_id,
            operation_id=request.operation_id,
            body_sha256=request.body_sha256,
            owner=request.owner,
            expires_ns=0,
        )
        remaining_s = context.time_remaining()
        try:
            answer = await self._claims.take(wanted, ttl_ns, _LONGEST_WAIT_S if remaining_s is None else remaining_s)
        except OperationMismatch:
            raise MeshError(
                Reason.OPERATION_MISMATCH,
                f'Operation "{request.operation_id}" was sent before with another body; use a new id for another.',
            ) from None
        return pb.ClaimOperationResponse(answer=None if answer is None else ChatResponse.FromString(answer))

    async def EndOperation(self, request: pb.EndOperationRequest, context: Context) -> pb.EndOperationResponse:
        self._access.mesh(context)
        answer = request.answer.SerializeToString() if request.HasField("answer") else None
        await self._claims.end(request.key_id, request.operation_id, request.owner, answer)
        return pb.EndOperationResponse()

    async def GetSpend(self, request: pb.GetSpendRequest, context: Context) -> pb.GetSpendResponse:
        await self._access.admin(context)
        query = SpendQuery(
            group_by=_dimensions(request),
            start_ns=_nanoseconds("start_time", request.start_time) if request.HasField("start_time") else None,
            end_ns=_nanoseconds("end_time", request.end_time) if request.HasField("end_time") else None,
            tenant=request.tenant,
        )
        spends = await self._store.spend(query)
        names = [_name(dimension) for dimension in query.group_by]
        return pb.GetSpendResponse(
            rows=[_spend_row(names, spend) for spend in spends],
            total_nanos=sum(spend.amounts.cost_nanos for spend in spends),
        )

    async def ListEntries(self, request: pb.ListEntriesRequest, context: Context) -> pb.ListEntriesResponse:
        await self._access.admin(context)
        if request.page_size < 0:
            raise _malformed("page_size", "page_size must not be negative.")
        size = min(request.page_size or _DEFAULT_PAGE, _MAX_PAGE)
        query = EntryQuery(
            limit=size + 1,  # one more tells whether there is a next page
            after=_position(request.page_token) if request.page_token else None,
            attempt_id=request.attempt_id,
            request_id=request.request_id,
            tenant=request.tenant,
            state=request.state,
        )
        entries = await self._store.entries(query)
        token = _page_token(entries[size - 1]) if len(entries) > size else ""
        return pb.ListEntriesResponse(entries=entries[:size], next_page_token=token)

    async def PostCorrections(self, request: pb.PostCorrectionsRequest, context: Context) -> pb.PostCorrectionsResponse:
        actor = await self._access.admin(context)
        if len(request.corrections) > _MAX_PAGE:
            raise _malformed("corrections", f"At most {_MAX_PAGE} corrections may be posted at a time.")
        records = [_billed(correction, actor, time.time_ns()) for correction in request.corrections]
        known = {record.attempt_id for record in records if await self._entry(record.attempt_id)}
        await self._store.record([record for record in records if record.attempt_id in known], time.time_ns())
        entries = list(filter(None, [await self._entry(attempt_id) for attempt_id in sorted(known)]))
        await self._lending.recount((hold.account, hold.lease_id) for entry in entries for hold in entry.holds)
        unknown = {record.attempt_id for record in records} - known
        return pb.PostCorrectionsResponse(entries=entries, unknown_attempt_ids=sorted(unknown))

    async def Audit(self, request: pb.AuditRequest, context: Context) -> pb.AuditResponse:
        await self._access.admin(context)
        auditor = Auditor(now_ns=time.time_ns(), longest_call_ns=self._longest_call_ns)
        await self._store.audit(auditor)
        for account in await self._store.accounts():
            settled = auditor.settled(account)
            auditor.account(account, await self._store.account_spend(account.id) if settled else None)
        return auditor.report()

    async def AcquireLease(self, request: pb.AcquireLeaseRequest, context: Context) -> pb.AcquireLeaseResponse:
        self._access.mesh(context)
        _check_id("lease_id", request.lease_id)
        _check_id("holder", request.holder)
        return pb.AcquireLeaseResponse(lease=await self._lending.acquire(request))

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Context) -> pb.RenewLeaseResponse:
        self._access.mesh(context)
        settled = await self._store.settled(request.unsettled_attempt_ids) if request.unsettled_attempt_ids else {}
        return pb.RenewLeaseResponse(lease=await self._lending.renew(request), settled=settled)

    async def ReturnLease(self, request: pb.ReturnLeaseRequest, context: Context) -> pb.ReturnLeaseResponse:
        self._access.mesh(context)
        await self._lending.give_back(request)
        return pb.ReturnLeaseResponse()

    async def ListBudgets(self, request: pb.ListBudgetsRequest, context: Context) -> pb.ListBudgetsResponse:
        await self._access.admin(context)
        return pb.ListBudgetsResponse(
            budgets=await self._book.standing(request.tenant, request.include_past, time.time_ns())
        )

    async def _entry(self, attempt_id: str) -> pb.Entry | None:
        return next(iter(await self._store.entries(EntryQuery(limit=1, attempt_id=attempt_id))), None)


class AdminServicer(AdminServiceServicer):
    """Keys, and all that rules what they may do, for whoever manages the mesh."""

    def __init__(self, store: Store, access: Access, changes: PolicyChanges, book: PolicyBook) -> None:
        self._store = store
        self._access = access
        self._changes = changes
        self._book = book

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Context) -> pb.CreateKeyResponse:
        actor = await self._access.admin(context)
        secret = keys.new_secret()
        stored = keys.new_key(request, secret, time.time_ns())
        await self._store.add_key(stored, actor)
        self._changes.tell(stored.sha256)
        return pb.CreateKeyResponse(key=stored.key, secret=secret)

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        await self._access.admin(context)
        return pb.ListKeysResponse(keys=await self._store.keys(request.tenant, request.include_revoked))

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> pb.RevokeKeyResponse:
        actor = await self._access.admin(context)
        revoked = await self._store.revoke_key(request.key_id, actor, time.time_ns())
        if revoked is None:
            raise MeshError(
                Reason.MALFORMED_REQUEST,
                f'There is no key with id "{request.key_id}".',
                code=StatusCode.NOT_FOUND,
                field="key_id",
            )
        self._changes.tell(revoked.sha256)
        return pb.RevokeKeyResponse(key=revoked.key)

    async def CreateBudget(self, request: pb.CreateBudgetRequest, context: Context) -> pb.CreateBudgetResponse:
        actor = await self._access.admin(context)
        return pb.CreateBudgetResponse(budget=await self._book.create(request.budget, actor))

    async def UpdateBudget(self, request: pb.UpdateBudgetRequest, context: Context) -> pb.UpdateBudgetResponse:
        actor = await self._access.admin(context)
        return pb.UpdateBudgetResponse(budget=await self._book.update(request.budget, request.update_mask, actor))

    async def DeleteBudget(self, request: pb.DeleteBudgetRequest, context: Context) -> pb.DeleteBudgetResponse:
        actor = await self._access.admin(context)
        await self._book.delete(pb.Budget(id=request.id), actor)
        return pb.DeleteBudgetResponse()

    async def CreateLimit(self, request: pb.CreateLimitRequest, context: Context) -> pb.CreateLimitResponse:
        actor = await self._access.admin(context)
        return pb.CreateLimitResponse(limit=await self._book.create(request.limit, actor))

    async def ListLimits(self, request: pb.ListLimitsRequest, context: Context) -> pb.ListLimitsResponse:
        await self._access.admin(context)
        return pb.ListLimitsResponse(limits=await self._book.all(pb.Limit, request.tenant))

    async def UpdateLimit(self, request: pb.UpdateLimitRequest, context: Context) -> pb.UpdateLimitResponse:
        actor = await self._access.admin(context)
        return pb.UpdateLimitResponse(limit=await self._book.update(request.limit, request.update_mask, actor))

    async def DeleteLimit(self, request: pb.DeleteLimitRequest, context: Context) -> pb.DeleteLimitResponse:
        actor = await self._access.admin(context)
        await self._book.delete(pb.Limit(id=request.id), actor)
        return pb.DeleteLimitResponse()

    async def CreateTenant(self, request: pb.CreateTenantRequest, context: Context) -> pb.CreateTenantResponse:
        actor = await self._access.admin(context)
        return pb.CreateTenantResponse(tenant=await self._book.create(request.tenant, actor))

    async def ListTenants(self, request: pb.ListTenantsRequest, context: Context) -> pb.ListTenantsResponse:
        await self._access.admin(context)
        return pb.ListTenantsResponse(tenants=await self._book.all(pb.Tenant, ""))

    async def UpdateTenant(self, request: pb.UpdateTenantRequest, context: Context) -> pb.UpdateTenantResponse:
        actor = await self._access.admin(context)
        return pb.UpdateTenantResponse(tenant=await self._book.update(request.tenant, request.update_mask, actor))

    async def DeleteTenant(self, request: pb.DeleteTenantRequest, context: Context) -> pb.DeleteTenantResponse:
        actor = await self._access.admin(context)
        await self._book.delete(pb.Tenant(id=request.id), actor)
        return pb.DeleteTenantResponse()

    async def CreateTeam(self, request: pb.CreateTeamRequest, context: Context) -> pb.CreateTeamResponse:
        actor = await self._access.admin(context)
        return pb.CreateTeamResponse(team=await self._book.create(request.team, actor))

    async def ListTeams(self, request: pb.ListTeamsRequest, context: Context) -> pb.ListTeamsResponse:
        await self._access.admin(context)
        return pb.ListTeamsResponse(teams=await self._book.all(pb.Team, request.tenant))

    async def UpdateTeam(self, request: pb.UpdateTeamRequest, context: Context) -> pb.UpdateTeamResponse:
        actor = await self._access.admin(context)
        return pb.UpdateTeamResponse(team=await self._book.update(request.team, request.update_mask, actor))

    async def DeleteTeam(self, request: pb.DeleteTeamRequest, context: Context) -> pb.DeleteTeamResponse:
        actor = await self._access.admin(context)
        await self._book.delete(pb.Team(id=request.id, tenant=request.tenant), actor)
        return pb.DeleteTeamResponse()

    async def CreateUser(self, request: pb.CreateUserRequest, context: Context) -> pb.CreateUserResponse:
        actor = await self._access.admin(context)
        return pb.CreateUserResponse(user=await self._book.create(request.user, actor))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Context) -> pb.ListUsersResponse:
        await self._access.admin(context)
        return pb.ListUsersResponse(users=await self._book.all(pb.User, request.tenant))

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> pb.UpdateUserResponse:
        actor = await self._access.admin(context)
        return pb.UpdateUserResponse(user=await self._book.update(request.user, request.update_mask, actor))

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Context) -> pb.DeleteUserResponse:
        actor = await self._access.admin(context)
        await self._book.delete(pb.User(id=request.id, tenant=request.tenant), actor)
        return pb.DeleteUserResponse()

    async def CreatePolicy(self, request: pb.CreatePolicyRequest, context: Context) -> pb.CreatePolicyResponse:
        actor = await self._access.admin(context)
        return pb.CreatePolicyResponse(policy=await self._book.create(request.policy, actor))

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Context) -> pb.ListPoliciesResponse:
        await self._access.admin(context)
        return pb.ListPoliciesResponse(policies=await self._book.all(pb.Policy, request.tenant))

    async def UpdatePolicy(self, request: pb.UpdatePolicyRequest, context: Context) -> pb.UpdatePolicyResponse:
        actor = await self._access.admin(context)
        return pb.UpdatePolicyResponse(policy=await self._book.update(request.policy, request.update_mask, actor))

    async def DeletePolicy(self, request: pb.DeletePolicyRequest, context: Context) -> pb.DeletePolicyResponse:
        actor = await self._access.admin(context)
        await self._book.delete(pb.Policy(id=request.id), actor)
        return pb.DeletePolicyResponse()


def _billed(correction: pb.Correction, actor: str, now_ns: int) -> pb.JournalRecord:
    attempt_id = correction.attempt_id
    record = pb.JournalRecord(id=f"{attempt_id}/billed", attempt_id=attempt_id, witness=actor, billed=correction.billed)
    record.time.FromNanoseconds(now_ns)
    if not record.billed.HasField("read_time"):
        record.billed.read_time.CopyFrom(record.time)
    try:
        attempt_of(record)
    except MalformedRecord as error:
        raise _malformed("corrections", f"{error}.") from None
    return record


def _dimensions(request: pb.GetSpendRequest) -> tuple[pb.SpendDimension, ...]:
    known = pb.SpendDimension.values()[1:]
    for dimension in request.group_by:
        if dimension not in known:
            raise _malformed("group_by", f"Dimension {dimension} is not known.")
    return tuple(dict.fromkeys(request.group_by))


def _name(dimension: pb.SpendDimension) -> str:
    return pb.SpendDimension.Name(dimension).removeprefix("SPEND_DIMENSION_").lower()


def _spend_row(names: list[str], spend: Spend) -> pb.SpendRow:
    sums: Amounts = spend.amounts
    return pb.SpendRow(
        group=dict(zip(names, spend.group, strict=True)),
        cost_nanos=sums.cost_nanos,
        estimated_nanos=sums.estimated_nanos,
        saved_nanos=sums.saved_nanos,
        attempts=sums.attempts,
        cache_hits=sums.cache_hits,
        input_tokens=sums.input_tokens,
        output_tokens=sums.output_tokens,
    )


def _nanoseconds(field: str, time_: Timestamp) -> int:
    nanoseconds = time_.seconds * 1_000_000_000 + time_.nanos
    if not 0 <= nanoseconds < 1 << 63:
        raise _malformed(field, f"{field} is out of range.")
    return nanoseconds


def _page_token(last: pb.Entry) -> str:
    return base64.urlsafe_b64encode(f"{last.create_time.ToNanoseconds()}:{last.attempt_id}".encode()).decode()


def _position(token: str) -> Position:
    try:
        created, _, attempt_id = base64.urlsafe_b64decode(token.encode("ascii")).decode().partition(":")
        created_ns = int(created)
        if not 0 <= created_ns < 1 << 63:
            raise ValueError
        return Position(created_ns, attempt_id)
    except (ValueError, binascii.Error):
        raise _malformed("page_token", "page_token is not one that an earlier answer gave.") from None


def _check_id(field: str, value: str) -> None:
    if not 0 < len(value) <= _MAX_ID_CHARS:
        raise _malformed(field, f"{field} has to be given, and at most {_MAX_ID_CHARS} characters long.")


def _malformed(field: str, message: str) -> MeshError:
    return MeshError(Reason.MALFORMED_REQUEST, message, field=field)
