"""Many gRPC calls in one stream: a `grpc.aio.Channel` and the servicer that answers it.

Pure transport: nothing here knows what the calls are for. `tunnel.proto` states the rules of the wire.
"""

from modelmuxer.tunnel.channel import KEY_METADATA, TunnelChannel, rendezvous
from modelmuxer.tunnel.options import Traffic, TunnelOptions
from modelmuxer.tunnel.servicer import SERVICE, TunnelServicer

__all__ = ["KEY_METADATA", "SERVICE", "Traffic", "TunnelChannel", "TunnelOptions", "TunnelServicer", "rendezvous"]
