"""The scaler's settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from shared.settings import PORTS, PREFIX, ServiceSettings, setting


@dataclass(frozen=True, kw_only=True)
class ScalerSettings(ServiceSettings):
    """What the scaler adds to every service's settings. It finds replicas at the services' addresses."""

    service: ClassVar[str] = "scaler"

    router_address: str = setting(
        "",
        derive=lambda environ, _: f"127.0.0.1:{environ.get(f'{PREFIX}ROUTER_PORT') or PORTS['router']}",
        env="ROUTER_ADDRESS",
        help="host:port of the router",
    )
    cpu_percent: float = setting(
        70.0,
        env="CPU_SCALE_UP_THRESHOLD",
        guide=True,
        minimum=1,
        maximum=100,
        help="CPU that one replica should use, in percent of the one core that its event loop has",
    )
    memory_percent: float = setting(
        80.0,
        env="MEMORY_SCALE_UP_THRESHOLD",
        guide=True,
        minimum=1,
        maximum=100,
        help="memory that one replica should use, in percent of its limit",
    )
    added_ms: float = setting(
        2000.0,
        env="RESPONSE_TIME_THRESHOLD",
        guide=True,
        minimum=1,
        help="milliseconds that the mesh may add to a call; the provider's own time is not in it",
    )
    slots_percent: float = setting(
        80.0, env="SLOTS_SCALE_UP_THRESHOLD", minimum=1, maximum=100, help="slots for calls that one replica should use"
    )
    queue_ms: float = setting(
        50.0, env="QUEUE_SCALE_UP_THRESHOLD", minimum=1, help="milliseconds that a replica's event loop may be late"
    )
    least_replicas: int = setting(
        2, env="SCALER_MIN_REPLICAS", minimum=1, help="least replicas of a service, where its autoscaler does not say"
    )
    patience_s: float = setting(
        5.0, env="SCALER_PATIENCE_S", minimum=0.5, help="how long a replica is not ready, or silent, before it is sick"
    )
    scale_down_after_s: float = setting(
        60.0, env="SCALER_SCALE_DOWN_AFTER_S", minimum=0, help="how long load must be lower before fewer are asked for"
    )
    external_metrics_port: int | None = setting(
        None,
        env="EXTERNAL_METRICS_PORT",
        minimum=0,
        maximum=65535,
        help="HTTPS port of external.metrics.k8s.io, for HorizontalPodAutoscalers without KEDA; closed if not set",
    )
    external_metrics_certificate: Path | None = setting(
        None, env="EXTERNAL_METRICS_CERTIFICATE", help="PEM certificate of that port; one is made at start if not set"
    )
    external_metrics_key: Path | None = setting(None, env="EXTERNAL_METRICS_KEY", help="PEM key of that certificate")

    def check(self) -> Iterator[str]:
        yield from super().check()
        if (self.external_metrics_certificate is None) != (self.external_metrics_key is None):
            yield (
                f"{PREFIX}EXTERNAL_METRICS_CERTIFICATE and {PREFIX}EXTERNAL_METRICS_KEY belong together: "
                "set both, or neither"
            )

    def addresses(self) -> dict[str, str]:
        """Where the replicas of each service are looked up, by name."""
        return {
            "accounting": self.accounting_address,
            "cache": self.cache_address,
            "provider-proxy": self.provider_proxy_address,
            "router": self.router_address,
        }
