"""Accounting's settings."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from services.accounting.signature import signing_key
from shared.settings import ServiceSettings, setting

_MIN_SECRET_BYTES = 24  # what Standard Webhooks asks for


@dataclass(frozen=True, kw_only=True)
class AccountingSettings(ServiceSettings):
    """What accounting adds to every service's settings."""

    service: ClassVar[str] = "accounting"

    ledger_store: str = setting("sqlite", env="LEDGER_STORE", choices=("sqlite",), help="where the ledger is kept")
    pending_timeout_s: int = setting(
        3600, env="PENDING_TIMEOUT_S", minimum=1, help="age at which an attempt without an outcome becomes an estimate"
    )
    sweep_interval_s: float = setting(
        30.0, env="SWEEP_INTERVAL_S", minimum=0.05, help="how often old attempts and operations are looked for"
    )
    lease_ttl_s: float = setting(
        60.0, env="LEASE_TTL_S", minimum=1, help="how long a router may spend of a lease that it cannot renew"
    )
    longest_call_s: float = setting(
        630.0,
        env="LONGEST_CALL_S",
        minimum=1,
        help="how long a call may last; a lease that was not returned stays in doubt so long after it has expired",
    )

    budget_webhook_url: str = setting(
        "", env="BUDGET_WEBHOOK_URL", help="where thresholds that budgets reach are posted; nowhere if unset"
    )
    budget_webhook_secret: str = setting(
        "", env="BUDGET_WEBHOOK_SECRET", secret=True, help="what these posts are signed with (Standard Webhooks)"
    )

    def check(self) -> Iterator[str]:
        yield from super().check()
        if not self.budget_webhook_url:
            return
        if not self.budget_webhook_url.startswith(("https://", "http://")):
            yield "MODELMUXER_BUDGET_WEBHOOK_URL has to begin with https:// or http://"
        try:
            weak = len(signing_key(self.budget_webhook_secret)) < _MIN_SECRET_BYTES
        except ValueError as error:
            yield f"MODELMUXER_BUDGET_WEBHOOK_SECRET cannot be used: {error}"
            return
        if weak:
            yield f"MODELMUXER_BUDGET_WEBHOOK_SECRET has to be set, to at least {_MIN_SECRET_BYTES} random bytes"

    @property
    def ledger_path(self) -> Path:
        return self.home / "ledger.sqlite"

    @property
    def key_path(self) -> Path:
        return self.home / "key"
