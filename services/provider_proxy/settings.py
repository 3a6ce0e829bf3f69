"""The provider-proxy's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from shared.settings import ServiceSettings, setting


@dataclass(frozen=True, kw_only=True)
class ProviderProxySettings(ServiceSettings):
    """What the provider-proxy adds to every service's settings."""

    service: ClassVar[str] = "provider_proxy"

    config: Path | None = setting(None, env="CONFIG", help="catalogue file that extends the shipped one")
    pool_connections: int = setting(
        20,
        env="HTTP_POOL_CONNECTIONS",
        guide=True,
        minimum=0,
        help="idle connections to a deployment that are kept open",
    )
    pool_maxsize: int = setting(
        100, env="HTTP_POOL_MAXSIZE", guide=True, minimum=1, help="most connections to a deployment, if callers wait"
    )
    pool_block: bool = setting(
        False, env="HTTP_POOL_BLOCK", guide=True, help="wait for a connection at the most, or open one beyond it"
    )
    enable_load_balancing: bool = setting(
        True, env="ENABLE_LOAD_BALANCING", guide=True, help="spread calls over a model's deployments; else the first"
    )
    load_balance_strategy: str = setting(
        "round_robin",
        env="LOAD_BALANCE_STRATEGY",
        guide=True,
        choices=("round_robin", "least_connections"),
        help="how a model's deployments share its calls",
    )
    connect_timeout_s: float = setting(
        5.0, env="PROVIDER_CONNECT_TIMEOUT_S", minimum=0.1, help="how long a connection to a provider may take to open"
    )
    stall_timeout_s: float = setting(
        120.0, env="PROVIDER_STALL_TIMEOUT_S", minimum=0.1, help="longest silence within a provider's stream"
    )
    call_timeout_s: float = setting(
        600.0, env="PROVIDER_CALL_TIMEOUT_S", minimum=1, help="how long a call may take whose caller sets no deadline"
    )
    max_answer_bytes: int = setting(
        64 * 1024 * 1024, env="PROVIDER_MAX_ANSWER_BYTES", minimum=1024, help="largest answer taken from a provider"
    )
    journal_max_bytes: int = setting(
        512 * 1024 * 1024, env="JOURNAL_MAX_BYTES", minimum=65536, help="size of the journal at which calls are refused"
    )
    journal_fsync: bool = setting(
        False, env="JOURNAL_FSYNC", help="whether the journal survives power loss, at some ms a call"
    )
