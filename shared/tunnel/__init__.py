"""The tunnel in the mesh: what a service's channels and its server use, with the mesh's own numbers.

The transport itself is `modelmuxer.tunnel`. It stands in the client's distribution, because a service that calls us
uses it too and must not install the mesh for that.
"""

from collections.abc import Iterator, Mapping
from operator import attrgetter

from modelmuxer.tunnel import SERVICE as SERVICE
from modelmuxer.tunnel import Traffic, TunnelChannel, TunnelOptions, TunnelServicer
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from shared.health import READINESS
from shared.interceptors import Handler
from shared.telemetry import names

_MADE, _SERVED = Traffic(), Traffic()


class _Metrics(Collector):
    """The traffic of this process: prometheus_client's own counters would cost each frame more than the frame does."""

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        for name, of, text in (
            (names.TUNNEL_CALLS, attrgetter("calls"), "Calls opened in tunnels, those that were given up included"),
            (names.TUNNEL_BATCHES, attrgetter("batches"), "Batches sent in tunnels"),
            (names.TUNNEL_FRAMES, attrgetter("frames"), "Frames sent in tunnels"),
        ):
            family = CounterMetricFamily(name, f"{text}, by the side of a call that this process is.", labels=("side",))
            family.add_metric(("client",), of(_MADE))
            family.add_metric(("server",), of(_SERVED))
            yield family
        text = "Tunnels open now, by the side that this process is and by what carries them."
        tunnels = GaugeMetricFamily(names.TUNNELS, text, labels=("side", "carrier"))
        for side, traffic in (("client", _MADE), ("server", _SERVED)):
            for carrier in ("direct", "grpc"):
                tunnels.add_metric((side, carrier), traffic.tunnels[carrier])
        yield tunnels


REGISTRY.register(_Metrics())


def connect(target: str, max_message_bytes: int) -> TunnelChannel:
    """Tunnels to the replicas at `host:port`, or several with commas between; calls go where readiness is SERVING."""
    options = [
        ("grpc.max_metadata_size", 64 * 1024),
        ("grpc.enable_http_proxy", 0),  # HTTP_PROXY is for the way out to providers
    ]
    tunnel = _options(max_message_bytes)
    return TunnelChannel(target, options=options, health_service=READINESS, tunnel=tunnel, traffic=_MADE)


def servicer(
    services: Mapping[str, Mapping[str, Handler]], *, max_message_bytes: int, max_calls: int
) -> TunnelServicer:
    """Serves in tunnels what the handlers serve on the plain port; they bring their interceptors with them."""
    tunnel = TunnelServicer(options=_options(max_message_bytes, max_calls), traffic=_SERVED)
    for service, handlers in services.items():
        tunnel.add_registered_method_handlers(service, handlers)
    return tunnel


def _options(max_message_bytes: int, max_calls: int = 1000) -> TunnelOptions:
    return TunnelOptions(max_message_bytes=max_message_bytes, buffer_bytes=2 * max_message_bytes, max_calls=max_calls)
