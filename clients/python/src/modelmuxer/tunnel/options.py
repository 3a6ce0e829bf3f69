"""The numbers of a tunnel, for either end: what it grants, and what it has carried. Every default is meant to be right
for a mesh in one region.
"""

from collections import Counter
from dataclasses import dataclass, field

MIB = 1024 * 1024


@dataclass(slots=True)
class Traffic:
    """What one end has carried so far, in all of its tunnels together. Frames a batch say how well they gather."""

    calls: int = 0
    """Calls opened, those that were given up included."""
    batches: int = 0
    """Batches sent."""
    frames: int = 0
    """Frames sent."""
    tunnels: Counter[str] = field(default_factory=Counter)
    """Tunnels open now, by what carries them: "direct" connections, or streams of "grpc"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelOptions:
    """What one end grants, and how long it waits."""

    window_bytes: int = 64 * 1024
    """Unread bytes that each direction of a call may have on its way: what a stalled reader costs."""
    max_message_bytes: int = 32 * MIB
    """Longest message that this end takes; a longer one ends its call with RESOURCE_EXHAUSTED."""
    buffer_bytes: int = 64 * MIB
    """What all messages longer than their windows may hold together in one tunnel while they arrive."""
    max_calls: int = 1000
    """Most calls that a server runs at once in one tunnel; a client holds back further ones or goes elsewhere."""
    pace_s: float = 0.001
    """Pause between two batches while frames come one by one; see `Link.pump`. Timers of uvloop have no finer grain."""
    ping_interval_s: float = 1.0
    """Silence after which a peer is asked for a sign of life."""
    ping_limit: int = 4
    """Intervals of silence after which it is dead."""
    direct_timeout_s: float = 0.5
    """Longest wait for a direct connection that a peer offers, before a tunnel stays on gRPC; 0 stays there at once."""
    max_age_s: float = 3600.0
    """Age, give or take a tenth, at which a server asks the client for a new tunnel."""
    connect_timeout_s: float = 5.0
    """Longest wait for a new peer's hello."""
    backoff_s: float = 0.1
    """Pause after a failed connection; doubles at each further one, give or take a half."""
    max_backoff_s: float = 2.0
    """Longest such pause."""
    resolve_interval_s: float = 2.0
    """How often names are looked up again."""
    plain_retry_s: float = 60.0
    """How long a peer without the tunnel is called plainly before it is asked again."""

    def __post_init__(self) -> None:
        if self.window_bytes < 1024:
            raise ValueError("window_bytes must be at least 1024")
        if self.buffer_bytes < self.max_message_bytes:
            raise ValueError("buffer_bytes must hold one message of max_message_bytes")
