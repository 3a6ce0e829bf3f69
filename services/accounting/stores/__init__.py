"""What accounting asks of a store. A store keeps; what is kept is the ledger's and the keys' to say."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from modelmuxer.accounting.v1.accounting_pb2 import Entry, EntryState, JournalRecord, Key, SpendDimension

from services.accounting.accounts import Account
from services.accounting.audit import Auditor
from services.accounting.keys import StoredKey
from services.accounting.ledger import Amounts, Attempt
from services.accounting.operations import Answered, Busy, Granted, Operation

T = TypeVar("T")

Leases = Mapping[str, Collection[str]]
"""Ids of leases, by the account that they are of."""


class StoreError(Exception):
    """The store cannot be opened. Says why, and what to do."""


class StoreAway(StoreError):
    """The store cannot be opened just now: it does not answer. Trying again may help."""


class Change(NamedTuple):
    """What another process changed, as watchers are told it."""

    kind: str
    """"key", "tenant", "wanted"."""
    value: bytes | str
    """The SHA-256 of a key's secret, the name of a tenant (empty for all), the id of an account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendQuery:
    """Which sums. Times are nanoseconds since 1970; the end is not included."""

    group_by: tuple[SpendDimension, ...] = ()
    start_ns: int | None = None
    end_ns: int | None = None
    tenant: str = ""


class Spend(NamedTuple):
    """The sums of one combination: the values grouped by, in their order."""

    group: tuple[str, ...]
    amounts: Amounts


class Position(NamedTuple):
    """A place in the list of entries, newest first."""

    created_ns: int
    attempt_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryQuery:
    """Which entries; empty fields do not filter."""

    limit: int
    after: Position | None = None
    attempt_id: str = ""
    request_id: str = ""
    tenant: str = ""
    state: EntryState = 0  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRecord:
    """A budget, a limit or a tenant, as a store keeps it. `kind` and `id` together are unique."""

    kind: str
    """"budget", "limit", "tenant"."""
    id: str
    tenant: str
    """Whose it is; empty for one that holds for all tenants."""
    document: bytes
    """The serialised message."""


class Store(Protocol):
    """A ledger with its keys and operations. Each method is one atomic, durable step."""

    async def record(self, records: Sequence[JournalRecord], now_ns: int) -> list[str]:
        """Merges facts into the ledger and its sums. Returns the ids of what is kept for good: all of them; those that
        can be no facts are set aside."""

    async def abandon(self, before_ns: int, now_ns: int) -> list[Attempt]:
        """Estimates attempts announced before then of whose end nobody told. Returns them."""

    async def spend(self, query: SpendQuery) -> list[Spend]:
        """Sums, the dearest first."""

    async def entries(self, query: EntryQuery) -> list[Entry]:
        """Entries, newest first."""

    async def audit(self, auditor: Auditor) -> None:
        """Shows the auditor every entry with its corrections, in order of their ids, and every sum."""

    async def add_key(self, key: StoredKey, actor: str, *, first: bool = False) -> bool:
        """Keeps a new key, and who made it. False, and nothing done, if it is to be the `first` and another is."""

    async def key_by_sha256(self, sha256: bytes) -> Key | None:
        """The key of a secret, unless it is revoked."""

    async def keys(self, tenant: str, include_revoked: bool) -> list[Key]:
        """Keys, newest first; of all tenants if none is named."""

    async def revoke_key(self, key_id: str, actor: str, now_ns: int) -> StoredKey | None:
        """The key, revoked from now on or from before; None if there is none."""

    async def claim_operation(self, wanted: Operation, now_ns: int) -> Granted | Answered | Busy:
        """Claims an operation, or says why not. Raises OperationMismatch."""

    async def end_operation(
        self, key_id: str, operation_id: str, owner: str, answer: bytes | None, now_ns: int
    ) -> None:
        """Ends a claim."""

    async def forget_operations(self, now_ns: int) -> int:
        """Drops claims and answers that have run out. Returns how many."""

    async def put_policy(self, policy: PolicyRecord, action: str, actor: str, now_ns: int, *, new: bool) -> bool:
        """Keeps a policy, with an audit entry (`action`, subject `id`) of who did so. False, and nothing done, if `new`
        and there is one of its kind and id, or if not `new` and there is none."""

    async def delete_policy(self, kind: str, policy_id: str, actor: str, now_ns: int) -> PolicyRecord | None:
        """Takes a policy away, with an audit entry ("delete_<kind>"). Returns what it was; None if there was none."""

    async def policies(self, kind: str, tenant: str | None = None) -> list[PolicyRecord]:
        """Policies of a kind, by id: all, or those of one tenant with those that hold for all tenants."""

    async def policy(self, kind: str, policy_id: str) -> PolicyRecord | None:
        """One policy."""

    async def change_account(self, account_id: str, change: Callable[[Account | None], tuple[Account | None, T]]) -> T:
        """Replaces one account by what `change` makes of it, as one atomic step on one row or document, and returns
        what `change` returns beside it. `change` gets None where there is no account yet; an account that it returns as
        it got it (or None) is not written. It is pure and may be called again, with a later state, if another process
        changed the account in between: a store without locks compares and sets. What it raises changes nothing and is
        passed on. On return the change is durable."""

    async def accounts(self, ceilings: Sequence[str] | None = None) -> list[Account]:
        """Accounts, by id: all, or those of the ceilings named."""

    async def forget_accounts(self, now_ns: int) -> int:
        """Drops accounts whose `forget_ns` is not 0 and has passed. Returns how many."""

    async def lease_spends(self, leases: Leases) -> dict[tuple[str, str], int]:
        """What the ledger says was spent on leases, nano-dollars: of each, as (account, lease), the sum over the
        attempts whose billing context names it in `holds`, each at its cost, or at what is held of it while it is
        pending."""

    async def account_spend(self, account_id: str, besides: Sequence[str] = ()) -> int:
        """The same over all attempts whose billing context names the account, on other leases than those, in one."""

    async def settled(self, attempt_ids: Sequence[str]) -> dict[str, int]:
        """Of these attempts, those that have ended (are in the ledger and not pending), with their cost."""

    @property
    def shared(self) -> bool:
        """Whether other processes may change it too."""

    def changes(self) -> AsyncIterator[Sequence[Change] | None]:
        """What other processes changed, from now on, as soon as may be; None when it is not known what was missed, or
        is missed at the moment. Ends at once for a store that no other process changes."""

    async def ask_back(self, account_id: str) -> None:
        """Has other processes tell their watchers that what lies idle of an account is wanted."""

    async def tidy(self, now_ns: int) -> None:
        """Finishes what a process that died had begun, and brings up to date what the store derives by and by."""

    async def close(self) -> None:
        """Finishes what was begun, and lets go of the store."""
