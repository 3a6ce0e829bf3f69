"""Tells the watchers of this process what other accounting processes changed in the store that they share."""

from services.accounting.policies import PolicyChanges
from services.accounting.stores import Store


async def listen(store: Store, watchers: PolicyChanges) -> None:
    """Listens until cancelled; returns at once where no other process changes the store."""
    async for changes in store.changes():
        if changes is None:
            watchers.lose()
            continue
        watchers.stand()
        for change in changes:
            match change.kind, change.value:
                case "key", bytes(sha256):
                    watchers.tell(sha256)
                case "tenant", str(tenant):
                    watchers.tell_tenant(tenant)
                case "wanted", str(account):
                    watchers.ask_back(account)
