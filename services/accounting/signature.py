"""Signatures of webhooks in the form of Standard Webhooks (standardwebhooks.com): the headers `webhook-id`,
`webhook-timestamp` and `webhook-signature`, which is `v1,` and the base64 of HMAC-SHA256 over "id.timestamp.body".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

SECRET_PREFIX = "whsec_"


def signing_key(secret: str) -> bytes:
    """The key of a secret: of "whsec_…" the bytes that its base64 stands for, of any other its own bytes."""
    if secret.startswith(SECRET_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError("what follows whsec_ is no base64") from None
    return secret.encode()


def signed(key: bytes, event_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The headers of a message."""
    content = f"{event_id}.{timestamp_s}.".encode() + body
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": f"v1,{signature}",
    }
