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

    ledger_store: str = setting(
        "sqlite", env="LEDGER_STORE", choices=("sqlite", "mongodb"), help="where the ledger is kept"
    )
    mongodb_url: str | None = setting(
        None, env="MONGODB_URL", guide=True, secret=True, help="mongodb://user:password@host:27017/database"
    )
    database_pool_size: int = setting(
        20, env="DATABASE_POOL_SIZE", guide=True, minimum=0, maximum=1000, help="connections to MongoDB that are kept"
    )
    database_max_overflow: int = setting(
        30,
        env="DATABASE_MAX_OVERFLOW",
        guide=True,
        minimum=0,
        maximum=1000,
        help="connections that may be added",
    )
    database_pool_recycle: float = setting(
        3600.0, env="DATABASE_POOL_RECYCLE", guide=True, minimum=1, help="seconds after which an idle one is closed"
    )
    database_pool_timeout_s: float = setting(
        2.0, env="DATABASE_POOL_TIMEOUT_S", minimum=0.05, help="how long a call waits for a free connection"
    )
    database_timeout_s: float = setting(
        5.0, env="DATABASE_TIMEOUT_S", minimum=0.1, help="how long MongoDB may take to answer, reports apart"
    )
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
        yield from self._store_problems()
        yield from self._webhook_problems()

    def _store_problems(self) -> Iterator[str]:
        if self.ledger_store == "mongodb":
            if not self.mongodb_url:
                yield "MONGODB_URL is not set although MODELMUXER_LEDGER_STORE=mongodb: set it to the server's URL"
            elif not self.mongodb_url.startswith(("mongodb://", "mongodb+srv://")):
                yield "MONGODB_URL must begin with mongodb:// or mongodb+srv://, as in mongodb://host:27017/modelmuxer"
            if self.database_pool_size + self.database_max_overflow < 1:
                yield "DATABASE_POOL_SIZE and DATABASE_MAX_OVERFLOW allow no connection: one of them must be above 0"
            return
        pool = ("database_pool_size", "database_max_overflow", "database_pool_recycle")
        for name in ("mongodb_url", *pool):
            if self.is_given(name):
                told = f"{name.upper()} is set, but the ledger is kept in SQLite"
                yield f"{told}: set MODELMUXER_LEDGER_STORE=mongodb, or unset it"

    def _webhook_problems(self) -> Iterator[str]:
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
