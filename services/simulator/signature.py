"""Signatures of reasoning: what the simulated providers sign, they recognise byte for byte when it comes back.

The key is fixed, so that replies are the same in every process. It protects nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

_KEY = b"modelmuxer simulated providers"


def sign(kind: str, text: str) -> str:
    """The signature of a text."""
    return base64.b64encode(_digest(kind, text.encode())).decode()


def is_signed(kind: str, text: str, signature: object) -> bool:
    """Whether `sign` made the signature for this very text."""
    return isinstance(signature, str) and hmac.compare_digest(sign(kind, text).encode(), signature.encode())


def seal(kind: str, text: str) -> str:
    """An opaque, signed form of a text."""
    data = text.encode()
    return base64.b64encode(_digest(kind, data) + data[::-1]).decode()


def is_sealed(kind: str, sealed: object) -> bool:
    """Whether `seal` made it, and nothing in it was changed."""
    if not isinstance(sealed, str):
        return False
    try:
        data = base64.b64decode(sealed, validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(data[:32], _digest(kind, data[32:][::-1]))


def _digest(kind: str, data: bytes) -> bytes:
    return hmac.digest(_KEY, kind.encode() + b"\0" + data, hashlib.sha256)
