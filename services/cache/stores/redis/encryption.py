"""Answers encrypted at rest: AES-256-GCM under keys of the operator's, tenant by tenant.

The key file is YAML: per tenant ("*" stands for all others) a list of keys, of which the first encrypts and all
decrypt. So keys are rotated by putting a new one on top, and dropping the last once its answers have outlived their
time.

    acme:
      - {id: "2026-11", key: <base64 of 32 bytes>}
      - {id: "2026-05", key: <base64 of 32 bytes>}

Each tenant's cipher has a key of its own, derived from the file's by HKDF; tenant, digest and key id are authenticated.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.cache.stores import Key
from services.cache.stores.redis.form import Unreadable

MAGIC = b"MUX\x81"
ANY_TENANT = "*"
KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_MOST_CIPHERS = 10_000
_LONGEST_ID = 64


class MissingKey(Exception):
    """The answer is encrypted with a key that is not among those given: a miss, though another replica may read it."""


class KeyFileError(Exception):
    """What is wrong with a key file: a sentence."""


class Keyring:
    """Encrypts for the tenants that have keys, and leaves the others' answers as they are."""

    def __init__(self, keys: Mapping[str, Mapping[str, bytes]]) -> None:
        """`keys` are by tenant and id, the one that encrypts first."""
        self._keys = keys
        self._cipher = lru_cache(maxsize=_MOST_CIPHERS)(_cipher)

    def __repr__(self) -> str:
        return f"Keyring({ {tenant: [*ids] for tenant, ids in self._keys.items()} })"

    def seal(self, key: Key, data: bytes) -> bytes:
        """What is to be stored."""
        keys = self._of(key.tenant)
        if not keys:
            return data
        name, secret = next(iter(keys.items()))
        head = _head(name)
        nonce = os.urandom(_NONCE_BYTES)
        return head + nonce + self._cipher(secret, key.tenant).encrypt(nonce, data, _bound(head, key))

    def open(self, key: Key, data: bytes) -> bytes:
        """What was sealed. Raises MissingKey; Unreadable if damaged, or in the clear though the tenant has keys."""
        keys = self._of(key.tenant)
        if not data.startswith(MAGIC):
            if keys:
                raise Unreadable
            return data
        try:
            end = len(MAGIC) + 1 + data[len(MAGIC)]
            name = data[len(MAGIC) + 1 : end].decode()
        except (IndexError, UnicodeDecodeError) as error:
            raise Unreadable from error
        if name not in keys:
            raise MissingKey
        nonce, sealed = data[end : end + _NONCE_BYTES], data[end + _NONCE_BYTES :]
        try:
            return self._cipher(keys[name], key.tenant).decrypt(nonce, sealed, _bound(data[:end], key))
        except (InvalidTag, ValueError) as error:
            raise Unreadable from error

    def _of(self, tenant: str) -> Mapping[str, bytes]:
        return self._keys.get(tenant) or self._keys.get(ANY_TENANT, {})


def read_key_file(path: Path) -> Keyring:
    """The keys of a file. Raises KeyFileError, which shows nothing of a key."""
    try:
        tenants = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"cannot be read: {error}") from None
    except yaml.YAMLError:
        raise KeyFileError("is not YAML") from None
    if not isinstance(tenants, dict):
        raise KeyFileError("must map tenants to lists of keys")
    return Keyring({str(tenant): _keys_of(tenant, entries) for tenant, entries in tenants.items()})


def _keys_of(tenant: object, entries: Any) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    if not isinstance(entries, list) or not entries:
        raise KeyFileError(f'must give a list of keys for "{tenant}"')
    for entry in entries:
        try:
            name, key = str(entry["id"]), base64.b64decode(entry["key"], validate=True)
        except (TypeError, KeyError, ValueError, binascii.Error):
            raise KeyFileError(f'has a key of "{tenant}" that is not {{id, key}} with the key in base64') from None
        if len(key) != KEY_BYTES or not 0 < len(name.encode()) <= _LONGEST_ID or name in keys:
            raise KeyFileError(f'needs keys of {KEY_BYTES} bytes under ids of their own for "{tenant}"')
        keys[name] = key
    return keys


def _cipher(secret: bytes, tenant: str) -> AESGCM:
    info = b"modelmuxer cache 1\0" + tenant.encode()
    return AESGCM(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret))


def _head(name: str) -> bytes:
    text = name.encode()
    return MAGIC + bytes([len(text)]) + text


def _bound(head: bytes, key: Key) -> bytes:
    """What is authenticated beside the answer: it opens under its own key alone."""
    return head + key.digest + key.tenant.encode()


NO_KEYS = Keyring({})
