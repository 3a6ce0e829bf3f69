"""The tunnel in the mesh: what a service's channels and its server use, with the mesh's own numbers.

The transport itself is `modelmuxer.tunnel`. It stands in the client's distribution, because a service that calls us
uses it too and must not install the mesh for that.
"""

from collections.abc import Sequence

import grpc
from modelmuxer.tunnel import SERVICE as SERVICE
from modelmuxer.tunnel import TunnelChannel, TunnelOptions, TunnelServicer

from shared.health import READINESS


def connect(target: str, max_message_bytes: int) -> TunnelChannel:
    """Tunnels to the replicas at `host:port`, or several with commas between; calls go where readiness is SERVING."""
    options = [
        ("grpc.max_metadata_size", 64 * 1024),
        ("grpc.enable_http_proxy", 0),  # HTTP_PROXY is for the way out to providers
    ]
    return TunnelChannel(target, options=options, health_service=READINESS, tunnel=_options(max_message_bytes))


def servicer(handlers: Sequence[grpc.GenericRpcHandler], *, max_message_bytes: int, max_calls: int) -> TunnelServicer:
    """Serves in tunnels what the handlers serve on the plain port; they bring their interceptors with them."""
    tunnel = TunnelServicer(options=_options(max_message_bytes, max_calls))
    tunnel.add_generic_rpc_handlers(handlers)
    return tunnel


def _options(max_message_bytes: int, max_calls: int = 1000) -> TunnelOptions:
    return TunnelOptions(max_message_bytes=max_message_bytes, buffer_bytes=2 * max_message_bytes, max_calls=max_calls)
